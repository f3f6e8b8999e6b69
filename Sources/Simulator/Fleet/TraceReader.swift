import Domain
import Foundation

/// Reads traces of two kinds, told apart by their first line:
///
/// - Mooncake: a JSON object a line with `timestamp` (milliseconds), `input_length`, `output_length` (tokens) and
///   `hash_ids` (one number for each 512-token block, equal for equal prefixes). Other keys are passed over.
///   `kvcache-ai/Mooncake`, FAST25-release/traces.
/// - Azure: comma-separated, a header with `TIMESTAMP` (`2023-11-16 18:17:03.9799600`), `ContextTokens` and
///   `GeneratedTokens`, in any order among others. It says nothing of prompts, so no two share a block.
///   `Azure/AzurePublicDataset`.
package struct TraceReader {
    /// Says the file, the line where there is one, and what is wrong.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package var file: String
        package var line: Int?
        package var reason: String

        package var description: String { "\(file):\(line.map { "\($0):" } ?? "") \(reason)" }
    }

    /// The largest file that is read.
    package static let bytesMax = 1 << 30
    /// The most tokens that a line may speak of: beyond it is an error of the file, not a long prompt.
    package static let tokensMax = 1 << 32

    private let file: String
    private let name: String

    package static func read(_ path: String) throws(Failure) -> Trace {
        let size = (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
        guard size <= bytesMax else {
            throw Failure(file: path, reason: "the trace is larger than \(bytesMax) bytes")
        }
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure(file: path, reason: "cannot be read: check that the file exists and may be read")
        }
        return try parse([UInt8](data), file: path)
    }

    package static func parse(_ bytes: [UInt8], file: String) throws(Failure) -> Trace {
        let reader = TraceReader(file: file, name: file.split(separator: "/").last.map(String.init) ?? file)
        let first = bytes.first { $0 > UInt8(ascii: " ") }
        guard let first else { throw reader.failure(nil, "the trace is empty") }
        let requests = first == UInt8(ascii: "{") ? try reader.mooncake(bytes) : try reader.azure(bytes)
        guard requests.count > 1 else { throw reader.failure(nil, "a trace needs at least two requests") }
        let trace = Trace(name: reader.name, requests: requests)
        guard trace.requests.count > 1 else {
            throw reader.failure(nil, "no two prompts are under \(Trace.promptTokensMax) tokens")
        }
        return trace
    }

    private func failure(_ line: Int?, _ reason: String) -> Failure {
        Failure(file: file, line: line, reason: reason)
    }

    // MARK: Mooncake

    private func mooncake(_ bytes: [UInt8]) throws(Failure) -> [Trace.Request] {
        var requests: [Trace.Request] = []
        var number = 0
        for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            guard line.contains(where: { $0 > UInt8(ascii: " ") }) else { continue }
            requests.append(try mooncakeLine(line, number))
        }
        return requests
    }

    private func mooncakeLine(_ line: ArraySlice<UInt8>, _ number: Int) throws(Failure) -> Trace.Request {
        var scanner = TraceLineScanner(line)
        var values: [String: Double] = [:]
        var ids: [UInt64] = []
        do {
            try scanner.object { key, scanner throws(TraceLineScanner.Failure) in
                switch key {
                case "timestamp", "input_length", "output_length": values[key] = try scanner.number()
                case "hash_ids": ids = try scanner.integers()
                default: try scanner.skipValue()
                }
            }
        } catch {
            throw failure(number, "not a trace line: \(error.reason) at byte \(error.offset)")
        }
        func value(_ key: String) throws(Failure) -> Double {
            guard let value = values[key] else { throw failure(number, "\(key) is missing") }
            guard value >= 0, value <= Double(Self.tokensMax) * 1_000 else {
                throw failure(number, "\(key) is out of range")
            }
            return value
        }
        let prompt = try tokens(value("input_length"), "input_length", number)
        let output = try tokens(value("output_length"), "output_length", number)
        return Trace.Request(
            seconds: try value("timestamp") / 1_000, promptTokens: prompt, outputTokens: max(1, output),
            blocks: ids.prefix(prompt / NodeProfile.blockTokens).map { SplitMix64.mix($0 &+ 1) })
    }

    private func tokens(_ value: Double, _ name: String, _ line: Int) throws(Failure) -> Int {
        guard value <= Double(Self.tokensMax) else { throw failure(line, "\(name) is out of range") }
        return Int(value)
    }

    // MARK: Azure

    private func azure(_ bytes: [UInt8]) throws(Failure) -> [Trace.Request] {
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            // What is not UTF-8 becomes replacement characters, which no field accepts.
            String(decoding: line, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }
        guard let start = lines.firstIndex(where: { !$0.isEmpty }) else { return [] }
        let header = lines[start].split(separator: ",").map(String.init)
        var columns: [Int] = []
        for name in ["TIMESTAMP", "ContextTokens", "GeneratedTokens"] {
            guard let column = header.firstIndex(of: name) else {
                throw failure(start + 1, "neither a JSON object nor a header with \(name)")
            }
            columns.append(column)
        }
        var requests: [Trace.Request] = []
        for (index, line) in lines.enumerated().dropFirst(start + 1) where !line.isEmpty {
            let fields = line.split(separator: ",", omittingEmptySubsequences: false)
            guard fields.count == header.count else {
                throw failure(index + 1, "\(fields.count) fields where the header has \(header.count)")
            }
            guard let seconds = Self.seconds(fields[columns[0]]) else {
                throw failure(index + 1, "TIMESTAMP is not of the form 2023-11-16 18:17:03.97")
            }
            guard let prompt = Double(fields[columns[1]]), let output = Double(fields[columns[2]]), prompt >= 0,
                output >= 0
            else { throw failure(index + 1, "ContextTokens and GeneratedTokens must be numbers from 0") }
            let tokens = try tokens(prompt, "ContextTokens", index + 1)
            let unique = UInt64(requests.count) << 32
            requests.append(
                Trace.Request(
                    seconds: seconds, promptTokens: tokens,
                    outputTokens: max(1, try self.tokens(output, "GeneratedTokens", index + 1)),
                    blocks: (0..<min(tokens, Trace.promptTokensMax) / NodeProfile.blockTokens).map {
                        SplitMix64.mix(~(unique + UInt64($0)))
                    }
                ))
        }
        return requests
    }

    /// `2023-11-16 18:17:03.9799600` in seconds since some midnight long ago; nil where it is not of that form.
    private static func seconds(_ text: Substring) -> Double? {
        let parts = text.split { $0 == " " || $0 == "T" }
        guard parts.count == 2 else { return nil }
        let date = parts[0].split(separator: "-").compactMap { Int($0) }
        let time = parts[1].prefix { $0.isNumber || $0 == ":" || $0 == "." }.split(separator: ":").compactMap {
            Double($0)
        }
        guard date.count == 3, time.count == 3, (0...9_999).contains(date[0]), (1...12).contains(date[1]),
            (1...31).contains(date[2])
        else {
            return nil
        }
        // Days since 1 March of year 0 (Howard Hinnant's days_from_civil).
        let year = date[1] <= 2 ? date[0] - 1 : date[0]
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * ((date[1] + 9) % 12) + 2) / 5 + date[2]
        return Double(days) * 86_400 + time[0] * 3_600 + time[1] * 60 + time[2]
    }
}

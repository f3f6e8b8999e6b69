import ControlPlane
import Domain

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What a command prints: standard output holds the answer, one JSON document or a table, and nothing else.
enum Output {
    static func json(_ document: some Encodable) throws(CommandFailure) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(document) else {
            throw CommandFailure("the answer cannot be written as JSON; report this")
        }
        emit(Array(data) + [UInt8(ascii: "\n")], to: STDOUT_FILENO)
    }

    static func table(_ table: TextTable) {
        line(table.rendered(inColour: isColoured), terminator: "")
    }

    static func line(_ text: String, terminator: String = "\n") {
        emit(Array((text + terminator).utf8), to: STDOUT_FILENO)
    }

    /// On standard error: errors, progress, and what `--json` leaves no place for.
    static func note(_ text: String) {
        emit(Array((text + "\n").utf8), to: STDERR_FILENO)
    }

    /// One line on standard error, and the process ends.
    static func end(_ message: String, code: Int32) -> Never {
        note("tollgate: \(message)")
        exit(code)
    }

    /// Only a terminal gets colour, and not one whose owner refuses it (no-color.org).
    private static var isColoured: Bool {
        guard isatty(STDOUT_FILENO) == 1 else { return false }
        let environment = ProcessInfo.processInfo.environment
        return (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }

    /// Unbuffered, so that the two streams keep their order. A reader that has gone is nobody to tell.
    private static func emit(_ bytes: [UInt8], to descriptor: Int32) {
        bytes.withUnsafeBytes { buffer in
            // SAFETY: the remainder is within `buffer` for as long as this closure runs.
            var rest = buffer[...]
            while !rest.isEmpty {
                let written = write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if written > 0 {
                    rest = rest.dropFirst(written)
                } else if errno != EINTR {
                    return
                }
            }
        }
    }
}

/// How cells read in every table.
enum Present {
    /// `12.50`, from nano-dollars.
    static func money(_ nanodollars: Int64) -> TextTable.Cell {
        TextTable.Cell(NanoUSD(unchecked: nanodollars).description, nanodollars < 0 ? .bad : .plain)
    }

    static func limit(_ limit: Int?) -> TextTable.Cell { TextTable.Cell(limit.map { "\($0)" } ?? "unlimited") }

    static func count(_ count: some BinaryInteger) -> TextTable.Cell { TextTable.Cell("\(count)") }

    static func status(_ status: String) -> TextTable.Cell {
        switch status {
        case "active", "ready": TextTable.Cell(status, .good)
        case "unhealthy", "revoked": TextTable.Cell(status, .bad)
        default: TextTable.Cell(status, .warning)
        }
    }

    /// At most `places` decimals; `-` where nothing was measured.
    static func number(_ value: Double?, places: Int) -> TextTable.Cell {
        guard let value, value.isFinite, abs(value) < 1e12 else { return "-" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let scaled = Int64((abs(value) * scale).rounded())
        let whole = scaled / Int64(scale)
        let fraction = String(scaled % Int64(scale))
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return TextTable.Cell("\(sign)\(whole)") }
        return TextTable.Cell("\(sign)\(whole).\(String(repeating: "0", count: places - fraction.count))\(fraction)")
    }

    static func text(_ text: String?) -> TextTable.Cell { TextTable.Cell(text ?? "-") }
}

import Domain
import Gateway
import NIOCore
import OpenAIProtocol

/// Server-sent events: what the scanner finds and what the relay passes on must not depend on how the node's bytes were
/// cut, and what goes to the client must be well-formed events itself.
enum StreamTarget {
    static func finding(in bytes: [UInt8]) -> String? {
        if let found = Cuts.difference(bytes, payloads) { return "payloads: \(found)" }
        for (dialect, wantsUsage) in cases {
            if let found = Cuts.difference(bytes, { relay($0, dialect, wantsUsage: wantsUsage) }) {
                return "relay: \(dialect): \(found)"
            }
            let relayed = relay([bytes], dialect, wantsUsage: wantsUsage)
            for text in [relayed.output, relayed.last] {
                if let found = fault(in: text, dialect) { return "output: \(dialect): \(found) in \(text)" }
            }
        }
        return nil
    }

    /// The dialects whose events have names tell the usage always.
    private static let cases: [(Dialect, wantsUsage: Bool)] = [
        (.openAI, false), (.openAI, true), (.responses, false), (.anthropic, false),
    ]

    /// The data of each event, ends of streams and comments left out: where a CR was the last byte at hand, the LF behind
    /// it may make an empty event of its own.
    private static func payloads(_ pieces: [[UInt8]]) -> [String] {
        var position = SSEScanner.Position()
        var buffer: [UInt8] = []
        var found: [String] = []
        for piece in pieces {
            buffer += piece
            while true {
                let event = buffer.withUnsafeBytes { bytes -> (end: Int, text: String?)? in
                    guard let end = SSEScanner.nextEventEnd(in: bytes, from: &position) else { return nil }
                    let event = UnsafeRawBufferPointer(rebasing: bytes[..<end])
                    switch SSEEvent.payload(in: event) {
                    case .comment: return (end, nil)
                    case .done: return (end, "done")
                    case .data(let span): return (end, "data " + String(decoding: event[span], as: UTF8.self))
                    case .joined(let lines): return (end, "data " + String(decoding: lines, as: UTF8.self))
                    }
                }
                guard let event else { break }
                if let text = event.text { found.append(text) }
                buffer.removeFirst(event.end)
                position.discard(event.end)
            }
        }
        return found
    }

    struct Relayed: Equatable {
        var output: String
        var last: String
        var outcome: StreamRelay.Outcome
        var usage: ReportedUsage
        var contentEvents: Int
    }

    private static func relay(_ pieces: [[UInt8]], _ dialect: Dialect, wantsUsage: Bool) -> Relayed {
        var relay = StreamRelay(
            model: ModelID(unchecked: "public"), upstreamModelName: "up", clientWantsUsage: wantsUsage,
            completionTokensMax: 8, dialect: dialect)
        var output = ByteBuffer()
        var outcome = StreamRelay.Outcome.open
        for piece in pieces where outcome == .open { outcome = relay.feed(ByteBuffer(bytes: piece), into: &output) }
        return Relayed(
            output: String(buffer: output), last: String(buffer: relay.lastEvent), outcome: outcome, usage: relay.usage,
            contentEvents: relay.contentEvents)
    }

    /// Every event that goes on is a comment, the end, or one line of data that is a JSON object; behind its name, which
    /// is a word, in the dialects that have names.
    private static func fault(in output: String, _ dialect: Dialect) -> String? {
        guard !output.isEmpty else { return nil }
        guard output.utf8.suffix(2).elementsEqual("\n\n".utf8) else { return "an unfinished event" }
        for event in output.dropLast(2).split(separator: "\n\n", omittingEmptySubsequences: false) {
            if event == ": ping" || event == "data: [DONE]" && dialect == .openAI { continue }
            var lines = event.split(separator: "\n", omittingEmptySubsequences: false)
            if lines.count == 2, dialect != .openAI {
                let name = lines.removeFirst()
                guard name.hasPrefix("event: "),
                    name.dropFirst(7).wholeMatch(of: /[A-Za-z0-9._]{1,64}/) != nil
                else { return "an odd name" }
            }
            guard lines.count == 1, lines[0].hasPrefix("data: "),
                lines[0].dropFirst(6).first(where: { $0 != " " && $0 != "\t" }) == "{"
            else { return "an odd event" }
        }
        return nil
    }
}

import Domain
import Gateway
import NIOCore
import OpenAIProtocol

/// Server-sent events: what the scanner finds and what the relay passes on must not depend on how the node's bytes were
/// cut, and what goes to the client must be well-formed events itself.
enum StreamTarget {
    static func finding(in bytes: [UInt8]) -> String? {
        if let found = Cuts.difference(bytes, payloads) { return "payloads: \(found)" }
        for wantsUsage in [false, true] {
            if let found = Cuts.difference(bytes, { relay($0, wantsUsage: wantsUsage) }) { return "relay: \(found)" }
            let relayed = relay([bytes], wantsUsage: wantsUsage)
            if let found = fault(in: Array(relayed.output.utf8)) { return "output: \(found) in \(relayed.output)" }
        }
        return nil
    }

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
        var outcome: StreamRelay.Outcome
        var usage: ReportedUsage
        var contentEvents: Int
    }

    private static func relay(_ pieces: [[UInt8]], wantsUsage: Bool) -> Relayed {
        var relay = StreamRelay(
            model: ModelID(unchecked: "public"), upstreamModelName: "up", clientWantsUsage: wantsUsage,
            completionTokensMax: 8)
        var output = ByteBuffer()
        var outcome = StreamRelay.Outcome.open
        for piece in pieces where outcome == .open { outcome = relay.feed(ByteBuffer(bytes: piece), into: &output) }
        return Relayed(
            output: String(buffer: output), outcome: outcome, usage: relay.usage, contentEvents: relay.contentEvents)
    }

    /// Every event that goes on is a comment or one line of data that is a JSON object.
    private static func fault(in output: [UInt8]) -> String? {
        guard !output.isEmpty else { return nil }
        guard output.suffix(2) == [0x0A, 0x0A] else { return "an unfinished event" }
        for event in String(decoding: output, as: UTF8.self).dropLast(2).split(
            separator: "\n\n", omittingEmptySubsequences: false)
        {
            if event == ": ping" { continue }
            let value = event.dropFirst(6).drop { $0 == " " || $0 == "\t" }
            guard event.hasPrefix("data: "), value.first == "{", !event.utf8.contains(0x0A) else {
                return "an odd event"
            }
        }
        return nil
    }
}

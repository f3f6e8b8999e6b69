import Gateway
import NIOCore

/// Nodes' answers: the same events for every cut, bodies within what the head says, and no second answer out of one.
enum ResponseTarget {
    struct Parsed: Equatable {
        var head: UpstreamResponseHead?
        var body: [UInt8] = []
        var hasEnded = false
        var failure: UpstreamFailure?
        var endsWithConnection = false
        var hasExcess = false
    }

    static func finding(in bytes: [UInt8]) -> String? {
        if let found = Cuts.difference(bytes, parse) { return found }
        let parsed = parse([bytes])
        guard let head = parsed.head else {
            return parsed.body.isEmpty && !parsed.hasEnded ? nil : "a body or an end without a head"
        }
        if !(200...599).contains(head.status) { return "status \(head.status)" }
        if parsed.hasEnded, parsed.failure != nil { return "an answer that ended and failed" }
        if let length = head.contentLength {
            if parsed.body.count > length { return "\(parsed.body.count) bytes of body where \(length) were announced" }
            if parsed.hasEnded != (parsed.body.count == length) { return "an end that is not where the length ends" }
            if parsed.endsWithConnection { return "an answer of known length that ends with the connection" }
        }
        if parsed.body.count > bytes.count { return "more body than bytes" }
        return nil
    }

    private static func parse(_ pieces: [[UInt8]]) -> Parsed {
        var parser = UpstreamResponseParser()
        var parsed = Parsed()
        do {
            for piece in pieces {
                parser.feed(ByteBuffer(bytes: piece))
                while let event = try parser.next() {
                    switch event {
                    case .head(let head):
                        if parsed.head != nil { parsed.failure = .closedMidResponse }
                        parsed.head = head
                    case .body(let slice): parsed.body += Array(slice.readableBytesView)
                    case .end: parsed.hasEnded = true
                    }
                }
            }
            parsed.hasExcess = parsed.hasEnded && parser.hasExcess
            parsed.endsWithConnection = parser.finish()
        } catch {
            parsed.failure = error
        }
        return parsed
    }
}

import Domain
import NIOCore
import OpenAIProtocol

/// A plain answer too large to hold whole (thousands of embeddings): it goes on in chunks, and its usage, which engines
/// write last, is read from its end.
package struct LargeAnswer {
    /// What is kept of the end.
    static let tailBytesMax = 64 << 10
    /// Where the top-level `model` is looked for.
    static let modelWindowBytes = 64 << 10

    private let bytesMax: Int
    private var tail: [UInt8] = []
    private var bytes = 0

    /// - Parameter bytesMax: What the tokens that were asked for can come to.
    package init(bytesMax: Int = .max) {
        self.bytesMax = bytesMax
    }

    /// The node generated past what was reserved.
    package var isOverrun: Bool { bytes > bytesMax }

    /// The gateway's own count of what went down, as little as it knows.
    package var deliveredTokens: Int { (bytes + PromptEstimate.bytesPerToken - 1) / PromptEstimate.bytesPerToken }

    package mutating func passed(_ buffer: ByteBuffer) {
        bytes += buffer.readableBytes
        buffer.withUnsafeReadableBytes { part in
            if part.count >= Self.tailBytesMax {
                tail = Array(part.suffix(Self.tailBytesMax))
            } else {
                tail.append(contentsOf: part)
                if tail.count > 2 * Self.tailBytesMax { tail.removeFirst(tail.count - Self.tailBytesMax) }
            }
        }
    }

    /// What the answer's last member `usage` says. A quote inside a string is escaped, so the key cannot be text.
    package var usage: ReportedUsage {
        let key = Array("\"usage\":".utf8)
        guard tail.count > key.count else { return .absent }
        for start in stride(from: tail.count - key.count, to: 0, by: -1)
        where tail[start..<start + key.count].elementsEqual(key) && tail[start - 1] != UInt8(ascii: "\\") {
            let rest = [UInt8(ascii: "{")] + tail[start...]
            return rest.withUnsafeBytes { scanReply($0)?.usage ?? .absent }
        }
        return .absent
    }

    /// Where the value of the top-level `model` stands, where it comes within the first bytes, as engines write it.
    package static func modelSpan(in bytes: UnsafeRawBufferPointer) -> Range<Int>? {
        var depth = 0
        var at = 0
        var key: Range<Int>?
        let end = min(bytes.count, modelWindowBytes)
        while at < end {
            switch bytes[at] {
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: ","): key = nil
            case UInt8(ascii: "\""):
                let start = at
                at += 1
                while at < end, bytes[at] != UInt8(ascii: "\"") { at += bytes[at] == UInt8(ascii: "\\") ? 2 : 1 }
                guard at < end, depth == 1 else { break }
                let string = start..<at + 1
                if let key, bytes[key].elementsEqual("\"model\"".utf8) { return string }
                key = string
            default: break
            }
            at += 1
        }
        return nil
    }
}

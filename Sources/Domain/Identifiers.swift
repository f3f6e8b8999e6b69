/// A name that operators or the gateway gave to one thing, distinct in type from the names of other things.
///
/// Grammar for names that people choose: 1 to 64 bytes of `a-z A-Z 0-9 . _ - / :`, starting with a letter or digit.
/// The braces, spaces and control bytes that would break a Redis key, a log line or a URL cannot occur.
///
/// Hashed once, when it is made: a request looks its org, key, model and node up in some twenty tables.
package struct Identifier<Kind>: Hashable, Sendable, Comparable, CustomStringConvertible {
    package static var bytesMax: Int { 64 }

    package let rawValue: String
    private let hash: Int

    /// Takes a name that is known to be well-formed (generated here, or read back from the store).
    package init(unchecked rawValue: String) {
        self.rawValue = rawValue
        hash = rawValue.hashValue
    }

    /// - Returns: nil where the text does not follow the grammar.
    package init?(_ rawValue: String) {
        let bytes = rawValue.utf8
        guard let first = bytes.first, bytes.count <= Self.bytesMax, Self.isAlphanumeric(first),
            bytes.allSatisfy({ Self.isAlphanumeric($0) || Self.isPunctuation($0) })
        else { return nil }
        self.init(unchecked: rawValue)
    }

    package static func == (left: Self, right: Self) -> Bool {
        left.hash == right.hash && left.rawValue == right.rawValue
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(hash) }

    package var description: String { rawValue }

    package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    private static func isPunctuation(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: ":"): true
        default: false
        }
    }
}

package enum OrgKind {}
package enum KeyKind {}
package enum ModelKind {}
package enum NodeKind {}
package enum SiteKind {}

/// Who pays.
package typealias OrgID = Identifier<OrgKind>
/// The public part of an API key: 12 base62 characters.
package typealias KeyID = Identifier<KeyKind>
/// What a customer asks for.
package typealias ModelID = Identifier<ModelKind>
/// One model server as the gateway addresses it.
package typealias NodeID = Identifier<NodeKind>
/// A physical place with power and a network path.
package typealias SiteID = Identifier<SiteKind>

/// What `x-request-id` says, and what money in requests joins the ledger by.
///
/// Rendered as `req_` and 32 lower-case hexadecimal digits. Drawn by the gateway, never taken from a client: a client
/// that repeats its own ids must not be able to confuse two charges.
package struct RequestID: Hashable, Sendable, CustomStringConvertible {
    package let high: UInt64
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init(using generator: inout some RandomNumberGenerator) {
        self.init(high: generator.next(), low: generator.next())
    }

    /// Parses what ``description`` prints.
    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard bytes.count == 36, bytes.starts(with: "req_".utf8) else { return nil }
        var words: (UInt64, UInt64) = (0, 0)
        for (index, byte) in bytes.dropFirst(4).enumerated() {
            let digit: UInt64
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt64(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = UInt64(byte - UInt8(ascii: "a") + 10)
            default: return nil
            }
            if index < 16 { words.0 = words.0 << 4 | digit } else { words.1 = words.1 << 4 | digit }
        }
        self.init(high: words.0, low: words.1)
    }

    package var description: String {
        String(unsafeUninitializedCapacity: 36) { buffer in
            for (index, byte) in "req_".utf8.enumerated() { buffer[index] = byte }
            for index in 0..<32 {
                let word = index < 16 ? high : low
                let nibble = UInt8(truncatingIfNeeded: word >> UInt64(60 - 4 * (index & 15))) & 0xF
                buffer[4 + index] = nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10
            }
            return 36
        }
    }
}

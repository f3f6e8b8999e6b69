#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// An IPv4 or IPv6 address as a value. IPv4 in IPv6 (`::ffff:10.0.0.1`, what a listener on `[::]` sees) is IPv4.
package struct IPAddress: Hashable, Sendable, CustomStringConvertible {
    /// The longest text of an address, RFC 4291's with an IPv4 tail.
    package static let textBytesMax = 45

    /// The sixteen bytes in network order; IPv4 as `::ffff:a.b.c.d`.
    let high: UInt64
    let low: UInt64

    package var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// - Parameter bytes: Four or sixteen, in network order; nil for any other count.
    package init?(bytes: some Collection<UInt8>) {
        switch bytes.count {
        case 4:
            self.init(high: 0, low: 0xFFFF << 32 | bytes.reduce(0) { $0 << 8 | UInt64($1) })
        case 16:
            self.init(
                high: bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) },
                low: bytes.suffix(8).reduce(0) { $0 << 8 | UInt64($1) })
        default: return nil
        }
    }

    /// The text of an address, without brackets, port or zone.
    package init?(_ text: some StringProtocol) {
        // A NUL would end the text for C.
        guard (2...Self.textBytesMax).contains(text.utf8.count), !text.utf8.contains(0) else { return nil }
        let text = String(text)
        var four = in_addr()
        var sixteen = in6_addr()
        if inet_pton(AF_INET, text, &four) == 1 {
            self.init(bytes: withUnsafeBytes(of: &four) { Array($0) })
        } else if inet_pton(AF_INET6, text, &sixteen) == 1 {
            self.init(bytes: withUnsafeBytes(of: &sixteen) { Array($0) })
        } else {
            return nil
        }
    }

    /// What one customer may hold of IPv6 is a /64: its addresses count as one where addresses are limited.
    package var site: IPAddress { isIPv4 ? self : IPAddress(high: high, low: 0) }

    package var description: String {
        if isIPv4 {
            return (0..<4).map { "\(UInt8(truncatingIfNeeded: low >> (24 - 8 * $0)))" }.joined(separator: ".")
        }
        var bytes = (high.bigEndian, low.bigEndian)
        var text = [CChar](repeating: 0, count: Self.textBytesMax + 1)
        guard inet_ntop(AF_INET6, &bytes, &text, socklen_t(text.count)) != nil else { return "" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`; an address alone is a block of one.
package struct IPNetwork: Hashable, Sendable {
    private let base: IPAddress
    /// Of all 128 bits: an IPv4 prefix counts 96 more.
    private let prefix: Int

    /// - Returns: nil where it is no block; bits beyond the prefix are ignored.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(parts[0]) else { return nil }
        let width = address.isIPv4 ? 32 : 128
        var length = width
        if parts.count == 2 {
            guard !parts[1].isEmpty, parts[1].utf8.count <= 3, parts[1].utf8.allSatisfy({ (48...57).contains($0) }),
                let given = Int(parts[1]), given <= width
            else { return nil }
            length = given
        }
        prefix = length + 128 - width
        base = Self.masked(address, prefix)
    }

    package func contains(_ address: IPAddress) -> Bool {
        address.isIPv4 == base.isIPv4 && Self.masked(address, prefix) == base
    }

    private static func masked(_ address: IPAddress, _ prefix: Int) -> IPAddress {
        IPAddress(
            high: address.high & (prefix >= 64 ? .max : ~(UInt64.max >> prefix)),
            low: prefix <= 64 ? 0 : address.low & ~(prefix >= 128 ? 0 : UInt64.max >> (prefix - 64)))
    }
}

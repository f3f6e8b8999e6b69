/// A W3C trace context (`traceparent`): which trace a request belongs to, and which span asked for it.
package struct TraceContext: Hashable, Sendable, CustomStringConvertible {
    /// A longer `traceparent` is ignored. Version 00 has 55 bytes; later ones may add fields.
    package static let traceparentBytesMax = 256
    /// A longer `tracestate` is dropped: W3C asks for 512 to be passed at least.
    package static let tracestateBytesMax = 512

    package let traceHigh: UInt64
    package let traceLow: UInt64
    package let spanID: UInt64
    /// Bit 0: sampled; bit 1: the trace id is random. Others are not passed on.
    package let flags: UInt8

    package init(traceHigh: UInt64, traceLow: UInt64, spanID: UInt64, flags: UInt8) {
        self.traceHigh = traceHigh
        self.traceLow = traceLow
        self.spanID = spanID
        self.flags = flags & 0x03
    }

    /// A trace that begins here, not sampled: nobody asked for it.
    package init(using generator: inout some RandomNumberGenerator) {
        self.init(
            traceHigh: generator.next(), traceLow: Self.nonzero(&generator), spanID: Self.nonzero(&generator),
            flags: 0x02)
    }

    /// - Returns: nil for anything that is not a traceparent by W3C's grammar: lower-case hexadecimal only, no zero
    ///   ids, version ff never, more fields only in versions above 00.
    package init?(traceparent text: some StringProtocol) {
        var text = String(text)
        guard let context = text.withUTF8({ TraceContext(bytes: $0) }) else { return nil }
        self = context
    }

    private init?(bytes: UnsafeBufferPointer<UInt8>) {
        // SAFETY: 55 bytes at least are there; every index read is below the count.
        guard (55...Self.traceparentBytesMax).contains(bytes.count) else { return nil }
        guard bytes[2] == UInt8(ascii: "-"), bytes[35] == UInt8(ascii: "-"), bytes[52] == UInt8(ascii: "-"),
            let version = Self.hexadecimal(bytes, 0..<2), version != 0xFF,
            let high = Self.hexadecimal(bytes, 3..<19), let low = Self.hexadecimal(bytes, 19..<35),
            let span = Self.hexadecimal(bytes, 36..<52), let flags = Self.hexadecimal(bytes, 53..<55)
        else { return nil }
        if bytes.count > 55 {
            guard version != 0, bytes[55] == UInt8(ascii: "-") else { return nil }
        }
        guard high | low != 0, span != 0 else { return nil }
        self.init(traceHigh: high, traceLow: low, spanID: span, flags: UInt8(truncatingIfNeeded: flags))
    }

    private static func hexadecimal(_ bytes: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> UInt64? {
        var value: UInt64 = 0
        for index in range {
            let byte = bytes[index]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            default: return nil
            }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    /// The gateway's own span in the same trace.
    package func child(using generator: inout some RandomNumberGenerator) -> TraceContext {
        TraceContext(traceHigh: traceHigh, traceLow: traceLow, spanID: Self.nonzero(&generator), flags: flags)
    }

    package var isSampled: Bool { flags & 1 != 0 }

    /// The `traceparent` to send.
    package var description: String {
        String(unsafeUninitializedCapacity: 55) { buffer in
            // SAFETY: 55 bytes are written at 0..<55, all of the buffer's capacity at least.
            buffer[0] = UInt8(ascii: "0")
            buffer[1] = UInt8(ascii: "0")
            buffer[2] = UInt8(ascii: "-")
            buffer[35] = UInt8(ascii: "-")
            buffer[52] = UInt8(ascii: "-")
            Self.writeHex(traceHigh, digits: 16, to: buffer, at: 3)
            Self.writeHex(traceLow, digits: 16, to: buffer, at: 19)
            Self.writeHex(spanID, digits: 16, to: buffer, at: 36)
            Self.writeHex(UInt64(flags), digits: 2, to: buffer, at: 53)
            return 55
        }
    }

    /// Whether a `tracestate` may be passed on: bounded, and nothing but printable bytes.
    package static func isPassable(tracestate: some StringProtocol) -> Bool {
        let bytes = tracestate.utf8
        return !bytes.isEmpty && bytes.count <= tracestateBytesMax
            && bytes.allSatisfy { (0x20...0x7E).contains($0) || $0 == 0x09 }
    }

    private static func nonzero(_ generator: inout some RandomNumberGenerator) -> UInt64 {
        while true {
            let value: UInt64 = generator.next()
            if value != 0 { return value }
        }
    }

    private static func writeHex(
        _ value: UInt64, digits: Int, to buffer: UnsafeMutableBufferPointer<UInt8>, at start: Int
    ) {
        for index in 0..<digits {
            let nibble = UInt8(truncatingIfNeeded: value >> UInt64(4 * (digits - 1 - index))) & 0xF
            buffer[start + index] = nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10
        }
    }
}

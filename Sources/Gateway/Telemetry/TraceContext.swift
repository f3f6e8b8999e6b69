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
        let bytes = text.utf8
        guard (55...Self.traceparentBytesMax).contains(bytes.count) else { return nil }
        var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        for (index, byte) in bytes.enumerated() {
            if index == 2 || index == 35 || index == 52 || index == 55 {
                guard byte == UInt8(ascii: "-") else { return nil }
                continue
            }
            guard index < 55 else { break }
            let digit: UInt64
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt64(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = UInt64(byte - UInt8(ascii: "a") + 10)
            default: return nil
            }
            switch index {
            case ..<2: words.0 = words.0 << 4 | digit
            case ..<19: words.1 = words.1 << 4 | digit
            case ..<35: words.2 = words.2 << 4 | digit
            case ..<52: words.3 = words.3 << 4 | digit
            default: words.4 = words.4 << 4 | digit
            }
        }
        guard words.0 != 0xFF, words.0 != 0 || bytes.count == 55 else { return nil }
        guard words.1 | words.2 != 0, words.3 != 0 else { return nil }
        self.init(traceHigh: words.1, traceLow: words.2, spanID: words.3, flags: UInt8(words.4))
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

/// Bytes that are read as UTF-8, never out of bounds.
struct UTF8Text {
    // SAFETY: `base` is readable for `count` bytes, for as long as the buffer given to `init`; every load is at a
    // position that its caller has compared with `count`, or compares here.
    private let base: UnsafeRawPointer
    let count: Int

    /// - Parameter bytes: Outlives this value.
    @inline(__always)
    init(_ bytes: UnsafeRawBufferPointer) {
        // An empty buffer may have no address; then nothing is ever read, and any address does.
        base = bytes.baseAddress ?? UnsafeRawPointer(UnicodeTables.index.utf8Start)
        count = bytes.count
    }

    /// - Parameter position: Less than `count`.
    @inline(__always)
    func byte(at position: Int) -> UInt8 {
        assert(position >= 0 && position < count)
        return base.load(fromByteOffset: position, as: UInt8.self)
    }

    /// Eight bytes, the first of them lowest.
    ///
    /// - Parameter position: At most `count - 8`.
    @inline(__always)
    func word(at position: Int) -> UInt64 {
        assert(position >= 0 && position + 8 <= count)
        return UInt64(littleEndian: base.loadUnaligned(fromByteOffset: position, as: UInt64.self))
    }

    /// The code point at `position`, and where the next begins.
    @inline(__always)
    func scalar(at position: Int) -> (value: UInt32, next: Int) {
        let first = byte(at: position)
        return first < 0x80 ? (UInt32(first), position + 1) : scalarBeyondASCII(at: position, first)
    }

    /// `scalar(at:)` where the byte there is known and not ASCII.
    ///
    /// - Returns: Of invalid text, U+FFFD and the next byte where the first cannot begin a character or the text ends
    ///   inside; otherwise some number below 0x140000.
    @inline(__always)
    func scalarBeyondASCII(at position: Int, _ first: UInt8) -> (value: UInt32, next: Int) {
        if first >= 0xE0, first < 0xF0, position + 2 < count {
            let scalar = UInt32(first & 0x0F) << 12 | continuation(position + 1) << 6 | continuation(position + 2)
            return (scalar, position + 3)
        }
        if first >= 0xC2, first < 0xE0, position + 1 < count {
            return (UInt32(first & 0x1F) << 6 | continuation(position + 1), position + 2)
        }
        if first >= 0xF0, first < 0xF5, position + 3 < count {
            let high = UInt32(first & 0x07) << 18 | continuation(position + 1) << 12
            return (high | continuation(position + 2) << 6 | continuation(position + 3), position + 4)
        }
        return (0xFFFD, position + 1)
    }

    /// Appends the encoding of a code point.
    ///
    /// - Parameter scalar: Below 0x200000; surrogates and what is beyond Unicode are encoded likewise.
    @inline(__always)
    static func append(_ scalar: UInt32, to bytes: inout [UInt8]) {
        func trail(_ shift: UInt32) -> UInt8 { UInt8(0x80 | scalar >> shift & 0x3F) }
        if scalar < 0x80 {
            bytes.append(UInt8(scalar))
        } else if scalar < 0x800 {
            bytes.append(UInt8(0xC0 | scalar >> 6))
            bytes.append(trail(0))
        } else if scalar < 0x10000 {
            bytes.append(UInt8(0xE0 | scalar >> 12))
            bytes.append(trail(6))
            bytes.append(trail(0))
        } else {
            bytes.append(UInt8(0xF0 | scalar >> 18 & 0x07))
            bytes.append(trail(12))
            bytes.append(trail(6))
            bytes.append(trail(0))
        }
    }

    @inline(__always)
    private func continuation(_ position: Int) -> UInt32 { UInt32(byte(at: position) & 0x3F) }
}

/// Questions about eight bytes at once. Answers have the top bit of a byte set where it is so, and no other bits.
enum ASCIIBytes {
    private static let tops: UInt64 = 0x8080_8080_8080_8080
    private static let ones: UInt64 = 0x0101_0101_0101_0101

    /// Bytes between `low` and `high`, both ASCII and both included.
    @inline(__always)
    static func between(_ low: UInt8, _ high: UInt8, _ bytes: UInt64) -> UInt64 {
        // Seven bits a byte: adding 0x80 - low carries into the top bit from `low` on, and never into the next byte.
        let sevens = bytes & ~tops
        let fromLow = sevens &+ ones &* UInt64(0x80 - low)
        let beyondHigh = sevens &+ ones &* UInt64(0x7F - high)
        return fromLow & ~beyondHigh & ~bytes & tops
    }

    /// Whether all eight are ASCII.
    @inline(__always)
    static func areASCII(_ bytes: UInt64) -> Bool { bytes & tops == 0 }

    @inline(__always)
    static func letters(_ bytes: UInt64) -> UInt64 {
        between(UInt8(ascii: "a"), UInt8(ascii: "z"), bytes | ones &* 0x20)
    }

    @inline(__always)
    static func lowercase(_ bytes: UInt64) -> UInt64 { between(UInt8(ascii: "a"), UInt8(ascii: "z"), bytes) }

    @inline(__always)
    static func uppercase(_ bytes: UInt64) -> UInt64 { between(UInt8(ascii: "A"), UInt8(ascii: "Z"), bytes) }

    /// How many bytes from the first on are marked in `answer`: 0 to 8.
    @inline(__always)
    static func runLength(_ answer: UInt64) -> Int { (answer ^ tops).trailingZeroBitCount >> 3 }
}

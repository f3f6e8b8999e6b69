/// The first bytes of a piece in two words, and the hash by which caches and vocabularies find it.
///
/// A piece of up to ``shortMax`` bytes is all in the key: `low` and `high` hold its bytes, little-endian and padded
/// with zeros, and the top byte of `high` its length, so that equal keys are equal pieces.
struct PieceKey {
    static let shortMax = 15

    let low: UInt64
    let high: UInt64
    let hash: UInt64

    /// Two random words, drawn per tokenizer so that no one can choose pieces that collide.
    struct Seed {
        let first: UInt64
        let second: UInt64
    }

    /// A key that was made before.
    @inline(__always)
    init(low: UInt64, high: UInt64, hash: UInt64) {
        self.low = low
        self.high = high
        self.hash = hash
    }

    /// - Parameters:
    ///   - length: 1...``shortMax``.
    ///   - readable: Bytes that may be read from `start` on; at least `length`.
    @inline(__always)
    init(short start: UnsafeRawPointer, length: Int, readable: Int, seed: Seed) {
        var low: UInt64
        var high: UInt64
        if readable >= 16 {
            // SAFETY: 16 bytes are readable.
            low = start.loadUnaligned(as: UInt64.self)
            high = start.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
            // Smart shifts: by 64 or more they give 0, by less than 0 they shift the other way, which cannot occur.
            low &= (1 << UInt64(truncatingIfNeeded: length &* 8)) &- 1
            let highBits = length > 8 ? (length &- 8) &* 8 : 0
            high &= (1 &<< UInt64(truncatingIfNeeded: highBits)) &- 1
        } else {
            (low, high) = Self.tail(start, length)
        }
        high |= UInt64(truncatingIfNeeded: length) &<< 56
        self.low = low
        self.high = high
        hash = Self.fold(low ^ seed.first, high ^ seed.second)
    }

    /// - Parameter length: More than ``shortMax``; all of it may be read.
    @inline(__always)
    init(long start: UnsafeRawPointer, length: Int, seed: Seed) {
        // SAFETY: reads are at most `length` bytes from `start`: the last two overlap what was read before.
        low = start.loadUnaligned(as: UInt64.self)
        var hash = seed.first ^ UInt64(truncatingIfNeeded: length)
        var at = 0
        while at &+ 16 < length {
            hash = Self.fold(
                start.loadUnaligned(fromByteOffset: at, as: UInt64.self) ^ hash,
                start.loadUnaligned(fromByteOffset: at &+ 8, as: UInt64.self) ^ seed.second)
            at &+= 16
        }
        high = start.loadUnaligned(fromByteOffset: length &- 8, as: UInt64.self)
        self.hash = Self.fold(
            start.loadUnaligned(fromByteOffset: length &- 16, as: UInt64.self) ^ hash, high ^ seed.second)
    }

    @inline(__always)
    init(_ start: UnsafeRawPointer, length: Int, readable: Int, seed: Seed) {
        if length <= Self.shortMax {
            self.init(short: start, length: length, readable: readable, seed: seed)
        } else {
            self.init(long: start, length: length, seed: seed)
        }
    }

    @inline(__always)
    private static func fold(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let product = left.multipliedFullWidth(by: right)
        return product.high ^ product.low
    }

    /// The last pieces of a text, where 16 bytes cannot be read.
    @inline(never)
    private static func tail(_ start: UnsafeRawPointer, _ length: Int) -> (UInt64, UInt64) {
        var low: UInt64 = 0
        var high: UInt64 = 0
        for index in 0..<length {
            let byte = UInt64(start.load(fromByteOffset: index, as: UInt8.self))
            if index < 8 { low |= byte << UInt64(index * 8) } else { high |= byte << UInt64((index - 8) * 8) }
        }
        return (low, high)
    }
}

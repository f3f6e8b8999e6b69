/// What a piece is found by: two words that decide whether two pieces are the same, and a hash of them.
///
/// A piece of up to ``shortMax`` bytes is in the words themselves, little-endian and padded with zeros, with its length
/// in four bits of the second; both are then combined with random words of the tokenizer, by exclusive or. Equal keys
/// of one tokenizer are equal pieces. Those of two tokenizers that share a cache are equal by chance only, 2^-124 for
/// each two pieces.
///
/// Of a longer piece the words are 120 bits of a hash with keys of the tokenizer: see ``LongPieceHash``. Those of two
/// pieces are equal with a chance of 2^-120, whatever the pieces, and, of one tokenizer, never with that of a short
/// one.
struct PieceKey {
    static let shortMax = 15
    /// Bytes of the longest piece that has a key.
    static let longMax = 64
    /// The bits of ``second`` from here on are 0; ``PieceCache`` keeps a number there.
    static let countShift: UInt64 = 60
    private static let lengthShift: UInt64 = 56

    let first: UInt64
    let second: UInt64
    let hash: UInt64

    /// Two random words, drawn per tokenizer so that no one can choose pieces that collide.
    struct Seed {
        let first: UInt64
        let second: UInt64

        init() {
            first = .random(in: .min ... .max)
            second = .random(in: .min ... .max) & ((1 << PieceKey.countShift) - 1)
        }
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
        first = low ^ seed.first
        second = (high | UInt64(truncatingIfNeeded: length) &<< Self.lengthShift) ^ seed.second
        hash = Self.fold(first, second)
    }

    /// - Parameter length: More than ``shortMax``, at most ``longMax``; all of it may be read.
    @inline(__always)
    init(long start: UnsafeRawPointer, length: Int, seed: Seed, _ keys: LongPieceHash) {
        let (one, other) = keys.hash(start, length)
        first = one
        // The length of no short piece.
        second = other &>> (64 &- Self.lengthShift) | seed.second & (0xF &<< Self.lengthShift)
        hash = one
    }

    @inline(__always)
    static func fold(_ left: UInt64, _ right: UInt64) -> UInt64 {
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

/// Two hashes of 64 bits of pieces of 16 to ``PieceKey/longMax`` bytes.
///
/// Each is multilinear: the upper word of k0 + k1 * length + k2 * word 1 + k3 * word 2 ... modulo 2^128, the k being
/// random words of 128 bits. For any two pieces, chosen without knowledge of the k, it is the same with a chance of
/// 2^-64, and b of its bits with one of 2^-b (Lemire and Kaser, "Strongly universal string hashing is fast").
struct LongPieceHash {
    private static let keysOfEach = 2 + PieceKey.longMax / 8

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning ``Tokenizer`` calls; written only in `init`.
    // Lengths are at most `longMax`, so that words are at most `longMax / 8`.
    private let keys: UnsafeMutablePointer<UInt64>

    static let memoryBytes = keysOfEach * 4 * 8

    init() {
        keys = TableMemory.allocate(Self.keysOfEach * 4, repeating: 0)
        for index in 0..<(Self.keysOfEach * 4) { keys[index] = .random(in: .min ... .max) }
    }

    func deallocate() { TableMemory.deallocate(keys) }

    @inline(__always)
    func hash(_ start: UnsafeRawPointer, _ length: Int) -> (UInt64, UInt64) {
        var one = Sum(high: keys[0], low: keys[1])
        var other = Sum(high: keys[2], low: keys[3])
        var key = keys + 4
        one.add(UInt64(truncatingIfNeeded: length), key[0], key[1])
        other.add(UInt64(truncatingIfNeeded: length), key[2], key[3])
        var at = 0
        while at &+ 8 < length {
            key += 4
            let word = start.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            one.add(word, key[0], key[1])
            other.add(word, key[2], key[3])
            at &+= 8
        }
        // SAFETY: the last eight bytes; of some the second time, which keeps different pieces different.
        let word = start.loadUnaligned(fromByteOffset: length &- 8, as: UInt64.self)
        one.add(word, key[4], key[5])
        other.add(word, key[6], key[7])
        return (one.high, other.high)
    }

    private struct Sum {
        var high: UInt64
        var low: UInt64

        /// Adds the product of a word and a key of two words, modulo 2^128.
        @inline(__always)
        mutating func add(_ word: UInt64, _ keyHigh: UInt64, _ keyLow: UInt64) {
            let product = keyLow.multipliedFullWidth(by: word)
            let (sum, carries) = low.addingReportingOverflow(product.low)
            low = sum
            high = high &+ product.high &+ keyHigh &* word &+ (carries ? 1 : 0)
        }
    }
}

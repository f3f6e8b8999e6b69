/// From pieces to their ids and how many there are: sets of three, found by a hash and decided by ``PieceKey``.
///
/// A set is one cache line: three keys, the number of ids of each, and its first two ids, which are all that most pieces
/// have. Further ids lie in a table beside, and those of pieces that have more than ``besideMax`` in rows. Nothing is
/// ever moved or grown: where a set is full, a new key takes the place of an old one.
struct PieceCache {
    private static let ways = 3
    private static let setWords = 8
    /// Ids of a row; also what the four bits of a number hold.
    static let idsMax = 15
    /// Ids in a set and beside it: two, and 21 bits for each of six in two words.
    static let besideMax = 8
    private static let rowWords = 8

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning scratch calls; sets and rows are masked.
    /// For each set three times the two words of a key, the top bits of the second being the number of ids, 0 where the
    /// place is empty; a word of the first ids of the three, and one of their second ids.
    private let sets: UnsafeMutablePointer<UInt64>
    /// For each key two words of packed ids.
    private let beside: UnsafeMutablePointer<UInt64>
    /// Rows of eight words: the key, and up to 15 ids.
    private let rows: UnsafeMutablePointer<UInt64>

    private static let setsCount = TokenizerLimits.cachedSets * setWords
    private static let besideCount = TokenizerLimits.cachedSets * ways * 2
    private static let rowsCount = TokenizerLimits.cachedRows * rowWords

    static let memoryBytes = (setsCount + besideCount + rowsCount) * 8

    init() {
        let sizes = [TokenizerLimits.cachedSets, TokenizerLimits.cachedRows]
        precondition(sizes.allSatisfy { $0 > 0 && $0 & ($0 - 1) == 0 }, "indices are masked: powers of two")
        sets = TableMemory.allocateZeros(Self.setsCount)
        beside = TableMemory.allocateZeros(Self.besideCount)
        rows = TableMemory.allocateZeros(Self.rowsCount)
    }

    func deallocate() {
        TableMemory.deallocateZeros(sets, Self.setsCount)
        TableMemory.deallocateZeros(beside, Self.besideCount)
        TableMemory.deallocateZeros(rows, Self.rowsCount)
    }

    func empty() { sets.update(repeating: 0, count: Self.setsCount) }

    @inline(__always)
    private func index(_ key: PieceKey) -> Int {
        Int(truncatingIfNeeded: key.hash & UInt64(truncatingIfNeeded: TokenizerLimits.cachedSets &- 1))
    }

    /// Begins to load what a key is looked for in.
    @inline(__always)
    func prefetch(_ key: PieceKey) { Tokenization.prefetch(sets + index(key) &* Self.setWords) }

    /// How many ids a piece has; 0 where it is not here. No branch: whether it is cannot be predicted.
    @inline(__always)
    func count(_ key: PieceKey) -> Int {
        let set = sets + index(key) &* Self.setWords
        var found: UInt64 = 0
        for way in 0..<Self.ways { found |= Self.isEqual(set + 2 &* way, key) ? set[2 &* way &+ 1] : 0 }
        return Int(truncatingIfNeeded: found &>> PieceKey.countShift)
    }

    struct Found {
        var count: Int
        /// The first two ids, of 32 bits each.
        var pair: UInt64
        /// Where the words of the next six are.
        var beside: UnsafePointer<UInt64>
    }

    /// As ``count(_:)``, and the ids if they are at most ``besideMax``.
    @inline(__always)
    func ids(_ key: PieceKey) -> Found {
        let index = index(key)
        let set = sets + index &* Self.setWords
        var found: UInt64 = 0
        var place = 0
        for way in 0..<Self.ways {
            let isEqual = Self.isEqual(set + 2 &* way, key)
            found |= isEqual ? set[2 &* way &+ 1] : 0
            place |= isEqual ? way : 0
        }
        return Found(
            count: Int(truncatingIfNeeded: found &>> PieceKey.countShift),
            pair: UInt64(PackedIDs.id(set[6], place)) | UInt64(PackedIDs.id(set[7], place)) &<< 32,
            beside: UnsafePointer(beside + (index &* Self.ways &+ place) &* 2))
    }

    @inline(__always)
    private static func isEqual(_ held: UnsafeMutablePointer<UInt64>, _ key: PieceKey) -> Bool {
        (held[0] ^ key.first) | ((held[1] ^ key.second) &<< (64 &- PieceKey.countShift)) == 0
    }

    /// The words of up to ``idsMax`` ids; nil where they are not here.
    @inline(__always)
    func row(_ key: PieceKey) -> UnsafePointer<UInt64>? {
        let row = self.row(at: key)
        guard row[0] == key.first, row[1] == key.second else { return nil }
        return UnsafePointer(row + 2)
    }

    @inline(__always)
    private func row(at key: PieceKey) -> UnsafeMutablePointer<UInt64> {
        rows + Int(truncatingIfNeeded: key.hash & UInt64(truncatingIfNeeded: TokenizerLimits.cachedRows &- 1))
            &* Self.rowWords
    }

    /// Keeps a piece of 1 to ``idsMax`` ids.
    @inline(__always)
    func store(_ key: PieceKey, _ ids: UnsafePointer<UInt32>, _ count: Int) {
        let index = index(key)
        let set = sets + index &* Self.setWords
        var place = Int(truncatingIfNeeded: (key.hash &>> 32 &* 3) &>> 32)
        for way in 0..<Self.ways {
            // One that is here already, for its ids, or one that is free.
            if set[2 &* way &+ 1] &>> PieceKey.countShift == 0 || Self.isEqual(set + 2 &* way, key) {
                place = way
                break
            }
        }
        set[2 &* place] = key.first
        set[2 &* place &+ 1] = key.second | UInt64(truncatingIfNeeded: count) &<< PieceKey.countShift
        PackedIDs.set(&set[6], place, ids[0])
        guard count > 1 else { return }
        PackedIDs.set(&set[7], place, ids[1])
        guard count > 2 else { return }
        let words = beside + (index &* Self.ways &+ place) &* 2
        words[0] = PackedIDs.pack(ids + 2, count &- 2)
        words[1] = PackedIDs.pack(ids + 5, count &- 5)
        guard count > Self.besideMax else { return }
        let row = self.row(at: key)
        row[0] = key.first
        row[1] = key.second
        for word in 0..<(Self.idsMax / 3) { row[2 &+ word] = PackedIDs.pack(ids + 3 &* word, count &- 3 &* word) }
    }
}

/// Ids in words, three in each.
enum PackedIDs {
    private static let bits = UInt64(TokenizerLimits.idBits)
    private static let mask = (UInt64(1) << bits) - 1

    /// The first three of `count` ids, which may be none or less.
    @inline(__always)
    static func pack(_ ids: UnsafePointer<UInt32>, _ count: Int) -> UInt64 {
        (count > 0 ? UInt64(ids[0]) : 0) | (count > 1 ? UInt64(ids[1]) : 0) &<< bits
            | (count > 2 ? UInt64(ids[2]) : 0) &<< (2 &* bits)
    }

    /// Writes three ids.
    @inline(__always)
    static func unpack(_ word: UInt64, to ids: UnsafeMutablePointer<UInt32>) {
        for place in 0..<3 { ids[place] = id(word, place) }
    }

    @inline(__always)
    static func id(_ word: UInt64, _ place: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: word &>> (UInt64(truncatingIfNeeded: place) &* bits) & mask)
    }

    @inline(__always)
    static func set(_ word: inout UInt64, _ place: Int, _ id: UInt32) {
        let shift = UInt64(truncatingIfNeeded: place) &* bits
        word = word & ~(mask &<< shift) | UInt64(id) &<< shift
    }
}

/// What two neighbouring tokens merge into, and how soon: the one rule of byte-pair encoding.
///
/// A rule is one 8-byte slot, `left:21 right:21 rank:22`, in a bucket of four found by multiply-and-shift hashing with a
/// random odd factor; a full bucket goes on in the next. At most four slots in five are used. A look-up reads its whole
/// bucket without a branch: whether two tokens merge cannot be predicted, and a wrong guess would keep the next look-up
/// from starting. The factor is drawn per table, so that a hostile file cannot choose its ids to collide.
struct PairTable {
    /// The rank of a pair that does not merge: greater than every rank.
    static let none = UInt32.max
    private static let empty = UInt64.max
    private static let rankMask = (UInt32(1) << TokenizerLimits.rankBits) - 1

    // SAFETY: all are allocated by `init` and freed by `deallocate`, which the owning ``Tokenizer`` calls in `deinit`.
    // Slot indices are masked to the table's size; ranks that index `merged` come out of slots, which `insert` wrote.
    private let slots: UnsafeMutablePointer<UInt64>
    private let merged: UnsafeMutablePointer<UInt32>
    /// Two bits of one word for each hash that some pair has: small enough to stay near, and most pairs asked for do not
    /// merge.
    private let filter: UnsafeMutablePointer<UInt64>
    private let filterShift: UInt64
    private let secondShift: UInt64
    private let slotCount: Int
    private let bucketMask: Int
    private let rankCount: Int
    /// What the pair of rank 0 becomes, where that of every rank is rank + this: then `merged` is not needed.
    private let firstResult: UInt32?
    private let shift: UInt64
    private let factor: UInt64

    /// - Parameters:
    ///   - pairsMax: How many pairs will be inserted at most.
    ///   - rankCount: Ranks are less than this.
    ///   - firstResult: Where results follow from ranks: what rank 0 becomes.
    init(pairsMax: Int, rankCount: Int, firstResult: UInt32? = nil, factor: UInt64) {
        self.firstResult = firstResult
        var bits = 4
        while (4 << bits) * 4 < pairsMax * 5 { bits += 1 }
        slotCount = 4 << bits
        bucketMask = (1 << bits) - 1
        shift = UInt64(64 - bits)
        self.factor = factor | 1
        self.rankCount = max(rankCount, 1)
        var filterBits = 10
        while 1 << filterBits < pairsMax * 8 { filterBits += 1 }
        filterShift = UInt64(64 - filterBits)
        secondShift = filterShift - 6
        filter = TableMemory.allocate((1 << filterBits) / 64, repeating: 0)
        slots = TableMemory.allocate(slotCount, repeating: Self.empty)
        merged = TableMemory.allocate(firstResult == nil ? self.rankCount : 1, repeating: 0)
    }

    func deallocate() {
        TableMemory.deallocate(slots)
        TableMemory.deallocate(filter)
        TableMemory.deallocate(merged)
    }

    var memoryBytes: Int { slotCount * 8 + (1 << Int(64 - filterShift)) / 8 + (firstResult == nil ? rankCount * 4 : 0) }

    @inline(__always)
    static func key(_ left: UInt32, _ right: UInt32) -> UInt64 {
        UInt64(left) << UInt64(TokenizerLimits.idBits) | UInt64(right)
    }

    /// The rank of a pair; ``none`` where the two do not merge.
    @inline(__always)
    func rank(_ left: UInt32, _ right: UInt32) -> UInt32 {
        let key = Self.key(left, right)
        return mayHave(key, prefetching: false) != 0 ? knownRank(key) : Self.none
    }

    /// Begins to load what ``mayHave(_:prefetching:)`` looks at.
    @inline(__always)
    func prefetchFilter(_ key: UInt64) {
        prefetch(filter + Int(truncatingIfNeeded: ((key &* factor) &>> filterShift) &>> 6))
    }

    /// 0 where the filter says that no such pair merges, otherwise 1.
    ///
    /// - Parameter prefetching: Whether to begin to load what ``knownRank(_:)`` looks at.
    @inline(__always)
    func mayHave(_ key: UInt64, prefetching: Bool) -> Int {
        let hash = key &* factor
        let word = filter[Int(truncatingIfNeeded: (hash &>> filterShift) &>> 6)]
        let mayHave = (word &>> (hash &>> filterShift & 63)) & (word &>> (hash &>> secondShift & 63)) & 1
        // No branch hangs on what is loaded: of those that do not merge it is always the first bucket.
        if prefetching { prefetch(slots + Int(truncatingIfNeeded: hash &>> shift & (0 &- mayHave)) &* 4) }
        return Int(truncatingIfNeeded: mayHave)
    }

    /// As ``rank(_:_:)``, of a pair that the filter knows.
    @inline(__always)
    func knownRank(_ key: UInt64) -> UInt32 {
        let bucket = Int(truncatingIfNeeded: (key &* factor) &>> shift)
        let slot = slots + bucket &* 4
        var rank = Self.none
        rank = Self.rank(slot[0], key, else: rank)
        rank = Self.rank(slot[1], key, else: rank)
        rank = Self.rank(slot[2], key, else: rank)
        rank = Self.rank(slot[3], key, else: rank)
        if slot[3] != Self.empty, rank == Self.none { return rankBeyond(bucket, key) }
        return rank
    }

    @inline(__always)
    private static func rank(_ slot: UInt64, _ key: UInt64, else other: UInt32) -> UInt32 {
        slot &>> UInt64(TokenizerLimits.rankBits) == key ? UInt32(truncatingIfNeeded: slot) & rankMask : other
    }

    /// Goes on after a full bucket that does not have the key.
    @inline(never)
    private func rankBeyond(_ full: Int, _ key: UInt64) -> UInt32 {
        var bucket = full
        while true {
            bucket = (bucket &+ 1) & bucketMask
            for slot in (bucket &* 4)..<(bucket &* 4 &+ 4) {
                if slots[slot] &>> UInt64(TokenizerLimits.rankBits) == key {
                    return UInt32(truncatingIfNeeded: slots[slot]) & Self.rankMask
                }
                if slots[slot] == Self.empty { return Self.none }
            }
        }
    }

    /// What the pair of that rank becomes.
    @inline(__always)
    func result(ofRank rank: UInt32) -> UInt32 {
        if let firstResult { return rank &+ firstResult }
        return merged[Int(truncatingIfNeeded: rank)]
    }

    /// Adds a rule; it replaces the one that the pair has.
    func insert(_ left: UInt32, _ right: UInt32, rank: UInt32, result: UInt32) {
        precondition(Int(rank) < rankCount)
        if firstResult == nil { merged[Int(rank)] = result }
        let key = Self.key(left, right)
        let slot = key << UInt64(TokenizerLimits.rankBits) | UInt64(rank)
        let hash = key &* factor
        filter[Int(truncatingIfNeeded: (hash >> filterShift) >> 6)] |=
            1 << (hash >> filterShift & 63) | 1 << (hash >> secondShift & 63)
        var index = Int(truncatingIfNeeded: (key &* factor) &>> shift) * 4
        while slots[index] != Self.empty {
            if slots[index] >> UInt64(TokenizerLimits.rankBits) == key {
                slots[index] = slot
                return
            }
            index = (index + 1) & (slotCount - 1)
        }
        slots[index] = slot
    }

    /// Calls `body` for every rule, in no order.
    func forEach(_ body: (_ left: UInt32, _ right: UInt32, _ rank: UInt32) -> Void) {
        let idMask = (UInt64(1) << UInt64(TokenizerLimits.idBits)) - 1
        for index in 0..<slotCount where slots[index] != Self.empty {
            let key = slots[index] >> UInt64(TokenizerLimits.rankBits)
            body(
                UInt32(key >> UInt64(TokenizerLimits.idBits)), UInt32(key & idMask),
                UInt32(truncatingIfNeeded: slots[index]) & Self.rankMask)
        }
    }
}

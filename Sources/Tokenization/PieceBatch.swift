/// Pieces that wait to be looked up together, and the cells in which several are merged in step.
struct PieceBatch {
    /// Pieces that are looked up together.
    static let capacity = 64
    /// Ids of one piece that the batch has room for.
    static let idsMax = 64
    /// Symbols of a lane.
    static let symbolsMax = 16
    /// The length of an entry whose ids are known already.
    static let resolved: UInt32 = 0
    /// Pieces that are merged in step.
    static let lanes = 8

    struct Entry {
        var start: UnsafeRawPointer
        var length: UInt32
        /// Bytes that may be read from `start` on, or 16 where they are more.
        var readable: UInt32
        var low: UInt64
        var high: UInt64
        var hash: UInt64
        /// How many ids there are: up to three of them here, more in the entry's row of ``PieceBatch/rows``.
        var count: UInt32
        var ids: (UInt32, UInt32, UInt32)
    }

    /// One piece that is being merged: a token lives in the cell of its first symbol.
    struct Lane {
        /// For each symbol the rank of it with the next, times 16, plus its place: the least of them is the leftmost
        /// pair of least rank. At least ``PieceBatch/noRank`` where the two do not merge.
        var ranks: SIMD16<UInt32>
        var ids: SIMD16<UInt32>
        /// A bit for each cell that has a token.
        var alive: UInt32
        var entry: UInt32
        /// The cell that merges, that of the token it takes, and the one before; the second where there is none before.
        var place: UInt32
        var right: UInt32
        var before: UInt32
        /// The neighbour after the new token, and where the new pairs are looked up.
        var beyond: UInt32
        var beforeBucket: UInt32
        var afterBucket: UInt32
    }

    static let noRank: Int32 = 0x7FFF_FFF0

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning scratch calls; indices are below the constants
    // above: the encoder empties the batch when it is full.
    let entries: UnsafeMutablePointer<Entry>
    /// ``idsMax`` ids of each entry.
    let rows: UnsafeMutablePointer<UInt32>
    /// Entries that are to be looked up elsewhere.
    let missing: UnsafeMutablePointer<UInt8>
    let lanes: UnsafeMutablePointer<Lane>

    static let memoryBytes =
        capacity * (MemoryLayout<Entry>.stride + idsMax * 4 + 1) + lanes * MemoryLayout<Lane>.stride

    init() {
        entries = .allocate(capacity: Self.capacity)
        rows = .allocate(capacity: Self.capacity * Self.idsMax)
        missing = .allocate(capacity: Self.capacity)
        lanes = .allocate(capacity: Self.lanes)
    }

    func deallocate() {
        entries.deallocate()
        rows.deallocate()
        missing.deallocate()
        lanes.deallocate()
    }

    /// Notes the ids of a piece, at most ``idsMax``.
    @inline(__always)
    func setIDs(_ index: Int, _ ids: UnsafePointer<UInt32>, _ count: Int) {
        entries[index].count = UInt32(truncatingIfNeeded: count)
        if count <= 3 {
            entries[index].ids = (
                count > 0 ? ids[0] : 0, count > 1 ? ids[1] : 0, count > 2 ? ids[2] : 0
            )
        } else {
            (rows + index &* Self.idsMax).update(from: ids, count: count)
        }
    }
}

extension PieceEncoder {
    /// Takes the ids of all pieces in the batch, and empties it.
    @inline(never)
    mutating func flush() {
        let count = pending
        pending = 0
        guard count > 0 else { return }
        let missing = lookUpCached(count)
        if missing > 0 {
            let unknown = lookUpWhole(missing)
            if unknown > 0 { mergeInStep(unknown) }
        }
        guard Sink.writes else { return }
        for index in 0..<count {
            let entry = batch.entries + index
            let ids = Int(truncatingIfNeeded: entry.pointee.count)
            if ids <= 3 {
                sink.take(upToThree: entry.pointee.ids, ids)
            } else {
                sink.take(batch.rows + index &* PieceBatch.idsMax, ids)
            }
        }
    }

    /// Looks all up in the cache of short pieces.
    ///
    /// - Returns: How many are not there; which, in the batch's `missing`.
    @inline(__always)
    private mutating func lookUpCached(_ count: Int) -> Int {
        var missing = 0
        var counted = 0
        for index in 0..<count {
            let entry = batch.entries + index
            let length = Int(truncatingIfNeeded: entry.pointee.length)
            if length > PieceKey.shortMax {
                batch.missing[missing] = UInt8(truncatingIfNeeded: index)
                missing &+= 1
                continue
            }
            if Sink.writes, entry.pointee.length == PieceBatch.resolved { continue }
            let key = PieceKey(
                short: entry.pointee.start, length: length, readable: Int(truncatingIfNeeded: entry.pointee.readable),
                seed: vocabulary.pieces.seed)
            entry.pointee.low = key.low
            entry.pointee.high = key.high
            entry.pointee.hash = key.hash
            let slot = shortSlot(key.hash)
            let held = slot.pointee.owner
            var different =
                (slot.pointee.low ^ key.low) | (slot.pointee.high ^ key.high) | UInt64((held & ~31) ^ owner)
            if Sink.writes {
                // More ids than the slot holds: 4 to 15 have one of these two bits.
                different |= UInt64(held & 0b1100)
                entry.pointee.count = held & 31
                entry.pointee.ids = slot.pointee.ids
            }
            // No branch: whether a piece is there cannot be predicted. The top bit is set unless all are equal.
            let isMissing = Int(truncatingIfNeeded: (different | (0 &- different)) &>> 63)
            if !Sink.writes { counted &+= Int(truncatingIfNeeded: held & 31) & (isMissing &- 1) }
            batch.missing[missing] = UInt8(truncatingIfNeeded: index)
            missing &+= isMissing
        }
        sink.take(count: counted)
        return missing
    }

    /// Looks up those that are missing in the vocabulary.
    ///
    /// - Returns: How many are to be merged; which, in the batch's `missing`.
    @inline(__always)
    private mutating func lookUpWhole(_ missing: Int) -> Int {
        var unknown = 0
        for index in 0..<missing {
            let number = batch.missing[index]
            let entry = batch.entries + Int(number)
            guard entry.pointee.length <= PieceKey.shortMax else {
                batch.missing[unknown] = number
                unknown &+= 1
                continue
            }
            let key = PieceKey(low: entry.pointee.low, high: entry.pointee.high, hash: entry.pointee.hash)
            let length = Int(truncatingIfNeeded: entry.pointee.length)
            let whole = vocabulary.pieces.find(key, entry.pointee.start, length: length)
            if whole != TokenTable.none {
                shortSlot(key.hash).pointee = .init(
                    low: key.low, high: key.high, ids: (whole, 0, 0), owner: owner | 1)
                entry.pointee.count = 1
                entry.pointee.ids.0 = whole
                sink.take(count: 1)
            } else if Sink.writes, let (ids, count) = findLong(key.hash, entry.pointee.start, length) {
                batch.setIDs(Int(number), ids, count)
            } else {
                batch.missing[unknown] = number
                unknown &+= 1
            }
        }
        return unknown
    }

    /// Merges several pieces, a step of each in turn, so that what one waits for is loaded while the others go on.
    @inline(__always)
    private mutating func mergeInStep(_ count: Int) {
        var started = 0
        var active = 0
        while active < PieceBatch.lanes, start(batch.lanes + active, &started, count) { active &+= 1 }
        while active > 0 {
            var index = 0
            while index < active {
                let lane = batch.lanes + index
                if choose(lane) {
                    index &+= 1
                    continue
                }
                finish(lane)
                if !start(lane, &started, count) {
                    active &-= 1
                    if index < active { lane.update(from: batch.lanes + active, count: 1) }
                }
            }
            for index in 0..<active { rank(batch.lanes + index) }
        }
    }

    /// Starts on the next piece; those of too many symbols for a lane are merged on the way.
    ///
    /// - Returns: False where there is none.
    @inline(never)
    private mutating func start(_ lane: UnsafeMutablePointer<PieceBatch.Lane>, _ next: inout Int, _ count: Int) -> Bool
    {
        let merger = scratch.merger(symbols: TokenizerLimits.scannedSymbolsMax)
        while next < count {
            let number = batch.missing[next]
            next &+= 1
            let entry = batch.entries + Int(number)
            let symbols = vocabulary.symbols.split(
                entry.pointee.start, Int(truncatingIfNeeded: entry.pointee.length), isText: true, vocabulary,
                into: merger)
            guard symbols <= PieceBatch.symbolsMax else {
                keep(Int(number), merger.ids, merger.mergeScanned(symbols, vocabulary.pairs))
                continue
            }
            lane.pointee.entry = UInt32(number)
            lane.pointee.alive = (1 &<< UInt32(truncatingIfNeeded: symbols)) &- 1
            // SAFETY: the merger has room for 64 symbols; what is behind the last one is not merged.
            let places = SIMD16<UInt32>(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
            let ranks = UnsafeRawPointer(merger.ranks).loadUnaligned(as: SIMD16<UInt32>.self)
            let placed = ((ranks &<< 4) | places) & 0x7FFF_FFFF
            lane.pointee.ranks = placed
            lane.pointee.ids = UnsafeRawPointer(merger.ids).loadUnaligned(as: SIMD16<UInt32>.self)
            let cells = UnsafeMutableRawPointer(lane).assumingMemoryBound(to: Int32.self)
            for index in symbols..<max(symbols, PieceBatch.symbolsMax) { cells[index] = PieceBatch.noRank }
            return true
        }
        return false
    }

    /// Merges one pair, and begins to look up the pairs of the new token.
    ///
    /// - Returns: False where none merges.
    @inline(__always)
    private func choose(_ lane: UnsafeMutablePointer<PieceBatch.Lane>) -> Bool {
        let least = Self.least(UnsafeRawPointer(lane))
        guard least < PieceBatch.noRank else { return false }
        let pairs = vocabulary.pairs
        let place = UInt32(truncatingIfNeeded: least & 15)
        let id = pairs.result(ofRank: UInt32(truncatingIfNeeded: least &>> 4))
        // SAFETY: places are below 16: those of bits of `alive`, of which there are 16, or masked.
        let ids = (UnsafeMutableRawPointer(lane) + 64).assumingMemoryBound(to: UInt32.self)
        let alive = lane.pointee.alive
        let above = alive & (~1 &<< place)
        let right = UInt32(truncatingIfNeeded: above.trailingZeroBitCount)
        let after = above & (above &- 1)
        let below = alive & ((1 &<< place) &- 1)
        let beyond = UInt32(truncatingIfNeeded: after.trailingZeroBitCount) & 15
        let before = below == 0 ? right : 31 &- UInt32(truncatingIfNeeded: below.leadingZeroBitCount)
        lane.pointee.alive = alive & ~(1 &<< right)
        ids[Int(place)] = id
        lane.pointee.place = place
        lane.pointee.right = right
        lane.pointee.before = before
        lane.pointee.beyond = beyond
        lane.pointee.afterBucket = pairs.bucket(id, ids[Int(beyond)], isWanted: after == 0 ? 0 : 1)
        lane.pointee.beforeBucket = pairs.bucket(ids[Int(before)], id, isWanted: below == 0 ? 0 : 1)
        return true
    }

    /// Notes the ranks of the pairs that ``choose(_:)`` began to look up.
    @inline(__always)
    private func rank(_ lane: UnsafeMutablePointer<PieceBatch.Lane>) {
        let pairs = vocabulary.pairs
        // SAFETY: as in `choose`.
        let ranks = UnsafeMutableRawPointer(lane).assumingMemoryBound(to: Int32.self)
        let ids = (UnsafeMutableRawPointer(lane) + 64).assumingMemoryBound(to: UInt32.self)
        let place = lane.pointee.place
        let before = lane.pointee.before
        let id = ids[Int(place)]
        let rankBefore = pairs.rank(ids[Int(before)], id, at: lane.pointee.beforeBucket)
        let rankAfter = pairs.rank(id, ids[Int(lane.pointee.beyond)], at: lane.pointee.afterBucket)
        // In this order: where there is none before, it is the cell of the token that was taken.
        ranks[Int(before)] = Self.placed(rankBefore, before)
        ranks[Int(lane.pointee.right)] = PieceBatch.noRank
        ranks[Int(place)] = Self.placed(rankAfter, place)
    }

    @inline(__always)
    private static func placed(_ rank: UInt32, _ place: UInt32) -> Int32 {
        Int32(truncatingIfNeeded: (rank &<< 4 | place) & 0x7FFF_FFFF)
    }

    /// The least of 16 ranks.
    @inline(__always)
    private static func least(_ ranks: UnsafeRawPointer) -> Int32 {
        let four = lesser(
            lesser(ranks.load(as: SIMD4<Int32>.self), ranks.load(fromByteOffset: 16, as: SIMD4<Int32>.self)),
            lesser(
                ranks.load(fromByteOffset: 32, as: SIMD4<Int32>.self),
                ranks.load(fromByteOffset: 48, as: SIMD4<Int32>.self)))
        return min(min(four.x, four.y), min(four.z, four.w))
    }

    /// The lesser of each two, which are not negative: arithmetic that every processor has for vectors.
    @inline(__always)
    private static func lesser(_ left: SIMD4<Int32>, _ right: SIMD4<Int32>) -> SIMD4<Int32> {
        let difference = left &- right
        return right &+ (difference & (difference &>> 31))
    }

    @inline(__always)
    private mutating func finish(_ lane: UnsafeMutablePointer<PieceBatch.Lane>) {
        // SAFETY: as in `step`.
        let ids = (UnsafeMutableRawPointer(lane) + 64).assumingMemoryBound(to: UInt32.self)
        var alive = lane.pointee.alive
        var count = 0
        while alive != 0 {
            ids[count] = ids[alive.trailingZeroBitCount]
            count &+= 1
            alive &= alive &- 1
        }
        keep(Int(lane.pointee.entry), ids, count)
    }

    /// Notes the ids of a piece that is merged, and keeps them for the next time.
    @inline(__always)
    private mutating func keep(_ number: Int, _ ids: UnsafePointer<UInt32>, _ count: Int) {
        let entry = batch.entries + number
        let length = Int(truncatingIfNeeded: entry.pointee.length)
        sink.take(count: count)
        batch.setIDs(number, ids, count)
        // A piece of unknown characters that are dropped has no ids at all; such a slot would read as empty.
        guard count > 0 else { return }
        if length <= PieceKey.shortMax {
            shortSlot(entry.pointee.hash).pointee = .init(
                low: entry.pointee.low, high: entry.pointee.high, ids: entry.pointee.ids, owner: owner | UInt32(count))
            guard count > 3 else { return }
        }
        storeLong(hash: entry.pointee.hash, entry.pointee.start, length, ids, count)
    }

    @inline(__always)
    private func shortSlot(_ hash: UInt64) -> UnsafeMutablePointer<TokenizerScratch.ShortSlot> {
        shortSlots + Int(truncatingIfNeeded: hash & UInt64(TokenizerLimits.shortCacheSlots &- 1))
    }
}

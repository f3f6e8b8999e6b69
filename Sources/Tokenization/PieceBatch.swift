/// Pieces that wait to be looked up together, and the lanes in which those are merged that are found nowhere.
struct PieceBatch {
    /// Pieces that are looked up together.
    static let capacity = 128
    /// Ids of one piece that the batch has room for: no token is of less than a byte.
    static let idsMax = PieceKey.longMax
    /// The length of an entry whose ids are known already.
    static let resolved: UInt32 = 0

    struct Entry {
        var start: UnsafeRawPointer
        var length: UInt32
        /// Bytes that may be read from `start` on, or 16 where they are more.
        var readable: UInt32
        var key: PieceKey
        /// How many ids there are: up to eight of them here, more in the entry's row of ``PieceBatch/rows``.
        var count: Int
        /// The first two.
        var pair: UInt64
        /// The next six, packed.
        var third: UInt64
        var sixth: UInt64
    }

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning scratch calls; indices are below the constants
    // above: the encoder empties the batch when it is full.
    let entries: UnsafeMutablePointer<Entry>
    /// ``idsMax`` ids of each entry.
    let rows: UnsafeMutablePointer<UInt32>
    /// Entries that are to be looked up elsewhere.
    let missing: UnsafeMutablePointer<UInt8>
    let lanes: MergeLanes

    static let memoryBytes =
        capacity * (MemoryLayout<Entry>.stride + idsMax * 4 + 1) + MergeLanes.memoryBytes

    init() {
        entries = .allocate(capacity: Self.capacity)
        // No entry is read before it is written; were one, it would have no ids.
        UnsafeMutableRawPointer(entries).initializeMemory(
            as: UInt8.self, repeating: 0, count: Self.capacity * MemoryLayout<Entry>.stride)
        rows = .allocate(capacity: Self.capacity * Self.idsMax)
        missing = .allocate(capacity: Self.capacity)
        lanes = MergeLanes()
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
        entries[index].count = count
        if count <= PieceCache.besideMax {
            entries[index].pair = (count > 0 ? UInt64(ids[0]) : 0) | (count > 1 ? UInt64(ids[1]) : 0) &<< 32
            entries[index].third = PackedIDs.pack(ids + 2, count &- 2)
            entries[index].sixth = PackedIDs.pack(ids + 5, count &- 5)
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
            if unknown > 0 { mergeTogether(unknown) }
        }
        guard Sink.writes else { return }
        for index in 0..<count {
            let entry = batch.entries + index
            let ids = entry.pointee.count
            if ids <= 2 {
                sink.take(entry.pointee.pair, ids)
            } else if ids <= PieceCache.besideMax {
                sink.take(entry.pointee.pair, entry.pointee.third, entry.pointee.sixth, ids)
            } else {
                sink.take(batch.rows + index &* PieceBatch.idsMax, ids)
            }
        }
    }

    /// Looks all up in the cache.
    ///
    /// - Returns: How many are not there; which, in the batch's `missing`.
    @inline(__always)
    private mutating func lookUpCached(_ count: Int) -> Int {
        let seed = vocabulary.pieces.seed
        for index in 0..<count {
            let entry = batch.entries + index
            let length = Int(truncatingIfNeeded: entry.pointee.length)
            let key =
                length <= PieceKey.shortMax
                ? PieceKey(
                    short: entry.pointee.start, length: length,
                    readable: Int(truncatingIfNeeded: entry.pointee.readable), seed: seed)
                : PieceKey(long: entry.pointee.start, length: length, seed: seed, vocabulary.hashKeys)
            entry.pointee.key = key
            cache.prefetch(key)
        }
        var missing = 0
        var counted = 0
        for index in 0..<count {
            let entry = batch.entries + index
            let key = entry.pointee.key
            // No branch: whether a piece is there cannot be predicted.
            var found: Int
            if Sink.writes {
                if entry.pointee.length == PieceBatch.resolved { continue }
                let ids = cache.ids(key)
                found = ids.count
                entry.pointee.pair = ids.pair
                if found > 2 {
                    entry.pointee.third = ids.beside[0]
                    entry.pointee.sixth = ids.beside[1]
                    if found > PieceCache.besideMax { found = takeRow(index, key, found) }
                }
                entry.pointee.count = found
            } else {
                found = cache.count(key)
                counted &+= found
            }
            batch.missing[missing] = UInt8(truncatingIfNeeded: index)
            missing &+= found == 0 ? 1 : 0
        }
        sink.take(count: counted)
        return missing
    }

    /// - Returns: `count`, or 0 where the ids of a piece that has more than are packed are not kept any more.
    @inline(never)
    private func takeRow(_ index: Int, _ key: PieceKey, _ count: Int) -> Int {
        guard let words = cache.row(key) else { return 0 }
        // SAFETY: a row of the batch holds more than the 15 ids of five words.
        let ids = batch.rows + index &* PieceBatch.idsMax
        for word in 0..<(PieceCache.idsMax / 3) { PackedIDs.unpack(words[word], to: ids + 3 &* word) }
        return count
    }

    /// Looks those that are missing up in the vocabulary.
    ///
    /// - Returns: How many are to be merged; which, in the batch's `missing`.
    @inline(__always)
    private mutating func lookUpWhole(_ missing: Int) -> Int {
        for index in 0..<missing {
            let entry = batch.entries + Int(batch.missing[index])
            // Longer ones, which are few, are found by another hash.
            guard entry.pointee.length <= PieceKey.shortMax else { continue }
            vocabulary.pieces.prefetch(entry.pointee.key.hash)
        }
        var unknown = 0
        for index in 0..<missing {
            let number = batch.missing[index]
            let entry = batch.entries + Int(number)
            let length = Int(truncatingIfNeeded: entry.pointee.length)
            let key = entry.pointee.key
            var whole =
                length <= PieceKey.shortMax
                ? vocabulary.pieces.find(key.first, hash: key.hash, entry.pointee.start, length: length)
                : vocabulary.pieces.find(long: entry.pointee.start, length: length)
            if whole != TokenTable.none {
                keep(Int(number), &whole, 1)
            } else {
                batch.missing[unknown] = number
                unknown &+= 1
            }
        }
        return unknown
    }

    /// Notes the ids of a piece, and keeps them for the next time.
    @inline(__always)
    mutating func keep(_ number: Int, _ ids: UnsafePointer<UInt32>, _ count: Int) {
        sink.take(count: count)
        if Sink.writes { batch.setIDs(number, ids, count) }
        // A piece of unknown characters that are dropped has no ids at all; such a place would read as empty.
        guard count > 0, count <= PieceCache.idsMax else { return }
        cache.store(batch.entries[number].key, ids, count)
    }
}

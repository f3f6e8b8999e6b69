/// Where the ids of pieces go: to an array, or nowhere but a counter.
protocol TokenSink {
    /// False where only the number of ids matters.
    static var writes: Bool { get }
    mutating func take(_ id: UInt32)
    mutating func take(_ ids: UnsafePointer<UInt32>, _ count: Int)
    /// Counts ids that are not known. Never called where ``writes``.
    mutating func take(count: Int)
    /// Counts up to three ids, all in `ids`.
    mutating func take(upToThree ids: (UInt32, UInt32, UInt32), _ count: Int)
}

struct CountingSink: TokenSink {
    static var writes: Bool { false }
    var count = 0
    @inline(__always) mutating func take(_ id: UInt32) { count &+= 1 }
    @inline(__always) mutating func take(_ ids: UnsafePointer<UInt32>, _ count: Int) { self.count &+= count }
    @inline(__always) mutating func take(count: Int) { self.count &+= count }
    @inline(__always) mutating func take(upToThree ids: (UInt32, UInt32, UInt32), _ count: Int) { self.count &+= count }
}

/// Collects ids in a buffer of the scratch and appends them to the caller's array when it is full.
struct WritingSink: TokenSink {
    static var writes: Bool { true }
    // SAFETY: `output` is the scratch's and holds ``TokenizerLimits/idsBuffered`` ids; `ids` is the caller's array,
    // borrowed by ``Tokenizer/encode(_:into:scratch:)`` for as long as the sink lives.
    let output: UnsafeMutablePointer<UInt32>
    let ids: UnsafeMutablePointer<[UInt32]>
    var count = 0

    @inline(__always)
    mutating func take(_ id: UInt32) {
        if count == TokenizerLimits.idsBuffered { flush() }
        output[count] = id
        count &+= 1
    }

    @inline(__always)
    mutating func take(upToThree three: (UInt32, UInt32, UInt32), _ added: Int) {
        if count &+ 3 > TokenizerLimits.idsBuffered { flush() }
        output[count] = three.0
        output[count &+ 1] = three.1
        output[count &+ 2] = three.2
        count &+= added
    }

    mutating func take(_ added: UnsafePointer<UInt32>, _ addedCount: Int) {
        if count &+ addedCount > TokenizerLimits.idsBuffered {
            flush()
            if addedCount > TokenizerLimits.idsBuffered {
                ids.pointee.append(contentsOf: UnsafeBufferPointer(start: added, count: addedCount))
                return
            }
        }
        (output + count).update(from: added, count: addedCount)
        count &+= addedCount
    }

    mutating func take(count: Int) {}

    @inline(never)
    mutating func flush() {
        ids.pointee.append(contentsOf: UnsafeBufferPointer(start: output, count: count))
        count = 0
    }
}

/// Turns pieces into ids: from the cache, as a whole token, or by merging.
///
/// Pieces are collected and looked up ``PieceBatch/capacity`` at a time: every look-up goes somewhere into megabytes of
/// tables, and only where nothing hangs on the one before do their cache misses overlap. See ``flush()``.
struct PieceEncoder<Sink: TokenSink> {
    let vocabulary: Vocabulary
    // SAFETY: the slots of the scratch, which the caller keeps alive for the call.
    let shortSlots: UnsafeMutablePointer<TokenizerScratch.ShortSlot>
    let longSlots: UnsafeMutableRawPointer
    let batch: PieceBatch
    let scratch: TokenizerScratch
    /// Distinguishes tokenizers in the cache; the low 5 bits are 0.
    let owner: UInt32
    /// Pieces in the batch.
    var pending = 0
    var sink: Sink

    init(_ vocabulary: Vocabulary, owner: UInt32, scratch: TokenizerScratch, sink: Sink) {
        self.vocabulary = vocabulary
        self.owner = owner
        self.scratch = scratch
        self.sink = sink
        shortSlots = scratch.shortSlots
        longSlots = scratch.longSlots
        batch = scratch.batch
    }

    /// Adds a piece; ``flush()`` must follow before the text goes away.
    ///
    /// - Parameters:
    ///   - start: The first byte of the piece.
    ///   - length: At least 1.
    ///   - readable: Bytes that may be read from `start` on.
    @inline(__always)
    mutating func piece(_ start: UnsafeRawPointer, _ length: Int, readable: Int) {
        guard length <= PieceKey.shortMax else { return longPiece(start, length, readable: readable) }
        let entry = batch.entries + pending
        entry.pointee.start = start
        entry.pointee.length = UInt32(truncatingIfNeeded: length)
        entry.pointee.readable = UInt32(truncatingIfNeeded: min(readable, 16))
        pending &+= 1
        if pending == PieceBatch.capacity { flush() }
    }

    /// A piece that need not be UTF-8; not cached, since caches and cuts are of text. The batch must be empty.
    @inline(never)
    mutating func pieceOfAnyBytes(_ piece: UnsafeRawBufferPointer) {
        guard let start = piece.baseAddress, piece.count > 0 else { return }
        let whole = piece.count <= TokenizerLimits.tokenBytesMax ? vocabulary.pieces.find(piece) : TokenTable.none
        if whole != TokenTable.none { return sink.take(whole) }
        let merger = scratch.merger(symbols: piece.count)
        sink.take(merger.ids, vocabulary.merge(start, piece.count, isText: false, merger))
    }

    // MARK: Longer pieces

    @inline(never)
    private mutating func longPiece(_ start: UnsafeRawPointer, _ length: Int, readable: Int) {
        let key = PieceKey(long: start, length: length, seed: vocabulary.pieces.seed)
        if length <= TokenizerScratch.LongSlot.bytesMax, takeLong(key, start, length) { return }
        if length <= TokenizerLimits.tokenBytesMax {
            let whole = vocabulary.pieces.find(key, start, length: length)
            if whole != TokenTable.none { return withUnsafePointer(to: whole) { takeInOrder($0, 1) } }
        }
        if vocabulary.cutsPieces, cut(start, length, readable: readable) { return }
        mergeLong(key, start, length)
    }

    /// Takes the parts of a piece between cuts as pieces of their own, which are short and repeat more.
    ///
    /// - Returns: False where there is no cut.
    private mutating func cut(_ start: UnsafeRawPointer, _ length: Int, readable: Int) -> Bool {
        var wasCut = false
        vocabulary.cuts.forEachPart(of: UnsafeRawBufferPointer(start: start, count: length), atSpaces: false) {
            from, to in
            if to &- from == length { return }
            wasCut = true
            if to &- from <= PieceKey.shortMax {
                piece(start + from, to &- from, readable: readable &- from)
            } else {
                part(start + from, to &- from)
            }
        }
        return wasCut
    }

    /// A part between cuts that is longer than short pieces are.
    @inline(never)
    private mutating func part(_ start: UnsafeRawPointer, _ length: Int) {
        let key = PieceKey(long: start, length: length, seed: vocabulary.pieces.seed)
        if length <= TokenizerScratch.LongSlot.bytesMax, takeLong(key, start, length) { return }
        mergeLong(key, start, length)
    }

    @inline(__always)
    private mutating func mergeLong(_ key: PieceKey, _ start: UnsafeRawPointer, _ length: Int) {
        guard length <= TokenizerScratch.LongSlot.bytesMax else { return mergeNow(start, length) }
        let entry = batch.entries + pending
        entry.pointee.start = start
        entry.pointee.length = UInt32(truncatingIfNeeded: length)
        entry.pointee.hash = key.hash
        pending &+= 1
        if pending == PieceBatch.capacity { flush() }
    }

    @inline(never)
    private mutating func mergeNow(_ start: UnsafeRawPointer, _ length: Int) {
        // Before, as pieces in the batch are merged in the same room.
        if Sink.writes { flush() }
        let merger = scratch.merger(symbols: length)
        sink.take(merger.ids, vocabulary.merge(start, length, isText: true, merger))
    }

    /// Takes ids, at most ``TokenizerScratch/LongSlot/idsMax``, after those of the pieces in the batch.
    @inline(__always)
    private mutating func takeInOrder(_ ids: UnsafePointer<UInt32>, _ count: Int) {
        guard Sink.writes, pending > 0 else { return sink.take(ids, count) }
        batch.entries[pending].length = PieceBatch.resolved
        batch.setIDs(pending, ids, count)
        pending &+= 1
        if pending == PieceBatch.capacity { flush() }
    }

    /// Takes the ids of a piece from the long cache, if it has them.
    @inline(__always)
    private mutating func takeLong(_ key: PieceKey, _ start: UnsafeRawPointer, _ length: Int) -> Bool {
        guard let (ids, count) = findLong(key.hash, start, length) else { return false }
        takeInOrder(ids, count)
        return true
    }

    @inline(__always)
    func findLong(_ hash: UInt64, _ start: UnsafeRawPointer, _ length: Int) -> (UnsafePointer<UInt32>, Int)? {
        let slot = longSlot(hash)
        let held = slot.load(as: UInt32.self)
        guard held & ~31 == owner, held & 31 != 0, slot.load(fromByteOffset: 4, as: UInt32.self) == UInt32(length),
            sameBytes(slot + 8, start, length)
        else { return nil }
        // SAFETY: ids were stored at offset 72, aligned to 4; there are at most 14 of them, up to offset 128.
        return (UnsafePointer((slot + 72).assumingMemoryBound(to: UInt32.self)), Int(held & 31))
    }

    func storeLong(
        hash: UInt64, _ start: UnsafeRawPointer, _ length: Int, _ ids: UnsafePointer<UInt32>, _ count: Int
    ) {
        guard count <= TokenizerScratch.LongSlot.idsMax else { return }
        let slot = longSlot(hash)
        // SAFETY: at most 64 bytes from offset 8 and 14 ids from offset 72, in a slot of 128.
        slot.storeBytes(of: owner | UInt32(count), as: UInt32.self)
        slot.storeBytes(of: UInt32(length), toByteOffset: 4, as: UInt32.self)
        (slot + 8).copyMemory(from: start, byteCount: length)
        (slot + 72).copyMemory(from: ids, byteCount: count * 4)
    }

    @inline(__always)
    private func longSlot(_ hash: UInt64) -> UnsafeMutableRawPointer {
        longSlots
            + Int(truncatingIfNeeded: hash & UInt64(TokenizerLimits.longCacheSlots &- 1))
            &* TokenizerScratch.LongSlot.stride
    }
}

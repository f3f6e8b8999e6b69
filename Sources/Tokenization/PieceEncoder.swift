/// Where the ids of pieces go: to an array, or nowhere but a counter.
protocol TokenSink {
    /// False where only the number of ids matters.
    static var writes: Bool { get }
    mutating func take(_ id: UInt32)
    mutating func take(_ ids: UnsafePointer<UInt32>, _ count: Int)
    /// Counts ids that are not known. Never called where ``writes``.
    mutating func take(count: Int)
    /// Takes up to two ids of 32 bits. Called only where ``writes``.
    mutating func take(_ pair: UInt64, _ count: Int)
    /// Takes three to eight ids, those after the first two as ``PackedIDs`` packs them. Called only where ``writes``.
    mutating func take(_ pair: UInt64, _ third: UInt64, _ sixth: UInt64, _ count: Int)
}

struct CountingSink: TokenSink {
    static var writes: Bool { false }
    var count = 0
    @inline(__always) mutating func take(_ id: UInt32) { count &+= 1 }
    @inline(__always) mutating func take(_ ids: UnsafePointer<UInt32>, _ count: Int) { self.count &+= count }
    @inline(__always) mutating func take(count: Int) { self.count &+= count }
    @inline(__always) mutating func take(_ pair: UInt64, _ count: Int) {}
    @inline(__always) mutating func take(_ pair: UInt64, _ third: UInt64, _ sixth: UInt64, _ count: Int) {}
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
    mutating func take(_ pair: UInt64, _ added: Int) {
        if count &+ 2 > TokenizerLimits.idsBuffered { flush() }
        output[count] = UInt32(truncatingIfNeeded: pair)
        output[count &+ 1] = UInt32(truncatingIfNeeded: pair &>> 32)
        count &+= added
    }

    @inline(__always)
    mutating func take(_ pair: UInt64, _ third: UInt64, _ sixth: UInt64, _ added: Int) {
        if count &+ PieceCache.besideMax > TokenizerLimits.idsBuffered { flush() }
        output[count] = UInt32(truncatingIfNeeded: pair)
        output[count &+ 1] = UInt32(truncatingIfNeeded: pair &>> 32)
        PackedIDs.unpack(third, to: output + count + 2)
        if added > 5 { PackedIDs.unpack(sixth, to: output + count + 5) }
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
    // SAFETY: both are the scratch's, which the caller keeps alive for the call.
    let cache: PieceCache
    let batch: PieceBatch
    let scratch: TokenizerScratch
    /// Pieces in the batch.
    var pending = 0
    var sink: Sink

    init(_ vocabulary: Vocabulary, scratch: TokenizerScratch, sink: Sink) {
        self.vocabulary = vocabulary
        self.scratch = scratch
        self.sink = sink
        cache = scratch.cache
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
        assert(length > 0, "0 stands for what is known already")
        guard length <= PieceKey.longMax else { return longPiece(start, length, readable: readable) }
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
        if length <= TokenizerLimits.tokenBytesMax {
            let whole = vocabulary.pieces.find(long: start, length: length)
            if whole != TokenTable.none { return takeInOrder(whole, start) }
        }
        if vocabulary.cutsPieces, cut(start, length, readable: readable) { return }
        mergeNow(start, length)
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
            if to &- from <= PieceKey.longMax {
                piece(start + from, to &- from, readable: readable &- from)
            } else {
                mergeNow(start + from, to &- from)
            }
        }
        return wasCut
    }

    @inline(never)
    private mutating func mergeNow(_ start: UnsafeRawPointer, _ length: Int) {
        // Before, as pieces in the batch are merged in the same room.
        if Sink.writes { flush() }
        let merger = scratch.merger(symbols: length)
        sink.take(merger.ids, vocabulary.merge(start, length, isText: true, merger))
    }

    /// Takes the id of a piece after those of the pieces in the batch.
    @inline(__always)
    private mutating func takeInOrder(_ id: UInt32, _ start: UnsafeRawPointer) {
        guard Sink.writes, pending > 0 else { return sink.take(id) }
        batch.entries[pending].start = start
        batch.entries[pending].readable = 0
        batch.entries[pending].length = PieceBatch.resolved
        batch.entries[pending].count = 1
        batch.entries[pending].pair = UInt64(id)
        pending &+= 1
        if pending == PieceBatch.capacity { flush() }
    }
}

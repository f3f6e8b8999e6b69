/// What encoding needs besides the text: buffers that are used again, and a cache from pieces to their ids.
///
/// One per event loop, for all tokenizers: nothing here is shared, so nothing is locked. The cache is direct-mapped and
/// keyed by the whole content of a piece and by the tokenizer, so a hit is an exact answer and a collision only a miss.
/// Its size is fixed; a buffer that grew for one large input is given back when that call returns.
package final class TokenizerScratch {
    /// A piece of up to ``PieceKey/shortMax`` bytes; ids are held where there are at most three.
    struct ShortSlot {
        var low: UInt64
        var high: UInt64
        var ids: (UInt32, UInt32, UInt32)
        /// The tokenizer's ``Tokenizer/cacheOwner`` and in the low 5 bits how many ids; 0 where the slot is empty.
        var owner: UInt32
    }

    /// A slot of 128 bytes: owner (as above) and length, 4 bytes each, 64 of the piece, 14 ids.
    enum LongSlot {
        static let bytesMax = 64
        static let idsMax = 14
        static let stride = 128
    }

    // SAFETY: allocated here, freed in `deinit`; the slots by index masked to the constants of ``TokenizerLimits``. A
    // scratch is not Sendable, so one thread at a time uses them.
    let shortSlots: UnsafeMutablePointer<ShortSlot>
    let longSlots: UnsafeMutableRawPointer
    let output: UnsafeMutablePointer<UInt32>
    let batch: PieceBatch
    private var symbols: UnsafeMutablePointer<UInt32>
    private var symbolsMax: Int
    /// As ``output``, for ids that may be taken back.
    let prefixOutput: UnsafeMutablePointer<UInt32>

    package init() {
        shortSlots = TableMemory.allocate(
            TokenizerLimits.shortCacheSlots, repeating: ShortSlot(low: 0, high: 0, ids: (0, 0, 0), owner: 0))
        longSlots = UnsafeMutableRawPointer(
            TableMemory.allocate(TokenizerLimits.longCacheSlots * LongSlot.stride, repeating: UInt8(0)))
        output = .allocate(capacity: TokenizerLimits.idsBuffered)
        batch = PieceBatch()
        symbolsMax = Self.symbolsKept
        symbols = .allocate(capacity: Self.cells(symbolsMax))
        prefixOutput = .allocate(capacity: TokenizerLimits.idsBuffered)
    }

    deinit {
        TableMemory.deallocate(shortSlots)
        TableMemory.deallocate(longSlots)
        output.deallocate()
        symbols.deallocate()
        batch.deallocate()
        prefixOutput.deallocate()
    }

    /// Bytes held between calls.
    package var memoryBytes: Int {
        TokenizerLimits.shortCacheSlots * 32 + TokenizerLimits.longCacheSlots * LongSlot.stride
            + TokenizerLimits.idsBuffered * 8 + PieceBatch.memoryBytes + Self.cells(symbolsMax) * 4
    }

    private static let symbolsKept = TokenizerLimits.scratchBytesKeptMax / TokenizerLimits.scratchBytesPerSymbolMax

    private static func cells(_ symbols: Int) -> Int { symbols * 2 + RankTree.cells(for: symbols) }

    /// Room to merge that many symbols; what it held before is lost.
    func merger(symbols count: Int) -> BytePairMerger {
        if count > symbolsMax {
            symbols.deallocate()
            symbolsMax = count
            symbols = .allocate(capacity: Self.cells(count))
        }
        return BytePairMerger(ids: symbols, ranks: symbols + 2 * symbolsMax, ends: symbols + symbolsMax)
    }

    /// Gives back what a call needed beyond ``TokenizerLimits/scratchBytesKeptMax``.
    func giveBack() {
        guard symbolsMax > Self.symbolsKept else { return }
        symbols.deallocate()
        symbolsMax = Self.symbolsKept
        symbols = .allocate(capacity: Self.cells(symbolsMax))
    }
}

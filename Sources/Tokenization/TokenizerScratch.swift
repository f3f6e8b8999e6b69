/// What encoding needs besides the text: buffers that are used again, and a cache from pieces to their ids.
///
/// One per event loop, for all tokenizers: nothing here is shared, so nothing is locked. The cache's size is fixed; a
/// buffer that grew for one large input is given back when that call returns.
package final class TokenizerScratch {
    // SAFETY: allocated here, freed in `deinit`. A scratch is not Sendable, so one thread at a time uses them.
    let cache: PieceCache
    let output: UnsafeMutablePointer<UInt32>
    let batch: PieceBatch
    private var symbols: UnsafeMutablePointer<UInt32>
    private var symbolsMax: Int
    /// As ``output``, for ids that may be taken back.
    let prefixOutput: UnsafeMutablePointer<UInt32>

    package init() {
        cache = PieceCache()
        output = .allocate(capacity: TokenizerLimits.idsBuffered)
        batch = PieceBatch()
        symbolsMax = Self.symbolsKept
        symbols = .allocate(capacity: Self.cells(symbolsMax))
        prefixOutput = .allocate(capacity: TokenizerLimits.idsBuffered)
    }

    deinit {
        cache.deallocate()
        output.deallocate()
        symbols.deallocate()
        batch.deallocate()
        prefixOutput.deallocate()
    }

    /// Bytes held between calls.
    package var memoryBytes: Int {
        PieceCache.memoryBytes + TokenizerLimits.idsBuffered * 8 + PieceBatch.memoryBytes + Self.cells(symbolsMax) * 4
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

    /// Empties the cache, for measurements.
    package func forgetPieces() { cache.empty() }

    /// Gives back what a call needed beyond ``TokenizerLimits/scratchBytesKeptMax``.
    func giveBack() {
        guard symbolsMax > Self.symbolsKept else { return }
        symbols.deallocate()
        symbolsMax = Self.symbolsKept
        symbols = .allocate(capacity: Self.cells(symbolsMax))
    }
}

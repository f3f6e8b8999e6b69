/// The tables that turn one piece of text into ids. Built by ``VocabularyBuilder``, immutable, owned by a ``Tokenizer``.
struct Vocabulary {
    /// The tokens that a whole piece may be: those that merging, or the format's rule, makes of their own bytes.
    var pieces: TokenTable
    let pairs: PairTable
    let bytes: TokenBytes
    let symbols: SymbolTable
    let cuts: CutTable
    let hashKeys: LongPieceHash
    /// Whether every part between cuts may be taken as a piece of its own: not where a piece can be a token that merging
    /// would not make.
    var cutsPieces = false

    func deallocate() {
        pieces.deallocate()
        pairs.deallocate()
        bytes.deallocate()
        symbols.deallocate()
        cuts.deallocate()
        hashKeys.deallocate()
    }

    var memoryBytes: Int {
        pieces.memoryBytes + pairs.memoryBytes + bytes.memoryBytes + symbols.memoryBytes + cuts.memoryBytes
            + LongPieceHash.memoryBytes
    }

    /// Merges a piece.
    ///
    /// - Parameters:
    ///   - length: At least 1.
    ///   - merger: Room for `length` symbols.
    ///   - isText: Whether the piece is valid UTF-8.
    /// - Returns: How many ids there are, at the start of the merger's `ids`.
    @inline(__always)
    func merge(_ start: UnsafeRawPointer, _ length: Int, isText: Bool, _ merger: BytePairMerger) -> Int {
        merge(symbols.split(start, length, isText: isText, self, into: merger.ids), merger)
    }

    /// Merges that many symbols, which are in the merger's `ids`.
    func merge(_ count: Int, _ merger: BytePairMerger) -> Int {
        guard count > 0 else { return 0 }
        for index in 0..<(count - 1) { merger.ranks[index] = pairs.rank(merger.ids[index], merger.ids[index + 1]) }
        merger.ranks[count - 1] = PairTable.none
        return count <= TokenizerLimits.scannedSymbolsMax
            ? merger.mergeScanned(count, pairs) : merger.mergeTree(count, pairs)
    }
}

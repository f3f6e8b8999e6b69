/// The tables while they are built.
struct Parts {
    let bytes: TokenBytes
    /// Every token by its bytes.
    let all: TokenTable
    let symbols: SymbolTable
    let hashKeys: LongPieceHash
    var pairs: PairTable?

    init(_ builder: VocabularyBuilder, _ kind: SymbolTable.Kind) throws(TokenizerError) {
        try builder.requireDistinctIDs()
        symbols = SymbolTable(kind)
        bytes = builder.source.withUnsafeBytes { TokenBytes(builder.tokens, count: builder.idEnd, source: $0) }
        all = TokenTable(tokensMax: builder.tokens.count, bytes: bytes, seed: PieceKey.Seed())
        hashKeys = LongPieceHash()
        var problem: String?
        for token in builder.tokens {
            let other = all.insert(token.id)
            if other != TokenTable.none {
                problem = "the ids \(other) and \(token.id) have the same bytes"
                break
            }
            if token.span.count == 1 { symbols.units[Int(builder.source[token.span.lowerBound])] = token.id }
        }
        if let problem {
            deallocate()
            throw TokenizerError(.malformed, in: builder.file, problem)
        }
    }

    func deallocate() {
        bytes.deallocate()
        all.deallocate()
        symbols.deallocate()
        hashKeys.deallocate()
        pairs?.deallocate()
    }

    func requireAllBytes(_ file: String) throws(TokenizerError) {
        for byte in 0..<256 where symbols.units[byte] == TokenTable.none {
            let hex = String(byte, radix: 16, uppercase: true)
            throw TokenizerError(.malformed, in: file, "no token is the single byte 0x\(byte < 16 ? "0" : "")\(hex)")
        }
    }

    /// Finishes tables whose ``pairs`` are complete. A piece that is a token as a whole is that token.
    func vocabulary(_ scratch: TokenizerScratch) -> Vocabulary {
        let pairs = self.pairs ?? PairTable(pairsMax: 0, rankCount: 0, factor: 1)
        var rules = 0
        pairs.forEach { _, _, _ in rules += 1 }
        let cuts = CutTable(rules: rules)
        let bytes = self.bytes
        pairs.forEach { left, right, _ in cuts.join(bytes[left], bytes[right]) }
        let vocabulary = Vocabulary(
            pieces: all, pairs: pairs, bytes: bytes, symbols: symbols, cuts: cuts, hashKeys: hashKeys)
        if case .bytes = symbols.kind {
            guard isOrdered(pairs) else { return vocabulary }
            for id in 0..<UInt32(bytes.count) where bytes[id].count == 2 || bytes[id].count == 3 {
                if isMade(id, vocabulary, scratch) { symbols.setCharacter(bytes[id], id) }
            }
        } else {
            for id in 0..<UInt32(bytes.count) { symbols.setCharacter(bytes[id], id) }
        }
        if case .characters = symbols.kind { cuts.joinAll() }
        return vocabulary
    }

    /// Leaves as whole pieces only the tokens that merging makes of their own bytes.
    func keepMadePieces(_ vocabulary: inout Vocabulary, _ scratch: TokenizerScratch) {
        let pieces = TokenTable(tokensMax: bytes.count, bytes: bytes, seed: all.seed)
        for id in 0..<UInt32(bytes.count) where isMade(id, vocabulary, scratch) { _ = pieces.insert(id) }
        vocabulary.pieces = pieces
        vocabulary.cutsPieces = true
        all.deallocate()
    }

    /// Whether merging makes this token of its own bytes.
    func isMade(_ id: UInt32, _ vocabulary: Vocabulary, _ scratch: TokenizerScratch) -> Bool {
        let token = bytes[id]
        guard let start = token.baseAddress, token.count > 0 else { return false }
        var isText = true
        if case .bytes = symbols.kind { isText = false }
        let merger = scratch.merger(symbols: token.count)
        return vocabulary.merge(start, token.count, isText: isText, merger) == 1 && merger.ids[0] == id
    }

    /// Whether every rule comes after those that make its two tokens.
    private func isOrdered(_ pairs: PairTable) -> Bool {
        var madeAt = [UInt32](repeating: 0, count: bytes.count)
        pairs.forEach { _, _, rank in
            let result = Int(pairs.result(ofRank: rank))
            madeAt[result] = max(madeAt[result], rank + 1)
        }
        var isOrdered = true
        pairs.forEach { left, right, rank in
            if max(madeAt[Int(left)], madeAt[Int(right)]) > rank { isOrdered = false }
        }
        return isOrdered
    }

    /// The two tokens that become `id` when merging by rank: what its bytes are when two are left.
    ///
    /// There is no other such pair. While no merge crosses the ends of a stretch of bytes, what happens inside is the
    /// same as if it stood alone, so a stretch that becomes a token has passed through this very pair. One rule for each
    /// token is therefore enough, instead of one for each of its splits.
    ///
    /// `pairs` must hold the rules of all tokens of lower rank: as long as one of them applies, it comes before any of
    /// higher rank. Where they leave more than two parts, tokens of higher rank are inside one of lower rank, as no
    /// trained vocabulary has them, and the parts are merged by looking up bytes.
    ///
    /// - Returns: nil where merging never makes this token of its bytes.
    func lastMerge(of id: UInt32, firstID: UInt32, _ scratch: TokenizerScratch) -> (UInt32, UInt32)? {
        let token = bytes[id]
        guard let pairs, let start = token.baseAddress else { return nil }
        let merger = scratch.merger(symbols: token.count)
        for index in 0..<token.count {
            merger.ids[index] = symbols.units[Int(token[index])]
            if index > 0 { merger.ranks[index - 1] = pairs.rank(merger.ids[index - 1], merger.ids[index]) }
        }
        merger.ranks[token.count - 1] = PairTable.none
        let count =
            token.count <= TokenizerLimits.scannedSymbolsMax
            ? merger.mergeScanned(token.count, pairs) : merger.mergeTree(token.count, pairs)
        if count == 2 { return (merger.ids[0], merger.ids[1]) }
        var ends: [Int] = []
        for index in 0..<count { ends.append((ends.last ?? 0) + bytes[merger.ids[index]].count) }
        /// The token that the parts at `place` and after it make together; ``TokenTable/none`` is the greatest id.
        func joined(at place: Int) -> UInt32 {
            let from = place == 0 ? 0 : ends[place - 1]
            return all.find(UnsafeRawBufferPointer(start: start + from, count: ends[place + 1] - from))
        }
        var joins = (0..<max(0, ends.count - 1)).map(joined)
        while ends.count > 2 {
            guard let least = joins.min(), least != TokenTable.none, let place = joins.firstIndex(of: least) else {
                return nil
            }
            ends.remove(at: place)
            joins.remove(at: place)
            // Only what stands beside the new part has changed: a file of long tokens must not take minutes.
            if place > 0 { joins[place - 1] = joined(at: place - 1) }
            if place < joins.count { joins[place] = joined(at: place) }
        }
        let left = all.find(UnsafeRawBufferPointer(start: start, count: ends[0]))
        let right = all.find(UnsafeRawBufferPointer(start: start + ends[0], count: token.count - ends[0]))
        return (left, right)
    }
}

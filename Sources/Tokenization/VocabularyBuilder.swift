/// Builds the tables of a ``Vocabulary`` from tokens and their order or their merges.
struct VocabularyBuilder {
    /// For messages.
    let file: String
    /// Where the bytes of all tokens are.
    private(set) var source: [UInt8] = []
    private(set) var tokens: [(id: UInt32, span: Range<Int>)] = []
    private(set) var idEnd = 0

    init(file: String) { self.file = file }

    /// - Parameter bytes: Not empty.
    mutating func add(_ id: Int64, _ bytes: some Collection<UInt8>, at place: String) throws(TokenizerError) {
        guard !bytes.isEmpty else { throw TokenizerError(.malformed, in: file, "\(place): the token is empty") }
        guard bytes.count <= TokenizerLimits.tokenBytesMax else {
            throw TokenizerError(
                .tooLarge, in: file,
                "\(place): a token of \(bytes.count) bytes; at most \(TokenizerLimits.tokenBytesMax)")
        }
        let start = source.count
        source.append(contentsOf: bytes)
        try reserve(id, at: place)
        guard source.count <= TokenizerLimits.vocabularyBytesMax else {
            throw TokenizerError(
                .tooLarge, in: file, "tokens of more than \(TokenizerLimits.vocabularyBytesMax) bytes together")
        }
        tokens.append((UInt32(id), start..<source.count))
    }

    /// Refuses an id that two tokens have.
    func requireDistinctIDs() throws(TokenizerError) {
        var seen = [Bool](repeating: false, count: idEnd)
        for token in tokens {
            guard !seen[Int(token.id)] else {
                throw TokenizerError(.malformed, in: file, "two tokens have the id \(token.id)")
            }
            seen[Int(token.id)] = true
        }
    }

    /// Notes an id that no text merges into.
    mutating func reserve(_ id: Int64, at place: String) throws(TokenizerError) {
        guard id >= 0, id < TokenizerLimits.idMax else {
            throw TokenizerError(.tooLarge, in: file, "\(place): id \(id) is not in 0..<\(TokenizerLimits.idMax)")
        }
        idEnd = max(idEnd, Int(id) + 1)
    }

    /// How many ids there are, counting gaps.
    var vocabularySize: Int { idEnd }

    // MARK: Ranked tokens (tiktoken, tekken)

    /// - Parameter firstID: The id of the token of rank 0: a rank is an id less this.
    func ranked(firstID: UInt32) throws(TokenizerError) -> Vocabulary {
        var parts = try Parts(self, .bytes)
        do throws(TokenizerError) {
            try parts.requireAllBytes(file)
            let byRank = tokens.sorted { $0.id < $1.id }
            let pairs = PairTable(
                pairsMax: tokens.count, rankCount: idEnd, firstResult: firstID, factor: .random(in: .min ... .max))
            parts.pairs = pairs
            let scratch = TokenizerScratch()
            var isEachMade = true
            for token in byRank where token.span.count > 1 {
                if let (left, right) = parts.lastMerge(of: token.id, firstID: firstID, scratch) {
                    pairs.insert(left, right, rank: token.id - firstID, result: token.id)
                } else {
                    isEachMade = false
                }
            }
            var vocabulary = parts.vocabulary(scratch)
            vocabulary.cutsPieces = isEachMade
            return vocabulary
        } catch {
            parts.deallocate()
            throw error
        }
    }
}

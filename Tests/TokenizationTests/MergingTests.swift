import Testing

@testable import Tokenization

/// Ids held against the slow judges of ``MadeUpVocabulary``, with vocabularies and words made up.
@Suite struct MergingTests {
    /// Letters of one, two and three bytes: their pieces are one run of letters each.
    private static let letters: [[UInt8]] = ["a", "b", "c", "é", "ж", "語", "言"].map { Array($0.utf8) }

    private func word(_ lengths: ClosedRange<Int>, _ kinds: Int, _ generator: inout TextGenerator) -> [UInt8] {
        (0..<Int.random(in: lengths, using: &generator)).flatMap { _ in
            Self.letters[Int.random(in: 0..<kinds, using: &generator)]
        }
    }

    private func compare(
        _ tokenizer: Tokenizer, _ seed: UInt64, _ generator: inout TextGenerator, _ judge: ([UInt8]) -> [UInt32]
    ) {
        let scratch = TokenizerScratch()
        for round in 0..<120 {
            let lengths = round % 10 == 9 ? 60...150 : 1...24
            let piece = word(lengths, round % 3 == 0 ? 2 : Self.letters.count, &generator)
            let expected = judge(piece)
            #expect(tokenizer.ids(piece, scratch) == expected, "seed \(seed), piece \(piece)")
            #expect(tokenizer.number(piece, scratch) == expected.count, "seed \(seed), piece \(piece)")
            #expect(tokenizer.ids(piece, scratch) == expected, "from the cache: seed \(seed), piece \(piece)")
        }
    }

    @Test(arguments: [false, true])
    func idsAreThoseOfMergingByRank(isShuffled: Bool) throws {
        for _ in 0..<12 {
            let seed = UInt64.random(in: 0 ... .max)
            var generator = TextGenerator(seed: seed)
            let made = MadeUpVocabulary(
                .random(in: 5...200, using: &generator), of: Self.letters.flatMap { $0 }, isShuffled: isShuffled,
                using: &generator)
            let tokenizer = try load(made.tiktoken, pattern: .gpt2)
            compare(tokenizer, seed, &generator, made.encodedByRank)
        }
    }

    @Test(arguments: [false, true])
    func idsAreThoseOfMergingInTheOrderOfTheList(asArrays: Bool) throws {
        for _ in 0..<12 {
            let seed = UInt64.random(in: 0 ... .max)
            var generator = TextGenerator(seed: seed)
            let made = MadeUpVocabulary(
                .random(in: 5...200, using: &generator), of: Self.letters.flatMap { $0 }, using: &generator)
            let tokenizer = try load(made.huggingFace(asArrays: asArrays))
            compare(tokenizer, seed, &generator, made.encodedByMerges)
        }
    }

    /// Pieces wait for each other to be looked up together; long ones among them, of which some cannot wait.
    @Test func idsOfManyPiecesAreInTheirOrder() throws {
        for _ in 0..<4 {
            let seed = UInt64.random(in: 0 ... .max)
            var generator = TextGenerator(seed: seed)
            let made = MadeUpVocabulary(
                .random(in: 5...200, using: &generator), of: Self.letters.flatMap { $0 }, using: &generator)
            let tokenizer = try load(made.tiktoken, pattern: .gpt2)
            let scratch = TokenizerScratch()
            for _ in 0..<6 {
                var text: [UInt8] = []
                var expected: [UInt32] = []
                for _ in 0..<Int.random(in: 1...90, using: &generator) {
                    let lengths = Int.random(in: 0..<8, using: &generator) == 0 ? 15...90 : 1...9
                    let piece = word(lengths, Self.letters.count, &generator)
                    text += piece + [0x0A]
                    expected += made.encodedByRank(piece) + [0x0A]
                }
                #expect(tokenizer.ids(text, scratch) == expected, "seed \(seed), text \(text)")
                #expect(tokenizer.number(text, scratch) == expected.count, "seed \(seed), text \(text)")
                #expect(tokenizer.ids(text, scratch) == expected, "from the cache: seed \(seed), text \(text)")
            }
        }
    }

    /// One table of ranks, merged by a scan and by the tree.
    @Test func treeMergesAsTheScanDoes() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let pairs = PairTable(pairsMax: 400, rankCount: 400, factor: generator.next())
        defer { pairs.deallocate() }
        for rank in 0..<400 as Range<UInt32> {
            let ids = (0..<3).map { _ in UInt32.random(in: 0..<24, using: &generator) }
            pairs.insert(ids[0], ids[1], rank: rank, result: ids[2])
        }
        let scratch = TokenizerScratch()
        defer { withExtendedLifetime(scratch) {} }
        for _ in 0..<300 {
            let count = Int.random(in: 1...400, using: &generator)
            let symbols = (0..<count).map { _ in UInt32.random(in: 0..<24, using: &generator) }
            let results = [true, false].map { usesTree in
                let merger = scratch.merger(symbols: count)
                for (index, symbol) in symbols.enumerated() {
                    merger.ids[index] = symbol
                    merger.ranks[index] = index + 1 < count ? pairs.rank(symbol, symbols[index + 1]) : PairTable.none
                }
                let left = usesTree ? merger.mergeTree(count, pairs) : merger.mergeScanned(count, pairs)
                return (0..<left).map { merger.ids[$0] }
            }
            #expect(results[0] == results[1], "seed \(seed)")
        }
    }

    @Test func aMegabyteOfOneLetterIsMergedAndItsScratchGivenBack() throws {
        let bytes = (0..<256).map { [UInt8($0)] }
        var generator = TextGenerator(seed: 1)
        var made = MadeUpVocabulary(0, of: [0x61], using: &generator)
        made.tokens = bytes + [[0x61, 0x61], [0x61, 0x61, 0x61, 0x61]]
        let tokenizer = try load(made.tiktoken, pattern: .gpt2)
        let scratch = TokenizerScratch()
        let before = scratch.memoryBytes
        let ids = tokenizer.ids([UInt8](repeating: 0x61, count: 1 << 20), scratch)
        #expect(ids == [UInt32](repeating: 257, count: 1 << 18))
        #expect(scratch.memoryBytes == before)
        #expect(scratch.memoryBytes < 10 << 20)
    }

    @Test func countIsTheNumberOfIdsForEveryPrefixOfAnyBytes() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let made = MadeUpVocabulary(150, of: Array("ab é語".utf8), using: &generator)
        let parts: [[UInt8]] = ["a", "b", " ", "é", "語", "'s", "\n", "a", " "].map { Array($0.utf8) } + [[0xE8]]
        let text = (0..<300).flatMap { _ in parts[Int.random(in: 0..<parts.count, using: &generator)] }
        for file in [made.tiktoken, made.huggingFace(asArrays: true)] {
            let tokenizer = try load(file, pattern: file.first == UInt8(ascii: "{") ? nil : .cl100k)
            let scratch = TokenizerScratch()
            for end in 0...text.count {
                let prefix = Array(text[..<end])
                let ids = tokenizer.ids(prefix, scratch)
                #expect(tokenizer.number(prefix, scratch) == ids.count, "seed \(seed), \(end) bytes")
                // A fresh scratch has an empty cache.
                #expect(tokenizer.ids(prefix) == ids, "seed \(seed), \(end) bytes")
            }
        }
    }

    /// More pieces than the cache has room for, with more ids than a set holds: rows are taken by others again and again.
    @Test func idsStayTheSameWhileTheCacheForgets() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let made = MadeUpVocabulary(20, of: Self.letters.flatMap { $0 }, using: &generator)
        let tokenizer = try load(made.tiktoken, pattern: .gpt2)
        let scratch = TokenizerScratch()
        let pieces = (0..<(2 * TokenizerLimits.cachedRows)).map { _ in word(10...14, 3, &generator) }
        let expected = pieces.map { made.encodedByRank($0) }
        for round in 0..<2 {
            for (piece, expected) in zip(pieces, expected) {
                #expect(tokenizer.ids(piece, scratch) == expected, "seed \(seed), round \(round), piece \(piece)")
            }
        }
    }

    /// The cache is keyed by the tokenizer too.
    @Test func tokenizersThatShareAScratchDoNotShareIds() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let made = (0..<3).map { _ in MadeUpVocabulary(80, of: Array("abé".utf8), using: &generator) }
        let tokenizers = try made.map { try load($0.tiktoken, pattern: .gpt2) }
        let scratch = TokenizerScratch()
        for _ in 0..<200 {
            let piece = word(1...30, 4, &generator)
            for (vocabulary, tokenizer) in zip(made, tokenizers) {
                #expect(tokenizer.ids(piece, scratch) == vocabulary.encodedByRank(piece), "seed \(seed)")
            }
        }
    }
}

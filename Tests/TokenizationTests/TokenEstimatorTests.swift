import Testing

@testable import Tokenization

/// Estimates held against numbers that are known: made up, or of a vocabulary made up.
@Suite struct TokenEstimatorTests {
    private func features(_ text: [UInt8], messages: Int = 1) -> TextFeatures {
        var features = text.withUnsafeBytes { TextFeatures($0) }
        features.messages = messages
        return features
    }

    private func features(_ text: String, messages: Int = 1) -> TextFeatures {
        features(Array(text.utf8), messages: messages)
    }

    /// Words, code and other scripts, escaped as JSON has it, of 200 to some 4,000 bytes.
    private func chat(_ generator: inout TextGenerator) -> String {
        let parts = [
            "the ", "request ", "internationalization ", "of ", "Node", "(", "{ }", " 12", "3.5", "\\n", "\\n\\n",
            "    ",
            "\\\"key\\\": ", "привет ", "говорить ", "中文", "語", "日本の", " été", "한국", "😀", ";", "===", "camelCase",
        ]
        let ofThese = parts.shuffled(using: &generator).prefix(Int.random(in: 4...parts.count, using: &generator))
        return (0..<Int.random(in: 40...600, using: &generator)).map { _ in
            ofThese.randomElement(using: &generator) ?? ""
        }.joined()
    }

    private func medianError(_ estimator: TokenEstimator, _ texts: [TextFeatures], _ truth: (TextFeatures) -> Int)
        -> Double
    {
        let errors = texts.map { abs(Double(estimator.tokens($0)) / Double(truth($0)) - 1) }.sorted()
        return errors[errors.count / 2]
    }

    @Test func classesAreCountedWhateverTheEscapes() {
        let text = features("The HTTPServer  said: \\\"no!!\\\"\\n\\n\\t42 x7, й ж 中文のé한😀")
        #expect(text[.words] == 5)
        #expect(text[.capitals] == 6)
        #expect(text[.deepLetters] == 6)
        #expect([text[.digits], text[.digitRuns]] == [3, 2])
        #expect([text[.newlines], text[.emptyLines], text[.controls], text[.moreSpaces]] == [2, 1, 1, 1])
        #expect([text[.punctuation], text[.repeatedPunctuation]] == [6, 1])
        #expect([text[.wordsAfterPunctuation], text[.wordsAfterSpace]] == [1, 3])
        #expect([text[.cyrillic], text[.twoByte], text[.han], text[.kana]] == [2, 1, 2, 1])
        #expect([text[.hangul], text[.fourByte], text[.otherRuns]] == [1, 1, 3])
        let escaped = features("\\u0439 \\u4e2d\\u6587\\u306e\\ud83d\\ude00\\u0041\\u000a")
        let plain = features("й 中文の😀A\\n")
        for feature in TextFeatures.Feature.allCases { #expect(escaped[feature] == plain[feature], "\(feature)") }
    }

    @Test func blocksCountAsBytesOneByOneDo() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let alphabet = Array("aaabBzZ@[`{09/: ..\"'~\u{7F}\t".utf8)
        for _ in 0..<2000 {
            let text = (0..<Int.random(in: 0...90, using: &generator)).map { _ in
                alphabet.randomElement(using: &generator) ?? 0
            }
            // No block has an escape in it.
            let escaped = text.flatMap {
                Array("\\u00".utf8) + [$0 >> 4, $0 & 15].map { Array("0123456789abcdef".utf8)[Int($0)] }
            }
            let (one, other) = (features(text), features(escaped))
            for feature in TextFeatures.Feature.allCases {
                #expect(one[feature] == other[feature], "\(feature), seed \(seed), text \(text)")
            }
        }
    }

    @Test func frequentHanIsToldFromRareAndFromWhatIsNoHan() {
        #expect(features("的一是不了")[.frequentHan] == 5)
        let rare = features("龘龗鬱麤灪々〇、。のカ한ก，😀aé")
        #expect([rare[.han], rare[.frequentHan]] == [5, 0])
        let both = features("我們的國家，我们的国家")
        #expect([both[.han], both[.frequentHan]] == [10, 8])
        // The first of the table and the last, and their neighbours outside.
        let edges = features("\u{4DFF}\u{4E00}\u{9FFF}\u{A000}")
        #expect([edges[.han], edges[.frequentHan], edges[.hangul]] == [3, 1, 1])
    }

    @Test func tableOfFrequentHanIsWhole() {
        let table = FrequentHan.digits
        #expect(table.utf8CodeUnitCount * 4 == Int(FrequentHan.count))
        let digits = UnsafeBufferPointer(start: table.utf8Start, count: table.utf8CodeUnitCount)
        #expect(digits.allSatisfy { (0x30...0x3F).contains($0) })
        #expect(digits.reduce(0) { $0 + ($1 & 15).nonzeroBitCount } == 1200)
    }

    @Test func radicalsTellTraditionalFromSimplified() {
        let text = features("紅語銀門红语银")
        #expect([text[.traditionalHan], text[.simplifiedHan]] == [4, 3])
        for (first, last, feature) in [
            (0x7D00, 0x7E7F, TextFeatures.Feature.traditionalHan), (0x7E80, 0x7F3F, .simplifiedHan),
            (0x8A00, 0x8B7F, .traditionalHan), (0x8B80, 0x8C3F, .simplifiedHan), (0x91C0, 0x947F, .traditionalHan),
            (0x9480, 0x957F, .simplifiedHan), (0x9580, 0x95FF, .traditionalHan),
        ] {
            let inside = String(String.UnicodeScalarView((first...last).compactMap(Unicode.Scalar.init(_:))))
            let counted = features(inside)
            #expect([counted[feature], counted[.han]] == [last - first + 1, last - first + 1])
        }
    }

    @Test func charactersCountTheSameEscapedOrNot() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        // First and last of each class of characters, and of each length of UTF-8.
        let alphabet: [Unicode.Scalar] = [
            "a", "Z", " ", "7", "!", "\u{80}", "\u{3FF}", "\u{400}", "\u{47F}", "\u{480}", "\u{7FF}", "\u{800}",
            "\u{2FFF}", "\u{3000}", "\u{3FFF}", "\u{4000}", "\u{4E00}", "的", "語", "语", "\u{9FFF}", "\u{A000}",
            "\u{D7FF}", "\u{E000}", "\u{FFFF}", "\u{10000}", "\u{10FFFF}",
        ]
        for _ in 0..<2000 {
            var text = String.UnicodeScalarView()
            for _ in 0..<Int.random(in: 0...40, using: &generator) {
                text.append(alphabet.randomElement(using: &generator) ?? "a")
            }
            let escaped = String(text).utf16.map { unit in
                let digits = String(unit, radix: 16)
                return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
            let (one, other) = (features(String(text)), features(escaped.joined()))
            for feature in TextFeatures.Feature.allCases {
                #expect(one[feature] == other[feature], "\(feature), seed \(seed), text \(text)")
            }
        }
    }

    @Test func invalidTextCountsAsWhatItBeginsLike() {
        // Cut off, without its continuation, a continuation alone, and beyond what UTF-8 has.
        let text = features([0xE7, 0x9A, 0x41, 0xE4, 0x41, 0x84, 0xC3, 0x41, 0xD0, 0xFF, 0xE4, 0xB8], messages: 0)
        #expect([text[.han], text[.frequentHan], text[.twoByte], text[.cyrillic]] == [3, 0, 1, 1])
        #expect([text[.fourByte], text[.words], text[.otherRuns], text[.deepOther]] == [1, 3, 4, 0])
        // A backslash before a character that no escape has.
        let escaped = features("\\的\\é")
        #expect([escaped[.han], escaped[.frequentHan], escaped[.twoByte], escaped[.otherRuns]] == [1, 1, 1, 1])
    }

    @Test func dearAndCheapHanAreLearnedApart() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let (cheap, dear) = (Array("的一是不了人我在有他这中大来上个国"), Array("龘鬱麤灪驫爨癵籲钃鱻"))
        var estimator = TokenEstimator()
        // Some shares of dear characters teach, others are asked: at one price for all, errors were 30 % and more.
        let truth: (TextFeatures) -> Int = { 3 * $0[.han] - 2 * $0[.frequentHan] }
        let text: (inout TextGenerator, Int) -> TextFeatures = { generator, share in
            let characters = (0..<Int.random(in: 100...2000, using: &generator)).map { _ in
                (Int.random(in: 0..<100, using: &generator) < share ? dear : cheap).randomElement(using: &generator)
            }
            return features(String(characters.compactMap { $0 }))
        }
        for _ in 0..<200 {
            let learned = text(&generator, Int.random(in: 10...30, using: &generator))
            estimator.learn(learned, tokens: truth(learned))
        }
        for share in [0, 50, 100] {
            let heldBack = (0..<50).map { _ in text(&generator, share) }
            #expect(medianError(estimator, heldBack, truth) < 0.1, "seed \(seed), share \(share)")
        }
    }

    @Test func anyBytesAreCounted() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let estimator = TokenEstimator()
        for _ in 0..<5000 {
            let text = generator.bytes() + (Bool.random(using: &generator) ? Array("\\u12".utf8) : [0x5C])
            let counted = features(text, messages: 0)
            let tokens = estimator.tokens(counted)
            #expect(tokens >= 1 && tokens <= text.count, "seed \(seed), text \(text)")
        }
        #expect(estimator.tokens(TextFeatures()) == 0)
    }

    @Test func estimateIsDecentBeforeAnyReport() {
        let prose = "Others estimate by characters, or spend a millisecond of Python on each prompt; this counts them. "
        let tokens = TokenEstimator().tokens(features(String(repeating: prose, count: 20)))
        #expect(
            Double(tokens) > Double(prose.utf8.count * 20) / 6 && Double(tokens) < Double(prose.utf8.count * 20) / 3)
        let chinese = TokenEstimator().tokens(features(String(repeating: "今天天气很好我们去公园", count: 20)))
        #expect(chinese > 11 * 20 / 3 && chinese < 11 * 20 * 2)
    }

    @Test func linearTruthIsFoundInTwoHundredRequestsAndAnotherAfterIt() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        var estimator = TokenEstimator()
        let truths = (0..<2).map { _ in
            TextFeatures.Feature.allCases.map { _ in Double.random(in: 0.2...1.2, using: &generator) }
        }
        for (index, truth) in truths.enumerated() {
            let count: (TextFeatures) -> Int = { text in
                let sum = zip(TextFeatures.Feature.allCases, truth).reduce(0) { $0 + Double(text[$1.0]) * $1.1 }
                return max(1, Int(sum.rounded()))
            }
            for _ in 0..<(index == 0 ? 200 : 1000) {
                let text = features(chat(&generator))
                estimator.learn(text, tokens: count(text))
            }
            let heldBack = (0..<100).map { _ in features(chat(&generator)) }
            #expect(medianError(estimator, heldBack, count) < 0.05, "seed \(seed), truth \(index)")
            #expect(medianError(TokenEstimator(), heldBack, count) > 0.05, "seed \(seed): nothing was learned")
        }
        #expect(estimator.requestsLearned == 1200)
    }

    @Test func hostileReportsLeaveEstimatesFiniteAndAreUnlearned() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        let lies: [(Int) -> Int] = [
            { _ in .max }, { _ in 0 }, { _ in .min }, { _ in 1 }, { $0 % 2 == 0 ? .max : 1 },
            { _ in Int.random(in: 1 ... .max, using: &generator) },
        ]
        for (kind, lie) in lies.enumerated() {
            var texts = TextGenerator(seed: seed)
            var estimator = TokenEstimator()
            for index in 0..<1000 {
                var text = features(chat(&texts))
                if index % 7 == 0 { text.messages = .max }
                if index % 11 == 0 { text += text }
                estimator.learn(text, tokens: lie(index))
                let tokens = estimator.tokens(text)
                #expect(tokens >= 1 && tokens <= text.bytes + 64 * text.messages, "seed \(seed), lie \(kind)")
                #expect(estimator.isSound, "seed \(seed), lie \(kind), report \(index)")
            }
            let truth: (TextFeatures) -> Int = { $0[.words] + $0[.punctuation] + $0[.han] + $0[.cyrillic] / 2 + 5 }
            for _ in 0..<3000 {
                let text = features(chat(&texts))
                estimator.learn(text, tokens: truth(text))
            }
            let heldBack = (0..<100).map { _ in features(chat(&texts)) }
            #expect(medianError(estimator, heldBack, truth) < 0.1, "seed \(seed), lie \(kind)")
        }
    }

    @Test func oneLieMovesAnEstimateByAPartOfIt() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = TextGenerator(seed: seed)
        var estimator = TokenEstimator()
        let truth: (TextFeatures) -> Int = { $0[.words] + $0[.punctuation] + $0[.han] + $0[.cyrillic] / 2 + 5 }
        for _ in 0..<300 {
            let text = features(chat(&generator))
            estimator.learn(text, tokens: truth(text))
        }
        let text = features(chat(&generator))
        let before = Double(estimator.tokens(text))
        estimator.learn(text, tokens: .max)
        #expect(Double(estimator.tokens(text)) < before * 1.3 + 1, "seed \(seed)")
    }

    @Test func sumsOfFeaturesStopAtTheirBounds() {
        var sum = features("one two", messages: .max)
        sum += sum
        #expect(sum.messages == Int(UInt32.max))
        #expect(sum[.words] == 4 && sum.bytes == 14)
    }
}

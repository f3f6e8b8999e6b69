import Testing

@testable import Tokenization

private func pieceEnds(_ pattern: PretokenizerPattern, _ bytes: [UInt8]) -> [Int] {
    var ends: [Int] = []
    bytes.withUnsafeBytes { bytes in
        Pretokenizer(pattern).forEachPiece(in: bytes) { start, end in
            #expect(start == ends.last ?? 0)
            ends.append(end)
        }
    }
    return ends
}

private func pieces(_ pattern: PretokenizerPattern, _ text: String) -> [String] {
    var start = 0
    return pieceEnds(pattern, Array(text.utf8)).map { end in
        defer { start = end }
        return String(decoding: Array(text.utf8)[start..<end], as: UTF8.self)
    }
}

@Test(arguments: PretokenizerPattern.spellings.indices)
func piecesAreWhatTheExpressionMatches(spelling index: Int) {
    let spelling = PretokenizerPattern.spellings[index]
    let regex = SlowRegex(spelling.text)
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed) for \(spelling.text)")
    var generator = TextGenerator(seed: seed)
    for _ in 0..<1500 {
        let text = generator.text()
        let ends = pieceEnds(spelling.pattern, Array(text.utf8))
        #expect(ends == regex.pieceEnds(text), "\(text.debugDescription), seed \(seed)")
    }
}

/// Each in the words of one rule that is easy to get wrong.
@Test func whitespaceIsCutAsEachPatternSays() {
    #expect(pieces(.gpt2, "a \n  b") == ["a", " \n ", " b"])
    #expect(pieces(.cl100k, "a \n  b") == ["a", " \n", " ", " b"])
    // Only cl100k keeps white space at the end of the text in one piece.
    #expect(pieces(.cl100k, "a\n  ") == ["a", "\n  "])
    #expect(pieces(.llama3, "a\n  ") == ["a", "\n", "  "])
    #expect(pieces(.o200k, "a\n  ") == ["a", "\n", "  "])
    #expect(pieces(.llama3, "\u{3000}\u{3000}\u{4E2D}") == ["\u{3000}", "\u{3000}\u{4E2D}"])
    #expect(pieces(.gpt2, "\u{3000}\u{3000}\u{4E2D}") == ["\u{3000}", "\u{3000}", "\u{4E2D}"])
    #expect(pieces(.llama3, "x  1") == ["x", " ", " ", "1"])
    // U+180E and U+200B are no white space, U+0085 is.
    #expect(pieces(.gpt2, "\u{85}\u{180E}\u{200B}") == ["\u{85}", "\u{180E}\u{200B}"])
}

@Test func wordsAreCutByCaseAsBacktrackingWould() {
    #expect(pieces(.o200k, "HTTPServer isOK") == ["HTTPServer", " is", "OK"])
    // The last caseless letter of a run that no lower case follows ends the piece.
    #expect(pieces(.o200k, "\u{4E2D}AB") == ["\u{4E2D}", "AB"])
    #expect(pieces(.o200k, "\u{4E2D}ABc") == ["\u{4E2D}ABc"])
    // A mark before upper case is a word by itself before it is anyone's prefix.
    #expect(pieces(.o200k, "\u{301}AB") == ["\u{301}", "AB"])
    #expect(pieces(.o200k, "\u{301}Ab") == ["\u{301}Ab"])
    #expect(pieces(.o200k, "don't DON'T'll") == ["don't", " DON'T", "'ll"])
    #expect(pieces(.tekken, "don't") == ["don", "'t"])
    #expect(pieces(.o200k, "a//\n/b") == ["a", "//\n/", "b"])
}

@Test func contractionsFoldCaseWhereTheExpressionSaysSo() {
    #expect(pieces(.gpt2, "it's IT'S") == ["it", "'s", " IT", "'", "S"])
    #expect(pieces(.cl100k, "it's IT'S") == ["it", "'s", " IT", "'S"])
    // The long s folds to s.
    #expect(pieces(.cl100k, "it'\u{17F}x") == ["it", "'\u{17F}", "x"])
    #expect(pieces(.gpt2, "it'\u{17F}x") == ["it", "'", "\u{17F}x"])
    #expect(pieces(.llama3, "'lX'vE'r") == ["'lX", "'vE", "'r"])
}

@Test func numbersAreCutToTheLengthOfThePattern() {
    #expect(pieces(.gpt2, "12345 67") == ["12345", " 67"])
    #expect(pieces(.cl100k, "12345 67") == ["123", "45", " ", "67"])
    #expect(pieces(.qwen2, "123\u{BD}") == ["1", "2", "3", "\u{BD}"])
    #expect(pieces(.tekken, "12") == ["1", "2"])
}

@Test func onePieceAtATimeIsTheSame() {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed)")
    var generator = TextGenerator(seed: seed)
    for _ in 0..<2000 {
        let bytes = Array(generator.text().utf8)
        for pattern in PretokenizerPattern.allCases {
            var ends: [Int] = []
            bytes.withUnsafeBytes { text in
                while ends.last ?? 0 < text.count {
                    ends.append(Pretokenizer(pattern).end(in: text, from: ends.last ?? 0))
                }
            }
            #expect(ends == pieceEnds(pattern, bytes), "seed \(seed)")
        }
    }
}

@Test func piecesOfAnyBytesCoverThemInOrder() {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed)")
    var generator = TextGenerator(seed: seed)
    for _ in 0..<5000 {
        let bytes = generator.bytes()
        for pattern in PretokenizerPattern.allCases {
            let ends = pieceEnds(pattern, bytes)
            #expect(ends.last ?? 0 == bytes.count && zip(ends, ends.dropFirst()).allSatisfy(<), "seed \(seed)")
        }
    }
}

/// Texts on which an engine that looks ahead anew for every piece takes time by the square of their length.
@Test(arguments: PretokenizerPattern.allCases)
func timeIsLinearOnHostileText(pattern: PretokenizerPattern) {
    let units = [
        "a", "A", "aA", " ", "\n", " \n", "\r ", "'", "'s", "1", "!", "! ", "\u{301}", "\u{4E2D}A", "A\u{301}",
        " \u{301}", "\u{301}a",
        "\u{3000}", "/\n", "\u{1F600}",
    ]
    for unit in units {
        func nanoseconds(_ size: Int) -> Double {
            let text = Array(("x" + String(repeating: unit, count: size / unit.utf8.count) + "Z").utf8)
            var count = 0
            return processorTime {
                text.withUnsafeBytes { Pretokenizer(pattern).forEachPiece(in: $0) { _, _ in count += 1 } }
            }
        }
        // Thirty-two times the text: thirty-two times the time if linear, 1024 times if not.
        let (short, long) = (nanoseconds(1 << 10), nanoseconds(1 << 15))
        #expect(long < max(short, 10_000) * 250, "\(unit.debugDescription)")
    }
}

@Test func expressionsAreKnownByTheirExactText() {
    for spelling in PretokenizerPattern.spellings {
        for engine in RegexEngine.allCases {
            let expected = spelling.engines.contains(engine) ? spelling.pattern : nil
            #expect(PretokenizerPattern(regex: spelling.text, engine: engine) == expected)
        }
        #expect(PretokenizerPattern(regex: spelling.text + " ", engine: .fancyRegex) == nil)
    }
    // Oniguruma would take `{1,3}+` for digits without end.
    let cl100k = PretokenizerPattern.spellings.filter { $0.pattern == .cl100k }
    #expect(cl100k.allSatisfy { $0.engines == [.fancyRegex] })
}

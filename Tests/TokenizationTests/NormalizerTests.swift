import Testing

@testable import Tokenization

/// What the normalizer makes of a text; nil if it says that nothing changes.
private func normalized(_ normalizer: Normalizer, _ text: String) -> String? {
    var output: [UInt8] = Array("left over".utf8)
    let changed = Array(text.utf8).withUnsafeBytes { normalizer.normalized($0, into: &output) }
    return changed ? String(decoding: output, as: UTF8.self) : nil
}

private func scalars(_ text: String?) -> [UInt32]? { text.map { $0.unicodeScalars.map(\.value) } }

/// Compared by code points: `==` of strings knows canonical equivalence.
private func expectNFC(_ text: String, _ expected: String?, _ location: SourceLocation = #_sourceLocation) {
    #expect(scalars(normalized(.nfc, text)) == scalars(expected), sourceLocation: location)
}

@Test func formCComposes() {
    expectNFC("e\u{301}", "\u{E9}")
    expectNFC("x\u{323}\u{301}e\u{323}\u{301}", "x\u{323}\u{301}\u{1EB9}\u{301}")
    // Composing takes characters apart first: the dot below goes to the letter, the acute stays over it.
    expectNFC("\u{E9}\u{323}", "\u{1EB9}\u{301}")
    expectNFC("\u{C8}\u{327}\u{3099}", "\u{228}\u{3099}\u{300}")
    expectNFC("\u{1100}\u{1161}\u{11A8}", "\u{AC01}")
    expectNFC("\u{AC00}\u{11A7}\u{AC00}\u{11C3}", nil)
    expectNFC("\u{212B}\u{2126}", "\u{C5}\u{3A9}")
    expectNFC("\u{F900}", "\u{8C48}")
    // Marks that compose with nothing are still ordered, a few and many.
    expectNFC("\u{5D0}\u{5BC}\u{5B0}", "\u{5D0}\u{5B0}\u{5BC}")
    let (dots, vowels) = (String(repeating: "\u{5BC}", count: 30), String(repeating: "\u{5B0}", count: 30))
    expectNFC("\u{5D0}" + dots + vowels, "\u{5D0}" + vowels + dots)
    // Excluded from composition.
    expectNFC("\u{958}", "\u{915}\u{93C}")
    expectNFC("\u{1D15E}", "\u{1D157}\u{1D165}")
}

@Test func textInFormCIsLeftAlone() {
    for text in [
        "", "plain", "caf\u{E9} \u{4E2D}\u{6587} \u{AC01}", "q\u{323}\u{301}", "\u{301}", "\u{11A8}",
        "\u{5D0}\u{5B0}\u{5BC}",
    ] {
        expectNFC(text, nil)
    }
}

/// The reference's normalizer stopped at Unicode 9.0: these compose or are reordered since.
@Test func charactersAfterUnicode9AreNotKnown() {
    expectNFC("\u{11935}\u{11930}", nil)
    expectNFC("a\u{1DF9}\u{1DF7}", nil)
    expectNFC("a\u{897}\u{316}", nil)
}

@Test func formCIsEquivalentAndStable() {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed)")
    var generator = TextGenerator(seed: seed)
    let marks = (0x300...0x345).compactMap(Unicode.Scalar.init)
    let others = Array(
        "aeouAEOq \u{E9}\u{1E69}\u{1EC7}\u{AC00}\u{1100}\u{1161}\u{11A8}\u{4E2D}\u{9C7}\u{9BE}\u{3099}\u{304B}\u{F900}"
            .unicodeScalars)
    var changes = 0
    for _ in 0..<10_000 {
        var text = String.UnicodeScalarView()
        for _ in 0..<Int.random(in: 1...10, using: &generator) {
            let pool = Bool.random(using: &generator) ? marks : others
            let count = Int.random(in: 0..<50, using: &generator) == 0 ? 40 : 1
            text.append(contentsOf: repeatElement(pool.randomElement(using: &generator) ?? "a", count: count))
        }
        guard let result = normalized(.nfc, String(text)) else { continue }
        changes += 1
        #expect(result == String(text), "seed \(seed)")
        #expect(normalized(.nfc, result) == nil, "seed \(seed)")
    }
    #expect(changes > 3000)
}

@Test func formCOfAnyBytesStaysInBounds() {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed)")
    var generator = TextGenerator(seed: seed)
    for _ in 0..<10_000 {
        let bytes = generator.bytes()
        var output: [UInt8] = []
        if bytes.withUnsafeBytes({ Normalizer.nfc.normalized($0, into: &output) }) {
            #expect(output.count <= 3 * bytes.count + 3, "seed \(seed)")
        }
    }
}

@Test func formCIsLinearInRunsOfMarks() {
    for unit in ["\u{301}\u{323}", "\u{344}", "\u{1161}", "e\u{301}", "\u{9C7}\u{9BE}"] {
        func nanoseconds(_ count: Int) -> Double {
            let text = Array(String(repeating: unit, count: count).utf8)
            var output: [UInt8] = []
            return processorTime { _ = text.withUnsafeBytes { Normalizer.nfc.normalized($0, into: &output) } }
        }
        // Sixty-four times the text: sixty-four times the time if linear, 4096 times if not.
        let (short, long) = (nanoseconds(1 << 9), nanoseconds(1 << 15))
        #expect(long < max(short, 10_000) * 640, "\(unit.debugDescription)")
    }
}

@Test func replacementGoesFromTheLeft() throws {
    let spaces = try #require(Normalizer.replace(Array(" ".utf8), with: Array("\u{2581}".utf8)))
    #expect(normalized(spaces, " a  b ") == "\u{2581}a\u{2581}\u{2581}b\u{2581}")
    #expect(normalized(spaces, "none") == nil)
    #expect(normalized(spaces, "") == nil)
    let pairs = try #require(Normalizer.replace(Array("aa".utf8), with: Array("b".utf8)))
    #expect(normalized(pairs, "aaaaa aab") == "bba bb")
    let removal = try #require(Normalizer.replace(Array("xyz".utf8), with: []))
    #expect(normalized(removal, "xyxyzxyz") == "xy")
    #expect(Normalizer.replace([], with: [0x61]) == nil)
}

@Test func prefixGoesBeforeAnyTextButTheEmpty() {
    #expect(normalized(.prepend(Array("\u{2581}".utf8)), "a") == "\u{2581}a")
    #expect(normalized(.prepend(Array("\u{2581}".utf8)), "") == nil)
}

import Testing

@testable import Tokenization

private func repaired(_ bytes: [UInt8]) -> [UInt8]? {
    var output: [UInt8] = [1, 2, 3]
    return bytes.withUnsafeBytes { UTF8Repair.repaired($0, into: &output) } ? output : nil
}

@Test func everyMaximalSubpartBecomesOneReplacement() {
    let replacement = Array("\u{FFFD}".utf8)
    // From the Unicode Standard, tables 3-8, 3-9 and 3-11: overlong forms, surrogates, truncated sequences.
    #expect(
        repaired([0xC0, 0xAF, 0xE0, 0x80, 0xBF, 0xF0, 0x81, 0x82, 0x41]) == Array(
            repeatElement(replacement, count: 8).joined()) + [0x41])
    #expect(
        repaired([0xED, 0xA0, 0x80, 0xED, 0xBF, 0xBF, 0xED, 0xAF, 0x41]) == Array(
            repeatElement(replacement, count: 8).joined()) + [0x41])
    #expect(
        repaired([0xE1, 0x80, 0xE2, 0xF0, 0x91, 0x92, 0xF1, 0xBF, 0x41]) == Array(
            repeatElement(replacement, count: 4).joined()) + [0x41])
    #expect(repaired([0x41, 0xF4, 0x8F, 0xBF]) == [0x41] + replacement)
}

@Test func repairIsThatOfTheStandardLibrary() {
    let seed = UInt64.random(in: 0...UInt64.max)
    print("seed \(seed)")
    var generator = TextGenerator(seed: seed)
    for _ in 0..<20_000 {
        let bytes = generator.bytes()
        let expected = Array(String(decoding: bytes, as: UTF8.self).utf8)
        #expect(repaired(bytes) ?? bytes == expected, "\(bytes), seed \(seed)")
        #expect((repaired(bytes) == nil) == (expected == bytes), "\(bytes), seed \(seed)")
    }
}

@Test func validPrefixEndsAtTheFirstMalformedSequence() {
    func length(_ bytes: [UInt8]) -> Int { bytes.withUnsafeBytes { UTF8Repair.validPrefixLength(of: $0) } }
    let valid = Array("plain text, then \u{E9}\u{4E2D}\u{1F600} and more of it".utf8)
    #expect(length(valid) == valid.count)
    for position in 0..<valid.count {
        // A byte that is nowhere allowed spoils the sequence it falls into.
        var spoiled = valid
        spoiled[position] = 0xFF
        let sequenceStart = valid[...position].lastIndex { $0 & 0xC0 != 0x80 } ?? 0
        #expect(length(spoiled) == sequenceStart)
    }
    #expect(length([]) == 0)
}

/// Long enough for whole blocks, before and after the error.
@Test func oneWrongByteInALongTextIsFoundWhereverItIs() {
    let scripts = "é ж ש, हिन्दी, ไทย, 語言 한국어, 😀🏽, \u{D7FF}\u{E000}\u{10FFFF}\u{800}"
    let text = Array("ASCII to begin with, \(scripts) and ASCII again".utf8)
    let bytes = [
        0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF,
    ]
    #expect(repaired(text) == nil)
    for position in 0..<text.count {
        for byte in bytes {
            var spoiled = text
            spoiled[position] = UInt8(byte)
            let expected = Array(String(decoding: spoiled, as: UTF8.self).utf8)
            #expect(repaired(spoiled) ?? spoiled == expected, "byte \(byte) at \(position)")
        }
    }
}

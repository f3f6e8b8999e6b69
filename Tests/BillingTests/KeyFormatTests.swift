import Billing
import Domain
import Testing

@Suite struct KeyFormatTests {
    @Test func generatedKeysParseAndPrintAsTheyWere() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let key = KeyFormat.generate(using: &random)
            #expect(key.utf8.count == KeyFormat.bytes)
            let parsed = try #require(KeyFormat.parse(key), "seed \(seed): \(key)")
            let secret = parsed.secret.withBytes { String(decoding: $0, as: UTF8.self) }
            #expect(key.hasPrefix("sk-tg-\(parsed.id)-\(secret)"))
        }
    }

    @Test func everyMistypedByteIsRefused() {
        var random = SplitMix64(seed: 7)
        let key = Array(KeyFormat.generate(using: &random).utf8)
        for index in key.indices {
            for replacement in [UInt8(ascii: "A"), UInt8(ascii: "z"), UInt8(ascii: "-"), UInt8(ascii: " "), 0xFF]
            where replacement != key[index] {
                var wrong = key
                wrong[index] = replacement
                #expect(wrong.withUnsafeBytes { KeyFormat.parse($0) == nil }, "byte \(index) as \(replacement)")
            }
        }
    }

    @Test func everyCutOrPaddedKeyIsRefused() {
        var random = SplitMix64(seed: 8)
        let key = KeyFormat.generate(using: &random)
        for length in 0..<key.utf8.count { #expect(KeyFormat.parse(String(key.prefix(length))) == nil) }
        #expect(KeyFormat.parse(key + "A") == nil)
        #expect(KeyFormat.parse(" " + key) == nil)
        #expect(KeyFormat.parse(key.uppercased()) == nil)
    }

    @Test func neighboursSwappedAreRefused() {
        var random = SplitMix64(seed: 9)
        let key = Array(KeyFormat.generate(using: &random).utf8)
        for index in 6..<67 where key[index] != key[index + 1] {
            var wrong = key
            wrong.swapAt(index, index + 1)
            #expect(wrong.withUnsafeBytes { KeyFormat.parse($0) == nil }, "bytes \(index) and \(index + 1)")
        }
    }

    /// The widest secret: 256 set bits are still 43 digits.
    @Test func secretTakesAllBits() throws {
        struct Ones: RandomNumberGenerator {
            var draws: UInt64 = 0
            // The first draws choose the id, where an endless rejection must not happen.
            mutating func next() -> UInt64 {
                draws += 1
                return draws <= 12 ? draws : .max
            }
        }
        var ones = Ones()
        let key = KeyFormat.generate(using: &ones)
        let parsed = try #require(KeyFormat.parse(key))
        // 2^256 - 1 in base 62, by an independent calculation.
        #expect(parsed.secret.withBytes { String(decoding: $0, as: UTF8.self) } == Self.allOnes)
    }

    private static let allOnes = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"

    @Test func secretPrintsNothing() throws {
        var random = SplitMix64(seed: 10)
        let parsed = try #require(KeyFormat.parse(KeyFormat.generate(using: &random)))
        let secret = parsed.secret.withBytes { String(decoding: $0, as: UTF8.self) }
        var dumped = ""
        dump(parsed, to: &dumped)
        #expect(!"\(parsed) \(String(reflecting: parsed)) \(dumped)".contains(secret))
    }

    @Test func checksumIsCastagnolis() {
        #expect(CRC32C.checksum(of: "123456789".utf8) == 0xE306_9283)
        #expect(CRC32C.checksum(of: [UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
    }
}

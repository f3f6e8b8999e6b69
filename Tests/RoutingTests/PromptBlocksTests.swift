import Domain
import Routing
import Testing

struct PromptBlocksTests {
    private let key = SipHash.Key(low: 11, high: 12)

    private func hashes(_ parts: [[UInt8]], salt: UInt64 = 1, key: SipHash.Key? = nil) -> [UInt64] {
        var blocks = PromptBlocks(key: key ?? self.key)
        blocks.begin(salt: salt)
        for part in parts { part.withUnsafeBytes { blocks.append($0) } }
        return Array(blocks.hashes)
    }

    private func text(_ bytes: Int, _ random: inout SplitMix64) -> [UInt8] {
        (0..<bytes).map { _ in UInt8.random(in: 32...126, using: &random) }
    }

    @Test func aPromptSharesWhatItSharesWithAnother() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<200 {
            let one = text(Int.random(in: 0...20_000, using: &random), &random)
            let same = Int.random(in: 0...one.count, using: &random)
            let other = one.prefix(same) + text(Int.random(in: 1...9_000, using: &random), &random)
            let (left, right) = (hashes([one]), hashes([Array(other)]))
            let shared = zip(left, right).prefix { $0 == $1 }.count
            // What comes after may begin alike by chance, a few bytes long.
            #expect(shared >= same / PromptBlocks.blockBytes, "seed \(seed)")
            #expect(shared <= (same + 8) / PromptBlocks.blockBytes, "seed \(seed)")
            // Once they part they do not meet again.
            #expect(Set(left.dropFirst(shared)).isDisjoint(with: right.dropFirst(shared)), "seed \(seed)")
        }
    }

    @Test func partsAreOnePrompt() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        let whole = text(50_000, &random)
        for _ in 0..<50 {
            var parts: [[UInt8]] = []
            var rest = whole[...]
            while !rest.isEmpty {
                let part = rest.prefix(Int.random(in: 0...6_000, using: &random))
                parts.append(Array(part))
                rest = rest.dropFirst(part.count)
            }
            #expect(hashes(parts) == hashes([whole]), "seed \(seed)")
        }
    }

    @Test func otherSaltsAndKeysShareNothing() {
        let prompt = [UInt8](repeating: 65, count: 10 * PromptBlocks.blockBytes)
        let usual = Set(hashes([prompt]))
        #expect(usual.count == 10)
        #expect(usual.isDisjoint(with: hashes([prompt], salt: 2)))
        #expect(usual.isDisjoint(with: hashes([prompt], key: SipHash.Key(low: 11, high: 13))))
    }

    @Test func numberOfBlocksIsBounded() {
        let block = [UInt8](repeating: 65, count: PromptBlocks.blockBytes)
        var blocks = PromptBlocks(key: key)
        blocks.begin(salt: 0)
        for _ in 0..<(PromptBlocks.blocksMax + 5) { block.withUnsafeBytes { blocks.append($0) } }
        #expect(blocks.hashes.count == PromptBlocks.blocksMax)
        #expect(blocks.bytes == (PromptBlocks.blocksMax + 5) * PromptBlocks.blockBytes)
        blocks.begin(salt: 0)
        #expect(blocks.hashes.isEmpty && blocks.bytes == 0)
    }
}

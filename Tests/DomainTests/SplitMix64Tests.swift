import Testing

@testable import Domain

struct SplitMix64Tests {
    /// The first draws of Vigna's splitmix64.c from that state.
    @Test func drawsWhatThePublishedGeneratorDraws() {
        var random = SplitMix64(seed: 1_234_567)
        #expect(
            (0..<5).map { _ in random.next() } == [
                6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
                4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
            ])
    }

    @Test func drawsStayInTheirRangeAndReachItsEnds() {
        var random = SplitMix64(seed: 7)
        var seen = Set<Int>()
        for _ in 0..<1_000 {
            seen.insert(random.below(5))
            #expect((0..<1).contains(random.unit()))
        }
        #expect(seen == [0, 1, 2, 3, 4])
        #expect(random.below(1) == 0)
    }

    @Test func mixingIsABijectionThatMovesEveryBit() {
        #expect(SplitMix64.mix(0) == 0)
        let words = Set((0..<64).map { SplitMix64.mix(1 << $0) })
        #expect(words.count == 64)
        #expect(words.allSatisfy { (16...48).contains($0.nonzeroBitCount) })
    }
}

import Domain
import Testing

@testable import Routing

struct LearnedRateTests {
    @Test func rateConvergesOnWhatTheNodeDoes() {
        var rate = PrefillRate()
        for _ in 0..<10 { rate.learn(work: 20_000, seconds: 1) }
        #expect(abs(rate.tokensPerSecond / 20_000 - 1) < 0.06)
    }

    @Test func rateIsAGeometricMeanSoThatOneQuickAnswerDoesNotOutweighSlowOnes() {
        var rate = PrefillRate(prior: 10_000)
        rate.learn(work: 40_000, seconds: 1)
        #expect(abs(rate.tokensPerSecond - 20_000) < 1)
    }

    @Test(arguments: [Double.nan, .infinity, -5, 0])
    func nonsenseTeachesNothing(value: Double) {
        var rate = PrefillRate(prior: 10_000)
        rate.learn(work: value, seconds: 1)
        rate.learn(work: 10_000, seconds: value == .infinity ? 0 : value)
        rate.scale(by: value == .infinity ? .nan : value)
        #expect(rate.tokensPerSecond == 10_000)
    }

    @Test func rateStaysWithinWhatNodesCanDo() {
        var rate = PrefillRate(prior: 1e12)
        #expect(rate.tokensPerSecond == PrefillRate.perSecond.upperBound)
        for _ in 0..<200 { rate.learn(work: 1, seconds: 1e6) }
        #expect(rate.tokensPerSecond >= PrefillRate.perSecond.lowerBound)
    }

    @Test func curtailingScalesAtOnceAndRelearnsFastForTenSamples() {
        var rate = PrefillRate()
        for _ in 0..<100 { rate.learn(work: 20_000, seconds: 1) }
        var steady = rate
        rate.scale(by: 0.5)
        #expect(abs(rate.tokensPerSecond - 10_000) < 100)
        // The scale was wrong: the node does 5,000.
        for _ in 0..<10 {
            rate.learn(work: 5_000, seconds: 1)
            steady.learn(work: 5_000, seconds: 1)
        }
        #expect(rate.tokensPerSecond < 5_300)
        #expect(steady.tokensPerSecond > 9_000)
    }

    @Test func decodeStepGrowsWithTheBatch() {
        var step = DecodeStep()
        for _ in 0..<100 { step.learn(tokens: 101, seconds: 2, decoding: 20) }
        #expect(abs(step.seconds - 0.02) < 1e-4)
        #expect(abs(step.seconds(decoding: 20) - 0.02 * 33 / 32) < 1e-3)
        #expect(step.seconds(decoding: 40) > 1.5 * step.seconds(decoding: 20))
        step.learn(tokens: 3, seconds: 100, decoding: 20)
        #expect(step.seconds < 0.021)
    }

    @Test func newcomerIsReckonedWithAtHalfAndTakesOneRequestASecondUntilMeasured() {
        var node = NodeEstimate()
        node.isStarting = true
        #expect(node.tokensPerSecond == PrefillRate.unknown / 2)
        #expect(!node.isHeldBack(now: seconds(5)))
        node.placedLast = seconds(5)
        #expect(node.isHeldBack(now: seconds(5.5)))
        #expect(!node.isHeldBack(now: seconds(6)))
        for _ in 0..<10 { node.rate.learn(work: PrefillRate.unknown, seconds: 1) }
        #expect(!node.isHeldBack(now: seconds(5.5)))
        #expect(abs(node.tokensPerSecond - PrefillRate.unknown) < 1)
    }

    @Test func hintIsLearnedFromWhatWinnersHaveAndNeverDies() {
        var hint = SessionHint(chance: 0.2, weight: 0.02)
        for _ in 0..<500 { hint.learn(1, promptTokens: 1_000, believedTokens: 200, cachedTokens: 1_000) }
        #expect(hint.chances[1] > 0.95 && hint.chances[0] == 0.2)
        for _ in 0..<2_000 { hint.learn(1, promptTokens: 1_000, believedTokens: 200, cachedTokens: 0) }
        #expect(hint.chances[1] == SessionHint.chanceMin)
    }

    @Test func meansAreThoseOfTheNodesThatCount() {
        var means = FleetMeans()
        means.resize(to: 3)
        means.set(0, queued: 0, rate: 10_000)
        means.set(1, queued: 0, rate: 20_000)
        #expect(means.tokensPerSecond == 15_000 && means.queuedPerNode == 0)
        means.set(1, queued: 0, rate: 0)
        #expect(means.tokensPerSecond == 10_000)
        means.resize(to: 0)
        #expect(means.tokensPerSecond == PrefillRate.unknown)
    }
}

import Routing
import Testing

struct ExpectedOutputTests {
    @Test func meanFollowsTheAnswersOfItsKey() {
        var expected = ExpectedOutput()
        #expect(expected.tokens(key: 7, tokensMax: 1_000) == 300)
        expected.answered(key: 7, tokens: 40)
        #expect(expected.tokens(key: 7, tokensMax: 1_000) == 40)
        expected.answered(key: 7, tokens: 60)
        #expect(expected.tokens(key: 7, tokensMax: 1_000) == 50)
        for _ in 0..<200 { expected.answered(key: 7, tokens: 500) }
        #expect(abs(expected.tokens(key: 7, tokensMax: 1_000) - 500) <= 1)
        #expect(expected.tokens(key: 8, tokensMax: 1_000) == 300)
    }

    @Test func noMoreIsExpectedThanAllowed() {
        var expected = ExpectedOutput()
        expected.answered(key: 7, tokens: 500)
        #expect(expected.tokens(key: 7, tokensMax: 16) == 16)
        #expect(expected.tokens(key: 7, tokensMax: 0) == 0)
    }

    @Test func keysThatMeetInAPlaceDoNotShareAMean() {
        var expected = ExpectedOutput()
        expected.answered(key: 7, tokens: 500)
        let other = 7 + UInt64(ExpectedOutput.places)
        #expect(expected.tokens(key: other, tokensMax: 1_000) == 300)
        expected.answered(key: other, tokens: 20)
        #expect(expected.tokens(key: other, tokensMax: 1_000) == 20)
        #expect(expected.tokens(key: 7, tokensMax: 1_000) == 300)
    }

    @Test func nonsenseStaysFinite() {
        var expected = ExpectedOutput()
        expected.answered(key: 7, tokens: .max)
        expected.answered(key: 7, tokens: -5)
        #expect(expected.tokens(key: 7, tokensMax: .max) > 0)
    }
}

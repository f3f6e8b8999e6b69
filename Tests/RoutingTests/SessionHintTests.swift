import Domain
import Testing

@testable import Routing

struct SessionHintTests {
    @Test func aNodesPartInASessionFollowsFromTheRendezvousAndFromWhatItHolds() {
        var places = SessionPlaces()
        #expect(places.role(of: 0) == nil)
        places.winner = 3
        places.second = 5
        #expect(places.role(of: 3) == .winner && places.role(of: 5) == .second && places.role(of: 1) == nil)
        places.held(1, tokens: 2_048, isWinner: false)
        places.held(3, tokens: 1_024, isWinner: true)
        #expect(places.role(of: 1) == .holder && places.role(of: 3) == .winnerElsewhere)
        // Of equals the winner is taken for the one to whom the session belongs.
        places.held(3, tokens: 2_048, isWinner: true)
        #expect(places.role(of: 3) == .winner && places.role(of: 1) == nil)
    }

    @Test func eachPartLearnsByItselfAndOnlyWinnersAreHopedFor() {
        var hint = SessionHint(chance: 0.2, weight: 0.1)
        let winner = SessionHint.slot(.winner, seenTokens: 0, of: 1_000)
        let second = SessionHint.slot(.second, seenTokens: 0, of: 1_000)
        #expect(hint.chances[winner] == 0.2 && hint.chances[second] == 0)
        for _ in 0..<100 { hint.learn(second, promptTokens: 1_000, believedTokens: 0, cachedTokens: 900) }
        #expect(hint.chances[winner] == 0.2 && hint.chances[second] > 0.85)
        for _ in 0..<200 { hint.learn(second, promptTokens: 1_000, believedTokens: 0, cachedTokens: 0) }
        #expect(hint.chances[second] < 0.001)
    }

    /// Whoever names one session in all his requests, so that they all win the same node, has them spread all the same.
    @Test func aSessionKeyChosenToCollideHeapsNoWorkOnItsNode() throws {
        let specs = (0..<4).map { node("n\($0)", maxConcurrency: 10_000) }
        let router = RouterUnderTest.ready(specs, policy: .predictedCost)
        var counts = [0, 0, 0, 0]
        for number in 0..<100 {
            var asked = request(prompt: 8_000)
            asked.session = 42
            let own = (0..<15).map { UInt64(number * 100 + $0 + 1) &* 0x9E37_79B9_7F4A_7C15 }
            counts[try #require(router.assign(asked, blocks: own, now: 1)).nodeIndex] += 1
        }
        #expect(counts.allSatisfy { (15...40).contains($0) }, "\(counts)")
    }
}

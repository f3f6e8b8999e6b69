import Domain
import Testing

@testable import Routing

/// Others' rules where the gateway knows less than their own routers would, or worse.
struct PeerPolicyTests {
    private func fleet(_ policy: RoutingPolicy, seed: UInt64 = 1) -> RouterUnderTest {
        RouterUnderTest.ready([node("n0"), node("n1")], policy: policy, seed: seed)
    }

    @Test func gieSupposesNothingGoodOfANodeThatIsNotBelieved() {
        let router = fleet(.gie)
        router.report("n0", NodeReport(runningRequests: 0, waitingRequests: 0, kvUsage: 0), now: 1)
        router.report("n1", NodeReport(runningRequests: 5, waitingRequests: 3, kvUsage: 0.5), now: 1)
        #expect(router.assign(request(), now: 1)?.nodeIndex == 0)
        router.report("n0", NodeReport(runningRequests: 0, waitingRequests: -1, kvUsage: 0), now: 2)
        for _ in 0..<10 { #expect(router.assign(request(), now: 2)?.nodeIndex == 1) }
    }

    @Test func dynamoGuessesWhatIsCachedUntilNodesTell() throws {
        let prompt = (1...20).map { UInt64($0) &* 0x9E37_79B9_7F4A_7C15 }
        for seed in 1...8 {
            let router = fleet(.dynamo, seed: UInt64(seed))
            let first = try #require(router.assign(request(prompt: 10_240), blocks: prompt, now: 1))
            router.complete(first)
            let again = try #require(router.assign(request(prompt: 10_240), blocks: prompt, now: 2))
            #expect(again.nodeIndex == first.nodeIndex, "seed \(seed)")
            router.complete(again)
            // From the first event on only they count.
            let other = 1 - first.nodeIndex
            router.stored("n\(other)", prompt, now: 3)
            #expect(router.assign(request(prompt: 10_240), blocks: prompt, now: 3)?.nodeIndex == other, "seed \(seed)")
        }
    }

    @Test func smetricCountsOthersRequestsButNotTheirWork() throws {
        let (own, peer) = (fleet(.smetric), fleet(.smetric))
        _ = try #require(peer.assign(request(prompt: 50_000, excluded: [1])))
        _ = try #require(own.assign(request(prompt: 2_000, excluded: [0])))
        own.hear(peer.tell(now: 1), from: 7, now: 1)
        // A request at each node; 50,000 tokens wait at n0, of which only the peer knows, 2,000 at n1.
        #expect(own.assign(request(), now: 1)?.nodeIndex == 0)
        // 600 tokens of two own requests wait at n0 and 2,000 of one at n1; four of the peer make six of the two.
        for _ in 0..<3 { _ = peer.assign(request(prompt: 1, excluded: [1])) }
        own.hear(peer.tell(now: 1.1), from: 7, now: 1.1)
        _ = own.assign(request(prompt: 500, excluded: [1]), now: 1.1)
        #expect(own.assign(request(), now: 1.1)?.nodeIndex == 1)
    }
}

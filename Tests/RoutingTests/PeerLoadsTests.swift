import Domain
import Testing

@testable import Routing

struct PeerLoadsTests {
    /// Gateways of one fleet, whose gossip arrives at once.
    private func gateways(_ count: Int, nodes: Int = 3) -> [RouterUnderTest] {
        let specs = (0..<nodes).map { node("n\($0)") }
        return (0..<count).map { RouterUnderTest.ready(specs, policy: .predictedCost, seed: UInt64($0)) }
    }

    private func peerRequests(_ router: RouterUnderTest) -> [Int] { router.status().map(\.peerRequests) }

    @Test func gossipTellsOthersWorkAndItsEnd() throws {
        let routers = gateways(2)
        let placed = try (0..<5).map { _ in try #require(routers[0].assign(request(prompt: 5_000))) }
        routers[1].hear(routers[0].tell(now: 1), from: 7, now: 1)
        #expect(peerRequests(routers[1]).reduce(0, +) == 5)
        #expect(peerRequests(routers[1]) == routers[0].status().map(\.inflightRequests))
        for assignment in placed { routers[0].complete(assignment) }
        routers[1].hear(routers[0].tell(now: 1.1), from: 7, now: 1.1)
        #expect(peerRequests(routers[1]) == [0, 0, 0])
    }

    @Test func deltaNamesOnlyWhatChangedAndAFullStateComesEachFiveSeconds() {
        let router = gateways(1)[0]
        #expect(router.tell(now: 1).isFull)
        _ = router.assign(request())
        let delta = router.tell(now: 1.1)
        #expect(!delta.isFull && delta.nodes.count == 1)
        #expect(router.tell(now: 1.2).nodes.isEmpty)
        let full = router.tell(now: 6)
        #expect(full.isFull && full.nodes.count == 1)
    }

    @Test func fullStateHealsWhatLostMessagesLeft() throws {
        let routers = gateways(2)
        let assignment = try #require(routers[0].assign(request()))
        routers[1].hear(routers[0].tell(now: 1), from: 7, now: 1)
        routers[0].complete(assignment)
        _ = routers[0].tell(now: 1.1)
        #expect(peerRequests(routers[1]).reduce(0, +) == 1)
        routers[1].hear(routers[0].tell(now: 6.2), from: 7, now: 6.2)
        #expect(peerRequests(routers[1]) == [0, 0, 0])
    }

    @Test func lateAndRepeatedMessagesAreIgnored() throws {
        let routers = gateways(2)
        let early = routers[0].tell(now: 1)
        _ = routers[0].assign(request())
        let later = routers[0].tell(now: 1.1)
        routers[1].hear(later, from: 7, now: 1.2)
        routers[1].hear(early, from: 7, now: 1.3)
        #expect(peerRequests(routers[1]).reduce(0, +) == 1)
    }

    @Test func silentPeerIsNotBelievedAndTheNodesReportStandsIn() {
        let routers = gateways(2, nodes: 1)
        for _ in 0..<4 { _ = routers[0].assign(request()) }
        routers[1].hear(routers[0].tell(now: 1), from: 7, now: 1)
        routers[1].report("n0", NodeReport(runningRequests: 9, waitingRequests: 0), now: 1)
        #expect(peerRequests(routers[1]) == [4])
        _ = routers[1].tell(now: 3)
        routers[1].report("n0", NodeReport(runningRequests: 9, waitingRequests: 3), now: 3)
        #expect(peerRequests(routers[1]) == [12])
    }

    @Test func whoSaysFarewellIsNotWaitedFor() {
        let routers = gateways(3, nodes: 1)
        _ = routers[0].assign(request())
        _ = routers[1].assign(request())
        func hearOthers(_ now: Double) { routers[2].hear(routers[1].tell(now: now), from: 8, now: now) }
        routers[2].hear(routers[0].tell(now: 1), from: 7, now: 1)
        hearOthers(1)
        #expect(peerRequests(routers[2]) == [2])
        routers[2].hear(routers[0].farewell(), from: 7, now: 1.1)
        #expect(peerRequests(routers[2]) == [1])
        // Long after a silent one would make the node's report stand in: whoever is left tells of all there is.
        hearOthers(8)
        _ = routers[2].tell(now: 8)
        routers[2].report("n0", NodeReport(runningRequests: 9, waitingRequests: 0), now: 8)
        #expect(peerRequests(routers[2]) == [1])
    }

    @Test func loneGatewayTakesWhatANodeReportsBeyondItsOwnForOthers() {
        let router = gateways(1, nodes: 1)[0]
        _ = router.assign(request())
        router.report("n0", NodeReport(runningRequests: 3, waitingRequests: 2), now: 1)
        #expect(peerRequests(router) == [4])
        router.report("n0", NodeReport(runningRequests: .nan, waitingRequests: 2), now: 2)
        #expect(peerRequests(router) == [0])
        #expect(router.status().map(\.distrust) == [.implausible])
    }

    @Test func promptsPlacedElsewhereAreKnownHere() throws {
        let routers = gateways(2)
        let blocks = (1...20).map { UInt64($0) &* 0x9E37_79B9_7F4A_7C15 }
        _ = routers[0].tell(now: 1)
        let there = try #require(routers[0].assign(request(prompt: 10_240), blocks: blocks))
        routers[0].complete(there)
        routers[1].hear(routers[0].tell(now: 1.1), from: 7, now: 1.1)
        for _ in 0..<5 {
            let here = try #require(routers[1].assign(request(prompt: 10_240), blocks: blocks, now: 2))
            #expect(here.nodeIndex == there.nodeIndex)
            routers[1].complete(here, now: 2)
        }
    }

    /// What gateways that nobody hears are thought to do is only thought where a report would set it right.
    @Test func aNodeWithoutMetricsGathersNoWorkThatNobodyGaveIt() throws {
        let router = gateways(1, nodes: 2)[0]
        var placed = [0, 0]
        for step in 0..<2_000 {
            let now = 1 + Double(step) / 10
            let assignment = try #require(router.assign(request(prompt: 4_000), now: now))
            placed[assignment.nodeIndex] += 1
            router.firstToken(assignment, now: now + 0.3)
            router.complete(assignment, now: now + 0.5)
            // As many requests of others as there can be, and the other node says nothing, ever.
            router.report("n0", NodeReport(runningRequests: 3, waitingRequests: Double(step % 2)), now: now + 0.5)
        }
        #expect(placed[1] > 1_000, "\(placed)")
    }

    @Test func reportsThatStopAreForgotten() {
        let router = gateways(1, nodes: 2)[0]
        _ = router.assign(request())
        router.report("n0", NodeReport(runningRequests: 30, waitingRequests: 20), now: 1)
        #expect(peerRequests(router).first ?? 0 > 40)
        _ = router.tell(now: 9)
        #expect(peerRequests(router).first ?? 0 > 40)
        _ = router.tell(now: 12)
        #expect(peerRequests(router) == [0, 0])
    }

    /// One that comes back under another name leaves its old one silent: those that speak are heard all the same.
    @Test func whoIsToldOfIsNotUnheardForAnothersSilence() {
        let routers = gateways(3, nodes: 1)
        routers[2].hear(routers[1].tell(now: 1), from: 5, now: 1)
        for step in 0..<40 {
            let now = 10 + Double(step) / 10
            _ = routers[0].assign(request(), now: now)
            _ = routers[2].assign(request(), now: now)
            routers[2].hear(routers[0].tell(now: now), from: 7, now: now)
            _ = routers[2].tell(now: now)
            let both = Double(2 * (step + 1))
            routers[2].report("n0", NodeReport(runningRequests: both, waitingRequests: 0), now: now)
        }
        #expect(routers[2].router.peers.unheard < 0.05)
        for step in 0..<40 {
            let now = 20 + Double(step) / 10
            _ = routers[2].tell(now: now)
            routers[2].report("n0", NodeReport(runningRequests: 200, waitingRequests: Double(step)), now: now)
        }
        #expect(routers[2].router.peers.unheard > 1)
    }

    @Test(arguments: [Double.nan, .infinity, 1e300, -1e300])
    func absurdClaimsNeitherTrapNorSurviveTheirPeer(work: Double) {
        let router = gateways(1, nodes: 1)[0]
        let absurd = InflightWork(
            requests: .max, queuedRequests: .min, promptTokens: .max, queuedTokens: .min, queuedWork: work,
            kvTokens: .max)
        for peer in 1...200 {
            let node = GossipNode(id: NodeID(unchecked: "n0"), work: absurd)
            router.hear(
                GossipMessage(sequence: 1, isFull: true, nodes: [node], placements: []), from: UInt64(peer), now: 1)
        }
        #expect(router.assign(request()) != nil)
        _ = router.tell(now: 5)
        #expect(peerRequests(router) == [0])
    }
}

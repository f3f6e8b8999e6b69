import Domain
import Routing
import Testing

struct RouterTests {
    @Test func unservedModelIsRefusedAsSuch() {
        let router = RouterUnderTest.ready([node("a")])
        #expect(router.decide(request(qwen), now: 1) == .refuse(.modelNotServed))
    }

    @Test func onlyNodesThatServeTheModelAreChosen() {
        let router = RouterUnderTest.ready([node("a"), node("b", models: [qwen]), node("c", models: [llama, qwen])])
        for _ in 0..<50 {
            #expect(router.assign(request(qwen))?.nodeIndex != 0)
            #expect(router.assign(request(llama))?.nodeIndex != 1)
        }
    }

    @Test func nodeTakesNothingBeforeItsFirstGoodProbe() {
        let router = RouterUnderTest([node("a")], policy: .leastTokens, seed: 1)
        #expect(router.states() == ["a=warming"])
        #expect(router.decide(request(), now: 1) == .refuse(.allUnhealthy))
        router.probe("a", .healthy, now: 1)
        #expect(router.assign(request())?.nodeIndex == 0)
    }

    @Test func leastOutstandingTokensWin() {
        let router = RouterUnderTest.ready([node("a"), node("b")])
        let first = router.assign(request(prompt: 1_000, output: 0))
        let second = router.assign(request(prompt: 10, output: 10))
        #expect(first?.nodeIndex != second?.nodeIndex)
        // The other node holds 20 tokens to this one's 1,000: fifty more small ones fit there first.
        for _ in 0..<10 { #expect(router.assign(request(prompt: 10, output: 10))?.nodeIndex == second?.nodeIndex) }
    }

    @Test func expectedOutputCountsAsMuchAsThePrompt() {
        let router = RouterUnderTest.ready([node("a"), node("b")])
        let first = router.assign(request(prompt: 10, output: 500))
        _ = router.assign(request(prompt: 400, output: 0))
        #expect(router.assign(request(prompt: 1, output: 0))?.nodeIndex != first?.nodeIndex)
    }

    @Test func nearestOfEqualNodesWins() {
        let router = RouterUnderTest.ready([node("far", rtt: 80), node("near", rtt: 1), node("middle", rtt: 12)])
        for _ in 0..<20 {
            let assignment = router.assign(request())
            #expect(assignment?.nodeIndex == 1)
            if let assignment { router.complete(assignment) }
        }
    }

    @Test func equalNodesAtEqualDistanceShareTheTies() {
        let router = RouterUnderTest.ready([node("a"), node("b"), node("c"), node("d")])
        var counts = [0, 0, 0, 0]
        for _ in 0..<400 {
            guard let assignment = router.assign(request()) else { continue }
            counts[assignment.nodeIndex] += 1
            router.complete(assignment)
        }
        #expect(counts.allSatisfy { 60...140 ~= $0 }, "\(counts)")
    }

    @Test func fullNodesAreRefusedAsAtConcurrencyAndTakeAgainAfterwards() {
        let router = RouterUnderTest.ready([node("a", maxConcurrency: 2)])
        let first = router.assign(request())
        #expect(router.assign(request()) != nil)
        #expect(router.decide(request(), now: 1) == .refuse(.allAtConcurrency))
        if let first { router.complete(first) }
        #expect(router.assign(request())?.nodeIndex == 0)
    }

    @Test func excludedNodesAreNotTriedAgain() {
        let router = RouterUnderTest.ready([node("a"), node("b")])
        for _ in 0..<20 { #expect(router.assign(request(excluded: [0]))?.nodeIndex == 1) }
        #expect(router.decide(request(excluded: [0, 1]), now: 1) == .refuse(.allUnhealthy))
    }

    @Test func cordonedNodeReceivesNoNewRequests() {
        let router = RouterUnderTest.ready([node("a"), node("b")])
        let before = router.assign(request())
        router.cordon(true, "a")
        for _ in 0..<20 { #expect(router.assign(request())?.nodeIndex == 1) }
        router.cordon(true, "b")
        #expect(router.decide(request(), now: 1) == .refuse(.allCordoned))
        #expect(router.states() == ["a=cordoned", "b=cordoned"])
        #expect(router.status(now: 1).map(\.inflightRequests).reduce(0, +) == 21)
        #expect(before != nil)
        router.cordon(false, "a")
        #expect(router.assign(request())?.nodeIndex == 0)
    }

    private static let refusals: [(Set<Int>, Set<Int>, Set<Int>, RoutingRefusal)] = [
        // cordoned, unhealthy, full -> the reason that ends soonest.
        ([0, 1, 2], [], [], .allCordoned),
        ([0, 1], [2], [], .allUnhealthy),
        ([0], [1], [2], .allAtConcurrency),
        ([], [0, 1, 2], [], .allUnhealthy),
        ([], [], [0, 1, 2], .allAtConcurrency),
    ]

    @Test(arguments: Self.refusals)
    func refusalNamesTheReasonThatEndsSoonest(
        cordoned: Set<Int>, unhealthy: Set<Int>, full: Set<Int>, expected: RoutingRefusal
    ) {
        let nodes = (0..<3).map { node("n\($0)", maxConcurrency: full.contains($0) ? 0 : 8) }
        let router = RouterUnderTest.ready(nodes)
        for index in cordoned { router.cordon(true, nodes[index].id.rawValue) }
        for index in unhealthy {
            for _ in 0..<2 { router.probe(nodes[index].id.rawValue, .failed, now: 10) }
        }
        #expect(router.decide(request(), now: 11) == .refuse(expected))
    }

    @Test func failedNodePaysAndIsForgiven() throws {
        let router = RouterUnderTest.ready([node("a", rtt: 1), node("b", rtt: 2)])
        let first = try #require(router.assign(request(), now: 1))
        #expect(first.nodeIndex == 0)
        router.fail(first, now: 1)
        #expect(abs((router.status(now: 1).first?.penaltySeconds ?? 0) - 2) < 1e-9)
        #expect(abs((router.status(now: 6).first?.penaltySeconds ?? 0) - 1) < 1e-9)
        #expect(abs((router.status(now: 11).first?.penaltySeconds ?? 0) - 0.5) < 1e-9)
        #expect(router.status(now: 61).first?.penaltySeconds == 0)
        // 2 s weigh 20,000 tokens: the farther node is preferred, until forgiven.
        #expect(router.assign(request(prompt: 100, output: 0), now: 1)?.nodeIndex == 1)
        #expect(router.assign(request(prompt: 100, output: 0), now: 61)?.nodeIndex == 0)
    }

    @Test func loneNodeStillServesWhileItPays() throws {
        let router = RouterUnderTest.ready([node("a")])
        let first = try #require(router.assign(request()))
        router.fail(first)
        #expect(router.assign(request())?.nodeIndex == 0)
    }

    @Test func threeFailuresInARowOpenTheBreakerAndAProbeClosesItOnTrial() throws {
        let router = RouterUnderTest.ready([node("a")])
        for _ in 1...3 {
            router.fail(try #require(router.assign(request())))
        }
        #expect(router.status(now: 1).first?.isBreakerOpen == true)
        #expect(router.decide(request(), now: 1) == .refuse(.allUnhealthy))
        router.probe("a", .healthy, now: 3)
        let trial = try #require(router.assign(request(), now: 3))
        router.fail(trial, now: 3)
        #expect(router.decide(request(), now: 3) == .refuse(.allUnhealthy))
    }

    @Test func aNodeThatDoesNotServeWhatIsAskedIsPassedOverAndNeverTakenOut() throws {
        let router = RouterUnderTest.ready([node("a")])
        for _ in 0..<10 {
            router.finish(try #require(router.assign(request())), .unserved, now: 1)
        }
        #expect(router.states() == ["a=ready"])
        #expect(router.status(now: 1).first?.isBreakerOpen == false)
        #expect(router.status(now: 1).first?.penaltySeconds == NodeLoad.penaltySeconds)
    }

    @Test func abortedRequestsSayNothingOfTheNode() throws {
        let router = RouterUnderTest.ready([node("a")])
        for _ in 0..<10 {
            let assignment = try #require(router.assign(request()))
            router.finish(assignment, .aborted, now: 1)
        }
        #expect(router.states() == ["a=ready"])
        #expect(router.status(now: 1).first?.penaltySeconds == 0)
    }

    @Test func timeToFirstTokenCountsFromTheWrite() throws {
        let router = RouterUnderTest.ready([node("a")])
        let assignment = try #require(router.assign(request(), now: 1))
        #expect(router.status(now: 1).first?.firstTokenSeconds == nil)
        router.start(assignment, now: 2)
        router.firstToken(assignment, now: 2.5)
        router.firstToken(assignment, now: 9)
        #expect(router.status(now: 9).first?.firstTokenSeconds == 0.5)
    }

    @Test func anAnswerThatCameWholeIsNotedOnceAndOnlyWhereThereWasOne() throws {
        let router = RouterUnderTest.ready([node("a")])
        var plain = request()
        plain.isStreamed = false
        let answered = try #require(router.assign(plain, now: 1))
        router.start(answered, now: 1)
        router.firstToken(answered, now: 2)
        #expect(router.status(now: 2).first?.firstTokenSeconds == nil)
        router.finish(answered, .completed(nil), now: 4)
        #expect(router.status(now: 4).first?.firstTokenSeconds == 3)
        for outcome in [RoutingOutcome.refused, .failed, .unserved, .aborted] {
            let other = try #require(router.assign(plain, now: 5))
            router.finish(other, outcome, now: 6)
            #expect(router.status(now: 6).first?.firstTokenSeconds == 3)
        }
    }

    /// A bad request is answered in no time: its node is neither fast nor broken.
    @Test func refusalsOfTheNodeAreItsHealth() throws {
        let router = RouterUnderTest.ready([node("a")])
        for round in 0..<20 {
            let failed = try #require(router.assign(request()))
            router.finish(failed, round % 2 == 0 ? .failed : .refused, now: 1)
        }
        #expect(router.states() == ["a=ready"])
        #expect(router.status(now: 1).first?.penaltySeconds == 0)
    }

    @Test func eventsAfterTheEndOfARequestAreIgnored() throws {
        let router = RouterUnderTest.ready([node("a")])
        let over = try #require(router.assign(request()))
        router.complete(over)
        let seconds = router.status(now: 1).first?.firstTokenSeconds
        // The place in the table is reused by the next request: the old ticket must not end it.
        let next = try #require(router.assign(request()))
        router.complete(over)
        router.fail(over)
        router.firstToken(over, now: 5)
        let status = router.status(now: 1).first
        #expect(status?.inflightRequests == 1)
        #expect(status?.inflightTokens == 150)
        #expect(status?.firstTokenSeconds == seconds)
        #expect(router.inflightCount == 1)
        router.complete(next)
        #expect(router.inflightCount == 0)
    }

    @Test(arguments: RoutingPolicy.allCases)
    func absurdTokenCountsNeitherOverflowNorGoBelowZero(policy: RoutingPolicy) {
        let router = RouterUnderTest.ready([node("a", maxConcurrency: 1_000)], policy: policy)
        for prompt in [Int.max, Int.min, -1, 0] {
            for _ in 0..<100 {
                let assignment = router.assign(request(prompt: prompt, output: prompt))
                #expect(assignment != nil)
                if let assignment { router.start(assignment) }
            }
        }
        _ = router.leastWait(request(), now: 2)
        #expect(router.status(now: 1).first?.inflightTokens == 2 * 100 * Router.requestTokensMax)
    }

    @Test func servableModelsAreThoseOfNodesThatTakeRequests() {
        let router = RouterUnderTest.ready([node("a"), node("b", models: [qwen], maxConcurrency: 1)])
        _ = router.assign(request(qwen))
        #expect(router.servableModels == [llama, qwen])
        router.cordon(true, "a")
        #expect(router.servableModels == [qwen])
    }

    @Test(arguments: RoutingPolicy.allCases)
    func samePolicySeedAndEventsGiveTheSameDecisions(policy: RoutingPolicy) {
        func run() -> [Int] {
            let router = RouterUnderTest.ready((0..<7).map { node("n\($0)") }, policy: policy, seed: 42)
            var open: [Assignment] = []
            return (0..<200).map { step in
                if step % 3 == 2 { router.complete(open.removeFirst(), now: Double(step)) }
                guard let assignment = router.assign(request(prompt: step % 5), now: Double(step)) else { return -1 }
                open.append(assignment)
                return assignment.nodeIndex
            }
        }
        #expect(run() == run())
    }

    @Test func roundRobinVisitsEachNodeInTurnWhateverTheLoad() {
        let router = RouterUnderTest.ready((0..<4).map { node("n\($0)", rtt: Int64($0)) }, policy: .roundRobin)
        var seen: [Int] = []
        for step in 0..<12 {
            guard let assignment = router.assign(request(prompt: step * 1_000)) else { continue }
            seen.append(assignment.nodeIndex)
        }
        #expect(Set(seen[0..<4]) == [0, 1, 2, 3])
        #expect(Array(seen[0..<4]) == Array(seen[4..<8]))
        #expect(Array(seen[0..<4]) == Array(seen[8..<12]))
    }

    @Test func roundRobinPassesOverANodeThatJustFailed() throws {
        let router = RouterUnderTest.ready([node("a"), node("b")], policy: .roundRobin)
        let first = try #require(router.assign(request()))
        router.fail(first)
        for _ in 0..<5 { #expect(router.assign(request())?.nodeIndex == 1 - first.nodeIndex) }
    }

    @Test func leastRequestsCountsRequestsNotTokens() {
        let router = RouterUnderTest.ready([node("a", rtt: 1), node("b", rtt: 2)], policy: .leastRequests)
        #expect(router.assign(request(prompt: 1))?.nodeIndex == 0)
        #expect(router.assign(request(prompt: 100_000))?.nodeIndex == 1)
        #expect(router.assign(request(prompt: 1))?.nodeIndex == 0)
        #expect(router.assign(request(prompt: 1))?.nodeIndex == 1)
    }
}

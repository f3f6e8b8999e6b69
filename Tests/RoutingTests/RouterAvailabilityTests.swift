import Domain
import Routing
import Testing

/// Whether a model is down, and whom a request has tried, across reloads.
struct RouterAvailabilityTests {
    private func tried(_ assignments: Assignment...) -> NodeSet {
        var set = NodeSet()
        for assignment in assignments { set.insert(assignment.nodeIndex, generation: assignment.generation) }
        return set
    }

    @Test func aModelIsDownWhereNoNodeTakesRequestsAndNotWhereAllAreBusy() throws {
        let router = RouterUnderTest.ready([node("a", maxConcurrency: 1), node("b", models: [qwen])])
        let assignment = try #require(router.assign(request()))
        #expect(router.decide(request()) == .refuse(.allAtConcurrency))
        #expect(router.router.takesRequests(llama))
        #expect(!router.router.takesRequests(llama, excluding: tried(assignment)))
        router.cordon(true, "a")
        #expect(!router.router.takesRequests(llama))
        #expect(router.router.takesRequests(qwen))
        #expect(!router.router.takesRequests(ModelID(unchecked: "unknown")))
    }

    @Test func aNodeThatTakesATriedNodesPlaceIsNotExcluded() throws {
        let router = RouterUnderTest.ready([node("a"), node("b", models: [qwen])])
        let assignment = try #require(router.assign(request()))
        router.replace([node("b", models: [qwen]), node("c")])
        router.probe("c", .healthy, now: 2)
        #expect(router.fleet.index(of: NodeID(unchecked: "c")) == assignment.nodeIndex, "the test's own premise")
        var request = request()
        request.excluded = tried(assignment)
        #expect(router.router.takesRequests(llama, excluding: request.excluded))
        let next = try #require(router.assign(request))
        #expect(next.generation != assignment.generation)
        // Tried in its turn, it is excluded, and the set stays as large as it was.
        request.excluded.insert(next.nodeIndex, generation: next.generation)
        #expect(request.excluded.count == 1)
        #expect(router.decide(request) == .refuse(.allUnhealthy))
    }

    /// A node that takes longer than the objective for one answer alone: waiting would make it no faster, and nobody would
    /// ever be served.
    @Test func aNodeThatIsSlowByItselfIsNotSaturated() throws {
        let router = RouterUnderTest.ready([node("a")], policy: .predictedCost)
        for round in 0..<30 {
            let start = 1 + Double(round) * 100
            let assignment = try #require(router.assign(request(), now: start))
            router.start(assignment, now: start)
            router.firstToken(assignment, now: start + 0.5)
            let usage = TokenUsage(promptTokens: 100, cachedTokens: 0, completionTokens: 101)
            router.finish(assignment, usage: usage, now: start + 50.5)
        }
        #expect(router.leastWait(request(), now: 5_000) == 0)
        for _ in 0..<8 {
            let assignment = try #require(router.assign(request(), now: 5_000))
            router.start(assignment, now: 5_000)
            router.firstToken(assignment, now: 5_000.5)
        }
        #expect(router.leastWait(request(), now: 5_001) < 3)
        for _ in 0..<50 {
            let assignment = try #require(router.assign(request(), now: 5_001))
            router.start(assignment, now: 5_001)
            router.firstToken(assignment, now: 5_001.5)
        }
        #expect(router.leastWait(request(), now: 5_002) == .infinity)
    }
}

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
}

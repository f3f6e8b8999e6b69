import Domain
import Routing
import Testing

struct FleetSnapshotTests {
    @Test func survivingNodesKeepTheirIndexWhateverTheOrder() {
        let first = FleetSnapshot(nodes: [node("a"), node("b"), node("c")])
        let second = first.succeeded(by: [node("d"), node("c"), node("a")])
        #expect(second.index(of: NodeID(unchecked: "a")) == 0)
        #expect(second.index(of: NodeID(unchecked: "c")) == 2)
        #expect(second.index(of: NodeID(unchecked: "d")) == 1)
        #expect(second.nodeIndexes.map { second.slots[$0]?.id.rawValue } == ["d", "c", "a"])
        #expect(second.generations == [1, 2, 1])
    }

    @Test func assignmentResolvesToItsNodeOrToNoneInEverySnapshot() {
        let first = FleetSnapshot(nodes: [node("a"), node("b")])
        let second = first.succeeded(by: [node("a"), node("z")])
        let third = second.succeeded(by: [node("a")])
        let toB = Assignment(nodeIndex: 1, generation: first.generations[1], ticket: 1)
        let toZ = Assignment(nodeIndex: 1, generation: second.generations[1], ticket: 2)
        let toA = Assignment(nodeIndex: 0, generation: second.generations[0], ticket: 3)
        #expect(first.node(toB)?.rawValue == "b")
        #expect(second.node(toB) == nil)
        #expect(third.node(toB) == nil)
        #expect(first.node(toZ) == nil)
        #expect(second.node(toZ)?.rawValue == "z")
        #expect(third.node(toZ) == nil)
        #expect([first, second, third].map { $0.node(toA)?.rawValue } == ["a", "a", "a"])
        #expect(first.node(Assignment(nodeIndex: 7, generation: 1, ticket: 4)) == nil)
    }

    @Test func nodeThatLeavesAndComesBackIsAnother() {
        let first = FleetSnapshot(nodes: [node("a")])
        let back = first.succeeded(by: []).succeeded(by: [node("a")])
        #expect(back.node(Assignment(nodeIndex: 0, generation: first.generations[0], ticket: 1)) == nil)
        #expect(back.index(of: NodeID(unchecked: "a")) == 0)
    }

    @Test func upstreamNamesAreByNodeAndModel() {
        let fleet = FleetSnapshot(nodes: [node("a"), node("b", models: [qwen])])
        #expect(fleet.upstreamName(of: llama, nodeIndex: 0) == "up/llama")
        #expect(fleet.upstreamName(of: qwen, nodeIndex: 0) == nil)
        #expect(fleet.upstreamName(of: qwen, nodeIndex: 9) == nil)
        #expect(fleet.models == [llama, qwen])
    }

    @Test func replacementKeepsTheWorkOfSurvivorsAndForgetsThatOfLeavers() {
        let router = RouterUnderTest.ready([node("a"), node("b")])
        let assignments = (0..<6).compactMap { _ in router.assign(request()) }
        #expect(router.status(now: 1).map(\.inflightRequests) == [3, 3])
        router.cordon(true, "b")

        router.replace([node("c"), node("b", maxConcurrency: 5)])
        #expect(router.states() == ["c=warming", "b=cordoned"])
        #expect(router.status(now: 1).map(\.inflightRequests) == [0, 3])
        #expect(router.inflightCount == 6)

        router.probe("c", .healthy, now: 2)
        let onC = router.assign(request())
        #expect(onC?.nodeIndex == 0)
        // Three of these were on the node that left, whose index the new node has now.
        for assignment in assignments { router.fail(assignment, now: 2) }
        #expect(router.status(now: 2).map(\.inflightRequests) == [1, 0])
        #expect(router.states() == ["c=ready", "b=cordoned"])
        #expect(router.inflightCount == 1)
    }
}

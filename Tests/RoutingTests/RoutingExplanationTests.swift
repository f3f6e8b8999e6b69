import Domain
import Testing

@testable import Routing

struct RoutingExplanationTests {
    private func router(_ policy: RoutingPolicy, isExplaining: Bool = true) -> Router {
        let nodes = (0..<3).map { node("n\($0)", rtt: Int64($0) * 20_000_000) }
        var router = Router(fleet: FleetSnapshot(nodes: nodes), policy: policy, seed: 1)
        router.isExplaining = isExplaining
        for node in nodes { router.probed(node.id, .healthy, now: seconds(0)) }
        return router
    }

    @Test func theCheapestIsChosenAndTheTermsAreItsCost() throws {
        var router = router(.predictedCost)
        var placed: [Assignment] = []
        for turn in 0..<12 {
            let decision = router.decide(request(prompt: 8_000), now: seconds(1 + Double(turn) / 10))
            guard case .dispatch(let assignment) = decision else {
                Issue.record("\(decision)")
                return
            }
            placed.append(assignment)
            let explanation = try #require(router.explanation(assignment))
            #expect(explanation.policy == .predictedCost)
            #expect(explanation.chosen.node.rawValue == "n\(assignment.nodeIndex)")
            let cost = try #require(explanation.chosen.cost)
            let next = try #require(explanation.runnerUp?.cost)
            #expect(explanation.runnerUp?.node != explanation.chosen.node)
            #expect(cost.total <= next.total * 1.02 + 0.003, "turn \(turn): \(cost) \(next)")
            #expect(abs(cost.named.reduce(0) { $0 + $1.seconds } - cost.total) < 1e-9)
            #expect(cost.named.allSatisfy { $0.seconds >= 0 })
            #expect(cost.rtt == Double(assignment.nodeIndex) * 0.02)
        }
        for assignment in placed { router.finished(assignment, outcome: .completed(nil), now: seconds(9)) }
        #expect(placed.allSatisfy { router.explanation($0) == nil })
        #expect(router.explanations.isEmpty)
    }

    @Test func aPolicyThatPredictsNothingTellsRequests() throws {
        var router = router(.leastRequests)
        _ = router.decide(request(), now: seconds(1))
        guard case .dispatch(let assignment) = router.decide(request(), now: seconds(1)) else { return }
        let explanation = try #require(router.explanation(assignment))
        #expect(explanation.chosen.cost == nil && explanation.chosen.requests == 0)
        #expect(explanation.runnerUp?.requests == 0)
    }

    @Test func nothingIsKeptUnasked() {
        var router = router(.predictedCost, isExplaining: false)
        guard case .dispatch(let assignment) = router.decide(request(), now: seconds(1)) else { return }
        #expect(router.explanation(assignment) == nil)
        #expect(router.explanations.isEmpty)
    }
}

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

    /// The terms are worked out one by one, what decides all at once.
    @Test func theTermsAddUpToWhatDecides() throws {
        let loads = (0..<4).map { index in
            var load = NodeLoad(maxConcurrency: 64, rttNanoseconds: Int64(index) * 10_000_000, kvCapacityTokens: 40_000)
            load.takesRequests = true
            load.identity = UInt64(index) + 1
            load.own = InflightWork(
                requests: 8, queuedRequests: Int32(index), promptTokens: 30_000, queuedTokens: 4_000,
                queuedWork: 5_000 * Double(index), kvTokens: 36_000)
            if index > 1 { load.tailUsedAt = seconds(1) }
            return load
        }
        var policy = PredictedCost()
        policy.fleetChanged(count: loads.count, renewed: Array(loads.indices), loads: loads.span, now: seconds(2))
        var asked = request(prompt: 8_000, output: 200)
        asked.session = 7
        let allowed: [UInt64] = [0b1111]
        let candidates: [Int32] = [0, 1, 2, 3]
        let none: [Int32] = []
        // Until requests usually wait, and the duplicate and slowing terms grow with that.
        for _ in 0..<300 {
            _ = policy.choose(
                asked, among: candidates.span, allowed: allowed.span, loads: loads.span, holders: none.span,
                rotation: 0, now: seconds(2))
        }
        for node in loads.indices {
            policy.loadChanged(node, load: loads[node], now: seconds(2))
            let terms = policy.costTerms(node, asked, load: loads[node], now: seconds(2))
            let cost = policy.cost(node, asked, terms: policy.terms(of: asked, now: seconds(2)), cached: 0)
            #expect(abs(terms.total - Double(cost)) < 1e-3 * Double(cost), "\(terms) \(cost)")
            #expect(terms.slowing > 0 && terms.memory > 0)
            #expect((terms.evict > 1e-6) == (node > 1))
        }
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
            // Nothing is cached anywhere, so nothing is driven out.
            #expect(cost.evict < 1e-6)
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

import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Where requests go under `routing.policy`, with a gateway and nodes as they run.
@Suite(.serialized) struct RoutingPolicyTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let nodes: [SimulatedNode]
        let customer: Customer

        /// Requests that each node has answered; some are told a moment after their answer.
        func answered(_ count: Int) async throws -> [Int] {
            try await until("the nodes' own counts") { nodes.reduce(0) { $0 + $1.stats.requests } == count }
            return nodes.map(\.stats.requests)
        }
    }

    /// One model on three nodes.
    private func start(_ policy: String, speed: NodeSpeed = .instant) async throws -> Setup {
        var nodes: [SimulatedNode] = []
        var plan = GatewayPlan()
        plan.sections = ["routing: { policy: \(policy) }"]
        for index in 0..<3 {
            let node = try await SimulatedNode.serving("m", speed: speed)
            nodes.append(node)
            if index == 0 { plan.serve("m", port: node.port) }
            if index > 0 {
                plan.nodes.append(
                    GatewayPlan.Node(id: "node-\(index)", port: node.port, models: ["m": GatewayPlan.upstreamName("m")])
                )
            }
        }
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, nodes: nodes, customer: try await Customer.create(on: gateway))
    }

    @Test(arguments: [
        "predicted_cost", "least_tokens", "least_requests", "round_robin", "p2c", "sglang_cache_aware", "gie", "dynamo",
        "lmetric", "smetric",
    ])
    func everyPolicyServesAndIsPaid(policy: String) async throws {
        let setup = try await start(policy)
        for stream in [false, true, false] {
            let answer = try await setup.gateway.ask(.chat("m", key: setup.customer.key, stream: stream, tokens: 3))
            #expect(answer.status == 200)
        }
        #expect(try await setup.answered(3).reduce(0, +) == 3)
        _ = try await setup.customer.books(settles: 3)
    }

    /// Under a policy that knows no prompts the turns of a chat would go around.
    @Test func predictedCostKeepsAChatWhereItsHistoryIs() async throws {
        let setup = try await start("predicted_cost", speed: .times(20))
        let turns = 8
        var prompt = String(repeating: "The heliotrope turns its flowers to the sun. ", count: 800)
        for turn in 0..<turns {
            prompt += "And turn \(turn)? " + String(repeating: "It follows. ", count: 20)
            let answer = try await setup.gateway.ask(
                .chat("m", key: setup.customer.key, stream: true, tokens: 2, prompt: prompt))
            #expect(answer.status == 200)
        }
        let counts = try await setup.answered(turns)
        #expect((counts.max() ?? 0) == turns, "\(counts)")
        _ = try await setup.customer.books(settles: turns)
    }
}

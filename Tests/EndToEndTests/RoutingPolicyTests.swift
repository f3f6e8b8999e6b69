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

    /// What the operator lets clients see: the node, the terms of its cost, the runner-up; nothing where none was asked.
    @Test func theHeaderSaysWhyWhereTheOperatorLetsIt() async throws {
        let setup = try await start("predicted_cost, explain_header: true", speed: .times(20))
        let prompt = String(repeating: "The heliotrope turns its flowers to the sun. ", count: 800)
        var nodes: Set<String> = []
        for turn in 0..<2 {
            let answer = try await setup.gateway.ask(
                .chat("m", key: setup.customer.key, stream: turn == 1, tokens: 2, prompt: prompt))
            #expect(answer.status == 200)
            let header = try #require(answer.header("x-tollgate-routing"))
            let parts = header.split(separator: "; ").map { $0.split(separator: "=").map(String.init) }
            let fields = Dictionary(uniqueKeysWithValues: parts.map { ($0[0], $0[1]) })
            let line = try await setup.gateway.accessLine(of: answer.requestID)
            #expect(fields["node"] == line["node"]?.string)
            nodes.insert(fields["node"] ?? "")
            let cost = try #require(Double(fields["cost"] ?? ""))
            let next = try #require(Double(fields["next_cost"] ?? ""))
            #expect(0 < cost && cost <= next * 1.02 + 0.002, "\(header)")
            #expect(fields["next"] != fields["node"])
            // By the second turn it is known where the first one went.
            #expect((Int(fields["cached"] ?? "") ?? -1 > 1_000) == (turn == 1), "\(header)")
            let terms = ["rtt", "wait", "run", "step", "duplicate", "evict", "slowing", "output", "memory", "penalty"]
            let sum = terms.compactMap { Double(fields[$0] ?? "") }.reduce(0, +)
            #expect(abs(sum - cost) < 0.006, "\(header)")
        }
        #expect(nodes.count == 1)
        let local = try await setup.gateway.ask(.get("/v1/models", key: setup.customer.key))
        #expect(local.header("x-tollgate-routing") == nil)
        #expect(!setup.gateway.log.contains("routed"))
    }

    /// Attention makes one long prompt dearer than as much text in a hundred.
    @Test func promptsOfAListAreNotWeighedAsOneLongOne() async throws {
        let setup = try await start("predicted_cost, explain_header: true", speed: .times(20))
        let text = String(repeating: "The heliotrope turns its flowers to the sun. ", count: 40)
        func runSeconds(_ input: String) async throws -> Double {
            let ask = Ask.post("/v1/embeddings", "{\"model\":\"m\",\"input\":\(input)}", key: setup.customer.key)
            let answer = try await setup.gateway.ask(ask)
            #expect(answer.status == 200)
            let header = try #require(answer.header("x-tollgate-routing"))
            let run = try #require(header.split(separator: "; ").first { $0.hasPrefix("run=") })
            return try #require(Double(run.dropFirst(4)))
        }
        let list = try await runSeconds("[" + (0..<100).map { "\"\($0) \(text)\"" }.joined(separator: ",") + "]")
        let long = try await runSeconds("\"" + (0..<100).map { "\($0) \(text)" }.joined(separator: " ") + "\"")
        #expect(list < 0.75 * long, "\(list) \(long)")
    }

    @Test func nothingIsExplainedUnasked() async throws {
        let setup = try await start("predicted_cost")
        let answer = try await setup.gateway.ask(.chat("m", key: setup.customer.key))
        #expect(answer.status == 200)
        #expect(answer.header("x-tollgate-routing") == nil)
    }

    @Test func theDebugLogSaysWhyAndNothingOfThePrompt() async throws {
        let node = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.environment = ["TOLLGATE_LOG_LEVEL": "debug"]
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        let answer = try await gateway.ask(.chat("m", key: customer.key, prompt: "The secret heliotrope."))
        #expect(answer.status == 200)
        #expect(answer.header("x-tollgate-routing") == nil)
        let line = try await eventually("the line") {
            gateway.log.split(separator: "\n").first { $0.contains("routed") && $0.contains(answer.requestID) }
        }
        #expect(line.contains("node=node-m") && line.contains("cost=0.") && line.contains("runner_up=none"), "\(line)")
        #expect(!gateway.log.contains("heliotrope"))
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Another node before the first byte, and where traffic goes.
@Suite(.serialized) struct RetryTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let good: SimulatedNode
        let customer: Customer
    }

    /// One model on two nodes: a good one and what the test gives.
    private func start(badPort: Int, badEngine: String = "vllm") async throws -> Setup {
        let good = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        plan.serve("m", port: good.port)
        plan.nodes[0].id = "good"
        plan.nodes.append(
            GatewayPlan.Node(
                id: "bad", port: badPort, models: ["m": GatewayPlan.upstreamName("m")], engine: badEngine, site: "there"
            ))
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, good: good, customer: try await Customer.create(on: gateway))
    }

    /// Asks until the bad node has had a request.
    private func askUntilBadWasTried(
        _ setup: Setup, stream: Bool, badRequests: () -> Int
    ) async throws -> (answers: [Answer], retries: Double) {
        var answers: [Answer] = []
        for _ in 0..<40 where badRequests() == 0 || answers.isEmpty {
            answers.append(try await setup.gateway.ask(.chat("m", key: setup.customer.key, stream: stream, tokens: 3)))
        }
        let metrics = try await Metrics(setup.gateway.metrics())
        return (answers, metrics.value("tollgate_upstream_retries_total", ["reason": "other_node"]) ?? 0)
    }

    @Test(arguments: ["status:500", "status:503", "bad_json", "refuse@every 1"])
    func aRequestThatANodeFailsIsServedByAnotherAndChargedOnce(fault: String) async throws {
        let bad = try await SimulatedNode.serving("m", fault: fault)
        let setup = try await start(badPort: bad.port)
        let (answers, retries) = try await askUntilBadWasTried(setup, stream: false) { bad.stats.requests }
        #expect(answers.allSatisfy { $0.status == 200 }, "\(answers.map(\.text))")
        #expect(retries >= 1)
        _ = try await setup.customer.books(settles: answers.count)
        let attempts = try await setup.gateway.accessLine(of: answers.last!.requestID)["attempts"]?.integer
        #expect(attempts == 2)
    }

    @Test func aStreamWhoseNodeDiesInPrefillBeginsOnAnotherNode() async throws {
        // As vLLM does: the head goes out before the work, and then the process is gone.
        let bad = try ScriptedNode { peer in
            _ = peer.readBody()
            peer.write(ScriptedNode.streamHead)
        }
        let setup = try await start(badPort: bad.port)
        let (answers, retries) = try await askUntilBadWasTried(setup, stream: true) { bad.requests }
        #expect(answers.allSatisfy { $0.status == 200 && $0.events.last == "[DONE]" })
        #expect(bad.requests >= 1)
        #expect(retries >= 1)
        #expect(try await setup.customer.books(settles: answers.count).settles.allSatisfy { $0.completion == 3 })
    }

    @Test func aRequestThatTheNodeRefusesIsNotTriedElsewhere() async throws {
        let bad = try await SimulatedNode.serving("m", fault: "status:422")
        let setup = try await start(badPort: bad.port)
        let (answers, retries) = try await askUntilBadWasTried(setup, stream: false) { bad.stats.requests }
        let refused = answers.count { $0.status == 422 }
        #expect(refused >= 1)
        #expect(answers.allSatisfy { $0.status == 422 || $0.status == 200 })
        #expect(retries == 0)
        _ = try await bad.stats { $0.requests == refused }
        _ = try await setup.customer.books(settles: answers.count - refused)
    }

    @Test func whereEveryNodeFailsTheLastFailureIsAnsweredAndNothingCharged() async throws {
        let bad = try await SimulatedNode.serving("m", fault: "status:500")
        let setup = try await start(badPort: bad.port)
        try await setup.good.setFault("status:500")
        let answer = try await setup.gateway.ask(.chat("m", key: setup.customer.key))
        #expect(answer.status == 502)
        _ = try await bad.stats { $0.requests == 1 }
        _ = try await setup.good.stats { $0.requests == 1 }
        try await setup.customer.expectNoCharge()
    }

    @Test func aStoppedNodeGetsNoMoreRequestsAndComesBack() async throws {
        let bad = try await SimulatedNode.serving("m", fault: "refuse")
        let good = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.serve("m", port: good.port)
        plan.nodes[0].id = "good"
        plan.nodes.append(
            GatewayPlan.Node(id: "bad", port: bad.port, models: ["m": GatewayPlan.upstreamName("m")]))
        let gateway = try GatewayUnderTest(plan)
        try await gateway.waitUntilListening()
        try await until("one ready and one unhealthy node") {
            try await gateway.nodeStates() == ["good": "ready", "bad": "unhealthy"]
        }
        let customer = try await Customer.create(on: gateway)
        for _ in 0..<20 { #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 200) }
        #expect(bad.stats.requests == 0)
        try await bad.setFault("")
        try await until("both nodes ready") { try await gateway.nodeStates()["bad"] == "ready" }
        try await until("traffic on both") {
            _ = try await gateway.ask(.chat("m", key: customer.key))
            return bad.stats.answered > 0
        }
    }

    @Test func cordonMovesTrafficAwayAndUncordonBack() async throws {
        let other = try await SimulatedNode.serving("m")
        let setup = try await start(badPort: other.port)
        try await setup.gateway.admin("POST", "/admin/v1/nodes/good/cordon")
        let before = setup.good.stats.requests
        for _ in 0..<20 { #expect(try await setup.gateway.ask(.chat("m", key: setup.customer.key)).status == 200) }
        _ = try await other.stats { $0.requests == 20 }
        #expect(setup.good.stats.requests == before)
        #expect(try await setup.gateway.nodeStates()["good"] == "cordoned")
        // The word outlives the process.
        #expect(try await setup.gateway.stop().code == 0)
        try await setup.gateway.restart()
        #expect(try await setup.gateway.nodeStates()["good"] == "cordoned")
        try await setup.gateway.admin("POST", "/admin/v1/nodes/good/uncordon")
        try await until("traffic on the uncordoned node") {
            _ = try await setup.gateway.ask(.chat("m", key: setup.customer.key))
            return setup.good.stats.requests > before
        }
    }

    @Test func allNodesCordonedIs503WithARetry() async throws {
        let other = try await SimulatedNode.serving("m")
        let setup = try await start(badPort: other.port)
        for node in ["good", "bad"] { try await setup.gateway.admin("POST", "/admin/v1/nodes/\(node)/cordon") }
        let answer = try await setup.gateway.ask(.chat("m", key: setup.customer.key))
        #expect(answer.status == 503)
        #expect(answer.errorCode == "overloaded")
        #expect(Int(answer.header("retry-after-ms") ?? "") != nil)
        try await setup.customer.expectNoCharge()
    }

    @Test func aNodesKeyIsSentAndTheClientsIsNot() async throws {
        let node = try await SimulatedNode.serving("m", apiKey: "node-secret-key")
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        plan.nodes[0].apiKey = "node-secret-key"
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 200)
        let recorded = try #require(try await node.stats { !$0.recorded.isEmpty }.recorded.last)
        #expect(recorded.values(of: "authorization") == ["Bearer node-secret-key"])
    }

    @Test func aNodesConcurrencyIsNeverExceededAndTheRestWaits() async throws {
        let node = try GatedNode("m")
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        plan.nodes[0].concurrency = 3
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        async let all = withThrowingTaskGroup(of: Answer.self) { group in
            for _ in 0..<12 { group.addTask { try await gateway.ask(.chat("m", key: customer.key)) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        try await until("nine to wait") { try await gateway.gauge("tollgate_queue_length") == 9 }
        node.answer(12)
        let answers = try await all
        #expect(answers.allSatisfy { $0.status == 200 })
        #expect(node.most == 3 && node.requests == 12)
    }
}

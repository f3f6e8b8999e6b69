import Domain
import Foundation
import JSON
import Simulator
import Testing

/// A client that leaves while its request waits for others: everything stops within 100 ms, and costs nothing.
@Suite(.serialized) struct WaitingClientTests {
    /// How long it takes from the client's leaving until the gateway has no request open.
    private func timeToLetGo(_ gateway: GatewayUnderTest, _ wire: Wire) async throws -> Double {
        let left = MonotonicTime.now()
        wire.close()
        try await until("the request to end") { try await gateway.gauge("tollgate_requests_open") == 0 }
        return MonotonicTime.now().seconds(since: left)
    }

    @Test func whileTheGatewayConnectsToANode() async throws {
        let node = try BlackholeNode()
        var plan = GatewayPlan()
        plan.sections = ["timeouts: { connect: 60s }"]
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.get("/v1/models", key: customer.key)).status == 200)
        node.vanish()
        var delays: [Double] = []
        for _ in 0..<3 {
            let wire = try gateway.connect()
            try wire.send(.chat("m", key: customer.key))
            try await until("the request to wait for the node") {
                let metrics = try await Metrics(gateway.metrics())
                return metrics.value("tollgate_inflight_requests", ["node": "node-m", "site": "here"]) == 1
            }
            delays.append(try await timeToLetGo(gateway, wire))
            let metrics = try await Metrics(gateway.metrics())
            #expect(metrics.value("tollgate_inflight_requests", ["node": "node-m", "site": "here"]) == 0)
        }
        // A busy machine may delay one of them.
        #expect(delays.min()! < 0.1, "\(delays)")
        // No node had it: an abort costs nothing.
        try await customer.expectNoCharge()
    }

    @Test func whileRedisDoesNotAnswer() async throws {
        let node = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let known = try await Customer.create(on: gateway)
        let unknown = try await Customer.create(on: gateway)
        // The key is in each loop's cache; what waits is the admission.
        for _ in 0..<8 { #expect(try await gateway.ask(.get("/v1/models", key: known.key)).status == 200) }
        let redis = try #require(gateway.redis.processID)
        var delays: [String: [Double]] = [:]
        for customer in [known, unknown, known, unknown, known, unknown] {
            kill(redis, SIGSTOP)
            let wire = try gateway.connect()
            try wire.send(.chat("m", key: customer.key))
            try await until("the request to wait") { try await gateway.gauge("tollgate_requests_open") == 1 }
            #expect(wire.isSilent(for: .milliseconds(20)))
            delays[customer.org, default: []].append(try await timeToLetGo(gateway, wire))
            kill(redis, SIGCONT)
            try await until("readiness") { try await gateway.isReady() }
        }
        // Of either wait: for the admission, and for the key. A busy machine may delay one of them.
        #expect(delays.count == 2 && delays.values.allSatisfy { $0.contains { $0 < 0.1 } }, "\(delays)")
        for customer in [known, unknown] { try await customer.expectNoCharge() }
        #expect(node.stats.requests == 0)
        // And the gateway goes on.
        #expect(try await gateway.ask(.chat("m", key: known.key, tokens: 2)).status == 200)
        _ = try await known.onlySettle()
    }

    @Test func aModelsOwnTimeToConnectEndsAnAttempt() async throws {
        let node = try BlackholeNode()
        var plan = GatewayPlan()
        plan.sections = ["timeouts: { connect: 60s }"]
        plan.serve("m", port: node.port, options: ["timeouts: { connect: 150ms }"])
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        node.vanish()
        let began = MonotonicTime.now()
        let answer = try await gateway.ask(.chat("m", key: customer.key))
        #expect((0.15..<5).contains(MonotonicTime.now().seconds(since: began)))
        #expect(answer.status == 503)
        #expect(answer.errorCode == "upstream_unavailable")
        try await customer.expectNoCharge()
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Orgs and keys whose requests must stay in a region.
@Suite(.serialized) struct RegionTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let eu: SimulatedNode
        let us: SimulatedNode
        let customer: Customer

        func pin(_ path: String, _ region: String?) async throws {
            let value = region.map { "\"\($0)\"" } ?? "null"
            try await gateway.admin("PATCH", "/admin/v1/\(path)", "{\"region\":\(value)}")
        }

        /// Other gateways, and this one's loops, hear of it within a second.
        func asked(_ model: String, key: String, until what: String, _ isSo: (Answer) -> Bool) async throws -> Answer {
            try await eventually(what) { () -> Answer? in
                let answer = try await gateway.ask(.chat(model, key: key))
                return isSo(answer) ? answer : nil
            }
        }
    }

    /// `m` in both regions, `local` in the US alone.
    private func start(_ policy: String) async throws -> Setup {
        let eu = try await SimulatedNode.serving("m")
        let us = try await SimulatedNode.serving("m")
        let local = try await SimulatedNode.serving("local")
        var plan = GatewayPlan()
        plan.sections = ["routing: { policy: \(policy) }"]
        plan.sites = [("here", "us"), ("there", "eu")]
        plan.serve("m", port: us.port)
        plan.nodes[0].id = "us"
        plan.nodes.append(
            GatewayPlan.Node(
                id: "eu", port: eu.port, models: ["m": GatewayPlan.upstreamName("m")], site: "there"))
        plan.serve("local", port: local.port)
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, eu: eu, us: us, customer: try await Customer.create(on: gateway))
    }

    @Test(arguments: ["predicted_cost", "least_tokens", "round_robin", "smetric", "p2c"])
    func aPinnedKeyIsServedInItsRegionAlone(policy: String) async throws {
        let setup = try await start(policy)
        let key = try await setup.gateway.admin(
            "POST", "/admin/v1/keys", "{\"org\":\"\(setup.customer.org)\",\"region\":\"eu\"}")
        #expect(key["region"]?.string == "eu")
        let secret = key["key"]?.string ?? ""
        for number in 0..<12 {
            let answer = try await setup.gateway.ask(.chat("m", key: secret, stream: number % 2 == 0, tokens: 2))
            #expect(answer.status == 200)
        }
        _ = try await setup.eu.stats { $0.requests == 12 }
        #expect(setup.us.stats.requests == 0)
        // What is not served there does not exist for it, and it hears why.
        let refused = try await setup.gateway.ask(.chat("local", key: secret))
        #expect(refused.status == 404)
        #expect(refused.errorCode == "model_not_found")
        #expect(refused.text.contains("region 'eu'"))
        let models = try await setup.gateway.ask(.get("/v1/models", key: secret)).json()
        #expect(models["data"]?.array?.compactMap { $0["id"]?.string } == ["m"])
        // The other key of the org goes anywhere.
        #expect(try await setup.gateway.ask(.chat("local", key: setup.customer.key)).status == 200)
        // Its only node out of service: a matter of time, and said so.
        try await setup.gateway.admin("POST", "/admin/v1/nodes/eu/cordon")
        let down = try await setup.gateway.ask(.chat("m", key: secret))
        #expect(down.status == 503)
        #expect(down.errorCode == "overloaded")
        #expect(down.text.contains("region 'eu'"))
        #expect(setup.us.stats.requests == 0)
        _ = try await setup.customer.books(settles: 13)
    }

    @Test func anOrgIsPinnedAndLetGo() async throws {
        let setup = try await start("least_tokens")
        let (org, key) = (setup.customer.org, setup.customer.key)
        try await setup.pin("orgs/\(org)", "eu")
        #expect(try await setup.customer.show()["region"]?.string == "eu")
        _ = try await setup.asked("local", key: key, until: "the pin to hold") { $0.status == 404 }
        let before = setup.us.stats.requests
        for _ in 0..<6 { #expect(try await setup.gateway.ask(.chat("m", key: key)).status == 200) }
        #expect(setup.us.stats.requests == before)
        // A key of it can be pinned nowhere else, and no typo pins anybody.
        for (region, word) in [("us", "pinned to the region 'eu'"), ("mars", "configured are eu, us")] {
            let answer = try await setup.gateway.adminAnswer(
                "PATCH", "/admin/v1/keys/\(setup.customer.keyID)", "{\"region\":\"\(region)\"}")
            #expect(answer.status == 400, "\(answer.text)")
            #expect(answer.text.contains(word), "\(answer.text)")
        }
        try await setup.pin("orgs/\(org)", nil)
        _ = try await setup.asked("local", key: key, until: "the pin to be gone") { $0.status == 200 }
        // And an org not where a key of it is already pinned away.
        try await setup.pin("keys/\(setup.customer.keyID)", "us")
        let answer = try await setup.gateway.adminAnswer("PATCH", "/admin/v1/orgs/\(org)", "{\"region\":\"eu\"}")
        #expect(answer.status == 400)
    }

    @Test func waitingStaysWithinTheRegionToo() async throws {
        let eu = try GatedNode("m")
        let us = try GatedNode("m")
        var plan = GatewayPlan()
        plan.sites = [("here", "us"), ("there", "eu")]
        plan.serve("m", port: us.port)
        plan.nodes.append(
            GatewayPlan.Node(
                id: "eu", port: eu.port, models: ["m": GatewayPlan.upstreamName("m")], site: "there", concurrency: 1))
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway, keyLimits: ",\"region\":\"eu\"")
        let wires = try (0..<2).map { _ in
            let wire = try gateway.connect()
            try wire.send(.chat("m", key: customer.key))
            return wire
        }
        try await until("one to wait") { try await gateway.gauge("tollgate_queue_length") == 1 }
        eu.answer(2)
        #expect(try await blocking { try wires.map { try $0.response().status } } == [200, 200])
        #expect(us.requests == 0 && eu.requests == 2)
    }
}

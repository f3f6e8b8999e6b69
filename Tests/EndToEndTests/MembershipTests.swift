import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Nodes that are not in the configuration file: added, registered by themselves, found by DNS.
@Suite(.serialized) struct MembershipTests {
    private static let joinToken = "canary-join-token-0f1e2d3c4b5a69788796a5b4c3d2e1f0"

    private static func plan(_ sections: [String] = []) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.models = [GatewayPlan.Model(id: "m")]
        plan.sections = sections
        return plan
    }

    private func nodes(_ gateway: GatewayUnderTest) async throws -> [String: String] { try await gateway.nodeStates() }

    @Test func anAddedNodeServesOnEveryReplicaAndThroughARestartUntilItIsRemoved() async throws {
        let node = try await SimulatedNode.serving("m")
        let gateway = try await GatewayUnderTest.start(Self.plan())
        let replica = try await GatewayUnderTest.start(Self.plan(), redis: gateway.redis)
        let customer = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 503)
        let added = try await gateway.command(
            "node", "add", "late", "--site", "here", "--url", "http://127.0.0.1:\(node.port)", "--engine", "vllm",
            "--models", "m=\(GatewayPlan.upstreamName("m"))", "--max-concurrency", "7", "--json")
        #expect(added.code == 0, "\(added.errors)")
        #expect(try added.json()["origin"]?.string == "added")
        #expect(try added.json()["max_concurrency"]?.integer == 7)
        for gateway in [gateway, replica] {
            try await until("the added node") { try await nodes(gateway) == ["late": "ready"] }
            #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 200)
        }
        #expect(try await gateway.command("node", "cordon", "late").code == 0)
        try await replica.restart()
        try await until("the added node after a restart") { try await nodes(replica) == ["late": "cordoned"] }

        let removed = try await replica.command("node", "remove", "late", "--json")
        #expect(try removed.json()["removed"]?.bool == true)
        for gateway in [gateway, replica] {
            try await until("the end of the added node") { try await nodes(gateway) == [:] }
        }
        let again = try await gateway.command("node", "remove", "late")
        #expect(again.code == 1 && again.errors.contains("tollgate node list"), "\(again)")
        let wrong = try await gateway.command(
            "node", "add", "late", "--site", "mars", "--url", "http://127.0.0.1:1", "--engine", "vllm", "--models", "m")
        #expect(wrong.code == 1 && wrong.errors.contains("no site mars"), "\(wrong)")
        _ = try await customer.books(settles: 2)
    }

    @Test func aNodeOfTheFileIsNeitherAddedAgainNorRemoved() async throws {
        let node = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let removed = try await gateway.command("node", "remove", "node-m")
        #expect(removed.code == 1 && removed.errors.contains("configuration file"), "\(removed)")
        let added = try await gateway.command(
            "node", "add", "node-m", "--site", "here", "--url", "http://127.0.0.1:1", "--engine", "vllm", "--models",
            "m")
        #expect(added.code == 1 && added.errors.contains("configuration"), "\(added)")
        #expect(try await nodes(gateway) == ["node-m": "ready"])
        #expect(try await gateway.node("node-m")["origin"]?.string == "file")
    }

    @Test func aNodeThatRegistersItselfServesAndLeavesWhenItsHeartbeatStops() async throws {
        let plan = Self.plan(["join_token: \(Self.joinToken)"])
        let gateway = try await GatewayUnderTest.start(plan)
        let replica = try await GatewayUnderTest.start(plan, redis: gateway.redis)
        let customer = try await Customer.create(on: gateway)
        let node = try TollgateProcess(
            arguments: [
                "simulate", "node", "--port", "0", "--model", "m", "--speed", "inf", "--join",
                "http://127.0.0.1:\(gateway.adminPort)", "--join-site", "here", "--join-id", "joined", "--heartbeat",
                "1s",
            ], environment: ["TOLLGATE_JOIN_TOKEN": Self.joinToken], directory: gateway.directory, name: "joined")
        for gateway in [gateway, replica] {
            try await until("the node that joined") { try await nodes(gateway) == ["joined": "ready"] }
            #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 200)
        }
        #expect(try await gateway.node("joined")["origin"]?.string == "registered")
        #expect(try await gateway.node("joined")["class"]?.string == "h100-8b")
        // Longer than its life of three seconds it is there because it says so.
        let end = ContinuousClock.now + .seconds(4)
        while ContinuousClock.now < end {
            #expect(try await nodes(gateway) == ["joined": "ready"])
            try await Task.sleep(for: .milliseconds(200))
        }
        node.end(SIGKILL)
        for gateway in [gateway, replica] {
            try await until("the node to leave") { try await nodes(gateway) == [:] }
        }
        #expect(!gateway.log.contains(Self.joinToken))
    }

    @Test func theJoinTokenOpensNothingElse() async throws {
        let gateway = try await GatewayUnderTest.start(Self.plan(["join_token: \(Self.joinToken)"]))
        func ask(_ method: String, _ path: String, _ body: String? = nil, token: String = Self.joinToken) async throws
            -> Answer
        {
            let port = gateway.adminPort
            return try await blocking {
                let wire = try Wire(port: port)
                var ask = Ask(method: method, path: path, key: token, body: body.map { Array($0.utf8) })
                ask.headers.append(("Connection", "close"))
                try wire.send(ask)
                return try wire.response()
            }
        }
        let node =
            #"{"id":"x","site":"here","url":"http://127.0.0.1:9","engine":"vllm","models":{"m":"m"},"heartbeat_seconds":1}"#
        for (method, path) in [
            ("GET", "/admin/v1/nodes"), ("GET", "/admin/v1/nodes/x"), ("DELETE", "/admin/v1/nodes/x"),
            ("POST", "/admin/v1/nodes/x/cordon"), ("POST", "/admin/v1/nodes/x/drain"), ("GET", "/admin/v1/orgs"),
            ("POST", "/admin/v1/keys"), ("POST", "/admin/v1/sites/here/curtail"), ("POST", "/admin/v1/nodes/"),
            ("PUT", "/admin/v1/nodes"),
        ] {
            #expect(try await ask(method, path, method == "GET" ? nil : "{}").status == 401, "\(method) \(path)")
        }
        #expect(try await ask("POST", "/admin/v1/nodes", node, token: Self.joinToken + "x").status == 401)
        let first = try await ask("POST", "/admin/v1/nodes", node)
        #expect(first.status == 201, "\(first.text)")
        #expect(try first.json()["heartbeat_seconds"]?.integer == 1)
        #expect(try await ask("POST", "/admin/v1/nodes", node).status == 200)
        let metadata = node.replacingOccurrences(of: "127.0.0.1:9", with: "169.254.169.254")
        #expect(try await ask("POST", "/admin/v1/nodes", metadata).status == 400)
        // The operator's nodes have no heartbeat, and take no node's name.
        #expect(try await gateway.adminAnswer("POST", "/admin/v1/nodes", node).status == 400)
        let added = node.replacingOccurrences(of: #","heartbeat_seconds":1"#, with: "")
        #expect(try await gateway.adminAnswer("POST", "/admin/v1/nodes", added).status == 409)
    }

    @Test func nodesAreFoundByDNSAndSayWhatTheyServe() async throws {
        let named = try await SimulatedNode.serving("m")
        var configuration = SimulatedNode.Configuration(model: "m")
        configuration.speed = .instant
        let asked = try await SimulatedNode.start(configuration: configuration)
        var other = SimulatedNode.Configuration(model: "unknown")
        other.speed = .instant
        let stranger = try await SimulatedNode.start(configuration: other)
        let upstream = GatewayPlan.upstreamName("m")
        let gateway = try await GatewayUnderTest.start(
            Self.plan([
                "discovery:", "  dns:",
                "    - { name: localhost, port: \(named.port), site: here, engine: vllm, models: { m: \(upstream) } }",
                "    - { name: localhost, port: \(asked.port), site: there, engine: vllm, interval: 1s }",
                "    - { name: localhost, port: \(stranger.port), site: there, engine: vllm, interval: 1s }",
                "    - { name: no-such-name.invalid, port: 80, site: there, engine: vllm }",
            ]))
        let customer = try await Customer.create(on: gateway)
        // The system may also know ::1, where nobody listens.
        try await until("the nodes") {
            let found = try await nodes(gateway)
            return found["127.0.0.1:\(named.port)"] == "ready" && found["127.0.0.1:\(asked.port)"] == "ready"
        }
        #expect(try await gateway.node("127.0.0.1:\(asked.port)")["origin"]?.string == "dns")
        #expect(try await nodes(gateway)["127.0.0.1:\(stranger.port)"] == nil)
        #expect(try await gateway.ask(.chat("m", key: customer.key)).status == 200)
        try await until("the word on the stranger and the name") {
            gateway.log.contains("serves no model of the configuration") && gateway.log.contains("discovery failed")
        }
        let removed = try await gateway.command("node", "remove", "127.0.0.1:\(asked.port)")
        #expect(removed.code == 1 && removed.errors.contains("DNS"), "\(removed)")
        // Operators' words hold for them like for others.
        #expect(try await gateway.command("node", "cordon", "127.0.0.1:\(asked.port)").code == 0)
        #expect(try await nodes(gateway)["127.0.0.1:\(asked.port)"] == "cordoned")
    }
}

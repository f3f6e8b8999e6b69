import Domain
import Foundation
import JSON
import Simulator
import Support
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

extension GatewayUnderTest {
    private static let commands = Atomic<Int>(0)

    struct Ended: Sendable {
        var code: Int32
        var output: String
        var errors: String

        func json() throws -> JSONValue { try JSONValue(parsing: output) }
    }

    /// `tollgate` with these arguments, against this gateway's control plane.
    func command(_ arguments: String...) async throws -> Ended { try await command(arguments) }

    func command(_ arguments: [String]) async throws -> Ended {
        let number = Self.commands.add(1, ordering: .relaxed).newValue
        let process = try TollgateProcess(
            arguments: arguments,
            environment: [
                "TOLLGATE_ADMIN_URL": "http://127.0.0.1:\(adminPort)", "TOLLGATE_ADMIN_TOKEN": Self.adminToken,
            ], directory: directory, name: "command-\(number)")
        let exit = try await process.wait()
        return Ended(
            code: exit.code, output: TollgateProcess.text(of: process.outputFile),
            errors: TollgateProcess.text(of: process.errorFile))
    }

    func node(_ id: String) async throws -> JSONValue { try await admin("GET", "/admin/v1/nodes/\(id)") }
}

/// What operators do with nodes and sites, with gateways and nodes as they run.
@Suite(.serialized) struct FleetOperationTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let slow: SimulatedNode
        let fast: SimulatedNode
        let customer: Customer
    }

    /// One model on a node that takes its time, at `here`, and on one that does not, at `there`.
    private static func plan(_ slow: SimulatedNode, _ fast: SimulatedNode, policy: String) -> GatewayPlan {
        var plan = GatewayPlan()
        plan.sections = ["routing: { policy: \(policy) }", "retry: { attempts: 1, budget: 0% }"]
        plan.serve("m", port: slow.port)
        plan.nodes[0].id = "slow"
        plan.nodes.append(
            GatewayPlan.Node(
                id: "fast", port: fast.port, models: ["m": GatewayPlan.upstreamName("m")], site: "there"))
        return plan
    }

    private func start(policy: String = "least_tokens") async throws -> Setup {
        let slow = try await SimulatedNode.serving("m", speed: .times(0.15))
        let fast = try await SimulatedNode.serving("m")
        let gateway = try await GatewayUnderTest.start(Self.plan(slow, fast, policy: policy))
        return Setup(gateway: gateway, slow: slow, fast: fast, customer: try await Customer.create(on: gateway))
    }

    @Test func aDrainedNodeGetsNothingNewAndAtTheDeadlineWhatIsLeftIsEndedOrTriedElsewhere() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        #expect(try await gateway.command("node", "cordon", "fast", "--json").code == 0)
        let stream = try gateway.connect()
        try stream.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 3_000))
        try await blocking {
            _ = try stream.head()
            _ = try stream.nextEvent()
            _ = try stream.nextEvent()
        }
        // Nothing of a plain answer goes down before it is whole.
        let plain = try gateway.connect()
        try plain.send(Ask.chat("m", key: setup.customer.key, tokens: 3_000))
        try await until("both requests on the slow node") {
            try await gateway.node("slow")["inflight_requests"]?.integer == 2
        }
        #expect(try await gateway.command("node", "uncordon", "fast").code == 0)

        let drained = try await gateway.command("node", "drain", "slow", "--deadline", "1500ms", "--json")
        #expect(drained.code == 0, "\(drained.errors)")
        #expect(try drained.json()["state"]?.string == "draining")
        #expect(try drained.json()["drain_ends_at"]?.string?.hasSuffix("Z") == true)
        let before = setup.fast.stats.requests
        #expect(try await gateway.ask(.chat("m", key: setup.customer.key, tokens: 3)).status == 200)
        _ = try await setup.fast.stats { $0.requests == before + 1 }

        let (events, answer) = try await blocking {
            var events: [String] = []
            while let event = try stream.nextEvent() { events.append(event) }
            return (events, try plain.response())
        }
        #expect(Answer.errorCode(of: events.last ?? "") == "upstream_unavailable")
        #expect(!events.contains("[DONE]"))
        #expect(answer.status == 200, "\(answer.text)")
        _ = try await setup.slow.stats { $0.aborted == 2 }
        let books = try await setup.customer.books(settles: 3)
        #expect(books.settles.count(where: { $0.completion == 3_000 }) == 1)

        // Through a restart, and until somebody says otherwise.
        #expect(try await gateway.stop().code == 0)
        try gateway.relaunch()
        try await gateway.waitUntilListening()
        try await until("the drain after the restart") { try await gateway.nodeStates()["slow"] == "draining" }
        let freed = try await gateway.command("node", "uncordon", "slow", "--json")
        #expect(try freed.json()["drain_ends_at"]?.isNull == true)
        try await until("the node after its drain") { try await gateway.nodeStates()["slow"] == "ready" }
    }

    @Test func aDrainThatIsWaitedForReturnsWhenNothingRuns() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        #expect(try await gateway.command("node", "cordon", "fast").code == 0)
        let stream = try gateway.connect()
        try stream.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 30))
        try await blocking { _ = try stream.head() }
        let drained = try await gateway.command("node", "drain", "slow", "--deadline", "1m", "--wait", "--json")
        #expect(try drained.json()["inflight_requests"]?.integer == 0)
        let last = try await blocking {
            var last = ""
            while let event = try stream.nextEvent() { last = event }
            return last
        }
        #expect(last == "[DONE]")
    }

    @Test func aCurtailedSiteIsSeenByEveryReplicaAndEndsByItself() async throws {
        let setup = try await start(policy: "predicted_cost")
        let gateway = setup.gateway
        let replica = try await GatewayUnderTest.start(gateway.plan, redis: gateway.redis)
        let curtailed = try await gateway.command("site", "curtail", "here", "--to", "40%", "--json")
        #expect(curtailed.code == 0, "\(curtailed.errors)")
        #expect(try curtailed.json()["power_percent"]?.double == 40)
        #expect(try await gateway.nodeStates() == ["slow": "curtailed", "fast": "ready"])
        try await until("the word at the other replica") {
            try await replica.nodeStates() == ["slow": "curtailed", "fast": "ready"]
        }
        // At 0% nothing new goes there; what runs goes on.
        _ = try await gateway.command("site", "restore", "here")
        _ = try await gateway.command("node", "cordon", "fast")
        let stream = try gateway.connect()
        try stream.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 40))
        try await blocking { _ = try stream.head() }
        _ = try await gateway.command("node", "uncordon", "fast")
        _ = try await gateway.command("site", "curtail", "here", "--to", "0%", "--for", "4s")
        let before = setup.fast.stats.requests
        for _ in 0..<5 { #expect(try await gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 200) }
        _ = try await setup.fast.stats { $0.requests == before + 5 }
        let last = try await blocking {
            var last = ""
            while let event = try stream.nextEvent() { last = event }
            return last
        }
        #expect(last == "[DONE]")
        for gateway in [gateway, replica] {
            try await until("the end of the curtailment") { try await gateway.nodeStates()["slow"] == "ready" }
        }
        let sites = try await gateway.command("site", "list", "--json")
        #expect(try sites.json()[0]?["state"]?.string == "ready")
        #expect((try sites.json()[0]?["rtt_measured_seconds"]?.double ?? 9) < 1)
    }

    @Test func aSiteThatWillLoseItsPowerTakesWhatEndsBefore() async throws {
        let setup = try await start(policy: "predicted_cost")
        let gateway = setup.gateway
        _ = try await gateway.command("node", "cordon", "fast")
        let announced = try await gateway.command("site", "curtail", "here", "--to", "0%", "--in", "10m", "--json")
        #expect(try announced.json()["state"]?.string == "announced")
        #expect(try announced.json()["power_percent"]?.double == 100)
        #expect(try await gateway.nodeStates()["slow"] == "curtailed")
        #expect(try await gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 200)
        // Nothing ends in no time; from then on there is no power.
        _ = try await gateway.command("site", "curtail", "here", "--to", "0%", "--in", "1ms")
        #expect(try await gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 503)
        _ = try await gateway.command("site", "restore", "here")
        #expect(try await gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 200)
        _ = try await setup.customer.books(settles: 2)
    }

    @Test func wrongUsageSaysWhatToWriteAndUnknownNamesWhatThereIs() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        for arguments in [
            ["site", "curtail", "here", "--to", "40"], ["site", "curtail", "here", "--to", "140%"],
            ["site", "curtail", "here", "--to", "40%", "--in", "soon"], ["node", "drain", "slow", "--deadline", "5"],
        ] {
            let ended = try await gateway.command(arguments)
            #expect(ended.code == 64 && ended.output.isEmpty, "\(arguments): \(ended)")
        }
        let unknown = try await gateway.command("node", "drain", "nobody", "--json")
        #expect(unknown.code == 1 && unknown.errors.contains("tollgate node list"), "\(unknown)")
        let nowhere = try await gateway.command("site", "restore", "nowhere")
        #expect(nowhere.code == 1 && nowhere.errors.contains("tollgate site list"), "\(nowhere)")
        for (path, body) in [
            ("nodes/slow/drain", #"{"deadline_seconds":-1}"#), ("nodes/slow/drain", #"{"deadline_seconds":"5m"}"#),
            ("sites/here/curtail", #"{"to_permille":1001}"#), ("sites/here/curtail", "{}"),
            ("sites/here/curtail", #"{"to_permille":0,"in_seconds":1e12}"#),
        ] {
            let answer = try await gateway.adminAnswer("POST", "/admin/v1/\(path)", body)
            #expect(answer.status == 400, "\(path) \(body): \(answer.text)")
        }
        #expect(try await gateway.nodeStates() == ["slow": "ready", "fast": "ready"])
    }

    @Test func whatOneGatewayPlacesTheOtherSeesUntilTheFirstIsKilled() async throws {
        let setup = try await start(policy: "predicted_cost")
        let gateway = setup.gateway
        let replica = try await GatewayUnderTest.start(gateway.plan, redis: gateway.redis)
        _ = try await gateway.command("node", "cordon", "fast")
        let streams = try (0..<3).map { _ in try gateway.connect() }
        for stream in streams {
            try stream.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 5_000))
        }
        try await until("the requests on the slow node") {
            try await gateway.node("slow")["inflight_requests"]?.integer == 3
        }
        try await until("the other gateway's figure") {
            let node = try await replica.node("slow")
            return node["peer_requests"]?.integer == 3 && (node["peer_tokens"]?.integer ?? 0) > 0
        }
        #expect(try await replica.node("slow")["inflight_requests"]?.integer == 0)
        #expect(try await gateway.node("slow")["peer_requests"]?.integer == 0)
        gateway.kill()
        try await until("the dead gateway to be forgotten") {
            try await replica.node("slow")["peer_requests"]?.integer == 0
        }
    }
}

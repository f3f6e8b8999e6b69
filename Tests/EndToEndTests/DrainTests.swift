import Domain
import Foundation
import JSON
import Simulator
import Testing

/// SIGTERM and SIGHUP on gateways of their own.
@Suite(.serialized) struct DrainTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let node: SimulatedNode
        let customer: Customer
    }

    private func start(drain: String, speed: NodeSpeed = .times(0.15), fault: String = "") async throws -> Setup {
        let node = try await SimulatedNode.serving("m", speed: speed, fault: fault)
        var plan = GatewayPlan()
        plan.sections = ["timeouts: { drain: \(drain) }"]
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, node: node, customer: try await Customer.create(on: gateway))
    }

    @Test func theEndOfAnIdleGatewayIsPromptAndClean() async throws {
        let setup = try await start(drain: "30s")
        let idle = try setup.gateway.connect()
        try idle.send(Ask.get("/v1/models", key: setup.customer.key))
        _ = try await blocking { try idle.response() }
        let started = MonotonicTime.now()
        let exit = try await setup.gateway.stop()
        #expect(exit.code == 0)
        #expect(MonotonicTime.now().seconds(since: started) < 5)
        #expect(try await blocking { try idle.rest() } == "")
        #expect(!setup.gateway.log.contains("EventLoop"))
        #expect(setup.gateway.log.contains("stopped"))
    }

    @Test func aStreamInFlightFinishesWhileTheGatewayDrains() async throws {
        let setup = try await start(drain: "20s")
        let gateway = setup.gateway
        let wire = try gateway.connect()
        let idle = try gateway.connect()
        try wire.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 30))
        try await blocking {
            _ = try wire.head()
            _ = try wire.nextEvent()
        }
        gateway.process.signal(SIGTERM)
        try await until("readyz to say 503") { try await !gateway.isReady() }
        let readiness = try await gateway.adminAnswer("GET", "/readyz")
        #expect(readiness.status == 503)
        #expect(readiness.text.contains("drain"))
        #expect(try await gateway.adminAnswer("GET", "/livez").status == 200)
        #expect(throws: Wire.Failure.self) { try gateway.connect() }
        #expect(try await blocking { try idle.rest() } == "")
        let (last, contents, isOrderly) = try await blocking {
            var last = ""
            var contents = 0
            while let event = try wire.nextEvent() {
                last = event
                if event.contains("\"content\":\""), !event.contains("\"content\":\"\"") { contents += 1 }
            }
            return (last, contents, try wire.waitForClose())
        }
        #expect(last == "[DONE]")
        #expect(contents == 30)
        #expect(isOrderly)
        #expect(try await gateway.process.wait().code == 0)
        try await gateway.restart()
        let entry = try await setup.customer.onlySettle()
        #expect(entry.completion == 30)
        #expect(!entry.estimated)
    }

    @Test func whatRunsPastTheDrainTimeGetsAnErrorEventAndIsChargedForWhatCame() async throws {
        let setup = try await start(drain: "400ms")
        let gateway = setup.gateway
        let wire = try gateway.connect()
        let ask = Ask.chat("m", key: setup.customer.key, stream: true, tokens: 2_000)
        try wire.send(ask)
        try await blocking {
            _ = try wire.head()
            _ = try wire.nextEvent()
        }
        gateway.process.signal(SIGTERM)
        let events = try await blocking {
            var events: [String] = []
            while let event = try wire.nextEvent() { events.append(event) }
            return events
        }
        #expect(Answer.errorCode(of: events.last ?? "") == "shutting_down")
        #expect(!events.contains("[DONE]"))
        #expect(try await gateway.process.wait().code == 0)
        _ = try await setup.node.stats { $0.aborted == 1 }
        try await gateway.restart()
        let entry = try await setup.customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        // The first event was read before; it may have been the role alone.
        #expect(abs(entry.completion - events.count) <= 1)
    }

    @Test func aPlainRequestPastTheDrainTimeGets503AndCostsNothing() async throws {
        let setup = try await start(drain: "300ms", speed: .instant, fault: "first_token:60s")
        let gateway = setup.gateway
        let wire = try gateway.connect()
        try wire.send(Ask.chat("m", key: setup.customer.key))
        _ = try await setup.node.stats { $0.requests == 1 }
        gateway.process.signal(SIGTERM)
        let answer = try await blocking { try wire.response() }
        #expect(answer.status == 503)
        #expect(answer.errorCode == "shutting_down")
        #expect(answer.header("connection") == "close")
        #expect(try await gateway.process.wait().code == 0)
        try await gateway.restart()
        try await setup.customer.expectNoCharge()
    }

    @Test func aRequestOnAConnectionThatWasBusyAtTheSignalIsTheLastOne() async throws {
        let setup = try await start(drain: "10s", speed: .instant, fault: "first_token:500ms")
        let gateway = setup.gateway
        let wire = try gateway.connect()
        try wire.send(Ask.chat("m", key: setup.customer.key))
        _ = try await setup.node.stats { $0.requests == 1 }
        gateway.process.signal(SIGTERM)
        let (answer, isOrderly) = try await blocking { (try wire.response(), try wire.waitForClose()) }
        #expect(answer.status == 200)
        #expect(answer.header("connection") == "close")
        #expect(isOrderly)
        #expect(try await gateway.process.wait().code == 0)
    }

    // MARK: Reload

    @Test func sighupAndAChangedFileReloadAndABadFileKeepsTheLastGood() async throws {
        let setup = try await start(drain: "1s", speed: .instant)
        let gateway = setup.gateway
        let key = setup.customer.key
        var plan = gateway.plan
        plan.models.append(GatewayPlan.Model(id: "second"))
        plan.nodes[0].models["second"] = GatewayPlan.upstreamName("m")
        func write(_ text: String) throws {
            try text.write(toFile: gateway.configurationFile, atomically: true, encoding: .utf8)
        }
        func reloads() -> Int { gateway.log.components(separatedBy: "configuration reloaded").count - 1 }

        #expect(try await gateway.ask(.chat("second", key: key)).status == 404)
        try write(plan.yaml(redisURL: gateway.redis.url, journal: gateway.journalDirectory))
        try await until("the changed file's model") { try await gateway.ask(.chat("second", key: key)).status == 200 }
        #expect(reloads() >= 1)

        let before = reloads()
        gateway.process.signal(SIGHUP)
        try await until("a reload by SIGHUP") { reloads() > before }

        try write("listen: nonsense\nmodels: [")
        try await until("the refusal of the bad file") { gateway.log.contains("the last good one stays") }
        #expect(try await gateway.ask(.chat("second", key: key)).status == 200)

        let moved = plan.yaml(redisURL: gateway.redis.url, journal: gateway.journalDirectory)
            .replacingOccurrences(of: "event_loops: 2", with: "event_loops: 1")
        try write(moved)
        try await until("the word on what needs a restart") {
            gateway.log.contains("event_loops changed: it needs a restart")
        }
        #expect(try await gateway.ask(.chat("second", key: key)).status == 200)
        #expect(try await gateway.stop().code == 0)
    }

    @Test func aRequestInFlightSurvivesAReloadThatRemovesItsNode() async throws {
        let setup = try await start(drain: "1s", speed: .times(0.15))
        let gateway = setup.gateway
        let wire = try gateway.connect()
        try wire.send(Ask.chat("m", key: setup.customer.key, stream: true, tokens: 25))
        try await blocking {
            _ = try wire.head()
            _ = try wire.nextEvent()
        }
        var plan = gateway.plan
        plan.nodes[0].id = "another"
        let text = plan.yaml(redisURL: gateway.redis.url, journal: gateway.journalDirectory)
        try text.write(toFile: gateway.configurationFile, atomically: true, encoding: .utf8)
        gateway.process.signal(SIGHUP)
        try await until("the other node") { try await gateway.nodeStates().keys.sorted() == ["another"] }
        let last = try await blocking {
            var last = ""
            while let event = try wire.nextEvent() { last = event }
            return last
        }
        #expect(last == "[DONE]")
        #expect(try await setup.customer.onlySettle().completion == 25)
    }

    // MARK: Starting

    @Test func aSecondGatewayOnTheSameJournalRefusesToStart() async throws {
        let setup = try await start(drain: "1s", speed: .instant)
        let second = try GatewayUnderTest(
            setup.gateway.plan, redis: setup.gateway.redis, journal: setup.gateway.journalDirectory)
        let exit = try await second.process.wait()
        #expect(exit.code == 1)
        #expect(second.log.contains(setup.gateway.journalDirectory))
        // The first is none the worse for it.
        #expect(try await setup.gateway.ask(.chat("m", key: setup.customer.key)).status == 200)
        _ = try await setup.customer.onlySettle()
    }

    @Test func aTakenPortOrAMissingRedisEndsTheStartWithOneLineAndExit1() async throws {
        let setup = try await start(drain: "1s", speed: .instant)
        let taken = setup.gateway.plan.yaml(redisURL: setup.gateway.redis.url, journal: "/tmp/never-used")
            .replacingOccurrences(of: "listen: 127.0.0.1:0\n", with: "listen: 127.0.0.1:\(setup.gateway.port)\n")
        let away = setup.gateway.plan.yaml(redisURL: "redis://127.0.0.1:1/0", journal: "/tmp/never-used")
        for (name, text, words) in [("taken", taken, "cannot listen"), ("away", away, "cannot use Redis")] {
            let journal = "\(setup.gateway.directory)/\(name)-journal"
            try text.replacingOccurrences(of: "/tmp/never-used", with: journal)
                .write(toFile: "\(setup.gateway.directory)/\(name).yaml", atomically: true, encoding: .utf8)
            let process = try TollgateProcess(
                arguments: ["serve", "--config", "\(setup.gateway.directory)/\(name).yaml"],
                environment: [
                    "TOLLGATE_PEPPER": "p1:\(GatewayUnderTest.pepper)", "E2E_ADMIN_TOKEN": GatewayUnderTest.adminToken,
                ], directory: setup.gateway.directory, name: name)
            #expect(try await process.wait().code == 1)
            let lines = process.errors.split(separator: "\n").filter { !$0.contains(" info ") }
            #expect(lines.count == 1, "\(process.errors)")
            #expect(process.errors.contains(words))
        }
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Requests that wait in the gateway while no node has room.
@Suite(.serialized) struct QueueTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let node: GatedNode
        let customer: Customer

        func ask(
            _ mark: String, _ customer: Customer? = nil, tier: String? = nil, headers: [(String, String)] = []
        ) -> Ask {
            let fields = tier.map { "\"service_tier\":\"\($0)\"," } ?? ""
            var ask = Ask.chat("m", key: (customer ?? self.customer).key, prompt: "Say <\(mark)>.", fields: fields)
            for (name, value) in headers { ask = ask.with(name, value) }
            return ask
        }

        /// Sends it, and looks until the gateway has so many waiting.
        func send(_ ask: Ask, waiting: Int) async throws -> Wire {
            let wire = try gateway.connect()
            try wire.send(ask)
            try await expectWaiting(waiting)
            return wire
        }

        /// Sends it and looks until the node has it.
        func occupy() async throws -> Wire {
            let wire = try gateway.connect()
            try wire.send(ask("first"))
            try await until("the node to have the first") { node.requests == 1 }
            return wire
        }

        func expectWaiting(_ count: Int) async throws {
            try await until("\(count) to wait") { try await gateway.gauge("tollgate_queue_length") == count }
        }
    }

    /// One node that takes one request at a time.
    private func start(_ sections: [String] = [], loops: Int = 2) async throws -> Setup {
        let node = try GatedNode("m")
        var plan = GatewayPlan()
        plan.sections = sections
        plan.loops = loops
        plan.serve("m", port: node.port)
        plan.nodes[0].concurrency = 1
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, node: node, customer: try await Customer.create(on: gateway))
    }

    private func answers(_ wires: [Wire]) async throws -> [Answer] {
        try await blocking { try wires.map { try $0.response() } }
    }

    @Test func oneOrgsFloodDelaysAnotherByTwoRequestsAtMost() async throws {
        let setup = try await start()
        let other = try await Customer.create(on: setup.gateway)
        var wires = [try await setup.occupy()]
        for number in 0..<50 {
            let wire = try setup.gateway.connect()
            try wire.send(setup.ask("a\(number)"))
            wires.append(wire)
        }
        try await setup.expectWaiting(50)
        wires.append(try await setup.send(setup.ask("b", other), waiting: 51))
        setup.node.answer(52)
        #expect(try await answers(wires).allSatisfy { $0.status == 200 })
        let place = try #require(setup.node.order.firstIndex(of: "b"))
        // Behind the one that the node had already.
        #expect(place <= 3, "\(setup.node.order)")
        #expect(setup.node.most == 1)
        _ = try await setup.customer.books(settles: 51)
        _ = try await other.books(settles: 1)
        let metrics = try await Metrics(setup.gateway.metrics())
        #expect(metrics.value("tollgate_queue_wait_seconds_count") == 51)
        #expect(metrics.value("tollgate_queue_refused_total") == 0)
        #expect(metrics.value("tollgate_illegal_events_total") == 0)
    }

    @Test func whoLeavesWhileWaitingNeverReachesTheNodeAndPaysNothing() async throws {
        let setup = try await start()
        let leaver = try await Customer.create(on: setup.gateway)
        let before = try await leaver.show()["available_nanousd"]?.integer
        let first = try await setup.occupy()
        let wire = try await setup.send(setup.ask("gone", leaver), waiting: 1)
        try await until("its hold") { try await leaver.show()["open_reservations"]?.integer == 1 }
        let left = MonotonicTime.now()
        wire.close()
        try await setup.expectWaiting(0)
        #expect(MonotonicTime.now().seconds(since: left) < 2)
        try await leaver.waitUntilNothingIsHeld()
        #expect(try await leaver.show()["available_nanousd"]?.integer == before)
        let last = try await setup.send(setup.ask("last"), waiting: 1)
        setup.node.answer(2)
        #expect(try await answers([first, last]).allSatisfy { $0.status == 200 })
        #expect(setup.node.order == ["first", "last"])
        try await leaver.expectNoCharge()
    }

    @Test func whoIsNotServedByTheDeadlineGets429WithAnHonestRetryAfter() async throws {
        let setup = try await start(["queue: { deadline: 700ms }"])
        let first = try await setup.occupy()
        let began = MonotonicTime.now()
        let answer = try await setup.gateway.ask(setup.ask("late"))
        let seconds = MonotonicTime.now().seconds(since: began)
        #expect((0.5..<5).contains(seconds), "\(seconds)")
        #expect(answer.status == 429)
        #expect(answer.errorCode == "overloaded")
        let milliseconds = try #require(Int(answer.header("retry-after-ms") ?? ""))
        #expect(milliseconds >= 1_000)
        #expect(Int(answer.header("retry-after") ?? "") == (milliseconds + 999) / 1_000)
        setup.node.answer()
        #expect(try await answers([first])[0].status == 200)
        #expect(setup.node.order == ["first"])
        _ = try await setup.customer.books(settles: 1)
        let line = try await setup.gateway.accessLine(of: answer.requestID)
        #expect(line["failure"]?.string == "saturated")
        let metrics = try await Metrics(setup.gateway.metrics())
        #expect(metrics.value("tollgate_queue_refused_total", ["reason": "late"]) == 1)
    }

    /// Once no time would be left for an answer: 408 at the very end would be of no use.
    @Test func whoseTimeIsNearlyOverGets429InPlaceOf408() async throws {
        let setup = try await start(["timeouts: { request: 4s }"])
        let first = try await setup.occupy()
        let began = MonotonicTime.now()
        let answer = try await setup.gateway.ask(setup.ask("late"))
        let seconds = MonotonicTime.now().seconds(since: began)
        #expect(answer.status == 429, "after \(seconds) s")
        #expect(answer.errorCode == "overloaded")
        #expect((3.5..<4).contains(seconds), "\(seconds)")
        first.close()
        try await setup.customer.waitUntilNothingIsHeld()
        #expect(setup.node.order == ["first"])
    }

    /// What is predicted is said at once: the queue is known to take longer than this client has.
    @Test func whoWouldBeServedTooLateIsRefusedAtOnce() async throws {
        let setup = try await start(["queue: { deadline: 60s }"])
        let first = try await setup.occupy()
        // It teaches how long requests take here.
        try await Task.sleep(for: .milliseconds(1_200))
        setup.node.answer()
        _ = try await answers([first])
        let running = try setup.gateway.connect()
        try running.send(setup.ask("running"))
        try await until("the node to have it") { setup.node.requests == 2 }
        var waiting: [Wire] = []
        for number in 1...5 { waiting.append(try await setup.send(setup.ask("\(number)"), waiting: number)) }
        let other = try await Customer.create(on: setup.gateway)
        for number in 6...10 { waiting.append(try await setup.send(setup.ask("\(number)", other), waiting: number)) }
        let began = MonotonicTime.now()
        // By its own word it gives up before the five of its org have been served.
        let wires = try (0..<6).map { _ in try setup.gateway.connect() }
        for wire in wires { try wire.send(setup.ask("hurried", headers: [("x-stainless-timeout", "2.5")])) }
        let refused = try await blocking { try wires[5].response() }
        #expect(MonotonicTime.now().seconds(since: began) < 2)
        #expect(refused.status == 429)
        #expect((Int(refused.header("retry-after-ms") ?? "") ?? 0) >= 1_000)
        setup.node.answer(100)
        #expect(try await answers([running] + waiting).allSatisfy { $0.status == 200 })
    }

    @Test func aFullQueueRefusesWhoHoldsTheMost() async throws {
        let setup = try await start(["queue: { requests: 2 }"])
        let other = try await Customer.create(on: setup.gateway)
        let first = try await setup.occupy()
        let second = try await setup.send(setup.ask("second"), waiting: 1)
        let third = try await setup.send(setup.ask("third"), waiting: 2)
        let refused = try await setup.gateway.ask(setup.ask("fourth"))
        #expect(refused.status == 429 && refused.errorCode == "overloaded")
        #expect((Int(refused.header("retry-after") ?? "") ?? 0) >= 1)
        // Another org finds a place all the same: the last of whoever holds the most makes way.
        let newcomer = try setup.gateway.connect()
        try newcomer.send(setup.ask("newcomer", other))
        let evicted = try await answers([third])[0]
        #expect(evicted.status == 429 && evicted.errorCode == "overloaded")
        setup.node.answer(3)
        #expect(try await answers([first, second, newcomer]).allSatisfy { $0.status == 200 })
        #expect(Set(setup.node.order) == ["first", "second", "newcomer"])
        _ = try await setup.customer.books(settles: 2)
        _ = try await other.books(settles: 1)
        let metrics = try await Metrics(setup.gateway.metrics())
        #expect(metrics.value("tollgate_queue_refused_total", ["reason": "full"]) == 2)
    }

    @Test func wherePatienceIsNotConfiguredNobodyWaits() async throws {
        let setup = try await start(["queue: { requests: 0 }"])
        let first = try await setup.occupy()
        #expect(try await setup.gateway.ask(setup.ask("second")).status == 429)
        setup.node.answer()
        #expect(try await answers([first])[0].status == 200)
    }

    @Test func tiersAndDeadlinesOrderThoseWhoWait() async throws {
        let setup = try await start()
        let first = try await setup.occupy()
        var wires = [first]
        let asks = [
            setup.ask("flex", tier: "flex"), setup.ask("patient"),
            setup.ask("hurried", headers: [("X-Stainless-Timeout", "20")]), setup.ask("default", tier: "default"),
            setup.ask("priority", tier: "priority"),
        ]
        for (number, ask) in asks.enumerated() { wires.append(try await setup.send(ask, waiting: number + 1)) }
        setup.node.answer(6)
        #expect(try await answers(wires).allSatisfy { $0.status == 200 })
        #expect(setup.node.order == ["first", "priority", "hurried", "patient", "default", "flex"])
    }

    @Test func priorityIsForThoseWhomTheOperatorNames() async throws {
        let setup = try await start(["queue: { priority_orgs: [somebody-else] }"])
        var wires = [try await setup.occupy()]
        for (number, tier) in ["flex", "default", "priority"].enumerated() {
            wires.append(try await setup.send(setup.ask(tier, tier: tier), waiting: number + 1))
        }
        setup.node.answer(4)
        #expect(try await answers(wires).allSatisfy { $0.status == 200 })
        #expect(setup.node.order == ["first", "default", "priority", "flex"])
    }

    @Test func aGatewayThatDrainsServesThoseWhoWait() async throws {
        let setup = try await start(["timeouts: { drain: 20s }"])
        let first = try await setup.occupy()
        let second = try await setup.send(setup.ask("second"), waiting: 1)
        setup.gateway.process.signal(SIGTERM)
        try await until("readyz to say 503") { try await !setup.gateway.isReady() }
        setup.node.answer(2)
        #expect(try await answers([first, second]).allSatisfy { $0.status == 200 })
        #expect(try await setup.gateway.process.wait().code == 0)
        try await setup.gateway.restart()
        _ = try await setup.customer.books(settles: 2)
    }

    @Test func whoStillWaitsAtTheEndOfTheDrainGets503AndPaysNothing() async throws {
        let setup = try await start(["timeouts: { drain: 400ms }"])
        let first = try await setup.occupy()
        let second = try await setup.send(setup.ask("second"), waiting: 1)
        setup.gateway.process.signal(SIGTERM)
        let refused = try await answers([first, second])
        #expect(refused.allSatisfy { $0.status == 503 && $0.errorCode == "shutting_down" })
        #expect(try await setup.gateway.process.wait().code == 0)
        #expect(setup.node.order == ["first"])
        try await setup.gateway.restart()
        try await setup.customer.expectNoCharge()
    }

    @Test func streamsOfHTTP2WaitAndLeaveAlike() async throws {
        let certificate = try await Certificate(name: "queue")
        let setup = try await start([certificate.section])
        let (port, key) = (setup.gateway.port, setup.customer.key)
        let asks = ["first", "second", "third"].map { Ask.chat("m", key: key, prompt: "Say <\($0)>.") }
        let wire = try await blocking {
            let wire = try H2Wire(port: port)
            try wire.send(1, asks[0])
            return wire
        }
        try await until("the node to have the first") { setup.node.requests == 1 }
        try await blocking {
            try wire.send(3, asks[1])
            try wire.send(5, asks[2])
        }
        try await setup.expectWaiting(2)
        try await blocking { try wire.reset(3) }
        try await setup.expectWaiting(1)
        setup.node.answer(2)
        let statuses = try await blocking { [try wire.response(1).status, try wire.response(5).status] }
        #expect(statuses == [200, 200])
        #expect(setup.node.order == ["first", "third"])
        _ = try await setup.customer.books(settles: 2)
    }

    /// The node that fails it is not asked again; the one that it waits for is another's meanwhile.
    @Test func aRetryWaitsAtTheHead() async throws {
        let good = try GatedNode("m")
        let release = DispatchSemaphore(value: 0)
        let bad = try ScriptedNode { peer in
            _ = peer.readBody()
            release.wait()
            peer.write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        }
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        plan.serve("m", port: good.port)
        plan.nodes[0].concurrency = 1
        plan.nodes.append(
            GatewayPlan.Node(
                id: "bad", port: bad.port, models: ["m": GatewayPlan.upstreamName("m")], concurrency: 1))
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        let setup = Setup(gateway: gateway, node: good, customer: customer)
        let wires = try ["one", "two"].map { mark in
            let wire = try gateway.connect()
            try wire.send(setup.ask(mark))
            return wire
        }
        try await until("both nodes to have one") { good.requests == 1 && bad.requests == 1 }
        let third = try await setup.send(setup.ask("three", tier: "priority"), waiting: 1)
        // The bad node fails its request, which goes back to the head: the third takes the bad node's place meanwhile.
        release.signal()
        try await until("the third to be tried there") { bad.requests == 2 }
        try await setup.expectWaiting(1)
        release.signal()
        try await setup.expectWaiting(2)
        good.answer(3)
        let statuses = try await answers(wires + [third]).map(\.status)
        #expect(statuses == [200, 200, 200])
        #expect(good.order.count == 3 && good.order[2] == "three", "\(good.order)")
        _ = try await customer.books(settles: 3)
    }

    /// Many clients on several loops, some of whom leave whenever: room that is made is always taken, and all of it is given
    /// back.
    @Test func nothingIsLostWhileManyComeAndGo() async throws {
        let node = try await SimulatedNode.serving("m", fault: "first_token:2ms")
        var plan = GatewayPlan()
        plan.loops = 4
        plan.serve("m", port: node.port)
        plan.nodes[0].concurrency = 2
        let gateway = try await GatewayUnderTest.start(plan)
        let customers = [try await Customer.create(on: gateway), try await Customer.create(on: gateway)]
        let keys = customers.map(\.key)
        let port = gateway.port
        let answered = try await withThrowingTaskGroup(of: Int.self) { group in
            for client in 0..<24 {
                group.addTask {
                    try await blocking {
                        var answered = 0
                        for turn in 0..<20 {
                            let wire = try Wire(port: port)
                            try wire.send(.chat("m", key: keys[client % 2], stream: turn % 2 == 0, tokens: 2))
                            // Every third leaves: some before they are let in, some while they wait, some later.
                            if (client + turn) % 3 == 0 {
                                _ = wire.isSilent(for: .milliseconds((client * 7 + turn * 3) % 20))
                                wire.close()
                            } else {
                                answered += try wire.response().status == 200 ? 1 : 0
                            }
                        }
                        return answered
                    }
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(answered == 320)
        try await until("all to have gone") { try await gateway.gauge("tollgate_requests_open") == 0 }
        #expect(try await gateway.gauge("tollgate_queue_length") == 0)
        #expect(try await gateway.gauge("tollgate_illegal_events_total") == 0)
        let metrics = try await Metrics(gateway.metrics())
        #expect(metrics.value("tollgate_inflight_requests") == 0)
        for customer in customers { try await customer.waitUntilNothingIsHeld() }
        // And nothing of them is left in the books by which turns go.
        for key in keys { #expect(try await gateway.ask(.chat("m", key: key)).status == 200) }
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Synchronization
import Testing

/// `kill -9`, of the gateway and of Redis: what was answered is charged once, however things ended.
@Suite(.serialized) struct CrashTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let fast: SimulatedNode
        let slow: SimulatedNode
        let customer: Customer
    }

    private func start() async throws -> Setup {
        let fast = try await SimulatedNode.serving("fast")
        let slow = try await SimulatedNode.serving("slow", speed: .times(0.15))
        var plan = GatewayPlan()
        plan.serve("fast", port: fast.port)
        plan.serve("slow", port: slow.port)
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(gateway: gateway, fast: fast, slow: slow, customer: try await Customer.create(on: gateway))
    }

    /// Clients that ask one request after the other until told to stop.
    private final class Load: Sendable {
        private let isStopped = Atomic<Bool>(false)
        private let answers = Mutex<[Answer]>([])
        private let broken = Atomic<Int>(0)
        private let tasks = Mutex<[Task<Void, Never>]>([])

        /// Answers so far, whatever they said.
        var answered: [Answer] { answers.withLock { $0 } }
        var served: [Answer] { answered.filter { $0.status == 200 } }
        /// Requests whose connection ended without a whole answer.
        var brokenCount: Int { broken.load(ordering: .relaxed) }

        init(_ customer: Customer, clients: Int) {
            for index in 0..<clients {
                let task = Task {
                    while !isStopped.load(ordering: .relaxed) {
                        do {
                            let answer = try await customer.gateway.ask(
                                .chat("fast", key: customer.key, stream: index % 2 == 0, tokens: 1 + index))
                            // A stream that was cut off ends without its last chunk, which `ask` reports as an error.
                            answers.withLock { $0.append(answer) }
                        } catch {
                            broken.add(1, ordering: .relaxed)
                            try? await Task.sleep(for: .milliseconds(20))
                        }
                    }
                }
                tasks.withLock { $0.append(task) }
            }
        }

        func stop() async {
            isStopped.store(true, ordering: .relaxed)
            for task in tasks.withLock({ $0 }) { await task.value }
        }
    }

    private final class Counter: Sendable {
        private let count = Atomic<Int>(0)
        var value: Int { count.load(ordering: .relaxed) }
        func add() { count.add(1, ordering: .relaxed) }
    }

    // MARK: The gateway

    @Test func aKilledGatewaysAnswersAreChargedOnceAndItsOpenStreamByWhatItDelivered() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        var plain: [String] = []
        for _ in 0..<5 { plain.append(try await gateway.ask(.chat("fast", key: setup.customer.key)).requestID) }
        let ask = Ask.chat("slow", key: setup.customer.key, stream: true, tokens: 2_000)
        let wire = try gateway.connect()
        try wire.send(ask)
        let streamID = try await blocking { try wire.head().requestID }
        let began = MonotonicTime.now()
        let counted = Counter()
        // Reads to the bitter end: what counts is what was delivered, whenever the kill comes.
        let reader = Task {
            try? await blocking {
                while let event = try wire.nextEvent() {
                    if event.contains("\"content\":\""), !event.contains("\"content\":\"\"") { counted.add() }
                }
            }
        }
        // Progress is written each second: after two of them some of it must be in the journal.
        try await until("two seconds of a stream") {
            MonotonicTime.now().seconds(since: began) > 2.2 && counted.value > 20
        }
        gateway.kill()
        await reader.value
        let delivered = counted.value
        try await gateway.restart()
        let books = try await setup.customer.books(settles: 6)
        #expect(Set(books.settles.compactMap(\.requestID)) == Set(plain + [streamID]))
        let stream = try #require(books.settles.first { $0.requestID == streamID })
        #expect(stream.estimated)
        #expect(ask.promptEstimates.contains(stream.prompt))
        // The last second's tokens are free, not more.
        #expect(stream.completion <= delivered)
        #expect(stream.completion > 0)
        #expect(stream.completion < 2_000)
        #expect(books.settles.filter { $0.requestID != streamID }.allSatisfy { !$0.estimated && $0.completion == 8 })
        _ = try await setup.slow.stats { $0.aborted >= 1 }
    }

    @Test func aGatewayKilledUnderLoadAgainAndAgainChargesEveryAnswerOnce() async throws {
        let setup = try await start()
        let load = Load(setup.customer, clients: 6)
        for round in 1...3 {
            let before = load.served.count
            try await until("answers in round \(round)", within: .seconds(20)) { load.served.count >= before + 25 }
            setup.gateway.kill()
            try await setup.gateway.restart()
        }
        try await until("answers after the last restart") { load.brokenCount > 0 && load.served.count >= 80 }
        await load.stop()
        let served = load.served
        #expect(load.answered.allSatisfy { [200, 503].contains($0.status) })
        #expect(served.allSatisfy { !$0.text.contains("\"error\"") })
        let ids = Set(served.map(\.requestID))
        #expect(ids.count == served.count)
        try await setup.customer.waitUntilNothingIsHeld()
        // Charged beyond that may only be what was cut off by a kill: at most one for each client and round.
        let charged = try await setup.customer.entries().compactMap(\.requestID)
        #expect(Set(charged).count == charged.count)
        #expect(ids.isSubset(of: charged), "\(ids.subtracting(charged))")
        #expect(charged.count <= served.count + 6 * 3)
        _ = try await setup.customer.books(settles: charged.count)
    }

    @Test func aGatewayStoppedAndStartedManyTimesKeepsItsBooks() async throws {
        let setup = try await start()
        for round in 1...3 {
            for _ in 0..<4 {
                #expect(try await setup.gateway.ask(.chat("fast", key: setup.customer.key)).status == 200)
            }
            #expect(try await setup.gateway.stop().code == 0)
            try await setup.gateway.restart()
            _ = try await setup.customer.books(settles: 4 * round)
        }
    }

    // MARK: Redis

    @Test func whileRedisIsDeadRequestsGet503AndServiceComesBackByItself() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        let load = Load(setup.customer, clients: 4)
        for round in 1...2 {
            let before = load.served.count
            try await until("answers in round \(round)") { load.served.count >= before + 30 }
            gateway.redis.kill9()
            try await until("a refusal while Redis is dead") { load.answered.contains { $0.status == 503 } }
            let stranger = try await gateway.ask(.chat("fast", key: setup.customer.key))
            #expect(stranger.status == 503)
            #expect(stranger.errorCode == "store_unavailable")
            try await until("readyz to say so") { try await !gateway.isReady() }
            try gateway.redis.restart()
            try await until("service to come back", within: .seconds(20)) {
                try await gateway.ask(.chat("fast", key: setup.customer.key)).status == 200
            }
            try await until("readyz to say so") { try await gateway.isReady() }
        }
        await load.stop()
        #expect(load.brokenCount == 0)
        #expect(load.answered.allSatisfy { $0.status == 200 || $0.errorCode == "store_unavailable" })
        try await setup.customer.waitUntilNothingIsHeld()
        let charged = try await setup.customer.entries().compactMap(\.requestID)
        #expect(Set(load.served.map(\.requestID)).isSubset(of: charged))
        // Beside the load's, the two requests that told of the service's return.
        let books = try await setup.customer.books(settles: load.served.count + 2)
        #expect(Set(books.settles.compactMap(\.requestID)).count == load.served.count + 2)
        #expect(gateway.process.isRunning)
    }

    @Test func aStreamThatEndsWhileRedisIsDeadIsChargedWhenItIsBack() async throws {
        let setup = try await start()
        let wire = try setup.gateway.connect()
        try wire.send(Ask.chat("slow", key: setup.customer.key, stream: true, tokens: 15))
        _ = try await blocking {
            _ = try wire.head()
            return try wire.nextEvent()
        }
        setup.gateway.redis.kill9()
        let last = try await blocking {
            var last = ""
            while let event = try wire.nextEvent() { last = event }
            return last
        }
        #expect(last == "[DONE]")
        try setup.gateway.redis.restart()
        let entry = try await setup.customer.onlySettle()
        #expect(entry.completion == 15)
        #expect(!entry.estimated)
    }

    @Test func bothKilledInMidStreamLoseNothing() async throws {
        let setup = try await start()
        let wire = try setup.gateway.connect()
        try wire.send(Ask.chat("slow", key: setup.customer.key, stream: true, tokens: 12))
        _ = try await blocking {
            _ = try wire.head()
            return try wire.nextEvent()
        }
        setup.gateway.redis.kill9()
        _ = try await blocking { while try wire.nextEvent() != nil {} }
        // Answered whole, known to the journal alone.
        setup.gateway.kill()
        try setup.gateway.redis.restart()
        try await setup.gateway.restart()
        let entry = try await setup.customer.onlySettle()
        #expect(entry.completion == 12)
        #expect(!entry.estimated)
    }

    @Test func aRedisThatHangsIsWaitedForTwoSecondsAndItsLateAnswersDoNoHarm() async throws {
        let setup = try await start()
        let gateway = setup.gateway
        for _ in 0..<3 { #expect(try await gateway.ask(.chat("fast", key: setup.customer.key)).status == 200) }
        let redis = try #require(gateway.redis.processID)
        kill(redis, SIGSTOP)
        defer { kill(redis, SIGCONT) }
        let asked = MonotonicTime.now()
        let answers = try await withThrowingTaskGroup(of: Answer.self) { group in
            for _ in 0..<5 { group.addTask { try await gateway.ask(.chat("fast", key: setup.customer.key)) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(answers.allSatisfy { $0.status == 503 && $0.errorCode == "store_unavailable" })
        #expect(MonotonicTime.now().seconds(since: asked) < 6)
        kill(redis, SIGCONT)
        try await until("service to come back") {
            try await gateway.ask(.chat("fast", key: setup.customer.key)).status == 200
        }
        _ = try await setup.customer.books(settles: 4)
    }
}

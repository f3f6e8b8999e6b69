import Billing
import Domain
import Logging
import NIOCore
import NIOPosix
import Redis
import Routing
import Support
import Synchronization
import Testing

@testable import Gateway

private let a = NodeID(unchecked: "a")
private let b = NodeID(unchecked: "austin-01/b")
private let austin = SiteID(unchecked: "austin")

/// A moment of the monotonic clock, in milliseconds.
private func at(_ milliseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: milliseconds * 1_000_000) }

private func wall(_ milliseconds: Int64) -> WallTime { WallTime(milliseconds: milliseconds) }

/// The rules of words, without a store.
struct WordKeeperTests {
    /// The store's clock stands a million milliseconds ahead of the monotonic one.
    private static let ahead: Int64 = 1_000_000

    private func keeper(_ now: Int64 = 0, _ change: (inout OperatorWords) -> Void) -> WordKeeper {
        var keeper = WordKeeper()
        read(&keeper, now, change)
        return keeper
    }

    @discardableResult
    private func read(_ keeper: inout WordKeeper, _ now: Int64, _ change: (inout OperatorWords) -> Void) -> Bool {
        var words = keeper.words
        change(&words)
        let number = keeper.readBegins()
        return keeper.read(
            OperatorWordsReading(words: words, storeTime: wall(now + Self.ahead)), number: number, began: at(now),
            now: at(now))
    }

    @Test func readsThatBeganBeforeAWordWasSaidAreDropped() {
        var keeper = WordKeeper()
        let early = keeper.readBegins()
        let late = keeper.readBegins()
        var words = OperatorWords()
        words.cordoned = [a]
        let nothing = OperatorWordsReading(words: OperatorWords(), storeTime: wall(0))
        let cordoned = OperatorWordsReading(words: words, storeTime: wall(0))
        let first = keeper.read(cordoned, number: late, began: at(0), now: at(0))
        #expect(first)
        // Began earlier and ended later.
        let second = keeper.read(nothing, number: early, began: at(1), now: at(1))
        #expect(!second && keeper.words.cordoned == [a])
        let before = keeper.readBegins()
        keeper.wordSaid()
        let third = keeper.read(nothing, number: before, began: at(2), now: at(2))
        #expect(!third && keeper.words.cordoned == [a])
        let fourth = keeper.read(nothing, number: keeper.readBegins(), began: at(3), now: at(3))
        #expect(fourth && keeper.words.cordoned == [])
    }

    @Test func aDrainEndsOnceAtItsDeadlineOnTheStoresClock() {
        var keeper = keeper { $0.draining[a] = wall(Self.ahead + 500) }
        #expect(keeper.standing(of: a, site: austin, now: at(0)).isDraining)
        #expect(keeper.nextTransition(now: at(0)) == at(500))
        #expect(keeper.drainsEnded(now: at(499)) == [])
        #expect(keeper.drainsEnded(now: at(500)) == [a])
        #expect(keeper.drainsEnded(now: at(501)) == [])
        #expect(keeper.nextTransition(now: at(501)) == nil)
        // It drains on until somebody says otherwise, and a new deadline is carried out anew.
        #expect(keeper.standing(of: a, site: austin, now: at(9_000)).isDraining)
        read(&keeper, 600) { $0.draining[a] = wall(Self.ahead + 700) }
        #expect(keeper.drainsEnded(now: at(700)) == [a])
        read(&keeper, 800) { $0.draining = [:] }
        #expect(keeper.standing(of: a, site: austin, now: at(800)) == NodeStanding())
    }

    @Test func aCurtailmentStandsFromItsStartToItsEnd() {
        let keeper = keeper {
            $0.curtailed[austin] = Curtailment(
                permille: 400, startsAt: wall(Self.ahead + 100), endsAt: wall(Self.ahead + 300))
        }
        func permille(_ now: Int64) -> Int { keeper.standing(of: a, site: austin, now: at(now)).permille }
        #expect([0, 99, 100, 299, 300].map(permille) == [1_000, 1_000, 400, 400, 1_000])
        #expect(keeper.nextTransition(now: at(0)) == at(100))
        #expect(keeper.nextTransition(now: at(150)) == at(300))
        #expect(keeper.standing(of: a, site: SiteID(unchecked: "berlin"), now: at(150)) == NodeStanding())
    }

    @Test func untilAnAnnouncedEndOfPowerNodesRunOnAtWhatTheyHave() {
        let keeper = keeper {
            $0.curtailed[austin] = Curtailment(
                permille: 0, startsAt: wall(Self.ahead + 100), endsAt: nil, permilleBefore: 600)
        }
        let before = keeper.standing(of: a, site: austin, now: at(0))
        #expect(before.permille == 600 && before.endsAt == at(100))
        let after = keeper.standing(of: a, site: austin, now: at(100))
        #expect(after.permille == 0 && after.endsAt == nil)
    }

    @Test func reconcilingTellsOnlyWhatChangedAndForgetsNodesThatLeft() {
        var keeper = keeper { $0.cordoned = [a] }
        let nodes = [(a, austin), (b, austin)]
        #expect(keeper.reconcile(nodes, now: at(0)).map(\.node) == [a])
        #expect(keeper.reconcile(nodes, now: at(1)) == [])
        #expect(keeper.reconcile([(b, austin)], now: at(2)) == [])
        // It comes again: the router knows nothing of it.
        #expect(keeper.reconcile(nodes, now: at(3)).map(\.node) == [a])
        read(&keeper, 4) { $0.cordoned = [] }
        let changes = keeper.reconcile(nodes, now: at(4))
        #expect(changes.map(\.after) == [NodeStanding()])
    }

    @Test func delaysOfReadsDoNotMoveAnnouncedEnds() {
        var keeper = keeper {
            $0.curtailed[austin] = Curtailment(permille: 0, startsAt: wall(Self.ahead + 500), endsAt: nil)
        }
        _ = keeper.reconcile([(a, austin)], now: at(0))
        let number = keeper.readBegins()
        // Answered 30 ms late.
        _ = keeper.read(
            OperatorWordsReading(words: keeper.words, storeTime: wall(Self.ahead + 100)), number: number,
            began: at(100),
            now: at(130))
        #expect(keeper.reconcile([(a, austin)], now: at(130)) == [])
        // Whatever the delays before, what has started by the store's clock has started.
        var slow = WordKeeper()
        _ = slow.read(
            OperatorWordsReading(words: OperatorWords(), storeTime: wall(Self.ahead)), number: slow.readBegins(),
            began: at(0), now: at(40))
        var words = OperatorWords()
        words.curtailed[austin] = Curtailment(permille: 400, startsAt: wall(Self.ahead + 50), endsAt: nil)
        _ = slow.read(
            OperatorWordsReading(words: words, storeTime: wall(Self.ahead + 50)), number: slow.readBegins(),
            began: at(50), now: at(51))
        #expect(slow.standing(of: a, site: austin, now: at(51)).permille == 400)
        // A clock that was set is followed.
        let later = keeper.readBegins()
        _ = keeper.read(
            OperatorWordsReading(words: keeper.words, storeTime: wall(Self.ahead - 5_000)), number: later,
            began: at(200),
            now: at(200))
        #expect(keeper.reconcile([(a, austin)], now: at(200)).map(\.after.endsAt) == [at(5_699)])
    }
}

/// Words of a fleet that runs.
struct FleetWordTests {
    private let group = NIOSingletons.posixEventLoopGroup

    private static var quick: FleetTimings {
        var timings = FleetTimings()
        timings.probeInterval = .milliseconds(20)
        timings.probeIntervalUnready = .milliseconds(5)
        timings.wordInterval = .milliseconds(5)
        timings.tick = .milliseconds(2)
        timings.tickQuiet = .milliseconds(2)
        return timings
    }

    private func withService(
        _ words: FakeOperatorWordStore, onDrainEnded: @escaping FleetService.DrainObserver = { _ in },
        _ body: (FleetService) async throws -> Void
    ) async throws {
        let node = try await FakeHealthNode.start(group: group)
        let service = FleetService(
            configuration: fleetConfiguration([fleetNode("a", port: node.port)]), eventLoop: group.any(), words: words,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), timings: Self.quick, seed: 1,
            onDrainEnded: onDrainEnded
        ) { _, _ in }
        let task = Task { await service.run() }
        defer { task.cancel() }
        #expect(await eventually { service.nodes().map(\.state) == [.ready] || words.said != OperatorWords() })
        try await body(service)
        task.cancel()
        await task.value
        await node.stop()
    }

    private func states(_ service: FleetService) -> [NodeStatus.State] { service.nodes().map(\.state) }

    @Test(arguments: [Duration.zero, .seconds(3_600), .seconds(-3_600)])
    func aDrainIsTrueAtOnceAndItsDeadlineIsCarriedOutWhateverTheClocks(clockAhead: Duration) async throws {
        let words = FakeOperatorWordStore(clockAhead: clockAhead)
        let ended = Mutex<[NodeID]>([])
        try await withService(words, onDrainEnded: { node in ended.withLock { $0.append(node) } }) { service in
            try await service.say(.drain(a, deadline: .seconds(3_600)), of: a)
            #expect(states(service) == [.draining])
            #expect(ended.withLock { $0 } == [])
            try await service.say(.drain(a, deadline: .milliseconds(20)), of: a)
            #expect(await eventually { ended.withLock { $0 } == [a] })
            let reads = words.reads
            #expect(await eventually { words.reads > reads + 3 })
            #expect(ended.withLock { $0 } == [a])
            #expect(states(service) == [.draining])
            try await service.say(.uncordon(a), of: a)
            #expect(states(service) == [.ready])
        }
    }

    @Test func aDrainOfAnotherReplicaIsHeardAndACordonTakesItsDeadlineBack() async throws {
        let words = FakeOperatorWordStore()
        let ended = Mutex<[NodeID]>([])
        try await withService(words, onDrainEnded: { node in ended.withLock { $0.append(node) } }) { service in
            words.hear(.drain(a, deadline: .seconds(3_600)))
            #expect(await eventually { states(service) == [.draining] })
            #expect(service.detail(of: a)?.drainEndsAt == words.said.draining[a])
            words.hear(.cordon(a))
            #expect(await eventually { states(service) == [.cordoned] })
            #expect(ended.withLock { $0 } == [])
        }
    }

    @Test func aNodeThatDrainedBeforeTheStartIsNeverReady() async throws {
        let words = FakeOperatorWordStore()
        words.hear(.drain(a, deadline: .zero))
        try await withService(words) { service in
            var wasReady = false
            let hasBeenProbed = await eventually {
                wasReady = wasReady || states(service) == [.ready]
                return service.detail(of: a)?.rttMeasured != nil
            }
            #expect(hasBeenProbed && !wasReady)
            #expect(states(service) == [.draining])
        }
    }

    @Test func aSiteIsCurtailedAtOnceEndsByItselfAndIsRestored() async throws {
        let words = FakeOperatorWordStore()
        try await withService(words) { service in
            try await service.say(.curtail(austin, permille: 400, start: .zero, time: nil), of: austin)
            #expect(states(service) == [.curtailed])
            #expect(service.sites().map(\.permille) == [400])
            #expect(service.router.detail(of: a, now: .now())?.status.powerShare == 0.4)
            try await service.say(.restore(austin), of: austin)
            #expect(states(service) == [.ready])
            #expect(service.router.detail(of: a, now: .now())?.status.powerShare == 1)
            try await service.say(.curtail(austin, permille: 0, start: .zero, time: nil), of: austin)
            #expect(states(service) == [.curtailed])
            #expect(service.router.servableModels() == [])
            // On a busy machine it may be over before it is read: another replica says it, and nobody looks in between.
            words.hear(.curtail(austin, permille: 0, start: .zero, time: .milliseconds(30)))
            #expect(await eventually { states(service) == [.ready] })
            #expect(service.sites().map(\.curtailment) == [nil])
        }
    }

    @Test func anAnnouncedEndOfPowerIsKnownToTheRouterBefore() async throws {
        let words = FakeOperatorWordStore()
        try await withService(words) { service in
            try await service.say(.curtail(austin, permille: 0, start: .seconds(60), time: nil), of: austin)
            #expect(states(service) == [.curtailed])
            #expect(service.sites().map(\.permille) == [1_000])
            #expect(service.sites().map(\.hasBegun) == [false])
            // The default policy predicts what will have ended by then, and gives it that.
            #expect(service.router.servableModels() == [ModelID(unchecked: "llama")])
            try await service.say(.curtail(austin, permille: 0, start: .milliseconds(10), time: nil), of: austin)
            #expect(await eventually { service.sites().map(\.permille) == [0] })
            await #expect(throws: OperatorFailure.self) {
                try await service.say(.restore(SiteID(unchecked: "nowhere")), of: SiteID(unchecked: "nowhere"))
            }
        }
    }

    @Test func aNodeThatJoinsACurtailedSiteIsCurtailed() async throws {
        let words = FakeOperatorWordStore()
        try await withService(words) { service in
            try await service.say(.curtail(austin, permille: 250, start: .zero, time: nil), of: austin)
            service.replace(fleetConfiguration([fleetNode("new", port: 1)]))
            let detail = service.router.detail(of: NodeID(unchecked: "new"), now: .now())
            #expect(detail?.status.powerShare == 0.25)
            #expect(detail?.isCurtailed == true)
        }
    }
}

struct RoundTripTests {
    @Test func theLeastOfAWindowCountsOnceThereIsEnough() {
        var estimate = RoundTripEstimate()
        let second: Int64 = 1_000
        for (sample, known) in [(9, nil), (7, nil), (8, Int64?(7)), (20, 7)] as [(Int64, Int64?)] {
            estimate.measured(sample, now: at(1_000_000))
            #expect(estimate.nanoseconds == known)
        }
        // Half a window later the old half still counts, a whole one later it does not.
        estimate.measured(30, now: at(1_000_000 + 151 * second))
        #expect(estimate.nanoseconds == 7)
        estimate.measured(31, now: at(1_000_000 + 303 * second))
        #expect(estimate.nanoseconds == 30)
        estimate.measured(40, now: at(1_000_000 + 10_000 * second))
        #expect(estimate.nanoseconds == 40)
        estimate.measured(-1, now: at(1_000_000 + 10_000 * second))
        #expect(estimate.nanoseconds == 40)
    }

    @Test func nodesOfASiteCountAsEquallyFarAtTheLeast() {
        var trips = SiteRoundTrips()
        let ms: Int64 = 1_000_000
        func measure(_ node: NodeID, _ sample: Int64) -> Int64? {
            trips.measured(node, at: austin, sample, nodes: [a, b], now: at(1))
        }
        #expect((0..<2).map { _ in measure(a, 13 * ms) } == [nil, nil])
        #expect(measure(a, 13 * ms) == 12 * ms)
        // Nearer by less than the quantum: nothing new.
        #expect((0..<3).map { _ in measure(b, 12 * ms) } == [nil, nil, nil])
        #expect(measure(b, 5 * ms) == 4 * ms)
        #expect(trips.nanoseconds(of: a) == 13 * ms)
        trips.keep({ $0 == a }, sites: [austin])
        #expect(trips.nanoseconds(of: b) == nil)
    }
}

struct RedisWordTests {
    @Test func wordsAreKeptInRedisWhereEveryReplicaReadsThem() async throws {
        let redis = try RedisServerProcess.start()
        let session = try await RedisSession.connect(
            RedisConfiguration(url: try RedisURL(redis.url)), on: NIOSingletons.posixEventLoopGroup.any())
        let store = RedisOperatorWordStore(session: session)
        #expect(try await store.words().words == OperatorWords())

        try await store.say(.cordon(b))
        try await store.say(.cordon(b))
        #expect(try await store.words().words.cordoned == [b])
        #expect(try await session.command("HGET", "tg:{fleet}", "cordon:austin-01/b").string == "1")
        try await store.say(.drain(b, deadline: .seconds(60)))
        let drained = try await store.words()
        #expect(drained.words.cordoned == [])
        let left = (drained.words.draining[b]?.milliseconds ?? 0) - drained.storeTime.milliseconds
        #expect((50_000...60_000).contains(left))
        try await store.say(.cordon(b))
        #expect(try await store.words().words.draining == [:])
        try await store.say(.uncordon(b))
        #expect(try await session.command("EXISTS", "tg:{fleet}").int64 == 0)

        try await store.say(.curtail(austin, permille: 400, start: .zero, time: .seconds(100)))
        let curtailed = try #require(try await store.words().words.curtailed[austin])
        #expect(curtailed.permille == 400 && curtailed.permilleBefore == 1_000)
        #expect((curtailed.endsAt?.milliseconds ?? 0) - curtailed.startsAt.milliseconds == 100_000)
        // What it runs at goes on until the next one starts.
        try await store.say(.curtail(austin, permille: 0, start: .seconds(60), time: nil))
        let announced = try #require(try await store.words().words.curtailed[austin])
        #expect(announced.permille == 0 && announced.permilleBefore == 400 && announced.endsAt == nil)
        try await store.say(.curtail(austin, permille: 100, start: .seconds(90), time: nil))
        #expect(try await store.words().words.curtailed[austin]?.permilleBefore == 400)
        try await store.say(.restore(austin))
        #expect(try await session.command("EXISTS", "tg:{fleet}").int64 == 0)

        // What another version wrote is left alone.
        _ = try await session.command("HSET", "tg:{fleet}", "curtail:austin", "much", "drain:a", "soon", "new:x", "1")
        #expect(try await store.words().words == OperatorWords())
        _ = try await session.command("DEL", "tg:{fleet}")
        _ = try await session.command("SET", "tg:{fleet}", "not a hash")
        await #expect(throws: OperatorWordFailure.self) { try await store.words() }
        await session.close()
        redis.stop()
    }
}

import Billing
import Domain
import NIOCore
import NIOPosix
import Redis
import Support
import Synchronization

@testable import Gateway

/// A real Redis with the stores on it, for one test.
struct StoreFixture {
    static let peppers = "p1:0123456789abcdef0123456789abcdef"

    let server: RedisServerProcess
    let session: RedisSession
    let clock: TestClock
    let store: RedisOperatorStore

    /// - Parameter usesTestClock: Whether the scripts take their time from ``clock``.
    static func start(usesTestClock: Bool = false, extra: [String] = []) async throws -> StoreFixture {
        let server = try RedisServerProcess.start(appendOnly: false, extra: extra)
        let session = try await RedisSession.connect(
            RedisConfiguration(url: RedisURL(server.url)), on: MultiThreadedEventLoopGroup.singleton.next())
        let clock = TestClock()
        let store = RedisOperatorStore(
            session: session, peppers: try Peppers(peppers),
            defaults: OrgDefaults(limits: .unlimited, keysMax: 6),
            clock: usesTestClock ? { @Sendable in clock.now } : nil)
        return StoreFixture(server: server, session: session, clock: clock, store: store)
    }

    func sync(_ request: SyncRequest, now: Int64? = nil) async throws -> SyncAnswer? {
        SyncCodec.answer(
            try await session.evaluate(
                StoreScripts.sync, keys: [.string(StoreKeys.account(request.org))],
                args: SyncCodec.arguments(request, now: now)))
    }
}

/// The store's clock where a test sets it.
final class TestClock: Sendable {
    private let milliseconds = Mutex<Int64>(0)

    var now: Int64 {
        get { milliseconds.withLock { $0 } }
        set { milliseconds.withLock { $0 = newValue } }
    }
}

/// The Lua scripts, as the Auditor drives them.
struct RedisSubject: AuditorSubject {
    struct NoAnswer: Error {}

    let fixture: StoreFixture

    private var store: RedisOperatorStore { fixture.store }

    func createOrg(_ id: OrgID, opening: NanoUSD?, limits: Limits, keysMax: Int, now: Int64) async throws {
        fixture.clock.now = now
        _ = try await store.createOrg(id: id, name: "An org", openingCredit: opening, limits: limits, keysMax: keysMax)
    }
    func topUp(
        _ id: OrgID, amount: NanoUSD, reference: String, now: Int64
    ) async throws -> (entry: LedgerEntry, isRepeat: Bool) {
        fixture.clock.now = now
        return try await store.creditOrg(id, amount: amount, reference: reference)
    }
    func setCreditLimit(_ id: OrgID, _ credit: NanoUSD) async throws {
        _ = try await store.updateOrg(id, name: nil, creditLimit: credit, limits: .keep)
    }
    func setOrgStatus(_ id: OrgID, _ status: AccountStatus) async throws {
        _ = try await store.setOrgStatus(id, status)
    }
    func setLimits(_ id: OrgID, _ limits: Limits) async throws {
        _ = try await store.updateOrg(id, name: nil, creditLimit: nil, limits: Self.update(limits))
    }
    func createKey(org: OrgID, limits: Limits) async throws -> KeyID {
        try await store.createKey(org: org, name: "A key", limits: limits, models: nil).summary.id
    }
    func setLimits(_ key: KeyID, org: OrgID, _ limits: Limits) async throws {
        _ = try await store.updateKey(key, name: nil, limits: Self.update(limits), models: .keep)
    }
    func revokeKey(_ key: KeyID, org: OrgID) async throws {
        _ = try await store.revokeKey(key)
    }
    func fence(_ journal: JournalID, org: OrgID) async throws {
        _ = try await store.command("HSET", .string(StoreKeys.account(org)), .string("f:\(journal)"), "1")
    }
    func sync(_ request: SyncRequest, now: Int64) async throws -> SyncAnswer {
        guard let answer = try await fixture.sync(request, now: now) else { throw NoAnswer() }
        return answer
    }
    func rates(of key: KeyID, org: OrgID, now: Int64) async throws -> RateStatus {
        let reply = try await fixture.session.evaluate(
            StoreScripts.ratesRead, keys: [.string(StoreKeys.account(org))],
            args: [.integer(now), .string(key.rawValue)])
        guard let rates = SyncCodec.rates(reply) else { throw NoAnswer() }
        return rates
    }

    func state(_ id: OrgID) async throws -> AuditorState {
        guard let record = try await store.read(id) else { throw NoAnswer() }
        let account = record.account
        var journals: [JournalID: LedgerModel.Journal] = [:]
        for (journal, value) in account.all(withPrefix: "q:") {
            journals[JournalID(journal), default: .init()].applied = Int64(value) ?? -1
        }
        for (journal, value) in account.all(withPrefix: "l:") {
            let parts = value.split(separator: " ").compactMap { Int64($0) }
            guard parts.count == 3 else { throw NoAnswer() }
            journals[JournalID(journal), default: .init()].lent = parts[2]
            if parts[0] > 0 {
                journals[JournalID(journal)]?.revision = SyncRevision(incarnation: parts[0], counter: parts[1])
            }
        }
        for (journal, _) in account.all(withPrefix: "f:") {
            journals[JournalID(journal), default: .init()].isFenced = true
        }
        for (journal, value) in account.all(withPrefix: "o:") {
            let parts = value.split(separator: " ").compactMap { Int64($0) }
            guard parts.count == 2 else { throw NoAnswer() }
            journals[JournalID(journal), default: .init()].open = parts[0]
            journals[JournalID(journal)]?.openHolds = Int(parts[1])
        }
        return AuditorState(
            balance: record.balance, credit: account.number("credit") ?? -1, lent: account.number("lent") ?? -1,
            journals: journals, entries: try await store.ledger(org: id, limit: nil, after: nil),
            aggregates: try await aggregates(id, record))
    }

    private func aggregates(
        _ id: OrgID, _ record: OrgRecord
    ) async throws -> [LedgerModel.AggregateKey: LedgerModel.Aggregate] {
        var aggregates: [LedgerModel.AggregateKey: LedgerModel.Aggregate] = [:]
        var day = UTCDate(record.createdAt)
        let last = UTCDate(WallTime(milliseconds: record.now))
        while day <= last {
            let reply = try await store.command("HGETALL", .string(StoreKeys.usage(id, day: day))).array ?? []
            for index in stride(from: 0, to: reply.count, by: 2) {
                let names = (reply[index].string ?? "").split(separator: " ").map(String.init)
                let numbers = (reply[index + 1].string ?? "").split(separator: " ").compactMap { Int($0) }
                guard names.count == 2, numbers.count == 5 else { throw NoAnswer() }
                let key = LedgerModel.AggregateKey(
                    day: day, key: KeyID(unchecked: names[0]), model: ModelID(unchecked: names[1]))
                aggregates[key] = LedgerModel.Aggregate(
                    requests: numbers[0],
                    usage: TokenUsage(
                        promptTokens: numbers[1], cachedTokens: numbers[2], completionTokens: numbers[3]),
                    cost: Int64(numbers[4]))
            }
            day = day.advanced(byDays: 1)
        }
        return aggregates
    }

    private static func update(_ limits: Limits) -> LimitsUpdate {
        func change(_ value: Int?) -> Change<Int> { value.map { .set($0) } ?? .unlimited }
        return LimitsUpdate(
            requestsPerMinute: change(limits.requestsPerMinute), tokensPerMinute: change(limits.tokensPerMinute),
            concurrency: change(limits.concurrency))
    }
}

import Billing
import Domain
import NIOCore
import Redis
import Support
import Testing

@testable import Gateway

private let acme = OrgID(unchecked: "acme")

/// SYNC against a real Redis, by its own clock.
@Suite struct StoresSyncTests {
    private func request(
        key: KeyID, counter: Int64, first: Int64, charges: [Charge] = [], admissions: Int = 0, floor: Int64 = 0
    ) -> SyncRequest {
        SyncRequest(
            org: acme, journal: JournalID("0123456789abcdef0123456789abcdef"),
            revision: SyncRevision(incarnation: 1, counter: counter), first: first, charges: charges, returns: [],
            floor: NanoUSD(unchecked: floor), openHolds: 0, want: NanoUSD(unchecked: floor), slots: [],
            admissions: (0..<admissions).map { _ in
                Admission(key: key, hold: NanoUSD(unchecked: 1_000), tokens: 10)
            })
    }

    private func charge(_ sequence: Int64, key: KeyID) -> Charge {
        Charge(
            sequence: sequence, requestID: RequestID(high: 7, low: UInt64(sequence)), key: key,
            model: ModelID(unchecked: "meta/llama-3.1:8b"), priceVersion: 3,
            usage: TokenUsage(promptTokens: 100, cachedTokens: 40, completionTokens: 7),
            amount: NanoUSD(unchecked: 1_000), isEstimated: sequence % 2 == 0,
            at: WallTime(milliseconds: 1_790_000_000_123), booking: .none, unusedTokens: 0)
    }

    private func prepared(_ limits: Limits = .unlimited) async throws -> (fixture: StoreFixture, key: KeyID) {
        let fixture = try await StoreFixture.start()
        _ = try await fixture.store.createOrg(
            id: acme, name: "Acme", openingCredit: NanoUSD(unchecked: 10_000_000_000), limits: limits, keysMax: nil)
        let made = try await fixture.store.createKey(org: acme, name: "k", limits: limits, models: nil)
        return (fixture, made.summary.id)
    }

    @Test func fullBatchesPass() async throws {
        let (fixture, key) = try await prepared(Limits(requestsPerMinute: 10_000, tokensPerMinute: 1_000_000))
        let charges = (1...SyncRequest.chargesMax).map { charge(Int64($0), key: key) }
        let answer = try #require(
            try await fixture.sync(
                request(key: key, counter: 1, first: 1, charges: charges, admissions: SyncRequest.admissionsMax)))
        #expect(answer.status == .ok)
        #expect(answer.applied == 256)
        #expect(answer.verdicts.count == 256)
        #expect(answer.lent == NanoUSD(unchecked: 256_000))
        #expect(answer.verdicts.last?.rates.requests?.remaining == 10_000 - 256)
        let entries = try await fixture.store.ledger(org: acme, limit: nil, after: nil)
        #expect(entries.count == 257)
        #expect(entries[2].isEstimated)
        #expect(entries[1].requestID == RequestID(high: 7, low: 1).description)
        #expect(entries[1].model == ModelID(unchecked: "meta/llama-3.1:8b"))
        #expect(entries[1].usage == TokenUsage(promptTokens: 100, cachedTokens: 40, completionTokens: 7))
        #expect(entries[1].at == WallTime(milliseconds: 1_790_000_000_123))
        await fixture.session.close()
    }

    @Test func entriesArePagedByTheirIDs() async throws {
        let (fixture, key) = try await prepared()
        for batch in 0..<5 {
            let charges = (1...250).map { charge(Int64(batch * 250 + $0), key: key) }
            _ = try await fixture.sync(
                request(key: key, counter: Int64(batch + 1), first: Int64(batch * 250 + 1), charges: charges))
        }
        let all = try await fixture.store.ledger(org: acme, limit: nil, after: nil)
        #expect(all.count == 1_251)
        var paged: [LedgerEntry] = []
        while true {
            let page = try await fixture.store.ledger(org: acme, limit: 400, after: paged.last?.id)
            if page.isEmpty { break }
            paged += page
        }
        #expect(paged == all)
        #expect(
            try await fixture.store.verifyLedger(org: acme)
                == LedgerVerification(entries: 1_251, drift: 0, openReservations: 0))
        // Aggregates follow the store's clock. Midnight may fall between the charges and here.
        let day = UTCDate(.now())
        let groups: [(UsageRow.Grouping?, String?)] = [(nil, nil), (.key, key.rawValue), (.model, "meta/llama-3.1:8b")]
        for (by, group) in groups {
            let rows = try await fixture.store.usage(org: acme, from: day.advanced(byDays: -1), to: day, by: by)
            #expect(
                rows == [
                    UsageRow(
                        group: group, requests: 1_250,
                        usage: TokenUsage(promptTokens: 125_000, cachedTokens: 50_000, completionTokens: 8_750),
                        cost: NanoUSD(unchecked: 1_250_000))
                ])
        }
        await fixture.session.close()
    }

    @Test func verificationFindsADrift() async throws {
        let (fixture, _) = try await prepared()
        _ = try await fixture.store.command("HINCRBY", .string(StoreKeys.account(acme)), "bal", "7")
        #expect(try await fixture.store.verifyLedger(org: acme).drift == 7)
        await fixture.session.close()
    }

    @Test func summaryShowsHoldsAndWhatIsLeft() async throws {
        let (fixture, key) = try await prepared()
        _ = try await fixture.sync(request(key: key, counter: 1, first: 1, admissions: 3))
        let org = try await fixture.store.org(acme)
        #expect(org.reserved == NanoUSD(unchecked: 3_000))
        #expect(org.openReservations == 3)
        #expect(org.leased == .zero)
        #expect(org.available == NanoUSD(unchecked: 9_999_997_000))
        await fixture.session.close()
    }

    /// An error in a script rolls nothing back: it must come before the first write.
    @Test(arguments: ["e", "u", "s", "limits", "k"])
    func keyOfAWrongTypeChangesNoMoney(which: String) async throws {
        let (fixture, key) = try await prepared(Limits(requestsPerMinute: 100, concurrency: 10))
        let today = UTCDate(.now())
        for day in [today, today.advanced(byDays: 1)] {
            let name =
                switch which {
                case "e": StoreKeys.entries(acme, month: day.firstOfNextMonth)
                case "u": StoreKeys.usage(acme, day: day)
                case "s": StoreKeys.slots(acme)
                case "limits": StoreKeys.limits(acme)
                default: StoreKeys.key(key, org: acme)
                }
            _ = try await fixture.store.command("SET", .string(name), "rubbish")
        }
        if which == "e" {
            _ = try await fixture.store.command(
                "SET", .string(StoreKeys.entries(acme, month: today)), "rubbish")
        }
        let account = RESPArgument.string(StoreKeys.account(acme))
        let before = try await fixture.store.command("HGETALL", account)
        await #expect(throws: RedisError.self) {
            _ = try await fixture.sync(
                request(key: key, counter: 1, first: 1, charges: [charge(1, key: key)], admissions: 1))
        }
        #expect(try await fixture.store.command("HGETALL", account) == before)
        if which != "u" {
            #expect(try await fixture.store.command("EXISTS", .string(StoreKeys.usage(acme, day: today))).int64 == 0)
        }
        await fixture.session.close()
    }

    @Test func chargesApplyEvenWhereRedisIsOutOfMemory() async throws {
        let (fixture, key) = try await prepared()
        // The script must be known before memory is short: SCRIPT LOAD is refused then.
        _ = try await fixture.sync(request(key: key, counter: 1, first: 1))
        _ = try await fixture.store.command("CONFIG", "SET", "maxmemory", "1")
        let answer = try #require(
            try await fixture.sync(request(key: key, counter: 2, first: 1, charges: [charge(1, key: key)])))
        #expect(answer.applied == 1)
        #expect(answer.balance == NanoUSD(unchecked: 9_999_999_000))
        await fixture.session.close()
    }

    @Test func storeIsUnreachableWhenRedisIsGone() async throws {
        let (fixture, key) = try await prepared()
        let url = try RedisURL(fixture.server.url)
        let loop = fixture.session.eventLoop
        let outcomes = loop.makePromise(of: [String].self)
        let request = request(key: key, counter: 1, first: 1)
        let server = fixture.server
        loop.execute {
            let client = RedisClient(configuration: RedisConfiguration(url: url), eventLoop: loop)
            client.start()
            client.send(["PING"], timeout: .seconds(5), whenDisconnected: .wait) { _ in
                let store = RedisLedgerStore(client: client)
                store.sync(request) { first in
                    client.send(["SHUTDOWN", "NOSAVE"], timeout: .seconds(5)) { _ in
                        store.sync(request) { second in
                            outcomes.succeed([name(first), name(second)])
                            client.close(deadline: .now())
                        }
                    }
                }
            }
        }
        #expect(try await outcomes.futureResult.get() == ["ok", "unreachable"])
        _ = server
        await fixture.session.close()
    }
}

private func name(_ result: Result<SyncAnswer, LedgerTransportFailure>) -> String {
    switch result {
    case .success(let answer): "\(answer.status)"
    case .failure(let failure): "\(failure)"
    }
}

import Billing
import Domain
import NIOCore
import Redis
import Support
import Testing

@testable import Gateway

private let acme = OrgID(unchecked: "acme")
private let llama = ModelID(unchecked: "llama")

private func usd(_ dollars: Int64) -> NanoUSD { NanoUSD(unchecked: dollars * 1_000_000_000) }

/// The code of the failure that `body` ends with.
private func code(_ body: () async throws(OperatorFailure) -> Void) async -> OperatorFailure.Code? {
    do throws(OperatorFailure) {
        try await body()
        return nil
    } catch {
        return error.code
    }
}

@Suite struct StoresOperatorTests {
    @Test func orgIsMadeOnceWithItsOpeningCredit() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        let limits = Limits(requestsPerMinute: 5, tokensPerMinute: nil, concurrency: 2)
        let made = try await store.createOrg(
            id: acme, name: "Acme, Inc.", openingCredit: usd(5), limits: limits, keysMax: 3)
        #expect(made.balance == usd(5))
        #expect(made.available == usd(5))
        #expect(made.limits == limits)
        #expect(made.keysMax == 3)
        #expect(made.status == .active)
        #expect(try await store.org(acme) == made)
        #expect(try await store.orgs() == [made])
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.createOrg(id: acme, name: "x", openingCredit: usd(7), limits: nil, keysMax: nil)
            } == .alreadyExists)
        let entries = try await store.ledger(org: acme, limit: nil, after: nil)
        #expect(entries.map(\.amount) == [usd(5)])
        #expect(entries.map(\.reference) == ["opening"])
        await fixture.session.close()
    }

    @Test func topUpIsIdempotentPerReference() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: nil, limits: nil, keysMax: nil)
        let first = try await store.creditOrg(acme, amount: usd(10), reference: "invoice 17, paid")
        let again = try await store.creditOrg(acme, amount: usd(10), reference: "invoice 17, paid")
        #expect(!first.isRepeat)
        #expect(again.isRepeat)
        #expect(again.entry == first.entry)
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.creditOrg(acme, amount: usd(11), reference: "invoice 17, paid")
            } == .referenceReused)
        for bad in ["", String(repeating: "x", count: 201), "a\nb"] {
            #expect(
                await code { () throws(OperatorFailure) in
                    _ = try await store.creditOrg(acme, amount: usd(1), reference: bad)
                } == .invalid)
        }
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.creditOrg(OrgID(unchecked: "nobody"), amount: usd(1), reference: "r")
            } == .notFound)
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.creditOrg(acme, amount: usd(9_007_199), reference: "too much")
            } == .invalid)
        #expect(try await store.org(acme).balance == usd(10))
        #expect(try await store.ledger(org: acme, limit: nil, after: nil) == [first.entry])
        #expect(
            try await store.verifyLedger(org: acme) == LedgerVerification(entries: 1, drift: 0, openReservations: 0))
        await fixture.session.close()
    }

    /// Amounts near the bound survive every script: the arithmetic there is in doubles.
    @Test func largestAmountsStayExact() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        let large = NanoUSD(unchecked: NanoUSD.magnitudeMax - 2)
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: large, limits: nil, keysMax: nil)
        _ = try await store.creditOrg(acme, amount: NanoUSD(unchecked: 1), reference: "one")
        let org = try await store.updateOrg(acme, name: nil, creditLimit: NanoUSD(unchecked: 1), limits: .keep)
        #expect(org.balance.nanodollars == NanoUSD.magnitudeMax - 1)
        #expect(org.available.nanodollars == NanoUSD.magnitudeMax)
        #expect(try await store.verifyLedger(org: acme).drift == 0)
        await fixture.session.close()
    }

    @Test func limitsChangeOneByOne() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(
            id: acme, name: "Acme", openingCredit: nil,
            limits: Limits(requestsPerMinute: 1, tokensPerMinute: 2, concurrency: 3), keysMax: nil)
        let changed = try await store.updateOrg(
            acme, name: "New", creditLimit: usd(2),
            limits: LimitsUpdate(requestsPerMinute: .unlimited, concurrency: .set(9)))
        #expect(changed.limits == Limits(requestsPerMinute: nil, tokensPerMinute: 2, concurrency: 9))
        #expect(changed.name == "New")
        #expect(changed.creditLimit == usd(2))
        #expect(try await store.setOrgStatus(acme, .suspended).status == .suspended)
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.updateOrg(
                    acme, name: nil, creditLimit: nil, limits: LimitsUpdate(tokensPerMinute: .set(-1)))
            } == .invalid)
        #expect(
            await code { () throws(OperatorFailure) in _ = try await store.setOrgStatus(acme, .revoked) } == .invalid)
        await fixture.session.close()
    }

    @Test func aKeysModelsAreKeptAndTheDirectoryTellsThem() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: nil, limits: nil, keysMax: nil)
        let some: Set<ModelID> = [llama, ModelID(unchecked: "meta/llama:3")]
        let made = try await store.createKey(org: acme, name: "k", limits: .unlimited, models: some).summary
        #expect(made.models == some)
        #expect(try await store.key(made.id) == made)
        #expect(try await store.keys(org: acme) == [made])
        #expect(try await lookup(made.id, fixture)?.rights.models == some)

        let version = try await fixture.store.command("GET", .string(StoreKeys.authVersion)).string
        _ = try await store.updateKey(made.id, name: "other", limits: .keep, models: .keep)
        #expect(try await store.key(made.id).models == some)
        #expect(try await fixture.store.command("GET", .string(StoreKeys.authVersion)).string == version)
        _ = try await store.updateKey(made.id, name: nil, limits: .keep, models: .set([llama]))
        #expect(try await lookup(made.id, fixture)?.rights.models == [llama])
        #expect(try await fixture.store.command("GET", .string(StoreKeys.authVersion)).string != version)
        let free = try await store.updateKey(made.id, name: nil, limits: .keep, models: .unlimited)
        #expect(free.models == nil)
        let record = try #require(try await lookup(made.id, fixture))
        #expect(record.rights.models == nil)
        #expect(record.mayUse(ModelID(unchecked: "any")))

        let many = Set((0...KeyRecord.modelsMax).map { ModelID(unchecked: "m\($0)") })
        for models in [[], many] {
            #expect(
                await code { () throws(OperatorFailure) in
                    _ = try await store.createKey(org: acme, name: "k", limits: .unlimited, models: models)
                } == .invalid)
        }
        // A key whose record is gone could do anything: it is nobody's.
        _ = try await fixture.store.command("DEL", .string(StoreKeys.key(made.id, org: acme)))
        #expect(try await lookup(made.id, fixture) == nil)
        await fixture.session.close()
    }

    @Test func keyIsShownOnceAndStoredNowhereInClear() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: usd(1), limits: nil, keysMax: nil)
        let (summary, secret) = try await store.createKey(
            org: acme, name: "CI", limits: Limits(requestsPerMinute: 60), models: nil)
        #expect(summary.lastFour == String(secret.suffix(4)))
        #expect(try await store.keys(org: acme) == [summary])
        #expect(try await store.key(summary.id) == summary)

        let parsed = try #require(KeyFormat.parse(secret))
        #expect(parsed.id == summary.id)
        let dump = try await everything(fixture)
        #expect(dump.contains("acme"), "the dump shows what is stored")
        let part = parsed.secret.withBytes { String(decoding: $0, as: UTF8.self) }
        #expect(!dump.contains(part))
        #expect(!dump.contains(String(part.prefix(12))))
        #expect(!dump.contains(StoreFixture.peppers))
        await fixture.session.close()
    }

    @Test func directoryVouchesForAKeyUntilItIsRevoked() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: nil, limits: nil, keysMax: nil)
        let (summary, secret) = try await store.createKey(org: acme, name: "CI", limits: .unlimited, models: nil)
        let parsed = try #require(KeyFormat.parse(secret))
        let hasher = try KeyHasher(peppers: try Peppers(StoreFixture.peppers))
        let found = try #require(try await lookup(summary.id, fixture))
        #expect(found.org == acme)
        #expect(found.isActive)
        #expect(hasher.matches(parsed.secret, found))
        #expect(try await lookup(KeyID(unchecked: "nobodyNobody"), fixture) == nil)

        let before = try await store.command("GET", .string(StoreKeys.authVersion)).int64 ?? 0
        #expect(try await store.revokeKey(summary.id).status == .revoked)
        #expect(try await lookup(summary.id, fixture)?.isActive == false)
        #expect(try await store.command("GET", .string(StoreKeys.authVersion)).int64 == before + 1)
        let missing = KeyID(unchecked: "nobodyNobody")
        #expect(await code { () throws(OperatorFailure) in _ = try await store.revokeKey(missing) } == .notFound)
        await fixture.session.close()
    }

    @Test func capCountsActiveKeysOnly() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        _ = try await store.createOrg(id: acme, name: "Acme", openingCredit: nil, limits: nil, keysMax: 2)
        let first = try await store.createKey(org: acme, name: "1", limits: .unlimited, models: nil)
        _ = try await store.createKey(org: acme, name: "2", limits: .unlimited, models: nil)
        func third() async -> OperatorFailure.Code? {
            await code { () throws(OperatorFailure) in
                _ = try await store.createKey(org: acme, name: "3", limits: .unlimited, models: nil)
            }
        }
        #expect(await third() == .limitReached)
        _ = try await store.revokeKey(first.summary.id)
        _ = try await store.revokeKey(first.summary.id)
        #expect(await third() == nil)
        #expect(await third() == .limitReached)
        #expect(try await store.keys(org: acme).count == 3)
        await fixture.session.close()
    }

    @Test func priceVersionsNeverChange() async throws {
        let fixture = try await StoreFixture.start()
        let store = fixture.store
        let seeded = try await store.seedPrice(model: llama, input: 10, cachedInput: 1, output: 20)
        #expect(seeded.price == Price(version: 1, input: 10, cachedInput: 1, output: 20))
        #expect(try await store.seedPrice(model: llama, input: 99, cachedInput: 99, output: 99) == seeded)
        let second = try await store.setPrice(model: llama, input: 11, cachedInput: 2, output: Price.rateMax)
        #expect(second.price.version == 2)
        #expect(try await store.prices() == [second])
        #expect(try await store.loadPrices().price(of: llama) == second.price)
        #expect(try await store.loadPrices().price(of: ModelID(unchecked: "other")) == nil)
        let first = try await store.command("HGET", .string(StoreKeys.priceHistory(llama)), "1").string
        #expect(first?.hasPrefix("10 1 20 ") == true)
        #expect(
            await code { () throws(OperatorFailure) in
                _ = try await store.setPrice(model: llama, input: -1, cachedInput: 0, output: 0)
            } == .invalid)
        await fixture.session.close()
    }

    @Test func serversThatCannotKeepMoneyAreRefused() async throws {
        let fixture = try await StoreFixture.start()
        #expect(try await fixture.store.checkServer().count == 1)
        _ = try await fixture.store.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        do {
            _ = try await fixture.store.checkServer()
            Issue.record("an evicting Redis was accepted")
        } catch {
            #expect(error.code == .invalid)
            #expect(error.message.contains("volatile-lru"))
        }
        await fixture.session.close()
    }

    private func lookup(_ id: KeyID, _ fixture: StoreFixture) async throws -> KeyRecord? {
        let url = try RedisURL(fixture.server.url)
        let loop = fixture.session.eventLoop
        return try await loop.flatSubmit {
            let promise = loop.makePromise(of: KeyRecord?.self)
            let client = RedisClient(configuration: RedisConfiguration(url: url), eventLoop: loop)
            client.start()
            client.send(["PING"], timeout: .seconds(5), whenDisconnected: .wait) { _ in
                RedisKeyDirectory(client: client).lookup(id) { result in
                    promise.completeWith(result.mapError { $0 as any Error })
                    client.close(deadline: .now())
                }
            }
            return promise.futureResult
        }.get()
    }

    /// Every key and every value in Redis, as text.
    private func everything(_ fixture: StoreFixture) async throws -> String {
        var text = ""
        let store = fixture.store
        for key in try await store.command("KEYS", "*").array ?? [] {
            let name = RESPArgument.bytes(key.bytes ?? [])
            text += "\(key.string ?? "") "
            let value: RESPValue
            switch try await store.command("TYPE", name).string {
            case "hash": value = try await store.command("HGETALL", name)
            case "set": value = try await store.command("SMEMBERS", name)
            case "stream": value = try await store.command("XRANGE", name, "-", "+")
            case "string": value = try await store.command("GET", name)
            case let other: throw OperatorFailure(.invalid, "a \(other ?? "nothing") in the store")
            }
            text += flat(value)
        }
        return text
    }

    private func flat(_ value: RESPValue) -> String {
        value.array.map { $0.map(flat).joined(separator: " ") } ?? value.string ?? ""
    }
}

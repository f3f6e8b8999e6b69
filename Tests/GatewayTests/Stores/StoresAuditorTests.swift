import Billing
import Domain
import Support
import Testing

@testable import Gateway

@Suite struct StoresAuditorTests {
    /// What a run must have met, or it proves nothing about it.
    private static let needed = [
        "ok", "gap", "stale", "granted", "keyInvalid", "orgSuspended", "largerThanLimit", "requestsPerMinute",
        "tokensPerMinute", "concurrency", "balance", "balance that may come back", "answer lost", "restart", "top-up",
        "top-up repeated", "top-up: referenceReused", "top-up: invalid", "credit: limitReached", "key: limitReached",
        "fence", "fenced", "revoke",
    ]

    @Test func scriptsDoExactlyWhatTheModelDoes() async throws {
        var seen: Set<String> = []
        for seed in [1, 2, 3] as [UInt64] { seen.formUnion(try await audit(seed: seed, steps: 2_500)) }
        let unseen = Self.needed.filter { !seen.contains($0) }
        #expect(unseen.isEmpty, "no run met these")
    }

    @Test func scriptsDoWhatTheModelDoesFromASeedOfTheDay() async throws {
        _ = try await audit(seed: .random(in: 0...UInt64.max), steps: 2_500)
    }

    private func audit(seed: UInt64, steps: Int) async throws -> Set<String> {
        let fixture = try await StoreFixture.start(usesTestClock: true)
        var auditor = Auditor(subject: RedisSubject(fixture: fixture), seed: seed)
        try await auditor.run(orgs: 3, gatewaysPerOrg: 3, steps: steps, compareEvery: 50)
        for (id, org) in auditor.model.orgs {
            let verification = try await fixture.store.verifyLedger(org: id)
            #expect(verification.drift == 0, "seed \(seed)")
            #expect(verification.entries == org.entries.count, "seed \(seed)")
        }
        await fixture.session.close()
        return Set(auditor.seen.keys)
    }
}

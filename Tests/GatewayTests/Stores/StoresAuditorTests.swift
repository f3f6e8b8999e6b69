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

    @Test(arguments: [1, 2, UInt64.random(in: 0...UInt64.max)])
    func scriptsDoExactlyWhatTheModelDoes(seed: UInt64) async throws {
        let fixture = try await StoreFixture.start(usesTestClock: true)
        var auditor = Auditor(subject: RedisSubject(fixture: fixture), seed: seed)
        try await auditor.run(orgs: 3, gatewaysPerOrg: 3, steps: 3_000, compareEvery: 50)
        let unseen = Self.needed.filter { auditor.seen[$0] == nil }
        #expect(unseen.isEmpty, "seed \(seed) never met \(unseen): \(auditor.seen)")
        for id in auditor.model.orgs.keys {
            let verification = try await fixture.store.verifyLedger(org: id)
            #expect(verification.drift == 0)
            #expect(verification.entries == auditor.model.orgs[id]?.entries.count)
        }
        await fixture.session.close()
    }
}

import Billing
import Domain
import Support
import Testing

@Suite struct AuditorModelTests {
    @Test(arguments: [1, 2, 3, 20_261_122, UInt64.random(in: 0...UInt64.max)])
    func noSequenceOfOperationsBreaksTheInvariants(seed: UInt64) async throws {
        var auditor = Auditor(subject: ModelSubject(), seed: seed)
        try await auditor.run(orgs: 3, gatewaysPerOrg: 3, steps: 1_500, compareEvery: 100)
    }
}

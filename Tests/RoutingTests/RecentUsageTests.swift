import Domain
import Testing

@testable import Routing

struct RecentUsageTests {
    private func org(_ number: Int) -> OrgID { OrgID(unchecked: "org-\(number)") }
    private func at(_ value: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(value * 1e9)) }

    @Test func whoHadFarMoreThanTheOthersIsBeyondThemUntilItFades() {
        var usage = RecentUsage()
        usage.fade(now: at(0))
        usage.add(org(0), cost: 5_000)
        #expect(!usage.isBeyondOthers(org(0)), "there are no others")
        usage.add(org(1), cost: 1_000)
        #expect(usage.isBeyondOthers(org(0)) && !usage.isBeyondOthers(org(1)))
        usage.fade(now: at(60))
        usage.add(org(1), cost: 1_500)
        #expect(!usage.isBeyondOthers(org(0)) && usage.isBeyondOthers(org(1)))
    }

    @Test func othersWhoUseHardlyAnythingHoldNobodyBack() {
        var usage = RecentUsage()
        usage.add(org(0), cost: 100_000)
        usage.add(org(1), cost: 1_000)
        #expect(!usage.isBeyondOthers(org(0)))
        usage.add(org(2), cost: 20_000)
        #expect(usage.isBeyondOthers(org(0)))
    }

    @Test func manyOrgsAreBoundedAndTheLargestIsKept() {
        var usage = RecentUsage()
        usage.fade(now: at(0))
        usage.add(org(0), cost: 1e5)
        for number in 1...(2 * RecentUsage.orgsMax) { usage.add(org(number), cost: 10) }
        #expect(usage.isBeyondOthers(org(0)))
        #expect(usage.count <= RecentUsage.orgsMax)
    }
}

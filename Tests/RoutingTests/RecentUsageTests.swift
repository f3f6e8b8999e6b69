import Domain
import Testing

@testable import Routing

struct RecentUsageTests {
    private func org(_ number: Int) -> OrgID { OrgID(unchecked: "org-\(number)") }
    private func at(_ value: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(value * 1e9)) }

    /// So much of each org in each second.
    private func pass(
        _ usage: inout RecentUsage, _ seconds: ClosedRange<Int>, _ costs: [Double],
        check: (RecentUsage, Int) -> Void = { _, _ in }
    ) {
        for second in seconds {
            usage.fade(now: at(Double(second)))
            for (number, cost) in costs.enumerated() { usage.add(org(number), cost: cost) }
            check(usage, second)
        }
    }

    @Test func whoHasFarMoreThanTheOthersAndThanUsualIsBeyondThemUntilItFades() {
        var usage = RecentUsage()
        pass(&usage, 0...600, [100, 100, 100]) { usage, second in
            #expect((0..<3).allSatisfy { !usage.isBeyondOthers(org($0)) }, "second \(second)")
        }
        var since: Int?
        pass(&usage, 601...700, [1_000, 100, 100]) { usage, second in
            if usage.isBeyondOthers(org(0)) { since = since ?? second }
            #expect(!usage.isBeyondOthers(org(1)))
        }
        #expect((605...660).contains(since ?? 0), "\(String(describing: since))")
        pass(&usage, 701...900, [100, 100, 100])
        #expect(!usage.isBeyondOthers(org(0)))
    }

    /// A surge is none only because it lasts; after hours it is what the customer buys.
    @Test func aSurgeDoesNotBecomeAHabitWhileItLasts() {
        var usage = RecentUsage()
        pass(&usage, 0...600, [100, 100, 100])
        pass(&usage, 601...1_800, [1_000, 100, 100])
        #expect(usage.isBeyondOthers(org(0)))
        pass(&usage, 1_801...14_400, [1_000, 100, 100])
        #expect(!usage.isBeyondOthers(org(0)))
    }

    /// But for the first quarter of an hour of a gateway, which knows nobody.
    @Test func whoAlwaysHasTheMostIsNotBeyond() {
        var usage = RecentUsage()
        pass(&usage, 0...300, [1_500, 100, 100])
        #expect(usage.isBeyondOthers(org(0)))
        pass(&usage, 301...900, [1_500, 100, 100])
        var seconds = 0
        pass(&usage, 901...5_000, [1_500, 100, 100]) { usage, _ in
            if usage.isBeyondOthers(org(0)) { seconds += 1 }
        }
        #expect(seconds == 0)
    }

    @Test func aNewcomerIsMeasuredByTheOthers() {
        var usage = RecentUsage()
        pass(&usage, 0...600, [100, 100, 100])
        pass(&usage, 601...660, [100, 100, 100, 1_500])
        #expect(usage.isBeyondOthers(org(3)))
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

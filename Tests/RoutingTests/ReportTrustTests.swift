import Domain
import Testing

@testable import Routing

private func report(_ running: Double, _ waiting: Double, kv: Double? = nil) -> NodeReport {
    NodeReport(runningRequests: running, waitingRequests: waiting, kvUsage: kv)
}

private func own(_ requests: Int32, queued: Int32 = 0) -> InflightWork {
    var work = InflightWork.zero
    (work.requests, work.queuedRequests) = (requests, queued)
    return work
}

struct ReportTrustTests {
    private static let nonsense: [NodeReport] = [
        report(.nan, 0), report(-1, 0), report(0, -0.5), report(1e9, 0), report(0, .infinity), report(1, 1, kv: 2),
        report(1, 1, kv: -0.1), report(1, 1, kv: .nan),
        NodeReport(runningRequests: 1, waitingRequests: 1, waitingTokens: -1),
        NodeReport(runningRequests: 1, waitingRequests: 1, prefillTokens: .nan),
        NodeReport(runningRequests: 1, waitingRequests: 1, kvCapacityTokens: 0),
        NodeReport(runningRequests: 1, waitingRequests: 1, kvCapacityTokens: 1e15),
    ]

    @Test func aServerThatStartsWithEveryReportIsNotBelieved() {
        var trust = ReportTrust()
        func judge(_ start: UInt64, at time: Double) -> Bool {
            var report = report(1, time)
            report.serverStart = start
            return trust.judge(report, own: .zero, events: 0, now: seconds(time))
        }
        // A restart now and then is one.
        for step in 0..<10 { #expect(judge(step < 5 ? 100 : 200, at: Double(step))) }
        for step in 10..<12 { #expect(judge(UInt64(step) * 1_000, at: Double(step))) }
        for step in 12..<20 {
            #expect(!judge(UInt64(step) * 1_000, at: Double(step)))
            #expect(trust.distrust == .implausible)
        }
    }

    @Test(arguments: Self.nonsense)
    func nonsenseIsDistrustedUntilThreePlausibleReports(nonsense: NodeReport) {
        var trust = ReportTrust()
        let judged = trust.judge(nonsense, own: .zero, events: 0, now: seconds(1))
        #expect(!judged && trust.distrust == .implausible)
        let after = (2...4).map { trust.judge(report(1, Double($0)), own: .zero, events: 0, now: seconds(Double($0))) }
        #expect(after == [false, false, true] && trust.distrust == nil)
    }

    @Test func frozenMetricsAreLeftOutAfterAFewRequestsAndFlaggedAfterHalfAMinute() {
        var trust = ReportTrust()
        var believed: [Bool] = []
        for second in 0...40 {
            believed.append(
                trust.judge(report(5, 2), own: own(3), events: Int64(second), now: seconds(Double(second))))
        }
        #expect(believed[3] && !believed[4] && !believed[29])
        #expect(trust.distrust == .frozen)
        let thawed = trust.judge(report(6, 2), own: own(3), events: 41, now: seconds(41))
        #expect(thawed && trust.distrust == nil)
    }

    @Test func idleNodeMaySayTheSameForEver() {
        var trust = ReportTrust()
        let believed = (0...100).map { trust.judge(report(0, 0), own: .zero, events: 7, now: seconds(Double($0))) }
        #expect(believed.allSatisfy { $0 } && trust.distrust == nil)
    }

    @Test func metricsOfAnotherServerAreFoundOutByOurOwnRequests() {
        var trust = ReportTrust()
        for second in 0..<20 {
            let wobbling = report(Double(second % 2), 0)
            _ = trust.judge(wobbling, own: own(12), events: Int64(second), now: seconds(Double(second)))
        }
        #expect(trust.distrust == .contradicted)
    }
}

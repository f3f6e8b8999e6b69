import Routing
import Testing

struct RetryBudgetTests {
    private static func spend(_ budget: inout RetryBudget, upTo attempts: Int = 10_000) -> Int {
        var retries = 0
        while retries < attempts, budget.withdrawRetry() { retries += 1 }
        return retries
    }

    @Test func freshBudgetAllowsItsBurst() {
        var budget = RetryBudget(permille: 100)
        let spent = Self.spend(&budget)
        #expect(spent == RetryBudget.retriesBurst)
    }

    @Test(arguments: [(100, 100), (25, 25), (1_000, 1_000), (1, 1), (5_000, 1_000)])
    func retriesFollowTheShareOfRequests(permille: Int, expected: Int) {
        var budget = RetryBudget(permille: permille)
        _ = Self.spend(&budget)
        var retries = 0
        for _ in 0..<1_000 {
            budget.requestArrived()
            if budget.withdrawRetry() { retries += 1 }
        }
        #expect(retries == expected)
    }

    @Test func quietTimesSaveNoMoreThanTheBurst() {
        var budget = RetryBudget(permille: 500)
        for _ in 0..<100_000 { budget.requestArrived() }
        let spent = Self.spend(&budget)
        #expect(spent == RetryBudget.retriesBurst)
    }

    @Test func zeroShareAllowsNone() {
        var budget = RetryBudget(permille: 0)
        for _ in 0..<10_000 { budget.requestArrived() }
        let spent = Self.spend(&budget)
        #expect(spent == 0)
    }
}

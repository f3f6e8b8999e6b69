/// Bounds how many requests are tried again, as a share of all: retries must not multiply the load of a fleet that is
/// failing under it.
///
/// A token bucket in thousandths of a retry: each request pays in its share, each retry takes out a whole one. It
/// begins full, at ``retriesBurst``, so that a quiet gateway can still retry.
package struct RetryBudget: Hashable, Sendable {
    package static let retriesBurst = 10

    private let permille: Int
    private var balance: Int

    /// - Parameter permille: Retries per thousand requests, 0 to 1,000; 0 allows none at all.
    package init(permille: Int) {
        self.permille = max(0, min(1_000, permille))
        self.balance = self.permille == 0 ? 0 : Self.retriesBurst * 1_000
    }

    /// A request came, its first attempt.
    package mutating func requestArrived() {
        guard permille > 0 else { return }
        balance = min(balance + permille, Self.retriesBurst * 1_000)
    }

    /// - Returns: Whether this retry is within the budget; if so it is spent.
    package mutating func withdrawRetry() -> Bool {
        guard balance >= 1_000 else { return false }
        balance -= 1_000
        return true
    }
}

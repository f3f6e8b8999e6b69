import Synchronization

/// The wait for certain statistics took too long.
package struct StatisticsTimeout: Error, CustomStringConvertible {
    package let last: NodeStatistics

    package var description: String {
        "the node's statistics did not become as wanted; last: \(last.requests) requests, \(last.answered) answered, "
            + "\(last.aborted) aborted, \(last.running) running, \(last.waiting) waiting, "
            + "\(last.generatedTokens) tokens generated, \(last.connections) connections"
    }
}

/// Where a node's loop posts its statistics and anybody reads them, or waits for them to be as wanted.
final class StatisticsBoard: Sendable {
    private struct Waiter {
        var ticket: UInt64
        var isWanted: @Sendable (NodeStatistics) -> Bool
        var continuation: CheckedContinuation<NodeStatistics, any Error>
    }

    private struct State {
        var statistics = NodeStatistics()
        var waiters: [Waiter] = []
        var ticket: UInt64 = 0
    }

    private let state = Mutex(State())

    var current: NodeStatistics { state.withLock { $0.statistics } }

    func publish(_ statistics: NodeStatistics) {
        let satisfied = state.withLock { state in
            state.statistics = statistics
            guard !state.waiters.isEmpty else { return [Waiter]() }
            let satisfied = state.waiters.filter { $0.isWanted(statistics) }
            state.waiters.removeAll { waiter in satisfied.contains { $0.ticket == waiter.ticket } }
            return satisfied
        }
        for waiter in satisfied { waiter.continuation.resume(returning: statistics) }
    }

    /// - Returns: A ticket for ``expire(_:)``; nil where the statistics are as wanted already.
    func wait(
        _ isWanted: @escaping @Sendable (NodeStatistics) -> Bool,
        _ continuation: CheckedContinuation<NodeStatistics, any Error>
    ) -> UInt64? {
        let (ticket, met): (UInt64?, NodeStatistics?) = state.withLock { state in
            if isWanted(state.statistics) { return (nil, state.statistics) }
            state.ticket += 1
            state.waiters.append(Waiter(ticket: state.ticket, isWanted: isWanted, continuation: continuation))
            return (state.ticket, nil)
        }
        if let met { continuation.resume(returning: met) }
        return ticket
    }

    /// Fails the wait if it still goes on.
    func expire(_ ticket: UInt64) {
        let (waiter, last) = state.withLock { state in
            let index = state.waiters.firstIndex { $0.ticket == ticket }
            return (index.map { state.waiters.remove(at: $0) }, state.statistics)
        }
        waiter?.continuation.resume(throwing: StatisticsTimeout(last: last))
    }
}

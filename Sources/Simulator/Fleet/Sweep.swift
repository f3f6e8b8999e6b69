import Synchronization

/// Many runs of one trace on all cores: each run has one core to itself, and none waits for another.
package struct Sweep: Sendable {
    package struct Result: Sendable {
        package var configuration: RunConfiguration
        package var statistics: RunStatistics
    }

    /// What the workers share: each takes the next run that none has taken.
    private final class Progress: Sendable {
        private let next = Mutex(0)
        private let done = Mutex(0)

        func take() -> Int {
            next.withLock { next in
                defer { next += 1 }
                return next
            }
        }

        func finishOne(_ report: (Int) -> Void) {
            done.withLock { done in
                done += 1
                report(done)
            }
        }
    }

    /// - Parameters:
    ///   - width: Runs at a time; nil for one on each core.
    ///   - progress: Called after each run with how many are over, from any thread, one call at a time.
    /// - Returns: In the order of `configurations`, whatever the order in which they end.
    package static func run(
        _ configurations: [RunConfiguration], on trace: Trace, width: Int? = nil,
        progress: @escaping @Sendable (_ done: Int, _ of: Int) -> Void = { _, _ in }
    ) async -> [Result] {
        let shared = Progress()
        let results = await withTaskGroup(of: [(Int, RunStatistics)].self) { group in
            for _ in 0..<min(max(1, width ?? coreCount()), max(1, configurations.count)) {
                group.addTask {
                    var own: [(Int, RunStatistics)] = []
                    while true {
                        let index = shared.take()
                        guard index < configurations.count else { return own }
                        own.append((index, configurations[index].run(trace)))
                        shared.finishOne { progress($0, configurations.count) }
                    }
                }
            }
            var all = [RunStatistics?](repeating: nil, count: configurations.count)
            for await own in group { for (index, statistics) in own { all[index] = statistics } }
            return all
        }
        return zip(configurations, results).compactMap { configuration, statistics in
            statistics.map { Result(configuration: configuration, statistics: $0) }
        }
    }
}

import Logging
import NIOCore
import Synchronization
import Tokenization

/// What the loops of one gateway share, each safe from any thread.
package final class SharedServices: Sendable {
    package let router: SharedRouter
    package let spending: SpendingService
    package let buffers: BufferBudget
    /// nil where the configuration turns it off.
    package let accessLog: AccessLog?
    package let logger: Logger
    /// Texts whose tokens were counted before, on whichever loop.
    let textCounts = TextCountCache()
    let promptLearning = PromptLearning()
    /// Client connections open, for `limits.connections`.
    package let connections = Atomic<Int>(0)
    /// Taken only for requests without a key that this gateway has vouched for.
    let failedKeys = Mutex(FailedKeyLimiter())

    package init(
        router: SharedRouter, spending: SpendingService, buffers: BufferBudget, accessLog: AccessLog?, logger: Logger
    ) {
        self.router = router
        self.spending = spending
        self.buffers = buffers
        self.accessLog = accessLog
        self.logger = logger
    }
}

/// xoshiro256**, seeded from the system once: request and span ids cost no system call. Ids, not secrets: keys are
/// drawn from libcrypto.
package struct LoopRandom: RandomNumberGenerator {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    package init() {
        var system = SystemRandomNumberGenerator()
        state = (system.next(), system.next(), system.next(), system.next() | 1)
    }

    package mutating func next() -> UInt64 {
        let product = state.1 &* 5
        let result = (product << 7 | product >> 57) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = state.3 << 45 | state.3 >> 19
        return result
    }
}

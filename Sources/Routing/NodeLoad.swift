import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What a policy reads of one node: small, since a decision walks over all of them.
package struct NodeLoad: Hashable, Sendable {
    /// What a failure costs the node at once, and how fast that is forgiven.
    package static let penaltySeconds = 2.0
    package static let penaltyHalfLifeSeconds = 5.0
    /// Below this a penalty is gone.
    package static let penaltySecondsMin = 0.001

    /// Prompt and expected output of the requests in flight.
    package internal(set) var inflightTokens: Int64 = 0
    package internal(set) var inflightRequests: Int32 = 0 { didSet { openChanged() } }
    package internal(set) var maxConcurrency: Int32 { didSet { openChanged() } }
    package internal(set) var rttNanoseconds: Int64
    /// One bit: what the node runs.
    package internal(set) var engine: EngineSet
    /// When it last got a request, as a count of decisions: the least recent has the smallest.
    package internal(set) var dispatchedLast: Int64 = 0
    /// When a request last failed here, in nanoseconds of the monotonic clock; `never` where none did lately.
    private var failedAt = Self.never
    /// In the fleet, healthy, its breaker closed, not cordoned.
    package internal(set) var takesRequests = false { didSet { openChanged() } }
    /// Takes requests and is below its concurrency.
    package private(set) var isOpen = false

    private static let never = Int64.min

    package init(maxConcurrency: Int, rttNanoseconds: Int64, engine: EngineSet = .all) {
        self.engine = engine
        self.maxConcurrency = Int32(clamping: maxConcurrency)
        self.rttNanoseconds = rttNanoseconds
    }

    /// The decayed cost of the last failure, in seconds; 0 where there was none lately.
    @inline(__always)
    package func penaltySeconds(now: MonotonicTime) -> Double {
        failedAt == Self.never ? 0 : decayedPenalty(now: now)
    }

    @inline(never)
    private func decayedPenalty(now: MonotonicTime) -> Double {
        let age = Double(max(0, now.nanoseconds - failedAt)) / 1e9
        let penalty = Self.penaltySeconds * exp2(-age / Self.penaltyHalfLifeSeconds)
        return penalty < Self.penaltySecondsMin ? 0 : penalty
    }

    private mutating func openChanged() {
        isOpen = takesRequests && inflightRequests < maxConcurrency
    }

    mutating func failed(now: MonotonicTime) {
        failedAt = now.nanoseconds
    }

    mutating func forgive() {
        failedAt = Self.never
    }
}

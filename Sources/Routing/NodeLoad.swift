import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The request at the head of a node's queue.
package struct QueueHead: Hashable, Sendable {
    /// ``Attempt/work``.
    package var work: Double
    package var sentAt: MonotonicTime
    /// ``Attempt/predictedSeconds``.
    package var predictedSeconds: Double
}

/// What a policy reads of one node: small, since a decision walks over all of them.
package struct NodeLoad: Hashable, Sendable {
    /// What a failure costs the node at once, and how fast that is forgiven.
    package static let penaltySeconds = 2.0
    package static let penaltyHalfLifeSeconds = 5.0
    /// Below this a penalty is gone.
    package static let penaltySecondsMin = 0.001

    /// This gateway's requests in flight.
    package internal(set) var own = InflightWork.zero { didSet { openChanged() } }
    /// The other gateways': what they gossiped or, while they are silent, what the node reports beyond ours.
    package internal(set) var peers = InflightWork.zero
    /// Our oldest request here that has no first token yet: the node is at work on it, or will be next.
    package internal(set) var head: QueueHead?
    package internal(set) var firstTokenLast: MonotonicTime?
    /// When the oldest block of the node's prefix index was last used; nil while there is room for more.
    package internal(set) var tailUsedAt: MonotonicTime?
    /// Whole blocks of the prompt being decided that the node has cached, in tokens. Set during a decision only.
    package internal(set) var prefixTokens: Int64 = 0
    /// What the node can hold: as it reports, else as its class or the operator says.
    package internal(set) var kvCapacityTokens: Int64
    /// The last report that could be true, believed or not, and when it came.
    package internal(set) var report: NodeReport?
    package internal(set) var reportedAt: MonotonicTime?
    /// Whether nothing speaks against what the node reports (``ReportTrust/distrust``): it may be stale all the same.
    package internal(set) var isReportBelieved = false
    package internal(set) var maxConcurrency: Int32 { didSet { openChanged() } }
    package internal(set) var rttNanoseconds: Int64
    /// A hash of the node's name, the same at every gateway.
    package internal(set) var identity: UInt64 = 0
    /// A hash of its speed class.
    package internal(set) var speedClass: UInt64 = 0
    /// What the operator leaves it of its power, 0...1.
    package internal(set) var powerShare = 1.0
    /// It stops then: until then it takes what is predicted to end before.
    package internal(set) var endsAt: MonotonicTime?
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

    package init(
        maxConcurrency: Int, rttNanoseconds: Int64, engine: EngineSet = .all, kvCapacityTokens: Int = 262_144
    ) {
        self.engine = engine
        self.kvCapacityTokens = Int64(max(1, kvCapacityTokens))
        self.maxConcurrency = Int32(clamping: maxConcurrency)
        self.rttNanoseconds = rttNanoseconds
    }

    /// Ours and the other gateways' together.
    package var total: InflightWork { own + peers }

    /// Requests in flight, ours and the other gateways'.
    @inline(__always)
    package var requests: Int64 { Int64(own.requests) + Int64(peers.requests) }

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
        isOpen = takesRequests && own.requests < maxConcurrency
    }

    mutating func failed(now: MonotonicTime) {
        failedAt = now.nanoseconds
    }

    mutating func forgive() {
        failedAt = Self.never
    }
}

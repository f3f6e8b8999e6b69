import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What the policy has learned of one node.
struct NodeEstimate: Sendable {
    /// A node whose rate is unknown beside others that are known gets one request in this time.
    static let startIntervalNanoseconds: Int64 = 1_000_000_000
    /// It counts as known from this many samples on, or from as many answers that were too short to measure; up to then
    /// its rate is taken for less than it seems.
    static let startSamples = 10
    static let startShare = 0.5

    var rate = PrefillRate()
    var step = DecodeStep()
    var powerShare = 1.0
    /// ``NodeLoad/speedClass``.
    var speedClass: UInt64 = 0
    /// What held at full power, for when it returns: a node that learned to be slow would get nothing to learn better by.
    private var fullPower: (rate: PrefillRate, step: DecodeStep)?
    /// Requests from before a change of power were served at two speeds, and teach nothing.
    private(set) var repoweredAt: MonotonicTime?
    /// Came to a fleet of which others were known.
    var isStarting = false
    /// First tokens that came of it, up to ``startSamples``.
    private(set) var answered = 0
    var placedLast: MonotonicTime?
    /// When its rate was last measured.
    var sampledLast: MonotonicTime?
    /// An estimate unmeasured for so long drifts to what its class does: a node that was slow for a while gets nothing to
    /// learn better by.
    static let staleNanoseconds: Int64 = 30_000_000_000

    /// A running mean of the requests that wait on it, over some ``usualSeconds``.
    static let usualSeconds = 10.0
    private(set) var usualQueued = 0.0
    private var queued = 0.0
    private var queuedAt = MonotonicTime(nanoseconds: 0)

    /// So many requests wait on the node from now on.
    mutating func queuedChanged(to count: Double, now: MonotonicTime) {
        let seconds = max(0, now.seconds(since: queuedAt))
        usualQueued += (1 - exp(-seconds / Self.usualSeconds)) * (queued - usualQueued)
        queued = count
        queuedAt = max(queuedAt, now)
    }

    /// Less power is less speed, at once: a share of what held at full power, learned anew from there. A share of what was
    /// learned meanwhile would be one of nothing, after a site without power.
    mutating func repowered(to share: Double, now: MonotonicTime) {
        if powerShare == 1 { fullPower = (rate, step) }
        powerShare = share
        repoweredAt = now
        if let fullPower { (rate, step) = fullPower }
        rate.scale(by: max(share, 0.01))
        step.scale(by: 1 / max(share, 0.01))
        if share == 1 { fullPower = nil }
    }

    /// Whether what a request took says how fast the node is now.
    func isTelling(_ attempt: Attempt) -> Bool { repoweredAt.map { attempt.sentAt >= $0 } ?? true }

    /// The rate to reckon with.
    var tokensPerSecond: Double {
        let seen = max(rate.samples, answered)
        guard isStarting, seen < Self.startSamples else { return rate.tokensPerSecond }
        let known = Double(seen) / Double(Self.startSamples)
        return rate.tokensPerSecond * (Self.startShare + (1 - Self.startShare) * known)
    }

    mutating func answeredOne() { answered = min(answered + 1, Self.startSamples) }

    /// Whether the slow start holds the next request back.
    func isHeldBack(now: MonotonicTime) -> Bool {
        guard isStarting, rate.samples == 0, answered < Self.startSamples, let placedLast else { return false }
        return now.nanoseconds(since: placedLast) < Self.startIntervalNanoseconds
    }
}

/// Means over the nodes that the cost of every node refers to, kept as sums.
struct FleetMeans: Sendable {
    private var queued = 0.0
    private var rates = 0.0
    private var nodes = 0
    private var byNode: ContiguousArray<(queued: Double, rate: Double)> = []

    private(set) var queuedPerNode = 0.0
    var tokensPerSecond: Double { nodes == 0 ? PrefillRate.unknown : rates / Double(nodes) }

    mutating func resize(to count: Int) {
        while byNode.count > count {
            set(byNode.count - 1, queued: 0, rate: 0)
            byNode.removeLast()
        }
        while byNode.count < count { byNode.append((0, 0)) }
    }

    /// - Parameter rate: 0 where the node takes nothing, and does not count.
    mutating func set(_ node: Int, queued: Double, rate: Double) {
        let old = byNode[node]
        byNode[node] = (queued, rate)
        self.queued += queued - old.queued
        rates += rate - old.rate
        nodes += (rate > 0 ? 1 : 0) - (old.rate > 0 ? 1 : 0)
        // Sums of differences drift; an empty fleet is the moment to be exact again.
        if nodes == 0 { (self.queued, rates) = (0, 0) }
        // Here rather than where it is asked for, which is within each decision.
        queuedPerNode = nodes == 0 ? 0 : expm1(self.queued / Double(nodes))
    }
}

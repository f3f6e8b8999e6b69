import Domain

/// Whether one node takes new requests: what the operator said, what probes found, and how its requests fared.
///
/// Three judges, each with its own word, so that none overrules another by accident:
///
/// - **Operator**: cordoned or draining until told otherwise: hard filters, above the others. Curtailed nodes work on.
/// - **Probes**: `warming` until the first good one (exits: healthy, unhealthy); `healthy` (exits: unhealthy after
///   ``probeFailuresMax`` bad ones in a row, warming at once when the node says that it is loading); `unhealthy`
///   (exits: healthy by one good probe, warming by a loading one).
/// - **Breaker**: open after ``breakerFailuresMax`` failed requests in a row. A good probe closes it on trial: one more
///   failure opens it again, a success ends the trial. Without the trial a node whose probes pass while its requests
///   fail would get three victims after each probe.
///
/// A request's success is better evidence than any probe: it makes the node healthy, closes the breaker, and for
/// ``successTrustedNanoseconds`` failed probes do not count (a node deep in a prefill answers its probe late).
package struct NodeHealthStateMachine: Hashable, Sendable {
    package enum Health: Hashable, Sendable, CaseIterable {
        case warming, healthy, unhealthy
    }

    package static let probeFailuresMax = 2
    package static let breakerFailuresMax = 3
    package static let successTrustedNanoseconds: Int64 = 2_000_000_000

    package private(set) var health = Health.warming
    package private(set) var isCordoned = false
    package private(set) var isDraining = false
    package private(set) var isCurtailed = false
    package private(set) var isBreakerOpen = false
    private var probeFailures = 0
    private var requestFailures = 0
    private var succeededAt: MonotonicTime?

    package init() {}

    /// In the order in which operators want to hear it: their own word first.
    package var state: RoutingNodeState {
        if isDraining { return .draining }
        if isCordoned { return .cordoned }
        if isBreakerOpen { return .unhealthy }
        switch health {
        case .warming: return .warming
        case .healthy: return isCurtailed ? .curtailed : .ready
        case .unhealthy: return .unhealthy
        }
    }

    package mutating func cordonChanged(to isCordoned: Bool) {
        self.isCordoned = isCordoned
    }

    package mutating func drainChanged(to isDraining: Bool) {
        self.isDraining = isDraining
    }

    package mutating func curtailChanged(to isCurtailed: Bool) {
        self.isCurtailed = isCurtailed
    }

    package mutating func probed(_ result: ProbeResult, now: MonotonicTime) {
        switch result {
        case .healthy:
            probeFailures = 0
            health = .healthy
            if isBreakerOpen {
                isBreakerOpen = false
                requestFailures = Self.breakerFailuresMax - 1
            }
        case .loading:
            probeFailures = 0
            health = .warming
        case .failed:
            if let succeededAt, now.nanoseconds(since: succeededAt) < Self.successTrustedNanoseconds { return }
            probeFailures = min(probeFailures + 1, Self.probeFailuresMax)
            if probeFailures == Self.probeFailuresMax { health = .unhealthy }
        }
    }

    /// A request got its first token or its whole answer.
    package mutating func requestSucceeded(now: MonotonicTime) {
        succeededAt = now
        health = .healthy
        probeFailures = 0
        requestFailures = 0
        isBreakerOpen = false
    }

    package mutating func requestFailed() {
        requestFailures = min(requestFailures + 1, Self.breakerFailuresMax)
        if requestFailures == Self.breakerFailuresMax { isBreakerOpen = true }
    }

    /// Another server stands behind the name now: what was learned of the old one is void, the operator's word is not.
    package mutating func serverReplaced() {
        let (cordon, drain, curtail) = (isCordoned, isDraining, isCurtailed)
        self = Self()
        isCordoned = cordon
        isDraining = drain
        isCurtailed = curtail
    }
}

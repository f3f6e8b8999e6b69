import Domain

/// More of one node than ``RoutingNodeStatus`` has: for the operator who looks at it.
package struct RoutingNodeDetail: Hashable, Sendable {
    package var status: RoutingNodeStatus
    /// What the cost reckons with.
    package var rttNanoseconds: Int64
    package var maxConcurrency: Int
    package var isCordoned: Bool
    package var isDraining: Bool
    package var isCurtailed: Bool
    /// Of requests that have no first token yet, ours and the other gateways'.
    package var queuedRequests: Int
    package var peerQueuedRequests: Int
    /// Prompt and expected output of the other gateways' requests.
    package var peerTokens: Int
    /// One decode step with one request more, in seconds; nil where the policy does not learn it.
    package var decodeStepSeconds: Double?
    /// How long the node is behind; 0 where the policy does not predict it.
    package var waitSeconds: Double
    /// The last report that could be true, believed or not, and how old it is.
    package var report: NodeReport?
    package var reportAgeSeconds: Double?
}

extension Router {
    /// nil for a node that is not in the fleet.
    package func detail(of node: NodeID, now: MonotonicTime) -> RoutingNodeDetail? {
        guard let index = fleet.index(of: node), let status = status(ofIndex: index, now: now) else { return nil }
        let load = loads[index]
        return RoutingNodeDetail(
            status: status, rttNanoseconds: load.rttNanoseconds, maxConcurrency: Int(load.maxConcurrency),
            isCordoned: health[index].isCordoned, isDraining: health[index].isDraining,
            isCurtailed: health[index].isCurtailed, queuedRequests: Int(load.own.queuedRequests),
            peerQueuedRequests: Int(load.peers.queuedRequests), peerTokens: Int(load.peers.kvTokens),
            decodeStepSeconds: policy.decodeStepSeconds(index),
            waitSeconds: policy.waitSeconds(index, stepSecondsMax: .infinity, now: now), report: load.report,
            reportAgeSeconds: load.reportedAt.map { max(0, now.seconds(since: $0)) })
    }

    /// The node's round trip was measured: it counts in place of the one that was configured, until the next fleet.
    package mutating func measured(_ node: NodeID, rttNanoseconds: Int64, now: MonotonicTime) {
        guard let index = fleet.index(of: node), rttNanoseconds >= 0 else { return }
        loads[index].rttNanoseconds = rttNanoseconds
        policy.loadChanged(index, load: loads[index], now: now)
    }
}

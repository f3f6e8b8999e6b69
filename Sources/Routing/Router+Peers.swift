import Domain

/// What other gateways tell, and what is told them.
extension Router {
    /// What to tell the other gateways: called each ``GossipMessage/deltaInterval``, whether there is news or not.
    package mutating func gossip(now: MonotonicTime) -> GossipMessage {
        settle()
        expirePeers(now: now)
        return gossipSender.message(fleet: fleet, loads: loads, now: now)
    }

    /// What to tell the other gateways last, once nothing is in flight any more: they need not wait for this one's silence.
    package mutating func gossipFarewell() -> GossipMessage { gossipSender.farewell() }

    /// Another gateway's message came.
    ///
    /// - Parameter peer: Names the gateway's process, so that one that restarts counts anew.
    package mutating func gossiped(_ message: GossipMessage, from peer: UInt64, now: MonotonicTime) {
        settle()
        var touched: [Int] = []
        let wasComplete = peers.isComplete
        guard peers.heard(message, from: peer, fleet: fleet, now: now, changed: { touched.append($0) }) else { return }
        for placement in message.placements {
            guard let node = fleet.index(of: placement.node) else { continue }
            index.insert(placement.blocks.span, node: node, now: now)
            loads[node].tailUsedAt = index.tailUsedAt(node)
            touched.append(node)
        }
        peersChanged(peers.isComplete == wasComplete ? touched : Array(loads.indices), now: now)
    }

    private mutating func expirePeers(now: MonotonicTime) {
        var touched: [Int] = []
        let wasComplete = peers.isComplete
        peers.expire(now: now) { touched.append($0) }
        peersChanged(peers.isComplete == wasComplete ? touched : Array(loads.indices), now: now)
    }

    /// Takes over what others have in flight on some nodes.
    mutating func peersChanged(_ nodes: some Sequence<Int>, now: MonotonicTime) {
        for node in nodes {
            loads[node].peers = peers.work(node)
            policy.loadChanged(node, load: loads[node], now: now)
        }
    }
}

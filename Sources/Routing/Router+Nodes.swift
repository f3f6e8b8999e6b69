import Domain

/// What is said of nodes: by probes, by the operator, by their own metrics and cache events.
extension Router {
    // MARK: Health

    /// A node that is not in the fleet is ignored.
    package mutating func probed(_ node: NodeID, _ result: ProbeResult, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        health[index].probed(result, now: now)
        lastHeardAt = now
        healthChanged(index)
    }

    /// A node that is not in the fleet is ignored: whoever keeps the operator's word says it again after a reload.
    package mutating func setCordoned(_ isCordoned: Bool, node: NodeID) {
        guard let index = fleet.index(of: node) else { return }
        health[index].cordonChanged(to: isCordoned)
        healthChanged(index)
    }

    /// The node's address changed: it is warming until it has proved itself. Requests in flight stay on its books.
    package mutating func serverReplaced(_ node: NodeID) {
        guard let index = fleet.index(of: node) else { return }
        health[index].serverReplaced()
        firstTokens[index] = RunningMean()
        loads[index].forgive()
        serverRestarted(index)
        healthChanged(index)
    }

    /// The node's cache is gone.
    private mutating func serverRestarted(_ index: Int) {
        settle()
        self.index.empty(index)
        loads[index].tailUsedAt = nil
    }

    // MARK: Metrics

    /// What a node's metrics said. A node that is not in the fleet is ignored; what cannot be true changes nothing, and
    /// the status says so (``RoutingNodeStatus/distrust``).
    package mutating func reported(_ node: NodeID, _ report: NodeReport, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        settle()
        let isBelieved = trust[index].judge(report, own: loads[index].own, events: events[index], now: now)
        let before = (loads[index].kvCapacityTokens, loads[index].tailUsedAt)
        loads[index].isReportBelieved = trust[index].distrust == nil
        if report.isPlausible { took(report, of: index, isBelieved: isBelieved, now: now) }
        let believed = isBelieved ? report : nil
        peers.reported(index, believed, load: loads[index], meanWork: meanWork, now: now)
        policy.unheardChanged(to: peers.unheard)
        // Where it says nothing new no figure is to move, not even by being brought up to date.
        let isSame = before.0 == loads[index].kvCapacityTokens && before.1 == loads[index].tailUsedAt
        guard !isSame || loads[index].peers != peers.work(index) else { return }
        peersChanged(CollectionOfOne(index), now: now)
    }

    /// The node's metrics are those of a model that it is not configured with. A node that is not in the fleet is ignored.
    package mutating func reportedOtherModel(_ node: NodeID, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        settle()
        trust[index].sawOtherModel()
        loads[index].isReportBelieved = false
        peers.reported(index, nil, load: loads[index], meanWork: meanWork, now: now)
        peersChanged(CollectionOfOne(index), now: now)
    }

    /// - Parameter isBelieved: Otherwise it is kept to be shown, and changes nothing.
    private mutating func took(_ report: NodeReport, of index: Int, isBelieved: Bool, now: MonotonicTime) {
        loads[index].report = report
        loads[index].reportedAt = now
        guard isBelieved else { return }
        if trust[index].believes(serverStart: report.serverStart) { serverRestarted(index) }
        guard let capacity = report.kvCapacityTokens, let spec = fleet.slots[index] else { return }
        // Far from what its class holds: a mistake, or another unit. What the operator said stands.
        let ratio = capacity / Double(spec.kvCapacityTokens)
        guard Self.kvCapacityRatios.contains(ratio), Int64(capacity) != loads[index].kvCapacityTokens else { return }
        loads[index].kvCapacityTokens = Int64(capacity)
        self.index.setCapacity(index, tokens: Int(capacity))
    }

    /// Of what the operator or the class says; beyond is not believed.
    private static let kvCapacityRatios = 1.0 / 64...16.0

    /// The node says that its cache holds these blocks now (a cache event).
    package mutating func stored(_ node: NodeID, blocks: Span<UInt64>, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        settle()
        self.index.heardEvent()
        self.index.stored(blocks, node: index, now: now)
    }

    /// The node says that its cache holds these blocks no longer (a cache event).
    package mutating func evicted(_ node: NodeID, blocks: Span<UInt64>, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        settle()
        self.index.evicted(blocks, node: index)
    }

    // MARK: The operator

    /// The node takes nothing new; what it has may end until the deadline, which is the gateway's to enforce.
    package mutating func setDraining(_ isDraining: Bool, node: NodeID) {
        guard let index = fleet.index(of: node) else { return }
        health[index].drainChanged(to: isDraining)
        healthChanged(index)
    }

    /// The operator curtails a node (a site's nodes, one by one) or restores it: it runs at `share` of its power now.
    ///
    /// - Parameters:
    ///   - share: 0...1; 1 restores.
    ///   - endsAt: The node stops then: until then it runs on, and takes only what is predicted to end before.
    ///     Policies that predict nothing give it no more. nil where it goes on at its share.
    package mutating func curtailed(
        _ node: NodeID, to share: Double, endsAt: MonotonicTime? = nil, now: MonotonicTime
    ) {
        guard let index = fleet.index(of: node), share.isFinite else { return }
        loads[index].powerShare = endsAt == nil ? max(0, min(1, share)) : loads[index].powerShare
        loads[index].endsAt = endsAt
        health[index].curtailChanged(to: share < 1 || endsAt != nil)
        lastHeardAt = now
        healthChanged(index)
    }
}

import Domain

/// The fleet changes while requests are in flight.
extension Router {
    /// Nodes that stay, by id, keep their in-flight work, health and cordon; what is later said of the requests of
    /// nodes that left is ignored.
    ///
    /// - Parameter next: Made from ``fleet`` by ``FleetSnapshot/succeeded(by:)``.
    package mutating func replaceFleet(_ next: FleetSnapshot) {
        settle()
        modelLast = nil
        var loads: ContiguousArray<NodeLoad> = []
        var health: ContiguousArray<NodeHealthStateMachine> = []
        var firstTokens: ContiguousArray<RunningMean> = []
        var queues: ContiguousArray<InflightTable.Queue> = []
        var renewed: [Int] = []
        for (index, slot) in next.slots.enumerated() {
            let maxConcurrency = slot?.maxConcurrency ?? 0
            let rtt = slot?.rttNanoseconds ?? 0
            let engine = slot.map { EngineSet($0.engine) } ?? []
            if isCurrent(index, next.generations[index]), slot != nil {
                var load = self.loads[index]
                load.maxConcurrency = Int32(clamping: maxConcurrency)
                load.rttNanoseconds = rtt
                load.engine = engine
                load.speedClass = Self.hash(slot?.speedClass ?? "")
                // What it reports comes again; what the operator says now must not wait for that.
                let told = slot?.kvCapacityTokens ?? 1
                if told != self.fleet.slots[index]?.kvCapacityTokens { load.kvCapacityTokens = Int64(max(1, told)) }
                loads.append(load)
                queues.append(self.queues[index])
                health.append(self.health[index])
                firstTokens.append(self.firstTokens[index])
            } else {
                renewed.append(index)
                queues.append(InflightTable.Queue())
                var load = NodeLoad(
                    maxConcurrency: maxConcurrency, rttNanoseconds: rtt, engine: engine,
                    kvCapacityTokens: slot?.kvCapacityTokens ?? 1)
                load.identity = Self.hash(slot?.id.rawValue ?? "")
                load.speedClass = Self.hash(slot?.speedClass ?? "")
                loads.append(load)
                health.append(NodeHealthStateMachine())
                firstTokens.append(RunningMean())
            }
        }
        self.fleet = next
        allowed = ContiguousArray(repeating: 0, count: (next.slots.count + 63) / 64)
        holders.reserveCapacity(next.slots.count)
        self.loads = loads
        self.health = health
        self.firstTokens = firstTokens
        self.queues = queues
        trust.fit(count: loads.count, renewed: renewed, ReportTrust())
        events.fit(count: loads.count, renewed: renewed, 0)
        index.fleetChanged(count: loads.count)
        for node in renewed { index.empty(node) }
        index.setCapacities(loads.indices.map { ($0, Int(self.loads[$0].kvCapacityTokens)) })
        peers.fleetChanged(count: loads.count, renewed: renewed)
        gossipSender.fleetChanged(count: loads.count, renewed: renewed)
        Self.fleetChanged(of: &policy, renewed: renewed, loads: loads, now: lastHeardAt)
    }

    /// Static, since a span taken of one stored property would hold all of `self` while the policy changes.
    private static func fleetChanged(
        of policy: inout AnyPolicy, renewed: [Int], loads: ContiguousArray<NodeLoad>, now: MonotonicTime
    ) {
        policy.fleetChanged(count: loads.count, renewed: renewed, loads: loads.span, now: now)
    }

    /// FNV-1a: the same at every gateway and start, unlike the library's.
    private static func hash(_ text: String) -> UInt64 {
        text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
}

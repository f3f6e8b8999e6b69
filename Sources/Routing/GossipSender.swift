import Domain

/// Turns this gateway's own load and placements into messages for the others.
struct GossipSender: Sendable {
    private var sequence: UInt64 = 0
    private var fullAt: MonotonicTime?
    /// By node index: what the others were told last.
    private var told: ContiguousArray<InflightWork> = []
    // Prompts placed since the last message: node by node, the blocks of all in one run.
    private var placedNodes: ContiguousArray<(node: Int32, count: Int32)> = []
    private var placedBlocks: ContiguousArray<UInt64> = []
    /// Nothing is kept until someone has asked for a message: a lone gateway has no one to tell.
    private var isAsked = false

    mutating func fleetChanged(count: Int, renewed: [Int]) {
        if told.count > count { told.removeLast(told.count - count) }
        while told.count < count { told.append(.zero) }
        for node in renewed { told[node] = .zero }
        placedNodes.removeAll(keepingCapacity: true)
        placedBlocks.removeAll(keepingCapacity: true)
    }

    mutating func placed(_ blocks: Span<UInt64>, nodeIndex: Int) {
        guard isAsked, !blocks.isEmpty, placedBlocks.count + blocks.count <= GossipMessage.blocksMax else { return }
        placedNodes.append((Int32(nodeIndex), Int32(blocks.count)))
        for position in 0..<blocks.count { placedBlocks.append(blocks[position]) }
    }

    /// The last message: all that the others still count for us is over.
    mutating func farewell() -> GossipMessage {
        sequence += 1
        return GossipMessage(sequence: sequence, isFull: true, isLast: true, nodes: [], placements: [])
    }

    mutating func message(
        fleet: FleetSnapshot, loads: ContiguousArray<NodeLoad>, now: MonotonicTime
    ) -> GossipMessage {
        if !isAsked {
            isAsked = true
            placedBlocks.reserveCapacity(GossipMessage.blocksMax)
            placedNodes.reserveCapacity(GossipMessage.blocksMax / 8)
        }
        let isFull = fullAt.map { now.nanoseconds(since: $0) >= GossipMessage.fullInterval.nanoseconds } ?? true
        if isFull { fullAt = now }
        sequence += 1
        var nodes: [GossipNode] = []
        for index in loads.indices {
            guard let spec = fleet.slots[index] else { continue }
            let work = loads[index].own
            if work != told[index] || (isFull && work != .zero) { nodes.append(GossipNode(id: spec.id, work: work)) }
            told[index] = work
        }
        var placements: [GossipPlacement] = []
        var position = 0
        for (node, count) in placedNodes {
            let end = position + Int(count)
            if let spec = fleet.slots[Int(node)] {
                placements.append(GossipPlacement(node: spec.id, blocks: Array(placedBlocks[position..<end])))
            }
            position = end
        }
        placedNodes.removeAll(keepingCapacity: true)
        placedBlocks.removeAll(keepingCapacity: true)
        return GossipMessage(sequence: sequence, isFull: isFull, nodes: nodes, placements: placements)
    }
}

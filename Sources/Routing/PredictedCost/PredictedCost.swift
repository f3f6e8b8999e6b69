import Domain

/// The node that is, to within a little, the cheapest in predicted seconds: ``CostTable`` has the terms.
///
/// Everything that a request does not change stands ready in the table, brought up to date by the event that changes
/// it. A decision scores all nodes as if none had any of the prompt, then again those few that have some, and takes one
/// of the best. Beyond ``fullScanMax`` candidates it scores a sample, those that have some of the prompt, and the
/// session's rendezvous winners.
struct PredictedCost: Policy {
    static var prefixIndexing: PrefixIndexing { .kvCapacityLearned }
    static var predictsEnds: Bool { true }
    static let fullScanMax = 1_024
    static let sampleCount = 16

    let weights: CostWeights
    var table = CostTable()
    var estimates: ContiguousArray<NodeEstimate> = []
    var rendezvous = RendezvousTable()
    /// The chances that another gateway has warmed a session's nodes, learned from what they turn out to have.
    var hint: SessionHint
    var fleetMeans = FleetMeans()
    /// Requests that gateways nobody hears have in flight for each of ours. What one duplicates there, all do, none
    /// knowing of the others': so work costs up to twice as much.
    var unheard = 0.0
    private var unheardFactor: Double { 1 + min(unheard, CostWeights.unheardMax) / CostWeights.unheardMax }
    /// Of all requests, those of gateways that nobody hears.
    private var unheardShare: Double { unheard / (1 + unheard) }
    /// Of work that another cache could have saved: always, and for each request that usually waits on a node.
    private var duplicateWeight: Double { weights.duplicate * unheardFactor }
    private var duplicateQueuedWeight: Double { duplicateWeight * weights.duplicateQueued * unheardFactor }
    private var queuedHereShare: Double { weights.duplicateQueuedHere * (1 - unheardShare) }
    /// The same for each request that usually waits on one node, beside its share of the fleet's.
    var duplicateQueuedHereWeight: Double { queuedHereShare * duplicateQueuedWeight }
    /// Nodes that will stop: open only to what will have ended by then.
    var ending: ContiguousArray<Int32> = []
    /// The mean time after which a prefix is used again, in seconds.
    var reuseSeconds = 20.0
    /// The nodes whose work the present decision discounts.
    /// Requests that usually wait on each node, as decisions find them: the moment's number would have work done twice
    /// whenever queues are short for a second, and paid for when they are long again.
    private var usualQueued = 0.0
    private(set) var places = SessionPlaces()
    private var costs: ContiguousArray<Float> = []
    // By group of ``CostTable/groupSize`` nodes.
    private var groupLeast: ContiguousArray<Float> = []
    private var groupBound: ContiguousArray<Float> = []
    /// What the present decision knows better than the scan of all.
    private var known: ContiguousArray<(node: Int32, cost: Float)> = []
    private var sampled: ContiguousArray<Int32> = []
    private var random = SplitMix64(seed: 0x70_6C61_6365)
    /// Figures that only time changes (a fading penalty, an ageing cache) are brought up to date node by node.
    private var refreshNext = 0
    /// How long nodes are behind is brought up to date group by group: at each decision for all of a small fleet.
    private var groupNext = 0

    init(weights: CostWeights = .standard) {
        self.weights = weights
        hint = SessionHint(chance: weights.hintChance, weight: weights.hintWeight)
        sampled.reserveCapacity(Self.sampleCount + 2)
    }

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        refresh(loads: loads, now: now)
        usualQueued += weights.queuedWeight * (fleetMeans.queuedPerNode - usualQueued)
        let prompt = Double(max(1, request.promptTokens))
        let terms = terms(of: request, now: now)
        let winner = rendezvous.winners(session: request.session)
        places = request.session == 0 ? SessionPlaces() : Self.places(of: winner, holders: holders, loads: loads)
        let work = Float(work(newTokens: prompt, cachedTokens: 0))

        if candidates.count > Self.fullScanMax {
            drawSample(candidates, winner)
            if let node = best(
                request, among: sampled, holders: holders, terms: terms, work: work, loads: loads,
                now: now)
            {
                return node
            }
        }
        scoreKnowing(request, holders: holders, terms: terms, loads: loads, now: now)
        let isFiltered = !request.excluded.isEmpty || request.engines != .all
        if !isFiltered, candidates.count == table.count {
            if let node = cheapestOfAll(work: work, newTokens: Float(prompt), terms, rotation: rotation) { return node }
        }
        return cheapest(
            request, among: candidates, work: work, terms: terms, loads: loads, rotation: rotation, now: now)
    }

    // MARK: Choosing

    /// Prompt tokens that are new to a node, weighted for attention: each also reads all the context before it.
    func work(newTokens: Double, cachedTokens: Double) -> Double {
        newTokens * (1 + (cachedTokens + newTokens / 2) / weights.attentionTokens)
    }

    private func terms(of request: RoutingRequest, now: MonotonicTime) -> CostTable.Request {
        let output = Double(max(0, request.expectedOutputTokens))
        return CostTable.Request(
            nowMilliseconds: Self.milliseconds(now), steps: Float(1 + weights.output * output),
            duplicate: Float(
                (duplicateWeight + (1 - queuedHereShare) * duplicateQueuedWeight * usualQueued)
                    / max(1, fleetMeans.tokensPerSecond)),
            expectedOutput: Float(output), kvShareFree: Float(weights.kvShareFree), kvPrice: Float(weights.kvTenth * 10)
        )
    }

    /// Scores the nodes that have some of the prompt, the hinted one and those that will stop: what the scan of all
    /// cannot know of them.
    private mutating func scoreKnowing(
        _ request: RoutingRequest, holders: Span<Int32>, terms: CostTable.Request, loads: Span<NodeLoad>,
        now: MonotonicTime
    ) {
        known.removeAll(keepingCapacity: true)
        for position in 0..<holders.count {
            let node = Int(holders[position])
            known.append((holders[position], cost(node, request, terms: terms, cached: loads[node].prefixTokens)))
        }
        scoreUnheld(places.winner, request, terms: terms, loads: loads)
        scoreUnheld(places.second, request, terms: terms, loads: loads)
        for node in ending {
            known.append((node, costOfEnding(Int(node), request, terms: terms, load: loads[Int(node)], now: now)))
        }
    }

    private mutating func scoreUnheld(
        _ node: Int, _ request: RoutingRequest, terms: CostTable.Request, loads: Span<NodeLoad>
    ) {
        guard node >= 0, loads[node].prefixTokens == 0 else { return }
        known.append((Int32(node), cost(node, request, terms: terms, cached: 0)))
    }

    /// With what the node has of the prompt, and with the hint.
    private func cost(
        _ node: Int, _ request: RoutingRequest, terms: CostTable.Request, cached: Int64
    ) -> Float {
        let cached = Double(cached)
        let new = max(1, Double(request.promptTokens) - cached)
        var work = work(newTokens: new, cachedTokens: cached)
        var terms = terms
        if let slot = hintSlot(node, promptTokens: request.promptTokens) {
            work *= 1 - hint.chances[slot]
            if node == places.winner { terms.duplicate *= Float(1 - unheardShare * (1 - weights.duplicateWinner)) }
            if node == places.second { terms.duplicate *= Float(1 - unheardShare * (1 - weights.duplicateSecond)) }
        }
        return table.cost(node, work: Float(work), newTokens: Float(new), terms)
    }

    /// A node that will stop costs what it would otherwise, if the whole answer is predicted to come before.
    private func costOfEnding(
        _ node: Int, _ request: RoutingRequest, terms: CostTable.Request, load: NodeLoad, now: MonotonicTime
    ) -> Float {
        guard load.isOpen, let endsAt = load.endsAt, now < endsAt else { return CostTable.closed }
        let cached = Double(load.prefixTokens)
        let new = max(1, Double(request.promptTokens) - cached)
        let work = work(newTokens: new, cachedTokens: cached)
        let rtt = Double(load.rttNanoseconds) / 1e9
        let seconds =
            rtt + Double(table.wait(node, nowMilliseconds: terms.nowMilliseconds))
            + work * Double(table.inverseRate[node])
            + Double(table.step[node]) * (1 + Double(request.expectedOutputTokens))
        guard now.advanced(byNanoseconds: Int64(seconds * 1e9)) < endsAt else { return CostTable.closed }
        let fixed = Float(rtt + load.penaltySeconds(now: now))
        return fixed + table.costBeyondFixed(node, work: Float(work), newTokens: Float(new), terms)
    }

    private func limit(_ least: Float) -> Float {
        least * Float(1 + weights.tieShare) + Float(weights.tieSeconds)
    }

    /// One of those that cost the least, to within ``CostWeights/tieShare`` and ``CostWeights/tieSeconds``, where every
    /// node is a candidate; nil where none is open.
    ///
    /// Group by group from the rotation on, first those whose bound is near the best bound: often the first look finds
    /// a node that no other group can better by more than a tie.
    private mutating func cheapestOfAll(
        work: Float, newTokens: Float, _ terms: CostTable.Request, rotation: Int
    ) -> Int? {
        let groups = table.groupCount
        var bound = CostTable.closed
        for group in 0..<groups {
            groupLeast[group] = CostTable.closed
            groupBound[group] = table.bound(group, work: work, terms)
            bound = min(bound, groupBound[group])
        }
        var (least, node) = (CostTable.closed, -1)
        for candidate in known where candidate.cost < least { (least, node) = (candidate.cost, Int(candidate.node)) }
        let good = limit(bound)
        let start = rotation / CostTable.groupSize
        for isNear in [true, false] {
            for offset in 0..<groups where least > good {
                let group = start + offset < groups ? start + offset : start + offset - groups
                guard isNear ? groupBound[group] <= good : groupBound[group] > good else { continue }
                guard groupBound[group] < least else { continue }
                groupLeast[group] = table.costs(
                    group: group, work: work, newTokens: newTokens, terms, into: &costs)
                least = min(least, groupLeast[group])
            }
        }
        guard least < CostTable.closed else { return nil }
        // Whoever has some of the prompt goes before equals that have not.
        if node >= 0, known.contains(where: { Int($0.node) == node && $0.cost <= limit(least) }) { return node }
        return anyWithin(limit(least), rotation: rotation)
    }

    private func anyWithin(_ limit: Float, rotation: Int) -> Int? {
        let groups = groupLeast.count
        let first = rotation / CostTable.groupSize
        for offset in 0..<groups {
            let group = first + offset < groups ? first + offset : first + offset - groups
            guard groupLeast[group] <= limit else { continue }
            let start = group * CostTable.groupSize
            let size = min(CostTable.groupSize, costs.count - start)
            var place = rotation % size
            for _ in 0..<size {
                if costs[start + place] <= limit { return start + place }
                place = place + 1 == size ? 0 : place + 1
            }
        }
        return nil
    }

    /// The same where only some nodes are candidates.
    private mutating func cheapest(
        _ request: RoutingRequest, among candidates: Span<Int32>, work: Float, terms: CostTable.Request,
        loads: Span<NodeLoad>, rotation: Int, now: MonotonicTime
    ) -> Int? {
        let prompt = Float(max(1, request.promptTokens))
        for group in 0..<table.groupCount {
            _ = table.costs(group: group, work: work, newTokens: prompt, terms, into: &costs)
        }
        for candidate in known { costs[Int(candidate.node)] = candidate.cost }
        var least = CostTable.closed
        for position in 0..<candidates.count {
            let node = Int(candidates[position])
            if costs[node] < least, isAllowed(node, request, loads) { least = costs[node] }
        }
        guard least < CostTable.closed else {
            return fallback(request, among: candidates, loads: loads, rotation: rotation, now: now)
        }
        let limit = limit(least)
        var position = rotation
        for _ in 0..<candidates.count {
            let node = Int(candidates[position])
            position = position + 1 == candidates.count ? 0 : position + 1
            if costs[node] <= limit, isAllowed(node, request, loads) { return node }
        }
        return nil
    }

    private func isAllowed(_ node: Int, _ request: RoutingRequest, _ loads: Span<NodeLoad>) -> Bool {
        !request.engines.isDisjoint(with: loads[node].engine) && !request.excluded.contains(node)
    }

    /// All that are open are closed by the policy's own caution, slow start say: better a cautious node than none. One
    /// that will stop is not among them.
    private func fallback(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        now: MonotonicTime
    ) -> Int? {
        let node = cheapest(request, among: candidates, loads: loads, rotation: rotation) { load in
            load.endsAt == nil ? load.requests : Int64.max
        }
        return node.flatMap { loads[$0].endsAt == nil ? $0 : nil }
    }

    // MARK: Large fleets

    private mutating func drawSample(_ candidates: Span<Int32>, _ winner: (first: Int, second: Int)) {
        sampled.removeAll(keepingCapacity: true)
        for _ in 0..<Self.sampleCount { sampled.append(candidates[random.below(candidates.count)]) }
        if winner.first >= 0 { sampled.append(Int32(winner.first)) }
        if winner.second >= 0 { sampled.append(Int32(winner.second)) }
    }

    private func best(
        _ request: RoutingRequest, among sampled: ContiguousArray<Int32>, holders: Span<Int32>,
        terms: CostTable.Request, work: Float, loads: Span<NodeLoad>, now: MonotonicTime
    ) -> Int? {
        var best = -1
        var least = CostTable.closed
        for position in 0..<(sampled.count + holders.count) {
            let node =
                position < sampled.count ? Int(sampled[position]) : Int(holders[position - sampled.count])
            guard isAllowed(node, request, loads) else { continue }
            let cost = cost(node, request, terms: terms, cached: loads[node].prefixTokens)
            if cost < least {
                least = cost
                best = node
            }
        }
        return best < 0 ? nil : best
    }

    // MARK: The session

    private static func places(
        of winner: (first: Int, second: Int), holders: Span<Int32>, loads: Span<NodeLoad>
    ) -> SessionPlaces {
        var places = SessionPlaces()
        for position in 0..<holders.count {
            let node = Int(holders[position])
            places.held(node, tokens: loads[node].prefixTokens, isWinner: node == winner.first)
        }
        if Self.isOpen(winner.first, loads) {
            places.winner = winner.first
            if Self.isOpen(winner.second, loads) { places.second = winner.second }
        } else if Self.isOpen(winner.second, loads) {
            places.winner = winner.second
        }
        return places
    }

    @inline(never)
    private static func isOpen(_ node: Int, _ loads: Span<NodeLoad>) -> Bool {
        guard node >= 0 else { return false }
        return loads[node].isOpen
    }

    /// Where the chance stands that the node has more of the prompt than we know; nil where there is no reason to think so.
    func hintSlot(_ node: Int, promptTokens: Int) -> Int? {
        places.role(of: node).map {
            SessionHint.slot(
                $0, seenTokens: Double(places.seenTokens), of: Double(max(1, promptTokens)))
        }
    }

    // MARK: Upkeep

    private mutating func refresh(loads: Span<NodeLoad>, now: MonotonicTime) {
        guard loads.count > 0 else { return }
        refreshNext = refreshNext + 1 < loads.count ? refreshNext + 1 : 0
        update(refreshNext, load: loads[refreshNext], now: now)
        groupNext = groupNext + 1 < table.groupCount ? groupNext + 1 : 0
        table.refresh(group: groupNext, nowMilliseconds: Self.milliseconds(now))
    }

    mutating func resize(to count: Int) {
        table.resize(to: count)
        rendezvous.resize(to: count)
        if costs.count > count { costs.removeLast(costs.count - count) }
        while costs.count < count { costs.append(CostTable.closed) }
        let groups = (count + CostTable.groupSize - 1) / CostTable.groupSize
        groupLeast = ContiguousArray(repeating: CostTable.closed, count: groups)
        groupBound = groupLeast
        known.reserveCapacity(2 * count + 1)
    }

    /// Of a clock that wraps after 24 days.
    static func milliseconds(_ time: MonotonicTime) -> Int32 {
        Int32(truncatingIfNeeded: time.nanoseconds / 1_000_000)
    }
}

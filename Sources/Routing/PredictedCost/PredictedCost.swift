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
    private var duplicateOverloadWeight: Double {
        let over = min(max(0, usualQueued - weights.overloadFrom), weights.overloadMax)
        return duplicateWeight * weights.duplicateOverload * over * over * max(0, 1 - unheard)
    }
    private var queuedHereShare: Double { weights.duplicateQueuedHere * (1 - unheardShare) }
    /// The same for each request that usually waits on one node, beside its share of the fleet's.
    var duplicateQueuedHereWeight: Double { queuedHereShare * duplicateQueuedWeight }
    /// Nodes that will stop: open only to what will have ended by then.
    var ending: ContiguousArray<Int32> = []
    /// The mean time after which a prefix is used again, in seconds.
    var reuseSeconds = 20.0
    /// The nodes whose work the present decision discounts.
    private(set) var places = SessionPlaces()
    /// Requests that usually wait on each node, as decisions find them: the moment's number would have work done twice
    /// whenever queues are short for a second, and paid for when they are long again.
    private(set) var usualQueued = 0.0
    private var costs: ContiguousArray<CostTable.Lane> = []
    // By group of ``CostTable/groupSize`` nodes.
    private var groupWritten: ContiguousArray<UInt8> = []
    private var groupBound: ContiguousArray<Float> = []
    /// What the present decision knows better than the scan of all.
    private var known: ContiguousArray<(node: Int32, cost: Float)> = []
    private var random = SplitMix64(seed: 0x70_6C61_6365)
    /// Figures that only time changes (a fading penalty, an ageing cache) are brought up to date node by node.
    private var refreshNext = 0
    /// How long nodes are behind is brought up to date group by group: at each decision for all of a small fleet.
    private var groupNext = 0
    /// When the group that is next was refreshed, in milliseconds.
    private var groupsRefreshed: ContiguousArray<Int32> = []
    private static let groupMillisecondsMax: Int32 = 50

    init(weights: CostWeights = .standard) {
        self.weights = weights
        hint = SessionHint(chance: weights.hintChance, weight: weights.hintWeight)
    }

    /// ``WalkingPolicy/choose(_:among:loads:holders:rotation:now:)``, but that it asks no load whether it may be taken.
    ///
    /// - Parameter allowed: A bit for each node that serves the model on an engine that will do and was not tried yet,
    ///   64 nodes a word.
    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, allowed: Span<UInt64>, loads: Span<NodeLoad>,
        holders: Span<Int32>, rotation: Int, now: MonotonicTime
    ) -> Int? {
        refreshStale(nowMilliseconds: Self.milliseconds(now))
        usualQueued += weights.queuedWeight * (fleetMeans.queuedPerNode - usualQueued)
        let prompt = Double(max(1, request.promptTokens))
        let terms = terms(of: request, now: now)
        let winner = rendezvous.winners(session: request.session)
        places = request.session == 0 ? SessionPlaces() : Self.places(of: winner, holders: holders, loads: loads)
        let work = Float(Self.work(newTokens: prompt, cachedTokens: 0, request.attentionTokens))

        scoreKnowing(request, allowed: allowed, holders: holders, terms: terms, loads: loads, now: now)
        let node =
            candidates.count > Self.fullScanMax
            ? cheapestOfSample(request, among: candidates, allowed: allowed, winner, terms: terms, loads: loads) : nil
        if let node { return node }
        let first = Int(candidates[rotation])
        if let node = cheapest(allowed: allowed, work: work, newTokens: Float(prompt), terms, from: first) {
            return node
        }
        return fallback(request, among: candidates, loads: loads, rotation: rotation)
    }

    // MARK: Choosing

    /// Prompt tokens that are new to a node, weighted for attention: each also reads all the context before it.
    static func work(newTokens: Double, cachedTokens: Double, _ attentionTokens: Double) -> Double {
        newTokens * (1 + (cachedTokens + newTokens / 2) / attentionTokens)
    }

    func terms(of request: RoutingRequest, now: MonotonicTime) -> CostTable.Request {
        let output = Double(max(0, request.expectedOutputTokens))
        let tokensPerSecond = max(1, fleetMeans.tokensPerSecond)
        let usual = duplicateWeight + (1 - queuedHereShare) * duplicateQueuedWeight * usualQueued
        let overload = duplicateOverloadWeight
        return CostTable.Request(
            nowMilliseconds: Self.milliseconds(now), steps: Float(1 + weights.output * output),
            duplicate: Float((usual + overload) / tokensPerSecond), overload: Float(overload / tokensPerSecond),
            expectedOutput: Float(output), kvShareFree: Float(weights.kvShareFree), kvPrice: Float(weights.kvTenth * 10)
        )
    }

    /// Scores the nodes that have some of the prompt, the hinted one and those that will stop: what the scan of all
    /// cannot know of them.
    private mutating func scoreKnowing(
        _ request: RoutingRequest, allowed: Span<UInt64>, holders: Span<Int32>, terms: CostTable.Request,
        loads: Span<NodeLoad>, now: MonotonicTime
    ) {
        known.removeAll(keepingCapacity: true)
        for position in 0..<holders.count {
            let node = Int(holders[position])
            guard Self.isAllowed(node, allowed) else { continue }
            known.append((holders[position], cost(node, request, terms: terms, cached: loads[node].prefixTokens)))
        }
        scoreUnheld(places.winner, request, allowed: allowed, terms: terms, loads: loads)
        scoreUnheld(places.second, request, allowed: allowed, terms: terms, loads: loads)
        for node in ending where Self.isAllowed(Int(node), allowed) {
            known.append((node, costOfEnding(Int(node), request, terms: terms, load: loads[Int(node)], now: now)))
        }
    }

    private mutating func scoreUnheld(
        _ node: Int, _ request: RoutingRequest, allowed: Span<UInt64>, terms: CostTable.Request, loads: Span<NodeLoad>
    ) {
        guard node >= 0, Self.isAllowed(node, allowed), loads[node].prefixTokens == 0 else { return }
        known.append((Int32(node), cost(node, request, terms: terms, cached: 0)))
    }

    /// With what the node has of the prompt, and with the hint.
    func cost(
        _ node: Int, _ request: RoutingRequest, terms: CostTable.Request, cached: Int64
    ) -> Float {
        let cached = Double(cached)
        let new = max(1, Double(request.promptTokens) - cached)
        let work = Self.work(newTokens: new, cachedTokens: cached, request.attentionTokens)
        let (discounted, hinted) = self.hinted(node, work: work, promptTokens: request.promptTokens, terms)
        return table.cost(node, work: Float(discounted), newTokens: Float(new), hinted)
    }

    /// What is left of the work, and of the weight of work done twice, where the session is likely to live.
    ///
    /// What overload adds to that weight is saved by what is known alone: by a hope, a session key that many requests name
    /// would heap all of them on one node.
    func hinted(
        _ node: Int, work: Double, promptTokens: Int, _ terms: CostTable.Request
    ) -> (work: Double, terms: CostTable.Request) {
        guard let slot = hintSlot(node, promptTokens: promptTokens) else { return (work, terms) }
        var terms = terms
        if node == places.winner { terms.duplicate *= Float(1 - unheardShare * (1 - weights.duplicateWinner)) }
        if node == places.second { terms.duplicate *= Float(1 - unheardShare * (1 - weights.duplicateSecond)) }
        // So that, with the work that is left, overload comes to what it is without the hope.
        let chance = min(hint.chances[slot], 0.99)
        terms.duplicate += terms.overload * Float(chance / (1 - chance))
        return (work * (1 - chance), terms)
    }

    /// A node that will stop costs what it would otherwise, if the whole answer is predicted to come before.
    private func costOfEnding(
        _ node: Int, _ request: RoutingRequest, terms: CostTable.Request, load: NodeLoad, now: MonotonicTime
    ) -> Float {
        guard load.isOpen, let endsAt = load.endsAt, now < endsAt else { return CostTable.closed }
        let cached = Double(load.prefixTokens)
        let new = max(1, Double(request.promptTokens) - cached)
        let work = Self.work(newTokens: new, cachedTokens: cached, request.attentionTokens)
        let rtt = Double(load.rttNanoseconds) / 1e9
        let seconds =
            rtt + Double(table.wait(node, nowMilliseconds: terms.nowMilliseconds))
            + work * Double(table.rows[node].inverseRate)
            + Double(table.rows[node].step) * (1 + Double(request.expectedOutputTokens))
        guard now.advanced(bySeconds: seconds) < endsAt else { return CostTable.closed }
        let fixed = Float(rtt + load.penaltySeconds(now: now))
        return fixed + table.costBeyondFixed(node, work: Float(work), newTokens: Float(new), terms)
    }

    /// One of those that cost the least, to within ``CostWeights/tieShare`` and ``CostWeights/tieSeconds``; nil where none
    /// is open.
    ///
    /// Group by group from the first node's on, first those whose bound is near the best bound: often the first look
    /// finds a node that no other group can better by more than a tie.
    private mutating func cheapest(
        allowed: Span<UInt64>, work: Float, newTokens: Float, _ terms: CostTable.Request, from first: Int
    ) -> Int? {
        let groups = min(table.groupCount, allowed.count)
        var bound = CostTable.closed
        for group in 0..<groups {
            groupWritten[group] = 0
            let own = allowed[group] == 0 ? CostTable.closed : table.bound(group, work: work, terms)
            groupBound[group] = own
            bound = own < bound ? own : bound
        }
        var (knownLeast, node) = (CostTable.closed, -1)
        for candidate in known where candidate.cost < knownLeast {
            (knownLeast, node) = (candidate.cost, Int(candidate.node))
        }
        let common = work * terms.duplicate
        var finding = finding(knownLeast, common: common)
        let good = self.finding(bound, common: common).limit
        let start = first / CostTable.groupSize
        let addedTokens = newTokens + terms.expectedOutput
        for pass in 0..<2 {
            let isNear = pass == 0
            for offset in 0..<groups where finding.least > good {
                let group = start + offset < groups ? start + offset : start + offset - groups
                let bound = groupBound[group]
                guard (bound <= good) == isNear, bound <= finding.bar, bound < CostTable.closed else { continue }
                groupWritten[group] = table.scan(
                    group: group, allowed: allowed[group], work: work, addedTokens: addedTokens, terms, &finding,
                    into: &costs)
            }
        }
        guard finding.least < CostTable.closed else { return nil }
        // Whoever has some of the prompt goes before equals that have not.
        return node >= 0 && knownLeast <= finding.limit ? node : anyWithin(finding.limit, from: first)
    }

    private func finding(_ least: Float, common: Float) -> CostTable.Finding {
        CostTable.Finding(
            least: least, common: common, tieShare: Float(weights.tieShare), tieSeconds: Float(weights.tieSeconds),
            isExhaustive: table.groupCount == 1)
    }

    /// The first from `first` on among those that the scan wrote.
    private func anyWithin(_ limit: Float, from first: Int) -> Int? {
        let groups = groupWritten.count
        let lanes = CostTable.groupSize / CostTable.laneWidth
        for offset in 0..<groups {
            let start = first / CostTable.groupSize + offset
            let group = start < groups ? start : start - groups
            let written = groupWritten[group]
            guard written != 0 else { continue }
            for turn in 0..<lanes {
                let place = (first / CostTable.laneWidth + turn) % lanes
                guard written >> UInt8(place) & 1 == 1 else { continue }
                let cost = costs[group * lanes + place]
                for turn in 0..<CostTable.laneWidth {
                    let lane = (first + turn) % CostTable.laneWidth
                    if cost[lane] <= limit { return (group * lanes + place) * CostTable.laneWidth + lane }
                }
            }
        }
        return nil
    }

    @inline(__always)
    private static func isAllowed(_ node: Int, _ allowed: Span<UInt64>) -> Bool {
        node >> 6 < allowed.count && allowed[node >> 6] >> UInt64(node & 63) & 1 == 1
    }

    /// All that are open are closed by the policy's own caution, slow start say: better a cautious node than none. One
    /// that will stop is not among them.
    private func fallback(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int
    ) -> Int? {
        let node = cheapest(request, among: candidates, loads: loads, rotation: rotation) { load in
            load.endsAt == nil ? load.requests : Int64.max
        }
        return node.flatMap { loads[$0].endsAt == nil ? $0 : nil }
    }

    // MARK: Large fleets

    /// The cheapest of a sample, of the session's winners and of those that the decision knows more of; nil where none of
    /// them is open.
    private mutating func cheapestOfSample(
        _ request: RoutingRequest, among candidates: Span<Int32>, allowed: Span<UInt64>,
        _ winner: (first: Int, second: Int), terms: CostTable.Request, loads: Span<NodeLoad>
    ) -> Int? {
        var (best, least) = (-1, CostTable.closed)
        for candidate in known where candidate.cost < least { (least, best) = (candidate.cost, Int(candidate.node)) }
        for position in 0..<(Self.sampleCount + 2) {
            let node: Int
            switch position {
            case Self.sampleCount: node = winner.first
            case Self.sampleCount + 1: node = winner.second
            default: node = Int(candidates[random.below(candidates.count)])
            }
            guard node >= 0, Self.isAllowed(node, allowed), loads[node].prefixTokens == 0 else { continue }
            let cost = cost(node, request, terms: terms, cached: 0)
            if cost < least { (least, best) = (cost, node) }
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

    /// Brings a few figures up to date that only time changes. Called once for each decision, after it.
    mutating func tick(loads: Span<NodeLoad>, now: MonotonicTime) {
        guard loads.count > 0 else { return }
        refreshNext = refreshNext + 1 < loads.count ? refreshNext + 1 : 0
        update(refreshNext, load: loads[refreshNext], now: now)
        if table.groupCount > 1 { refreshGroup(nowMilliseconds: Self.milliseconds(now)) }
    }

    /// How long nodes are behind, for all of a small fleet; of a large one for a group at most, and only where ticks are
    /// rare.
    private mutating func refreshStale(nowMilliseconds: Int32) {
        guard table.groupCount > 0 else { return }
        let age = nowMilliseconds &- groupsRefreshed[groupNext]
        if age > (table.groupCount == 1 ? 0 : Self.groupMillisecondsMax) || age < 0 {
            refreshGroup(nowMilliseconds: nowMilliseconds)
        }
    }

    private mutating func refreshGroup(nowMilliseconds: Int32) {
        table.refresh(group: groupNext, nowMilliseconds: nowMilliseconds)
        groupsRefreshed[groupNext] = nowMilliseconds
        groupNext = groupNext + 1 < table.groupCount ? groupNext + 1 : 0
    }

    mutating func resize(to count: Int) {
        table.resize(to: count)
        rendezvous.resize(to: count)
        let groups = table.groupCount
        costs = ContiguousArray(
            repeating: CostTable.Lane(repeating: CostTable.closed),
            count: groups * CostTable.groupSize / CostTable.laneWidth)
        groupWritten = ContiguousArray(repeating: 0, count: groups)
        groupBound = ContiguousArray(repeating: CostTable.closed, count: groups)
        groupsRefreshed = ContiguousArray(repeating: 0, count: groups)
        groupNext = 0
        known.reserveCapacity(2 * count + 2)
    }

    /// Of a clock that wraps after 24 days.
    static func milliseconds(_ time: MonotonicTime) -> Int32 {
        Int32(truncatingIfNeeded: time.nanoseconds / 1_000_000)
    }
}

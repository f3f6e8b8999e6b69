import Domain

/// Which node gets a request: the one owner of in-flight work, health, breakers and cordons.
///
/// Pure: time is an argument and the only chance is the seed's, so equal events give equal decisions. The gateway holds
/// one behind a mutex; every call is short, and a decision allocates nothing once the table of requests in flight
/// has grown to its usual size, but where it is to be explained.
///
/// A request's life: ``decide(_:now:)`` commits its work, ``started(_:now:)`` when it was written to the node,
/// ``firstToken(_:cachedTokens:now:)`` for the first token of a stream, and exactly one ``finished(_:outcome:now:)`` on every exit.
/// What comes twice, late or of a node that left is ignored.
package struct Router: Sendable {
    /// Bounds what one request can add to a counter, so that no sum overflows.
    package static let requestTokensMax = 1 << 40
    private static let inflightReserved = 4_096

    package internal(set) var fleet: FleetSnapshot
    package let policyName: RoutingPolicy
    var policy: AnyPolicy
    private var random: SplitMix64
    private var decisions: Int64 = 0

    // By node index, in step with `fleet.slots`.
    var loads: ContiguousArray<NodeLoad>
    var health: ContiguousArray<NodeHealthStateMachine>
    var firstTokens: ContiguousArray<RunningMean>

    var inflight: InflightTable
    var queues: ContiguousArray<InflightTable.Queue>
    var index: PrefixIndex
    /// What the last decision left to be done.
    private var unsettled = Unsettled()
    /// What the request that was placed last costs: its new work on its node, and its answer
    /// (``AdmissionQueue/cost(work:expectedOutputTokens:)``).
    package private(set) var costLast = 0.0
    /// Blocks of the prompt placed last that the index does not have yet.
    private var unindexed: ContiguousArray<UInt64> = []
    /// Blocks of one prompt that are indexed: two million tokens.
    static let unindexedMax = 4_096
    /// The model of the last decision: most are for the same, and a table of strings costs as much as all the rest.
    var modelLast: (id: ModelID, index: Int)?
    /// Which nodes may take the present request, 64 a word, where that is not all that serve its model.
    var allowed: ContiguousArray<UInt64> = []
    /// The nodes whose `prefixTokens` the present decision has set.
    var holders: ContiguousArray<Int32> = []
    /// By node index: whether its metrics are believed, and how many requests were placed and ended there.
    var trust: ContiguousArray<ReportTrust> = []
    var events: ContiguousArray<Int64> = []
    /// Of a placed request: what a queued one that nobody tells of is taken for.
    var meanWork = meanWorkInitial
    private static let meanWorkInitial = 4_000.0
    private static let meanWorkWeight = 0.02
    /// The time of the last event that had one.
    var lastHeardAt = MonotonicTime(nanoseconds: 0)
    /// The node whose queue the next decision looks after.
    private var tendNext = 0
    /// Whether placements are explained (``explanation(_:)``): it costs a walk over all candidates.
    package var isExplaining = false
    /// By ticket, of requests in flight.
    var explanations: [UInt64: RoutingExplanation] = [:]
    var gossipSender = GossipSender()
    var peers = PeerLoads()

    package init(fleet: FleetSnapshot, policy: RoutingPolicy, seed: UInt64) {
        self.fleet = .empty
        self.policyName = policy
        self.policy = AnyPolicy(policy)
        self.random = SplitMix64(seed: seed)
        self.loads = []
        self.health = []
        self.firstTokens = []
        self.queues = []
        self.inflight = InflightTable(reserving: Self.inflightReserved)
        self.index = PrefixIndex(self.policy.prefixIndexing)
        self.unindexed.reserveCapacity(Self.unindexedMax)
        replaceFleet(fleet)
    }

    // MARK: A request's life

    /// Picks a node and counts the request's work as in flight there.
    package mutating func decide(_ request: RoutingRequest, now: MonotonicTime) -> RoutingDecision {
        decide(request, blocks: Span(), now: now)
    }

    /// Picks a node and counts the request's work as in flight there.
    ///
    /// - Parameter blocks: Keyed, chained hashes of the prompt's whole blocks of ``PrefixIndex/blockTokens`` tokens,
    ///   first block first: the hash of a block covers all blocks before it, so equal hashes mean equal prefixes.
    package mutating func decide(
        _ request: RoutingRequest, blocks: Span<UInt64>, now: MonotonicTime
    ) -> RoutingDecision {
        guard let model = modelIndex(of: request.model) else { return .refuse(.modelNotServed) }
        settle()
        var request = request
        request.promptTokens = Int(Self.bounded(request.promptTokens))
        request.expectedOutputTokens = Int(Self.bounded(request.expectedOutputTokens))
        if !request.excluded.isEmpty { request.excluded = request.excluded.current(in: fleet) }
        if request.session == 0, !blocks.isEmpty { request.session = blocks[min(1, blocks.count - 1)] }
        guard !inflight.isFull else { return .refuse(.allAtConcurrency) }
        let candidates = fleet.servers(ofModelIndex: model, in: request.region)
        guard !candidates.isEmpty else { return .refuse(.regionNotServed) }
        let rotation = random.below(candidates.count)
        lastHeardAt = now
        matchPrefixes(blocks, of: request)
        defer { forgetPrefixes() }
        guard
            let chosen = Self.choose(
                by: &policy, request, among: candidates, allowed: allow(request, ofModelIndex: model), loads: loads,
                holders: holders, rotation: rotation, now: now)
        else { return .refuse(refusal(candidates, request)) }
        let explanation = isExplaining ? explain(chosen, request, among: candidates, now: now) : nil
        let assignment = place(request, blocks: blocks, on: chosen, now: now)
        if let explanation { explanations[assignment.ticket] = explanation }
        return .dispatch(assignment)
    }

    private mutating func modelIndex(of model: ModelID) -> Int? {
        if let modelLast, modelLast.id == model { return modelLast.index }
        guard let index = fleet.modelIndex(of: model) else { return nil }
        modelLast = (model, index)
        return index
    }

    /// The nodes that serve the model on an engine that will do, where the request must stay, and have not been tried, as
    /// bits.
    private mutating func allow(_ request: RoutingRequest, ofModelIndex model: Int) -> ContiguousArray<UInt64> {
        let servers = fleet.serverWords(ofModelIndex: model)
        if request.engines == .all, request.excluded.isEmpty, request.region == nil { return servers }
        for word in servers.indices {
            allowed[word] = fleet.running(request.engines, among: servers[word], word: word)
        }
        if let inside = fleet.words(of: request.region) {
            for word in allowed.indices { allowed[word] &= inside[word] }
        }
        request.excluded.subtract(from: &allowed)
        return allowed
    }

    private mutating func place(
        _ request: RoutingRequest, blocks: Span<UInt64>, on chosen: Int, now: MonotonicTime
    ) -> Assignment {
        let prompt = Self.bounded(request.promptTokens)
        let output = Self.bounded(request.expectedOutputTokens)
        var attempt = Attempt(
            nodeIndex: chosen, promptTokens: Int(prompt), newTokens: Int(prompt - loads[chosen].prefixTokens),
            expectedOutputTokens: Int(output), session: request.session, decidedAt: now)
        attempt.isStreamed = request.isStreamed
        attempt.attentionTokens = request.attentionTokens
        policy.placed(&attempt, load: loads[chosen], now: now)
        let work = InflightWork(
            requests: 1, queuedRequests: 1, promptTokens: prompt, queuedTokens: Int64(attempt.newTokens),
            queuedWork: attempt.work, kvTokens: prompt + output)
        decisions += 1
        events[chosen] += 1
        meanWork += Self.meanWorkWeight * (attempt.work - meanWork)
        loads[chosen].dispatchedLast = decisions
        loads[chosen].own = loads[chosen].own + work
        let generation = fleet.generations[chosen]
        let ticket = inflight.insert(InflightTable.Entry(generation: generation, work: work, attempt: attempt))
        let isHead = queues[chosen].isEmpty
        inflight.enqueue(ticket, &queues[chosen])
        if isHead { headChanged(chosen) }
        unsettled = Unsettled(node: chosen, at: now, work: attempt.work)
        // By the same measure under every policy, as what would wait is charged.
        let weighted = PredictedCost.work(
            newTokens: Double(attempt.newTokens), cachedTokens: Double(Int(prompt) - attempt.newTokens),
            request.attentionTokens)
        costLast = AdmissionQueue.cost(work: weighted, expectedOutputTokens: Int(output))
        if index.isUsed { Self.copy(blocks, to: &unindexed) }
        return Assignment(nodeIndex: chosen, generation: generation, ticket: ticket)
    }

    /// The request was written to the node: time to first token counts from here.
    package mutating func started(_ assignment: Assignment, now: MonotonicTime) {
        settle()
        _ = inflight.update(assignment.ticket) { entry in
            entry.attempt.writtenAt = entry.attempt.writtenAt ?? now
        }
    }

    /// The first token of a stream came. For a plain answer the call is ignored: ``finished(_:outcome:now:)`` notes it.
    ///
    /// - Parameter cachedTokens: What the node says that it had cached, where it says so this early.
    package mutating func firstToken(_ assignment: Assignment, cachedTokens: Int? = nil, now: MonotonicTime) {
        settle()
        let first: Attempt?? = inflight.update(assignment.ticket) { entry in
            guard entry.attempt.isStreamed, entry.attempt.firstTokenAt == nil else { return nil }
            entry.attempt.firstTokenAt = now
            entry.attempt.cachedTokens = cachedTokens
            return entry.attempt
        }
        guard let attempt = first ?? nil, isCurrent(assignment.nodeIndex, assignment.generation) else { return }
        let node = assignment.nodeIndex
        endQueueing(assignment.ticket, node: node)
        observeCache(attempt, cachedTokens: cachedTokens)
        answerBegan(attempt, now: now)
        health[node].requestSucceeded(now: now)
        policy.firstToken(attempt, load: loads[node], now: now)
        lastHeardAt = now
        healthChanged(node)
    }

    private mutating func answerBegan(_ attempt: Attempt, now: MonotonicTime) {
        loads[attempt.nodeIndex].firstTokenLast = now
        firstTokens[attempt.nodeIndex].add(max(0, now.seconds(since: attempt.sentAt)))
    }

    /// The request is over, on this node at least: its work leaves the books.
    package mutating func finished(_ assignment: Assignment, outcome: RoutingOutcome, now: MonotonicTime) {
        settle()
        guard let entry = inflight.entry(assignment.ticket) else { return }
        if !explanations.isEmpty { explanations[assignment.ticket] = nil }
        let node = entry.attempt.nodeIndex
        guard isCurrent(node, entry.generation) else {
            _ = inflight.remove(assignment.ticket)
            return
        }
        if entry.isQueued { inflight.dequeue(assignment.ticket, &queues[node]) }
        _ = inflight.remove(assignment.ticket)
        headChanged(node)
        loads[node].own = loads[node].own - entry.work
        events[node] += 1
        switch outcome {
        case .completed(let usage):
            health[node].requestSucceeded(now: now)
            loads[node].forgive()
            // All of it came at once.
            if entry.attempt.firstTokenAt == nil { answerBegan(entry.attempt, now: now) }
            if entry.attempt.cachedTokens == nil { observeCache(entry.attempt, cachedTokens: usage?.cachedTokens) }
            policy.completed(entry.attempt, usage: usage, load: loads[node], now: now)
        case .refused:
            health[node].requestSucceeded(now: now)
            loads[node].forgive()
        case .failed:
            health[node].requestFailed()
            loads[node].failed(now: now)
        case .unserved:
            loads[node].failed(now: now)
        case .aborted:
            break
        }
        lastHeardAt = now
        healthChanged(node)
    }

    // MARK: After a decision

    /// What a decision leaves to be done, since a request waits for the one and not for the other.
    private struct Unsettled {
        /// -1: nothing.
        var node = -1
        var at = MonotonicTime(nanoseconds: 0)
        var work = 0.0
    }

    /// Does what the last decision left: indexes its prompt, brings its node's figures up to date, looks after a node.
    ///
    /// Every call that could tell does this first, the next decision included; a caller that has the time does it by
    /// ``started(_:now:)``, once the request has been sent.
    mutating func settle() {
        guard unsettled.node >= 0 else { return }
        let (node, placedAt, work) = (unsettled.node, unsettled.at, unsettled.work)
        unsettled.node = -1
        if !unindexed.isEmpty {
            if let seconds = index.reuseSeconds(of: node, now: placedAt) { policy.reused(after: seconds) }
            indexPlaced(on: node, at: placedAt)
        }
        peers.placed(node, work: work, now: placedAt)
        loads[node].peers = peers.work(node)
        policy.loadChanged(node, load: loads[node], now: placedAt)
        tend(now: placedAt)
        Self.tick(&policy, loads: loads, now: placedAt)
    }

    private mutating func indexPlaced(on node: Int, at placedAt: MonotonicTime) {
        // Taken out meanwhile, since its span would hold all of `self`.
        var placed: ContiguousArray<UInt64> = []
        swap(&placed, &unindexed)
        gossipSender.placed(placed.span, nodeIndex: node)
        index.insert(placed.span, node: node, now: placedAt)
        placed.removeAll(keepingCapacity: true)
        swap(&placed, &unindexed)
        loads[node].tailUsedAt = index.tailUsedAt(node)
    }

    private static func copy(_ blocks: Span<UInt64>, to kept: inout ContiguousArray<UInt64>) {
        let blocks = blocks.extracting(first: unindexedMax)
        blocks.withUnsafeBufferPointer { kept.append(contentsOf: $0) }
    }

    private static func tick(_ policy: inout AnyPolicy, loads: ContiguousArray<NodeLoad>, now: MonotonicTime) {
        policy.tick(loads: loads.span, now: now)
    }

    // MARK: Inside

    /// Static, since a span taken of one stored property would hold all of `self` while the policy changes.
    private static func choose(
        by policy: inout AnyPolicy, _ request: RoutingRequest, among candidates: ContiguousArray<Int32>,
        allowed: ContiguousArray<UInt64>, loads: ContiguousArray<NodeLoad>, holders: ContiguousArray<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        policy.choose(
            request, among: candidates.span, allowed: allowed.span, loads: loads.span, holders: holders.span,
            rotation: rotation, now: now)
    }

    /// Sets the `prefixTokens` of the nodes that hold some of the prompt, and names them in `holders`.
    private mutating func matchPrefixes(_ blocks: Span<UInt64>, of request: RoutingRequest) {
        let most = Double(max(0, Self.bounded(request.promptTokens) - 1))
        index.match(blocks)
        for match in index.matches {
            loads[Int(match.node)].prefixTokens = Int64(min(Double(match.blocks) * request.blockTokens, most))
            holders.append(match.node)
        }
    }

    /// The request is being decoded: it no longer stands before others.
    private mutating func endQueueing(_ ticket: UInt64, node: Int) {
        let queued: InflightWork?? = inflight.update(ticket) { entry in
            guard entry.isQueued else { return nil }
            entry.isQueued = false
            return entry.work.endQueueing()
        }
        guard let queued = queued ?? nil else { return }
        loads[node].own = loads[node].own - queued
        inflight.dequeue(ticket, &queues[node])
        headChanged(node)
    }

    /// Sets the load's head to that of the node's queue.
    private mutating func headChanged(_ node: Int) {
        let head = inflight.head(queues[node])
        loads[node].head = head.map {
            QueueHead(
                work: $0.attempt.work, sentAt: $0.attempt.sentAt, predictedSeconds: $0.attempt.predictedSeconds)
        }
    }

    /// Looks after one node's queue: a plain answer's first token is never seen, so it is presumed when it is due.
    private mutating func tend(now: MonotonicTime) {
        guard !loads.isEmpty else { return }
        tendNext = tendNext + 1 < loads.count ? tendNext + 1 : 0
        tend(tendNext, now: now)
    }

    mutating func tend(_ node: Int, now: MonotonicTime) {
        while let head = inflight.head(queues[node]), !head.attempt.isStreamed {
            let due = max(head.attempt.predictedSeconds, Self.firstTokenSecondsMin)
            guard now.seconds(since: head.attempt.sentAt) >= due else { break }
            endQueueing(head.ticket, node: node)
            policy.loadChanged(node, load: loads[node], now: now)
        }
    }

    /// What a plain answer's first token takes at least, for want of a prediction.
    private static let firstTokenSecondsMin = 0.5

    private mutating func observeCache(_ attempt: Attempt, cachedTokens: Int?) {
        guard let cachedTokens, 0...attempt.promptTokens ~= cachedTokens else { return }
        index.observed(
            attempt.nodeIndex, believedTokens: attempt.promptTokens - attempt.newTokens, cachedTokens: cachedTokens)
    }

    private mutating func forgetPrefixes() {
        for node in holders { loads[Int(node)].prefixTokens = 0 }
        holders.removeAll(keepingCapacity: true)
    }

    private static func bounded(_ tokens: Int) -> Int64 { Int64(max(0, min(tokens, requestTokensMax))) }

    func isCurrent(_ index: Int, _ generation: UInt32) -> Bool {
        index < loads.count && fleet.generations[index] == generation
    }

    mutating func healthChanged(_ index: Int) {
        let state = health[index].state
        let isUp = fleet.isHeld(index) && (state == .ready || state == .curtailed)
        let hasPower = loads[index].powerShare > 0 && (loads[index].endsAt == nil || policy.predictsEnds)
        loads[index].takesRequests = isUp && hasPower
        policy.loadChanged(index, load: loads[index], now: lastHeardAt)
    }
}

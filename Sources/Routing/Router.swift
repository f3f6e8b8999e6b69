import Domain

/// Which node gets a request: the one owner of in-flight work, health, breakers and cordons.
///
/// Pure: time is an argument and the only chance is the seed's, so equal events give equal decisions. The gateway holds
/// one behind a mutex; every call is short and none but ``replaceFleet(_:)`` and ``status(now:)`` allocates, once the
/// table of requests in flight has grown to its usual size.
///
/// A request's life: ``decide(_:now:)`` commits its work, ``started(_:now:)`` when it was written to the node,
/// ``firstToken(_:now:)`` for the first token of a stream, and exactly one ``finished(_:outcome:now:)`` on every exit.
/// What comes twice, late or of a node that left is ignored.
package struct Router: Sendable {
    /// Bounds what one request can add to a counter, so that no sum overflows.
    package static let requestTokensMax = 1 << 40
    /// Weight of the newest sample in the mean time to first token, once there are many.
    static let firstTokenWeightMin = 0.05
    private static let inflightReserved = 4_096

    package private(set) var fleet: FleetSnapshot
    package let policyName: RoutingPolicy
    private var policy: AnyPolicy
    private var random: SplitMix64
    private var decisions: Int64 = 0

    // By node index, in step with `fleet.slots`.
    private var loads: ContiguousArray<NodeLoad>
    private var health: ContiguousArray<NodeHealthStateMachine>
    private var firstTokens: ContiguousArray<RunningMean>

    private var inflight: InflightTable

    package init(fleet: FleetSnapshot, policy: RoutingPolicy, seed: UInt64) {
        self.fleet = .empty
        self.policyName = policy
        self.policy = AnyPolicy(policy)
        self.random = SplitMix64(seed: seed)
        self.loads = []
        self.health = []
        self.firstTokens = []
        self.inflight = InflightTable(reserving: Self.inflightReserved)
        replaceFleet(fleet)
    }

    // MARK: A request's life

    /// Picks a node and counts the request's work as in flight there.
    package mutating func decide(_ request: RoutingRequest, now: MonotonicTime) -> RoutingDecision {
        guard let model = fleet.modelIndex(of: request.model) else { return .refuse(.modelNotServed) }
        var request = request
        if !request.excluded.isEmpty { request.excluded = request.excluded.current(in: fleet) }
        guard !inflight.isFull else { return .refuse(.allAtConcurrency) }
        let candidates = fleet.servers(ofModelIndex: model)
        let rotation = random.below(candidates.count)
        guard
            let index = Self.choose(
                by: &policy, request, among: candidates, loads: loads, rotation: rotation, now: now)
        else { return .refuse(refusal(candidates, request)) }

        let tokens =
            Self.bounded(request.promptTokens) + Self.bounded(request.expectedOutputTokens)
        decisions += 1
        loads[index].inflightRequests += 1
        loads[index].inflightTokens += tokens
        loads[index].dispatchedLast = decisions
        let generation = fleet.generations[index]
        let ticket = inflight.insert(
            InflightTable.Entry(nodeIndex: Int32(index), generation: generation, tokens: tokens, decidedAt: now))
        return .dispatch(Assignment(nodeIndex: index, generation: generation, ticket: ticket))
    }

    /// The request was written to the node: time to first token counts from here.
    package mutating func started(_ assignment: Assignment, now: MonotonicTime) {
        _ = inflight.update(assignment.ticket) { entry in
            entry.writtenAt = entry.writtenAt ?? now
        }
    }

    /// The first token of a stream came. Not for a plain answer, whose first byte comes with its last token.
    package mutating func firstToken(_ assignment: Assignment, now: MonotonicTime) {
        let since: MonotonicTime?? = inflight.update(assignment.ticket) { entry in
            guard !entry.hasFirstToken else { return nil }
            entry.hasFirstToken = true
            return entry.writtenAt ?? entry.decidedAt
        }
        guard let since = since ?? nil, isCurrent(assignment.nodeIndex, assignment.generation) else { return }
        firstTokens[assignment.nodeIndex].add(max(0, now.seconds(since: since)))
        health[assignment.nodeIndex].requestSucceeded(now: now)
        healthChanged(assignment.nodeIndex)
    }

    /// The request is over, on this node at least: its work leaves the books.
    package mutating func finished(_ assignment: Assignment, outcome: RoutingOutcome, now: MonotonicTime) {
        guard let entry = inflight.remove(assignment.ticket) else { return }
        let index = Int(entry.nodeIndex)
        guard isCurrent(index, entry.generation) else { return }
        loads[index].inflightRequests -= 1
        loads[index].inflightTokens -= entry.tokens
        switch outcome {
        case .completed:
            health[index].requestSucceeded(now: now)
            loads[index].forgive()
        case .failed:
            health[index].requestFailed()
            loads[index].failed(now: now)
        case .unserved:
            loads[index].failed(now: now)
            return
        case .aborted:
            return
        }
        healthChanged(index)
    }

    // MARK: What is said of nodes

    /// A node that is not in the fleet is ignored.
    package mutating func probed(_ node: NodeID, _ result: ProbeResult, now: MonotonicTime) {
        guard let index = fleet.index(of: node) else { return }
        health[index].probed(result, now: now)
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
        healthChanged(index)
    }

    /// Nodes that stay, by id, keep their in-flight work, health and cordon; what is later said of the requests of
    /// nodes that left is ignored.
    ///
    /// - Parameter next: Made from ``fleet`` by ``FleetSnapshot/succeeded(by:)``.
    package mutating func replaceFleet(_ next: FleetSnapshot) {
        var loads: ContiguousArray<NodeLoad> = []
        var health: ContiguousArray<NodeHealthStateMachine> = []
        var firstTokens: ContiguousArray<RunningMean> = []
        for (index, slot) in next.slots.enumerated() {
            let maxConcurrency = slot?.maxConcurrency ?? 0
            let rtt = slot?.rttNanoseconds ?? 0
            let engine = slot.map { EngineSet($0.engine) } ?? []
            if isCurrent(index, next.generations[index]), slot != nil {
                var load = self.loads[index]
                load.maxConcurrency = Int32(clamping: maxConcurrency)
                load.rttNanoseconds = rtt
                load.engine = engine
                loads.append(load)
                health.append(self.health[index])
                firstTokens.append(self.firstTokens[index])
            } else {
                loads.append(NodeLoad(maxConcurrency: maxConcurrency, rttNanoseconds: rtt, engine: engine))
                health.append(NodeHealthStateMachine())
                firstTokens.append(RunningMean())
            }
        }
        self.fleet = next
        self.loads = loads
        self.health = health
        self.firstTokens = firstTokens
    }

    // MARK: What others may see

    /// Every node of the fleet, in the operator's order.
    package func status(now: MonotonicTime) -> [RoutingNodeStatus] {
        fleet.nodeIndexes.compactMap { index in
            guard let node = fleet.slots[index] else { return nil }
            return RoutingNodeStatus(
                id: node.id, nodeIndex: index, state: health[index].state,
                inflightRequests: Int(loads[index].inflightRequests), inflightTokens: Int(loads[index].inflightTokens),
                firstTokenSeconds: firstTokens[index].mean, isBreakerOpen: health[index].isBreakerOpen,
                penaltySeconds: loads[index].penaltySeconds(now: now))
        }
    }

    /// nil for a node that is not in the fleet.
    package func state(of node: NodeID) -> RoutingNodeState? {
        fleet.index(of: node).map { health[$0].state }
    }

    /// The models that at least one node would take now, sorted; nodes at their concurrency count, since that passes.
    package func servableModels() -> [ModelID] {
        fleet.models.filter { model in
            guard let index = fleet.modelIndex(of: model) else { return false }
            return fleet.servers(ofModelIndex: index).contains { loads[Int($0)].takesRequests }
        }
    }

    /// Whether a node outside `excluded` takes requests for the model; one at its concurrency counts, since that passes.
    package func takesRequests(
        _ model: ModelID, on engines: EngineSet = .all, excluding excluded: NodeSet = NodeSet()
    ) -> Bool {
        guard let index = fleet.modelIndex(of: model) else { return false }
        let excluded = excluded.isEmpty ? excluded : excluded.current(in: fleet)
        return fleet.servers(ofModelIndex: index).contains {
            loads[Int($0)].takesRequests && !engines.isDisjoint(with: loads[Int($0)].engine)
                && !excluded.contains(Int($0))
        }
    }

    /// Requests decided and not finished, those of nodes that left included.
    package var inflightCount: Int { inflight.count }

    // MARK: Inside

    /// Static, since a span taken of one stored property would hold all of `self` while the policy changes.
    private static func choose(
        by policy: inout AnyPolicy, _ request: RoutingRequest, among candidates: ContiguousArray<Int32>,
        loads: ContiguousArray<NodeLoad>, rotation: Int, now: MonotonicTime
    ) -> Int? {
        policy.choose(request, among: candidates.span, loads: loads.span, rotation: rotation, now: now)
    }

    private static func bounded(_ tokens: Int) -> Int64 { Int64(max(0, min(tokens, requestTokensMax))) }

    private func isCurrent(_ index: Int, _ generation: UInt32) -> Bool {
        index < loads.count && fleet.generations[index] == generation
    }

    private mutating func healthChanged(_ index: Int) {
        loads[index].takesRequests = fleet.slots[index] != nil && health[index].state == .ready
    }

    private func refusal(_ candidates: ContiguousArray<Int32>, _ request: RoutingRequest) -> RoutingRefusal {
        var refusal = RoutingRefusal.modelNotServed
        for index in candidates.lazy.map({ Int($0) }) where !request.engines.isDisjoint(with: loads[index].engine) {
            if health[index].isCordoned {
                if refusal == .modelNotServed { refusal = .allCordoned }
                continue
            }
            if loads[index].takesRequests, !request.excluded.contains(index) { return .allAtConcurrency }
            refusal = .allUnhealthy
        }
        return refusal
    }
}

/// A mean that follows: all samples weigh alike at first, later the newest weighs at least a twentieth.
struct RunningMean: Hashable, Sendable {
    private(set) var mean: Double?
    private var count = 0.0

    mutating func add(_ sample: Double) {
        count += 1
        let old = mean ?? sample
        mean = old + (sample - old) * max(Router.firstTokenWeightMin, 1 / count)
    }
}

/// Sebastiano Vigna's splitmix64: a stream of decisions that a seed repeats.
struct SplitMix64: Sendable {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is positive; its bias is below one in 2^50 for any fleet.
    mutating func below(_ bound: Int) -> Int {
        Int(next().multipliedFullWidth(by: UInt64(bound)).high)
    }
}

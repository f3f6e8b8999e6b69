import Domain

/// The policies, closed: no existential stands between the router and its rule.
///
/// A struct of all of them rather than an enum with payloads: a payload cannot be changed in place, and a copy of a
/// policy with tables would copy the tables at each decision. Those not chosen are empty.
struct AnyPolicy: Sendable {
    private let name: RoutingPolicy
    private var leastTokens = LeastTokens()
    private var leastRequests = LeastRequests()
    private var roundRobin = RoundRobin()
    private var predictedCost = PredictedCost()
    private var p2c = PowerOfTwoChoices()
    private var sglangCacheAware = SGLangCacheAware()
    private var gie = GatewayInferenceExtension()
    private var dynamo = Dynamo()
    private var lmetric = LMetric()
    private var smetric = SMetric()

    init(_ name: RoutingPolicy) {
        self.name = name
    }

    var prefixIndexing: PrefixIndexing {
        switch name {
        case .leastTokens: LeastTokens.prefixIndexing
        case .leastRequests: LeastRequests.prefixIndexing
        case .roundRobin: RoundRobin.prefixIndexing
        case .predictedCost: PredictedCost.prefixIndexing
        case .p2c: PowerOfTwoChoices.prefixIndexing
        case .sglangCacheAware: SGLangCacheAware.prefixIndexing
        case .gie: GatewayInferenceExtension.prefixIndexing
        case .dynamo: Dynamo.prefixIndexing
        case .lmetric: LMetric.prefixIndexing
        case .smetric: SMetric.prefixIndexing
        }
    }

    var predictsEnds: Bool { name == .predictedCost && PredictedCost.predictsEnds }

    /// Learned; nil until measured, or where the policy does not learn.
    func prefillTokensPerSecond(_ node: Int) -> Double? {
        name == .predictedCost ? predictedCost.prefillTokensPerSecond(node) : nil
    }

    /// Predicted for one request more; nil where the policy does not learn it.
    func decodeStepSeconds(_ node: Int) -> Double? {
        name == .predictedCost ? Double(predictedCost.table.rows[node].step) : nil
    }

    /// Whether an open node gets more without a second look; one that will stop, say, gets only what ends before.
    func takesMore(_ node: Int) -> Bool { name == .predictedCost ? predictedCost.takesMore(node) : true }

    /// How busy a node is, as time; 0 where the policy does not predict it.
    func busySeconds(_ node: Int, stepSecondsMax: Double, now: MonotonicTime) -> Double {
        guard name == .predictedCost else { return 0 }
        return predictedCost.busySeconds(node, stepSecondsMax: stepSecondsMax, now: now)
    }

    /// How long a node is behind; 0 where the policy does not predict it.
    func waitSeconds(_ node: Int, stepSecondsMax: Double, now: MonotonicTime) -> Double {
        guard name == .predictedCost else { return 0 }
        return predictedCost.waitSeconds(node, stepSecondsMax: stepSecondsMax, now: now)
    }

    /// What a node costs a request; nil where the policy does not predict it.
    func costTerms(_ node: Int, _ request: RoutingRequest, load: NodeLoad, now: MonotonicTime) -> CostTerms? {
        name == .predictedCost ? predictedCost.costTerms(node, request, load: load, now: now) : nil
    }

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, allowed: Span<UInt64>, loads: Span<NodeLoad>,
        holders: Span<Int32>, rotation: Int, now: MonotonicTime
    ) -> Int? {
        func by(_ policy: inout some WalkingPolicy) -> Int? {
            policy.choose(
                request, among: candidates, loads: loads, holders: holders, rotation: rotation, now: now)
        }
        return switch name {
        case .leastTokens: by(&leastTokens)
        case .leastRequests: by(&leastRequests)
        case .roundRobin: by(&roundRobin)
        case .predictedCost:
            predictedCost.choose(
                request, among: candidates, allowed: allowed, loads: loads, holders: holders, rotation: rotation,
                now: now)
        case .p2c: by(&p2c)
        case .sglangCacheAware: by(&sglangCacheAware)
        case .gie: by(&gie)
        case .dynamo: by(&dynamo)
        case .lmetric: by(&lmetric)
        case .smetric: by(&smetric)
        }
    }

    /// How many requests gateways that nobody hears have in flight for each of ours.
    mutating func unheardChanged(to unheard: Double) {
        predictedCost.unheard = unheard
    }

    // Only policies with a memory appear below.

    mutating func fleetChanged(count: Int, renewed: [Int], loads: Span<NodeLoad>, now: MonotonicTime) {
        switch name {
        case .predictedCost: predictedCost.fleetChanged(count: count, renewed: renewed, loads: loads, now: now)
        case .smetric: smetric.fleetChanged(count: count, renewed: renewed, loads: loads, now: now)
        default: break
        }
    }

    /// A prompt was placed where the end of what is cached of it had last been used so long ago.
    mutating func reused(after seconds: Double) {
        if name == .predictedCost { predictedCost.reused(after: seconds) }
    }

    /// A decision was made and is on its way: now is the time for what need not be done within one.
    mutating func tick(loads: Span<NodeLoad>, now: MonotonicTime) {
        if name == .predictedCost { predictedCost.tick(loads: loads, now: now) }
    }

    mutating func placed(_ attempt: inout Attempt, load: NodeLoad, now: MonotonicTime) {
        switch name {
        case .predictedCost: predictedCost.placed(&attempt, load: load, now: now)
        case .smetric: smetric.placed(&attempt, load: load, now: now)
        default: break
        }
    }

    mutating func firstToken(_ attempt: Attempt, load: NodeLoad, now: MonotonicTime) {
        switch name {
        case .predictedCost: predictedCost.firstToken(attempt, load: load, now: now)
        case .smetric: smetric.firstToken(attempt, load: load, now: now)
        default: break
        }
    }

    mutating func completed(_ attempt: Attempt, usage: TokenUsage?, load: NodeLoad, now: MonotonicTime) {
        switch name {
        case .predictedCost: predictedCost.completed(attempt, usage: usage, load: load, now: now)
        default: break
        }
    }

    mutating func loadChanged(_ index: Int, load: NodeLoad, now: MonotonicTime) {
        switch name {
        case .predictedCost: predictedCost.loadChanged(index, load: load, now: now)
        default: break
        }
    }
}

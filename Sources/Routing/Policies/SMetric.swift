import Domain

/// SMetric: the node that holds the most of the prompt, as long as it is predicted to answer within the objective;
/// otherwise the least (work x requests in flight).
///
/// Work is the prompt's uncached tokens, dearer with context; a node's rate is the 90th percentile of its last 64 answers,
/// each taken as work over time to first token. The work is this gateway's own, as the published rule hears of no other's;
/// the requests are everybody's, as gossip tells every policy and as the reference simulator has it. Told of the work, too,
/// four gateways would answer in two thirds of the time (docs/decisions/0011). Source: vllm-project/router, `smetric.rs`.
struct SMetric: WalkingPolicy {
    static let prefixIndexing = PrefixIndexing.blocks(32_768)
    /// Seconds to the first token within which a node that holds the prefix is kept to.
    static let objectiveSeconds = 2.0
    /// Below this the prefix is a common system prompt, not the session's.
    static let affinityTokensMin: Int64 = 2 * 512
    private static let samplesMax = 64
    private static let samplesMin = 8
    private static let percentile = 0.9
    /// Tokens of context that double a token's cost: prefill rate times attention per pair.
    private static let contextDoublingTokens = 30_500.0

    private struct History: Sendable {
        var samples: ContiguousArray<Float> = []
        var next = 0
    }

    private var histories: ContiguousArray<History> = []
    /// Work a second, by node; 0 until there are enough samples.
    private var rates: ContiguousArray<Double> = []

    private static func work(promptTokens: Double, prefixTokens: Double) -> Double {
        let new = promptTokens - prefixTokens
        return new * (1 + (promptTokens - new / 2) / contextDoublingTokens)
    }

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        let prompt = Double(request.promptTokens)
        var (best, bestCost) = (-1, Double.infinity)
        var (holder, held, holderMeets) = (-1, Int64(-1), false)
        var someMeets = false
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { index, load in
            let new = Self.work(promptTokens: prompt, prefixTokens: Double(load.prefixTokens))
            let queued = load.own.queuedWork + new
            let rate = rates[index]
            let meets = rate <= 0 || queued / rate <= Self.objectiveSeconds
            someMeets = someMeets || meets
            let cost = queued * Double(load.requests)
            if cost < bestCost || best < 0 { (best, bestCost) = (index, cost) }
            if load.prefixTokens > held { (holder, held, holderMeets) = (index, load.prefixTokens, meets) }
        }
        if held >= Self.affinityTokensMin, holderMeets || !someMeets { return holder }
        return best < 0 ? nil : best
    }

    mutating func fleetChanged(count: Int, renewed: [Int], loads: Span<NodeLoad>, now: MonotonicTime) {
        while histories.count < count {
            histories.append(History())
            rates.append(0)
        }
        for index in renewed {
            histories[index] = History()
            rates[index] = 0
        }
    }

    mutating func placed(_ attempt: inout Attempt, load: NodeLoad, now: MonotonicTime) {
        attempt.work = Self.work(promptTokens: Double(attempt.promptTokens), prefixTokens: Double(load.prefixTokens))
    }

    mutating func firstToken(_ attempt: Attempt, load: NodeLoad, now: MonotonicTime) {
        let seconds = now.seconds(since: attempt.sentAt)
        guard seconds > 0, histories.indices.contains(attempt.nodeIndex) else { return }
        let node = attempt.nodeIndex
        let sample = Float(attempt.work / seconds)
        if histories[node].samples.count < Self.samplesMax {
            histories[node].samples.append(sample)
        } else {
            histories[node].samples[histories[node].next] = sample
            histories[node].next = (histories[node].next + 1) % Self.samplesMax
        }
        guard histories[node].samples.count >= Self.samplesMin else { return }
        let sorted = histories[node].samples.sorted()
        rates[node] = Double(sorted[Int((Double(sorted.count - 1) * Self.percentile).rounded())])
    }
}

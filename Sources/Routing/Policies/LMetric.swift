import Domain

/// LMetric: (prompt tokens to prefill, queued and own) x (requests in flight + 1).
///
/// A product needs no weights between its terms, and the batch size stands for decode's load. As published, it knows
/// neither a node's speed nor its distance or memory. Source: the LMetric paper's rule as SGLang and vLLM routers carry
/// it; prefix hits from the gateway's own index.
struct LMetric: WalkingPolicy {
    static let prefixIndexing = PrefixIndexing.kvCapacity

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        let prompt = Int64(request.promptTokens)
        return cheapestTaker(request, among: candidates, loads: loads, rotation: rotation) { _, load in
            let queued = load.own.queuedTokens + load.peers.queuedTokens
            return Double(queued + prompt - load.prefixTokens) * Double(load.requests + 1)
        }
    }
}

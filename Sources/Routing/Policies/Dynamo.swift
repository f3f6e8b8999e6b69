import Domain

/// NVIDIA Dynamo's KV router: the fewest blocks to compute and to decode over, overlap weight 1, temperature 0.
///
/// Where nodes tell what their caches hold by events, the overlap is exact; otherwise it is guessed from where prompts
/// went, as Dynamo does with `--no-kv-events`. Prompt tokens of requests that have no first
/// token count as work to come, prompts of all requests as decode load. Source: ai-dynamo/dynamo,
/// `lib/llm/src/kv_router/scheduler.rs`.
struct Dynamo: WalkingPolicy {
    static let prefixIndexing = PrefixIndexing.events
    static let overlapWeight = 1.0

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        let prompt = Double(request.promptTokens)
        return cheapestTaker(request, among: candidates, loads: loads, rotation: rotation) { _, load in
            let total = load.total
            let overlap = Double(load.prefixTokens)
            let prefill = Double(total.queuedTokens) + prompt - overlap
            let decode = Double(total.promptTokens) + prompt - overlap
            return Self.overlapWeight * prefill + decode
        }
    }
}

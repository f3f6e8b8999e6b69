import Domain

/// The scheduler of the Kubernetes Gateway API Inference Extension and llm-d, with the weights of llm-d's defaults:
/// 3 x the share of the prompt that is cached, 2 x emptiness of the queue among the nodes, 2 x free KV cache.
///
/// Queue and cache are what the node's metrics last said; the original scrapes each 50 ms and sees nothing that happened
/// since. Source: llm-d/llm-d-inference-scheduler, `pkg/plugins/scorer`.
struct GatewayInferenceExtension: WalkingPolicy {
    static let prefixIndexing = PrefixIndexing.kvCapacity
    static let prefixWeight = 3.0
    static let queueWeight = 2.0
    static let memoryWeight = 2.0
    private static let blockTokens = 512.0

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        var (fewest, most) = (Double.infinity, -Double.infinity)
        var isMeasured = true
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { _, load in
            guard let report = load.report else { return isMeasured = false }
            guard load.isReportBelieved else { return }
            fewest = min(fewest, report.waitingRequests)
            most = max(most, report.waitingRequests)
        }
        // Until every node was scraped there is nothing to compare: in turn.
        guard isMeasured else {
            return cheapestTaker(request, among: candidates, loads: loads, rotation: rotation) { _, _ in 0 }
        }
        let prompt = max(Self.blockTokens, Double(request.promptTokens))
        return cheapestTaker(request, among: candidates, loads: loads, rotation: rotation) { _, load in
            // Of a node that talks nonsense nothing good is supposed.
            let report = load.isReportBelieved ? load.report : nil
            let waiting = report?.waitingRequests ?? most
            let emptiness = most > fewest ? (most - waiting) / (most - fewest) : 1
            let free = 1 - (report?.kvUsage ?? 1)
            return
                -(Self.prefixWeight * Double(load.prefixTokens) / prompt + Self.queueWeight * emptiness
                + Self.memoryWeight * free)
        }
    }
}

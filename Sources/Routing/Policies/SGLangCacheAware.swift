import Domain

/// SGLang's router and SMG, policy `cache_aware`, at the defaults of their command line.
///
/// While the fleet is balanced, a prompt goes to the node that has the longest part of it, if that is over 30 %;
/// otherwise, and once loads differ by more than 64 requests and half as much again, to the node with the fewest
/// requests in flight. The index knows what was sent, not what was evicted: a tree of 2^24 characters a node, here 2^15
/// blocks. Source: sgl-project/sglang, `sgl-router/src/policies/cache_aware.rs`.
struct SGLangCacheAware: WalkingPolicy {
    static let prefixIndexing = PrefixIndexing.blocks(32_768)
    static let matchShareMin = 0.3
    static let imbalanceRequests: Int64 = 64
    static let imbalanceRatio = 1.5

    /// Of nodes that hold equally much, each is as likely: the first of them would draw all new sessions to itself.
    private var random = SplitMix64(seed: 0x7367_6C61_6E67)

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        var (fewest, most) = (Int64.max, Int64.min)
        var matched: Int64 = 0
        var best: Int?
        var equals = 0
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { index, load in
            fewest = min(fewest, load.requests)
            most = max(most, load.requests)
            guard load.prefixTokens > 0, load.prefixTokens >= matched else { return }
            equals = load.prefixTokens > matched ? 1 : equals + 1
            matched = load.prefixTokens
            if random.below(equals) == 0 { best = index }
        }
        let isBalanced =
            fewest > most || most - fewest <= Self.imbalanceRequests
            || Double(most) <= Self.imbalanceRatio * Double(fewest)
        if isBalanced, let best, Double(matched) > Self.matchShareMin * Double(max(1, request.promptTokens)) {
            return best
        }
        return leastLoaded(request, among: candidates, loads: loads, rotation: rotation)
    }

    private mutating func leastLoaded(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int
    ) -> Int? {
        var (best, equals) = (-1, 0)
        var fewest = Int64.max
        var random = random
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { index, load in
            guard load.requests <= fewest else { return }
            equals = load.requests < fewest ? 1 : equals + 1
            fewest = load.requests
            if random.below(equals) == 0 { best = index }
        }
        self.random = random
        return best < 0 ? nil : best
    }
}

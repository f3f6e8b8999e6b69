import Domain

/// Of two nodes drawn at random, the one with fewer requests in flight.
///
/// Michael Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (1996); Envoy's least-request balancer
/// with `choice_count: 2`.
struct PowerOfTwoChoices: WalkingPolicy {
    private var random = SplitMix64(seed: 0x7032_6320_6472_6177)

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        // The first two takers from two places drawn apart; the rotation is the first draw.
        var first: Int?
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { index, _ in first = first ?? index
        }
        guard let first, candidates.count > 1 else { return first }
        var second: Int?
        let apart = (rotation + 1 + random.below(candidates.count - 1)) % candidates.count
        forEachTaker(request, among: candidates, loads: loads, rotation: apart) { index, _ in
            if index != first { second = second ?? index }
        }
        guard let second else { return first }
        return loads[second].requests < loads[first].requests ? second : first
    }
}

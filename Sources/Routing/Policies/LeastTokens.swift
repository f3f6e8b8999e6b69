import Domain

/// The node with the fewest tokens in flight, prompts and expected outputs together; of equals the nearest.
struct LeastTokens: WalkingPolicy {
    /// What a second of penalty weighs in tokens: the prefill rate of a middling node.
    static let tokensPerPenaltySecond = 10_000.0

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        cheapest(request, among: candidates, loads: loads, rotation: rotation) { load in
            load.own.kvTokens + load.peers.kvTokens + Int64(load.penaltySeconds(now: now) * Self.tokensPerPenaltySecond)
        }
    }
}

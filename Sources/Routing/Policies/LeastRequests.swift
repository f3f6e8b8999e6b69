import Domain

/// The node with the fewest requests in flight; of equals the nearest.
struct LeastRequests: WalkingPolicy {
    /// What a second of penalty weighs in requests.
    static let requestsPerPenaltySecond = 4.0

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        cheapest(request, among: candidates, loads: loads, rotation: rotation) { load in
            // In thousandths, so that a fading penalty still breaks ties.
            load.requests * 1_000
                + Int64(load.penaltySeconds(now: now) * Self.requestsPerPenaltySecond * 1_000)
        }
    }
}

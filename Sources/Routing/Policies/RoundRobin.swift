import Domain

/// Each node in turn: the one whose last request is the longest ago.
///
/// Asking for the least recent, rather than keeping a cursor, stays fair when models share nodes and when nodes come,
/// go or are passed over.
struct RoundRobin: WalkingPolicy {
    /// A node that pays more than this is passed over while another can serve.
    static let penaltySecondsMax = 0.25

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int? {
        cheapest(request, among: candidates, loads: loads, rotation: rotation) { load in
            load.dispatchedLast + (load.penaltySeconds(now: now) > Self.penaltySecondsMax ? Int64.max / 2 : 0)
        }
    }
}

import Domain

/// A rule that picks one of the nodes that may take a request.
///
/// The filters are the router's (``NodeLoad/isOpen``, nodes tried already), the choice among what
/// they leave is the policy's. A choice takes no memory from the heap and at most about 2 microseconds over 1,000
/// nodes.
protocol Policy: Sendable {
    /// - Parameters:
    ///   - candidates: Indexes into `loads` of the nodes that serve the model.
    ///   - rotation: Where to begin, below the number of candidates; the first of equals wins from there.
    /// - Returns: An index into `loads`; nil where no candidate passes ``mayTake(_:_:excluded:)``.
    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        now: MonotonicTime
    ) -> Int?
}

extension Policy {
    /// The candidate of least cost; of equals the nearest, and of equally near ones the first from `rotation` on.
    @inline(__always)
    func cheapest(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        cost: (NodeLoad) -> Int64
    ) -> Int? {
        let excluded = request.excluded
        let engines = request.engines
        var best = -1
        var bestCost = Int64.max
        var bestDistance = Int64.max
        var position = rotation
        for _ in 0..<candidates.count {
            let index = Int(candidates[position])
            position = position + 1 == candidates.count ? 0 : position + 1
            let load = loads[index]
            if !load.isOpen || engines.isDisjoint(with: load.engine) { continue }
            let cost = cost(load)
            if cost > bestCost { continue }
            if cost == bestCost && best >= 0 && load.rttNanoseconds >= bestDistance { continue }
            if excluded.contains(index) { continue }
            best = index
            bestCost = cost
            bestDistance = load.rttNanoseconds
        }
        return best < 0 ? nil : best
    }
}

/// The policies, closed: no existential stands between the router and its rule.
enum AnyPolicy: Sendable {
    case leastTokens(LeastTokens)
    case leastRequests(LeastRequests)
    case roundRobin(RoundRobin)

    init(_ policy: RoutingPolicy) {
        switch policy {
        case .leastTokens: self = .leastTokens(LeastTokens())
        case .leastRequests: self = .leastRequests(LeastRequests())
        case .roundRobin: self = .roundRobin(RoundRobin())
        }
    }

    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        now: MonotonicTime
    ) -> Int? {
        switch self {
        case .leastTokens(var policy):
            defer { self = .leastTokens(policy) }
            return policy.choose(request, among: candidates, loads: loads, rotation: rotation, now: now)
        case .leastRequests(var policy):
            defer { self = .leastRequests(policy) }
            return policy.choose(request, among: candidates, loads: loads, rotation: rotation, now: now)
        case .roundRobin(var policy):
            defer { self = .roundRobin(policy) }
            return policy.choose(request, among: candidates, loads: loads, rotation: rotation, now: now)
        }
    }
}

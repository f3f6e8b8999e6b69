import Domain

/// A rule that picks one of the nodes that may take a request.
///
/// The filters are the router's (``NodeLoad/isOpen``, nodes tried already), the choice among what they leave is the
/// policy's. `tollgate bench decisions` tells what a choice takes.
protocol Policy: Sendable {
    /// What the router's prefix index holds for it: ``NodeLoad/prefixTokens`` comes from there.
    static var prefixIndexing: PrefixIndexing { get }

    /// Whether it gives a node that will stop only what will have ended by then.
    static var predictsEnds: Bool { get }

    // What a policy with a memory of its own follows. Each default does nothing.

    /// The fleet has `count` places now. A policy forgets what it knows of those in `renewed`: they are another node's,
    /// or the node behind them restarted.
    mutating func fleetChanged(count: Int, renewed: [Int], loads: Span<NodeLoad>, now: MonotonicTime)

    /// The request goes to the node it chose. May note what it will want to know later (``Attempt/work`` and so on);
    /// `load` is as it was before, ``NodeLoad/prefixTokens`` included.
    mutating func placed(_ attempt: inout Attempt, load: NodeLoad, now: MonotonicTime)

    /// The first token of a stream came; `load` no longer counts the request as queued.
    mutating func firstToken(_ attempt: Attempt, load: NodeLoad, now: MonotonicTime)

    /// The answer is complete.
    mutating func completed(_ attempt: Attempt, usage: TokenUsage?, load: NodeLoad, now: MonotonicTime)

    /// The load of one node changed in whatever way: a request came or went, a peer's gossip, a report, its health.
    mutating func loadChanged(_ index: Int, load: NodeLoad, now: MonotonicTime)
}

/// A policy that chooses by walking over the loads of all candidates.
protocol WalkingPolicy: Policy {
    /// - Parameters:
    ///   - candidates: Indexes into `loads` of the nodes that serve the model.
    ///   - holders: Indexes of the nodes whose ``NodeLoad/prefixTokens`` is not 0, candidates or not.
    ///   - rotation: Where to begin, below the number of candidates; the first of equals wins from there.
    /// - Returns: An index into `loads`; nil where no candidate is open (``NodeLoad/isOpen``) and untried.
    mutating func choose(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, holders: Span<Int32>,
        rotation: Int, now: MonotonicTime
    ) -> Int?
}

/// What a router keeps of the nodes' prefix caches.
package enum PrefixIndexing: Hashable, Sendable {
    case none
    /// Per node as many blocks as its KV cache holds.
    case kvCapacity
    /// The same, shrunk where nodes turn out to have less cached than that.
    case kvCapacityLearned
    /// Per node so many blocks, whatever it holds.
    case blocks(Int)
    /// Exactly what the nodes say by cache events (``Router/stored(_:blocks:now:)``), nothing guessed; until the first of
    /// them, as ``kvCapacity``.
    case events
}

extension Policy {
    static var prefixIndexing: PrefixIndexing { .none }
    static var predictsEnds: Bool { false }

    mutating func fleetChanged(count: Int, renewed: [Int], loads: Span<NodeLoad>, now: MonotonicTime) {}
    mutating func placed(_ attempt: inout Attempt, load: NodeLoad, now: MonotonicTime) {}
    mutating func firstToken(_ attempt: Attempt, load: NodeLoad, now: MonotonicTime) {}
    mutating func completed(_ attempt: Attempt, usage: TokenUsage?, load: NodeLoad, now: MonotonicTime) {}
    mutating func loadChanged(_ index: Int, load: NodeLoad, now: MonotonicTime) {}
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

import Domain

extension Policy {
    /// Calls `body` for each candidate that may take the request, from `rotation` on and around.
    @inline(__always)
    func forEachTaker(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        _ body: (_ index: Int, _ load: NodeLoad) -> Void
    ) {
        var position = rotation
        for _ in 0..<candidates.count {
            let index = Int(candidates[position])
            position = position + 1 == candidates.count ? 0 : position + 1
            let load = loads[index]
            guard load.isOpen, !request.engines.isDisjoint(with: load.engine), !request.excluded.contains(index) else {
                continue
            }
            body(index, load)
        }
    }

    /// The candidate of least cost; of equals the first from `rotation` on.
    @inline(__always)
    func cheapestTaker(
        _ request: RoutingRequest, among candidates: Span<Int32>, loads: Span<NodeLoad>, rotation: Int,
        cost: (_ index: Int, _ load: NodeLoad) -> Double
    ) -> Int? {
        var best: Int?
        var bestCost = Double.infinity
        forEachTaker(request, among: candidates, loads: loads, rotation: rotation) { index, load in
            let cost = cost(index, load)
            guard cost < bestCost || best == nil else { return }
            best = index
            bestCost = cost
        }
        return best
    }
}

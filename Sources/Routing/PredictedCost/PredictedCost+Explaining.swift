import Domain

extension PredictedCost {
    /// What the node costs the request as things stand: the same terms as ``CostTable/cost(_:work:newTokens:_:)``, apart.
    func costTerms(
        _ node: Int, _ request: RoutingRequest, load: NodeLoad, now: MonotonicTime
    ) -> CostTerms {
        let shared = terms(of: request, now: now)
        let cached = Double(load.prefixTokens)
        let new = max(1, Double(request.promptTokens) - cached)
        var work = Self.work(newTokens: new, cachedTokens: cached, request.attentionTokens)
        if let slot = hintSlot(node, promptTokens: request.promptTokens) { work *= 1 - hint.chances[slot] }
        let run = work * Double(table.rows[node].inverseRate)
        let step = Double(table.rows[node].step)
        let decoding =
            Double(max(0, load.requests))
            - Double(Int64(load.own.queuedRequests) + Int64(load.peers.queuedRequests))
        let slowing = weights.decodeSlowing * max(0, decoding)
        var terms = CostTerms()
        terms.rtt = Double(load.rttNanoseconds) / 1e9
        terms.penalty = load.penaltySeconds(now: now)
        terms.wait = Double(table.wait(node, nowMilliseconds: shared.nowMilliseconds))
        terms.run = run
        terms.step = step
        terms.output = step * Double(shared.steps - 1)
        terms.slowing = run * slowing
        terms.evict = run * max(0, Double(table.rows[node].runFactor) - 1 - slowing)
        terms.duplicate = work * Double(shared.duplicate)
        let above =
            Double(table.rows[node].kv) + (new + Double(shared.expectedOutput)) * Double(table.rows[node].kvPerToken)
            - Double(shared.kvShareFree)
        terms.memory = max(0, above) * Double(shared.kvPrice) * (1 + terms.wait + run)
        return terms
    }
}

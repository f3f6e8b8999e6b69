import Domain

extension PredictedCost {
    /// What the node costs the request as things stand: the same terms as ``CostTable/cost(_:work:newTokens:_:)``, apart.
    func costTerms(
        _ node: Int, _ request: RoutingRequest, load: NodeLoad, now: MonotonicTime
    ) -> CostTerms {
        let cached = Double(load.prefixTokens)
        let new = max(1, Double(request.promptTokens) - cached)
        let (work, shared) = hinted(
            node, work: Self.work(newTokens: new, cachedTokens: cached, request.attentionTokens),
            promptTokens: request.promptTokens, terms(of: request, now: now))
        let row = table.rows[node]
        let run = work * Double(row.inverseRate)
        let step = Double(row.step)
        var terms = CostTerms()
        terms.rtt = Double(load.rttNanoseconds) / 1e9
        terms.penalty = load.penaltySeconds(now: now)
        terms.wait = Double(table.wait(node, nowMilliseconds: shared.nowMilliseconds))
        terms.run = run
        terms.step = step
        terms.output = step * Double(shared.steps - 1)
        terms.slowing = run * Double(row.slowing)
        terms.evict = run * max(0, Double(row.runFactor - 1 - row.slowing - row.busy))
        // Wherever it is done twice, and where it keeps others waiting.
        terms.duplicate = work * Double(shared.duplicate) + run * Double(row.busy)
        let above =
            Double(row.kv) + (new + Double(shared.expectedOutput)) * Double(row.kvPerToken) - Double(shared.kvShareFree)
        terms.memory = max(0, above) * Double(shared.kvPrice) * (1 + terms.wait + run)
        return terms
    }
}

import Domain

/// What others may see of the router.
extension Router {
    /// What a request is charged that waits for room (``costLast`` where it need not): its new work on the node that has the most of its prompt,
    /// weighted for attention, and its answer. Where no prompts are indexed the whole prompt counts as new.
    package mutating func admissionCost(of request: RoutingRequest, blocks: Span<UInt64>) -> Double {
        settle()
        index.match(blocks)
        let most = index.matches.reduce(0) { max($0, $1.blocks) }
        let prompt = Double(max(1, min(request.promptTokens, Self.requestTokensMax)))
        let cached = min(Double(most) * request.blockTokens, prompt - 1)
        let work = PredictedCost.work(newTokens: prompt - cached, cachedTokens: cached, request.attentionTokens)
        return AdmissionQueue.cost(work: work, expectedOutputTokens: request.expectedOutputTokens)
    }

    /// Every node of the fleet, in the operator's order.
    package func status(now: MonotonicTime) -> [RoutingNodeStatus] {
        fleet.nodeIndexes.compactMap { status(ofIndex: $0, now: now) }
    }

    /// nil where no node has the index.
    func status(ofIndex index: Int, now: MonotonicTime) -> RoutingNodeStatus? {
        guard let node = fleet.slots[index] else { return nil }
        return RoutingNodeStatus(
            id: node.id, nodeIndex: index, state: health[index].state,
            inflightRequests: Int(loads[index].own.requests), inflightTokens: Int(loads[index].own.kvTokens),
            firstTokenSeconds: firstTokens[index].mean, isBreakerOpen: health[index].isBreakerOpen,
            penaltySeconds: loads[index].penaltySeconds(now: now),
            prefillTokensPerSecond: policy.prefillTokensPerSecond(index),
            peerRequests: Int(loads[index].peers.requests), distrust: trust[index].distrust,
            powerShare: loads[index].powerShare, kvCapacityTokens: Int(loads[index].kvCapacityTokens),
            prefixBlocks: self.index.count(index))
    }

    /// nil for a node that is not in the fleet.
    package func state(of node: NodeID) -> RoutingNodeState? {
        fleet.index(of: node).map { health[$0].state }
    }

    /// The models that at least one node would take now, sorted; nodes at their concurrency count, since that passes.
    package func servableModels(in region: String? = nil) -> [ModelID] {
        fleet.models.filter { model in
            guard let index = fleet.modelIndex(of: model) else { return false }
            return fleet.servers(ofModelIndex: index, in: region).contains { loads[Int($0)].takesRequests }
        }
    }

    /// Whether a node outside `excluded` takes requests for the model; one at its concurrency counts, since that passes.
    package func takesRequests(
        _ model: ModelID, on engines: EngineSet = .all, excluding excluded: NodeSet = NodeSet(),
        in region: String? = nil
    ) -> Bool {
        guard let index = fleet.modelIndex(of: model) else { return false }
        let excluded = excluded.isEmpty ? excluded : excluded.current(in: fleet)
        return fleet.servers(ofModelIndex: index, in: region).contains {
            loads[Int($0)].takesRequests && !engines.isDisjoint(with: loads[Int($0)].engine)
                && !excluded.contains(Int($0))
        }
    }

    /// How long the least busy node that could take the request is behind, in seconds: what the admission queue asks.
    ///
    /// A node whose decode step nears the objective counts as a second behind at least, so that orgs beyond their share
    /// wait; one at twice the objective as behind for good, since another request would slow all that it answers. A node
    /// with nothing to do is never behind: however slow, nobody is served sooner by waiting for it.
    /// Infinite where no node is open; 0 under a policy that predicts nothing, while one is.
    ///
    /// - Parameter enough: Whoever is behind by no more will do: others are not looked at then.
    package mutating func leastWaitSeconds(
        for request: RoutingRequest, stepSecondsMax: Double = 0.05, enough: Double = 0, now: MonotonicTime
    ) -> Double {
        settle()
        guard let model = fleet.modelIndex(of: request.model) else { return .infinity }
        let excluded = request.excluded.isEmpty ? request.excluded : request.excluded.current(in: fleet)
        // Nodes that the policy is cautious of count where there is no other.
        var (least, cautious) = (Double.infinity, Double.infinity)
        for index in fleet.servers(ofModelIndex: model, in: request.region).lazy.map({ Int($0) }) {
            guard loads[index].isOpen, !request.engines.isDisjoint(with: loads[index].engine),
                !excluded.contains(index)
            else { continue }
            tend(index, now: now)
            let wait =
                loads[index].requests > 0 ? policy.waitSeconds(index, stepSecondsMax: stepSecondsMax, now: now) : 0
            if policy.takesMore(index) { least = min(least, wait) } else { cautious = min(cautious, wait) }
            if least <= enough { break }
        }
        return least < .infinity ? least : cautious
    }

    /// How long the open nodes that serve the request's model are behind in the mean, in seconds, each that decodes for
    /// several at once a little at least: how busy the fleet is, where
    /// ``leastWaitSeconds(for:stepSecondsMax:enough:now:)`` says whether anyone has room. Infinite where no node is
    /// open; 0 under a policy that predicts nothing, while one is.
    package func meanWaitSeconds(
        for request: RoutingRequest, stepSecondsMax: Double = 0.05, now: MonotonicTime
    ) -> Double {
        guard let model = fleet.modelIndex(of: request.model) else { return .infinity }
        var (sum, count) = (0.0, 0.0)
        for index in fleet.servers(ofModelIndex: model, in: request.region).lazy.map({ Int($0) })
        where loads[index].isOpen {
            guard !request.engines.isDisjoint(with: loads[index].engine) else { continue }
            sum += min(Self.waitSecondsCounted, policy.busySeconds(index, stepSecondsMax: stepSecondsMax, now: now))
            count += 1
        }
        return count == 0 ? .infinity : sum / count
    }

    /// One node that is far behind does not make a busy fleet.
    private static let waitSecondsCounted = 3.0

    /// Requests decided and not finished, those of nodes that left included.
    package var inflightCount: Int { inflight.count }

    func refusal(_ candidates: ContiguousArray<Int32>, _ request: RoutingRequest) -> RoutingRefusal {
        var refusal = RoutingRefusal.modelNotServed
        for index in candidates.lazy.map({ Int($0) }) where !request.engines.isDisjoint(with: loads[index].engine) {
            if health[index].isCordoned {
                if refusal == .modelNotServed { refusal = .allCordoned }
                continue
            }
            if loads[index].takesRequests, !request.excluded.contains(index) { return .allAtConcurrency }
            refusal = .allUnhealthy
        }
        return refusal
    }
}

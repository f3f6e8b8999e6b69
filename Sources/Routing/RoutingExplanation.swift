import Domain

/// What a node was predicted to cost a request, term by term, in seconds: ``CostTable`` has what they mean.
package struct CostTerms: Hashable, Sendable {
    package var rtt = 0.0
    /// For a failure of late.
    package var penalty = 0.0
    package var wait = 0.0
    package var run = 0.0
    /// The first decode step.
    package var step = 0.0
    /// Of the other steps, their share.
    package var output = 0.0
    /// Those that our prefill slows.
    package var slowing = 0.0
    /// Those that have to come back to less cache than they left.
    package var evict = 0.0
    /// Work that another cache could have saved.
    package var duplicate = 0.0
    package var memory = 0.0

    package var total: Double {
        rtt + penalty + wait + run + step + output + slowing + evict + duplicate + memory
    }

    /// Each with its name, in the order of the rule.
    package var named: [(name: String, seconds: Double)] {
        [
            ("rtt", rtt), ("wait", wait), ("run", run), ("step", step), ("duplicate", duplicate), ("evict", evict),
            ("slowing", slowing), ("output", output), ("memory", memory), ("penalty", penalty),
        ]
    }
}

/// A node as the router saw it when it placed a request.
package struct RoutingCandidate: Hashable, Sendable {
    package var node: NodeID
    /// Of the prompt, what the index believed it had.
    package var cachedTokens: Int
    /// In flight there, ours and the other gateways'.
    package var requests: Int
    /// nil under a policy that predicts nothing.
    package var cost: CostTerms?
}

/// Why a request went where it went: for operators, and made only where they ask (``Router/isExplaining``).
package struct RoutingExplanation: Hashable, Sendable {
    package var policy: RoutingPolicy
    package var chosen: RoutingCandidate
    /// The next best that could have had it: by cost, or where there is none, by requests in flight.
    package var runnerUp: RoutingCandidate?
}

extension Router {
    /// Why the request went where it is; nil once it is over, or where nobody asked.
    package func explanation(_ assignment: Assignment) -> RoutingExplanation? { explanations[assignment.ticket] }

    /// Before the request is placed, and while the nodes' `prefixTokens` are its own.
    func explain(_ chosen: Int, _ request: RoutingRequest, among candidates: ContiguousArray<Int32>, now: MonotonicTime)
        -> RoutingExplanation?
    {
        guard let winner = candidate(chosen, request, now: now) else { return nil }
        var runnerUp: RoutingCandidate?
        for index in candidates.lazy.map({ Int($0) }) where index != chosen {
            guard loads[index].isOpen, !request.engines.isDisjoint(with: loads[index].engine),
                !request.excluded.contains(index), let other = candidate(index, request, now: now)
            else { continue }
            if runnerUp.map({ other.isBefore($0) }) ?? true { runnerUp = other }
        }
        return RoutingExplanation(policy: policyName, chosen: winner, runnerUp: runnerUp)
    }

    private func candidate(_ index: Int, _ request: RoutingRequest, now: MonotonicTime) -> RoutingCandidate? {
        guard let node = fleet.slots[index] else { return nil }
        return RoutingCandidate(
            node: node.id, cachedTokens: Int(loads[index].prefixTokens), requests: Int(loads[index].requests),
            cost: policy.costTerms(index, request, load: loads[index], now: now))
    }
}

extension RoutingCandidate {
    fileprivate func isBefore(_ other: RoutingCandidate) -> Bool {
        guard let cost, let others = other.cost else { return requests < other.requests }
        return cost.total < others.total
    }
}

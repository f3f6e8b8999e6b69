import Domain

/// What is to be placed.
package struct RoutingRequest: Sendable {
    package var model: ModelID
    /// The gateway's estimate of the prompt.
    package var promptTokens: Int
    /// What the answer is expected to be, at most what the request allows.
    package var expectedOutputTokens: Int
    /// The engines that serve its endpoint.
    package var engines: EngineSet
    /// Nodes that this request has been tried on.
    package var excluded: NodeSet
    /// A hash of what ties requests together: equal for equal sessions. 0 takes the first two blocks of the prompt.
    package var session: UInt64
    /// Tokens of a block of this prompt, in the mean.
    package var blockTokens: Double
    /// Whether the first token will be seen when it comes (``Router/firstToken(_:cachedTokens:now:)``).
    package var isStreamed: Bool
    /// Context at which attention costs the model as much for a token as everything else does, in tokens.
    package var attentionTokens = attentionTokensDefault
    /// Where the nodes must be that may have it; nil is anywhere.
    package var region: String?

    /// What a model of 8B parameters has.
    package static let attentionTokensDefault = 32_000.0

    package init(
        model: ModelID, promptTokens: Int, expectedOutputTokens: Int, engines: EngineSet = .all,
        excluded: NodeSet = NodeSet(), session: UInt64 = 0, blockTokens: Double = Double(PrefixIndex.blockTokens),
        isStreamed: Bool = true
    ) {
        self.model = model
        self.promptTokens = promptTokens
        self.expectedOutputTokens = expectedOutputTokens
        self.engines = engines
        self.excluded = excluded
        self.session = session
        self.blockTokens = blockTokens
        self.isStreamed = isStreamed
    }
}

/// A few node indexes, held inline: a request is tried on no more than ``capacity`` nodes.
package struct NodeSet: Hashable, Sendable {
    package static let capacity = 8

    private var indexes = SIMD8<Int32>(repeating: -1)
    private var generations = SIMD8<UInt32>(repeating: 0)
    package private(set) var count = 0

    package init() {}

    package var isEmpty: Bool { count == 0 }

    /// A full set stays as it is.
    ///
    /// - Parameter generation: Whose the index was (``Assignment/generation``); 0 names whoever has it.
    package mutating func insert(_ index: Int, generation: UInt32 = 0) {
        let held = (0..<count).first { indexes[$0] == Int32(truncatingIfNeeded: index) }
        guard let position = held ?? (count < Self.capacity ? count : nil) else { return }
        indexes[position] = Int32(truncatingIfNeeded: index)
        generations[position] = generation
        if held == nil { count += 1 }
    }

    /// Without the indexes that have gone to other nodes since: a reload in mid-request must not exclude a newcomer.
    package func current(in fleet: FleetSnapshot) -> NodeSet {
        var kept = NodeSet()
        for position in 0..<count {
            let index = Int(indexes[position])
            guard generations[position] == 0 || fleet.generations.indices.contains(index) else { continue }
            guard generations[position] == 0 || fleet.generations[index] == generations[position] else { continue }
            kept.insert(index, generation: generations[position])
        }
        return kept
    }

    /// Takes its members out of a set of nodes that has a bit for each index, 64 a word.
    func subtract(from words: inout ContiguousArray<UInt64>) {
        for position in 0..<count where Int(indexes[position]) >> 6 < words.count {
            words[Int(indexes[position]) >> 6] &= ~(1 << UInt64(indexes[position] & 63))
        }
    }

    package func contains(_ index: Int) -> Bool {
        count > 0 && any(indexes .== Int32(truncatingIfNeeded: index))
    }
}

/// One request on one node: what ``Router/decide(_:now:)`` hands out and every later event names.
package struct Assignment: Hashable, Sendable {
    /// Into ``FleetSnapshot/slots``.
    package let nodeIndex: Int
    /// Says whose the index was: see ``FleetSnapshot``.
    package let generation: UInt32
    /// The router's record of the request. One that is over is ignored, whatever is said of it.
    package let ticket: UInt64

    package init(nodeIndex: Int, generation: UInt32, ticket: UInt64) {
        self.nodeIndex = nodeIndex
        self.generation = generation
        self.ticket = ticket
    }
}

package enum RoutingDecision: Hashable, Sendable {
    /// The work counts as in flight from here until ``Router/finished(_:outcome:now:)``.
    case dispatch(Assignment)
    case refuse(RoutingRefusal)
}

/// Why no node takes a request. Where nodes differ, the reason that ends soonest is given.
package enum RoutingRefusal: String, Hashable, Sendable, CaseIterable {
    /// No node of the fleet serves the model.
    case modelNotServed = "model_not_served"
    /// Nodes serve it, but none in the region that the request must stay in.
    case regionNotServed = "region_not_served"
    /// Some node could, were it not at its concurrency.
    case allAtConcurrency = "all_at_concurrency"
    /// Unhealthy, warming, behind an open breaker, or tried already by this request.
    case allUnhealthy = "all_unhealthy"
    case allCordoned = "all_cordoned"
}

/// How a request on a node ended.
package enum RoutingOutcome: Hashable, Sendable {
    /// The node answered. Usage where the answer carried it.
    case completed(TokenUsage?)
    /// The node answered that the request is the client's fault: it is well, and how long that took says nothing.
    case refused
    /// The node's fault: not reached, too slow, broken, or a 5xx.
    case failed
    /// The node does not serve what was asked of it. It is well, and may be passed over for a while; it is not taken out,
    /// or one customer could take a node from all others.
    case unserved
    /// Given up by the client or the gateway: says nothing of the node.
    case aborted
}

/// What a health probe found.
package enum ProbeResult: Hashable, Sendable {
    case healthy
    /// Answers, but is still loading its model.
    case loading
    case failed
}

/// Which rule picks the node. Raw values are the names in the configuration.
package enum RoutingPolicy: String, Hashable, Sendable, CaseIterable {
    case predictedCost = "predicted_cost"
    case leastTokens = "least_tokens"
    case leastRequests = "least_requests"
    case roundRobin = "round_robin"
    // Peers' rules, to compare with.
    case p2c
    case sglangCacheAware = "sglang_cache_aware"
    case gie, dynamo, lmetric, smetric

    /// Whether it makes anything of a prompt's blocks and of what its answer will be.
    package var weighsPrompts: Bool {
        switch self {
        case .leastTokens, .leastRequests, .roundRobin, .p2c: false
        case .predictedCost, .sglangCacheAware, .gie, .dynamo, .lmetric, .smetric: true
        }
    }
}

/// Whether a node takes requests, and if not, why.
package enum RoutingNodeState: String, Hashable, Sendable, CaseIterable {
    case ready, warming, unhealthy, cordoned, draining, curtailed
}

/// One node as the router sees it now.
package struct RoutingNodeStatus: Hashable, Sendable {
    package var id: NodeID
    package var nodeIndex: Int
    package var state: RoutingNodeState
    package var inflightRequests: Int
    /// Prompt and expected output of the requests in flight.
    package var inflightTokens: Int
    /// Mean seconds from dispatch to first token, recent; nil until measured.
    package var firstTokenSeconds: Double?
    package var isBreakerOpen: Bool
    /// What a recent failure still costs the node, in seconds.
    package var penaltySeconds: Double
    /// Tokens of new prompt a second, learned; nil until measured, or where the policy does not learn.
    package var prefillTokensPerSecond: Double?
    /// What the other gateways have in flight there.
    package var peerRequests: Int
    /// Why its metrics are not believed; nil where they are, or there are none.
    package var distrust: ReportDistrust?
    /// What the operator leaves it of its power.
    package var powerShare: Double
    package var kvCapacityTokens: Int
    /// Blocks that the prefix index knows of it.
    package var prefixBlocks: Int
}

import Domain

/// All that one gateway knows of a node. Seconds throughout; what was not measured is nil.
package struct NodeDetail: Hashable, Sendable {
    package var status: NodeStatus
    package var url = ""
    package var speedClass = "default"
    /// What the node calls the models that it serves.
    package var upstreamNames: [ModelID: String] = [:]
    /// What its name resolved to last.
    package var addresses: [String] = []
    package var maxConcurrency = 0
    package var rttConfigured = 0.0
    package var rttMeasured: Double?
    /// What the cost of a request there reckons with.
    package var rttUsed = 0.0
    /// One decode step with one request more; nil where the policy does not learn it.
    package var decodeStep: Double?
    /// Of the requests in flight, those without a first token.
    package var queuedRequests = 0
    /// How long the node is behind; 0 where the policy does not predict it.
    package var waitSeconds = 0.0
    /// What the other gateways have in flight there, as they or the node tell.
    package var peerRequests = 0
    package var peerQueuedRequests = 0
    package var peerTokens = 0
    package var isBreakerOpen = false
    /// What a recent failure still costs the node.
    package var penaltySeconds = 0.0
    package var kvCapacityTokens = 0
    /// Blocks of prompts that the prefix index knows of it.
    package var prefixBlocks = 0
    package var isCordoned = false
    /// While it drains: when what still runs is ended.
    package var drainEndsAt: WallTime?
    /// Of its site.
    package var curtailment: Curtailment?
    package var report = NodeReportStatus()

    package init(status: NodeStatus) {
        self.status = status
    }
}

/// What a node says of itself, and whether that is believed.
package struct NodeReportStatus: Hashable, Sendable {
    package enum State: String, Hashable, Sendable {
        /// It shows no metrics that are known.
        case none
        /// The policy makes nothing of them, or the engine has none.
        case unread
        case trusted, distrusted
    }

    package var state = State.unread
    /// Why it is not believed: `implausible`, `frozen`, `contradicted`, `other_model`.
    package var distrust: String?
    /// The same in words.
    package var reason: String?
    // Of the last report that could be true.
    package var runningRequests: Double?
    package var waitingRequests: Double?
    package var kvUsage: Double?
    package var kvCapacityTokens: Double?
    package var ageSeconds: Double?

    package init() {}
}

/// A site as operators see it.
package struct SiteStatus: Hashable, Sendable {
    package var id: SiteID
    package var region: String?
    package var curtailment: Curtailment?
    /// Thousandths of its power that it runs at now.
    package var permille: Int
    /// Whether the curtailment holds now, rather than from its start on.
    package var hasBegun: Bool
    package var rttConfigured: Double
    package var rttMeasured: Double?
    package var nodes: Int
    /// Of them, those that take requests.
    package var nodesServing: Int
    package var inflightRequests: Int
    package var inflightTokens: Int

    package init(
        id: SiteID, region: String?, curtailment: Curtailment?, permille: Int, hasBegun: Bool, rttConfigured: Double,
        rttMeasured: Double?, nodes: Int, nodesServing: Int, inflightRequests: Int, inflightTokens: Int
    ) {
        self.id = id
        self.region = region
        self.curtailment = curtailment
        self.permille = permille
        self.hasBegun = hasBegun
        self.rttConfigured = rttConfigured
        self.rttMeasured = rttMeasured
        self.nodes = nodes
        self.nodesServing = nodesServing
        self.inflightRequests = inflightRequests
        self.inflightTokens = inflightTokens
    }
}

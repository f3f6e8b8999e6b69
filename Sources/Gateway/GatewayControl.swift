import Domain

/// What the control plane may see and do of the running gateway. Safe from any thread; nothing here is on the hot path.
package protocol GatewayControl: Sendable {
    /// Every configured node, in the order of the configuration.
    func nodes() async -> [NodeStatus]

    /// All that is known of one node; nil where none is called so.
    func detail(of node: NodeID) async -> NodeDetail?

    /// Every configured site, in the order of the configuration.
    func sites() async -> [SiteStatus]

    /// Stores the operator's word, so that every replica and every restart honours it.
    /// - Throws: ``OperatorFailure``: `notFound` for a node that is not configured, `storeUnavailable`.
    func say(_ word: OperatorWord, of node: NodeID) async throws

    /// The same of a site.
    func say(_ word: OperatorWord, of site: SiteID) async throws

    /// Takes a node into the fleet of all replicas, or hears its heartbeat.
    /// - Throws: ``OperatorFailure``: `invalid`, `alreadyExists`, `limitReached`, `storeUnavailable`.
    func admit(_ proposal: NodeProposal, origin: NodeOrigin) async throws -> NodeAdmission

    /// Takes an added or registered node out of the fleet of all replicas.
    /// - Throws: ``OperatorFailure``: `notFound`, `invalid` for any other node, `storeUnavailable`.
    func remove(_ node: NodeID) async throws

    /// Every name that a model is asked for by, ids and aliases, and the id that it stands for.
    func modelNames() async -> [String: ModelID]

    /// The regions that sites are in, sorted.
    func regions() async -> [String]

    /// The Prometheus text of every shard, summed now.
    func metricsText() async -> String

    /// nil where the gateway can serve; else why it cannot, for `/readyz`.
    func unreadiness() async -> String?
}

/// One node as operators see it.
package struct NodeStatus: Hashable, Sendable {
    package enum State: String, Hashable, Sendable {
        case ready, warming, unhealthy, cordoned, draining, curtailed
    }

    package var id: NodeID
    package var site: SiteID
    package var engine: Engine
    package var models: [ModelID]
    package var state: State
    package var origin: NodeOrigin
    package var inflightRequests: Int
    package var inflightTokens: Int
    /// Learned; nil until enough was measured.
    package var prefillTokensPerSecond: Double?
    /// Mean seconds from dispatch to first token, recent; nil until measured.
    package var firstTokenSeconds: Double?

    package init(
        id: NodeID, site: SiteID, engine: Engine, models: [ModelID], state: State, inflightRequests: Int,
        inflightTokens: Int, prefillTokensPerSecond: Double?, firstTokenSeconds: Double?, origin: NodeOrigin = .file
    ) {
        self.origin = origin
        self.id = id
        self.site = site
        self.engine = engine
        self.models = models
        self.state = state
        self.inflightRequests = inflightRequests
        self.inflightTokens = inflightTokens
        self.prefillTokensPerSecond = prefillTokensPerSecond
        self.firstTokenSeconds = firstTokenSeconds
    }
}

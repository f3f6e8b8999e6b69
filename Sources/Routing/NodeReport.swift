import Domain

/// What one node's metrics said at one scrape.
///
/// Numbers as they came: anything may be missing, NaN, negative, enormous or another model's. ``isPlausible`` judges
/// one report alone, ``ReportTrust`` a node's reports over time.
package struct NodeReport: Hashable, Sendable {
    /// More than any server runs or queues: what lies above is nonsense.
    package static let requestsMax = 1e6
    /// More than any server's cache or queue holds.
    package static let tokensMax = 1e9

    /// Requests of which some token is being computed.
    package var runningRequests: Double
    /// Requests of which none is yet.
    package var waitingRequests: Double
    /// Share of the KV cache that running requests hold, 0...1; nil where the engine does not say.
    package var kvUsage: Double?
    /// Prompt tokens of the waiting requests, cached ones included; few engines say.
    package var waitingTokens: Double?
    /// Prompt tokens of the running requests that are still to be prefilled; few engines say.
    package var prefillTokens: Double?
    /// Tokens that the KV cache holds in all.
    package var kvCapacityTokens: Double?
    /// Names the server's present start (its time, or an id): another value means that it restarted, its cache empty.
    package var serverStart: UInt64?

    package init(
        runningRequests: Double, waitingRequests: Double, kvUsage: Double? = nil, waitingTokens: Double? = nil,
        prefillTokens: Double? = nil, kvCapacityTokens: Double? = nil, serverStart: UInt64? = nil
    ) {
        self.runningRequests = runningRequests
        self.waitingRequests = waitingRequests
        self.kvUsage = kvUsage
        self.waitingTokens = waitingTokens
        self.prefillTokens = prefillTokens
        self.kvCapacityTokens = kvCapacityTokens
        self.serverStart = serverStart
    }

    /// Whether every number could be true of some server. NaN fails every comparison.
    package var isPlausible: Bool {
        let requests = 0...Self.requestsMax
        let tokens = 0...Self.tokensMax
        // Engines round: a full cache may say 1.0000001.
        return requests.contains(runningRequests) && requests.contains(waitingRequests)
            && (kvUsage.map { (0...1.01).contains($0) } ?? true) && (waitingTokens.map(tokens.contains) ?? true)
            && (prefillTokens.map(tokens.contains) ?? true)
            && (kvCapacityTokens.map { (1...Self.tokensMax).contains($0) } ?? true)
    }
}

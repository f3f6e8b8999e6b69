import Domain
import Gateway

/// A node with all that this gateway knows of it. The members of ``NodeDocument``, and more.
package struct NodeDetailDocument: Codable, Sendable {
    package var summary: NodeDocument
    package var url: String
    package var speedClass: String
    /// Public id to the node's name.
    package var upstreamNames: [String: String]
    package var addresses: [String]
    package var maxConcurrency: Int
    package var rttConfigured: Double
    @OrNull package var rttMeasured: Double?
    package var rttUsed: Double
    @OrNull package var decodeStep: Double?
    package var queuedRequests: Int
    package var waitSeconds: Double
    package var peerRequests: Int
    package var peerQueuedRequests: Int
    package var peerTokens: Int
    package var isBreakerOpen: Bool
    package var penaltySeconds: Double
    package var kvCapacityTokens: Int
    package var prefixBlocks: Int
    package var isCordoned: Bool
    @OrNull package var drainEndsAt: String?
    @OrNull package var curtailment: CurtailmentDocument?
    package var report: NodeReportDocument

    enum CodingKeys: String, CodingKey {
        case url, addresses, curtailment, report
        case speedClass = "class"
        case upstreamNames = "upstream_models"
        case maxConcurrency = "max_concurrency"
        case rttConfigured = "rtt_configured_seconds"
        case rttMeasured = "rtt_measured_seconds"
        case rttUsed = "rtt_seconds"
        case decodeStep = "decode_step_seconds"
        case queuedRequests = "queued_requests"
        case waitSeconds = "predicted_wait_seconds"
        case peerRequests = "peer_requests"
        case peerQueuedRequests = "peer_queued_requests"
        case peerTokens = "peer_tokens"
        case isBreakerOpen = "breaker_open"
        case penaltySeconds = "penalty_seconds"
        case kvCapacityTokens = "kv_capacity_tokens"
        case prefixBlocks = "prefix_blocks"
        case isCordoned = "cordoned"
        case drainEndsAt = "drain_ends_at"
    }

    init(_ detail: NodeDetail) {
        summary = NodeDocument(detail.status)
        url = detail.url
        speedClass = detail.speedClass
        upstreamNames = [:]
        for (model, name) in detail.upstreamNames { upstreamNames[model.rawValue] = name }
        addresses = detail.addresses
        maxConcurrency = detail.maxConcurrency
        rttConfigured = detail.rttConfigured
        rttMeasured = detail.rttMeasured
        rttUsed = detail.rttUsed
        decodeStep = Self.finite(detail.decodeStep)
        queuedRequests = detail.queuedRequests
        waitSeconds = Self.finite(detail.waitSeconds) ?? 0
        peerRequests = detail.peerRequests
        peerQueuedRequests = detail.peerQueuedRequests
        peerTokens = detail.peerTokens
        isBreakerOpen = detail.isBreakerOpen
        penaltySeconds = Self.finite(detail.penaltySeconds) ?? 0
        kvCapacityTokens = detail.kvCapacityTokens
        prefixBlocks = detail.prefixBlocks
        isCordoned = detail.isCordoned
        drainEndsAt = detail.drainEndsAt?.rfc3339
        curtailment = detail.curtailment.map { CurtailmentDocument($0) }
        report = NodeReportDocument(detail.report)
    }

    package init(from decoder: any Decoder) throws {
        summary = try NodeDocument(from: decoder)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        url = try container.decode(String.self, forKey: .url)
        speedClass = try container.decode(String.self, forKey: .speedClass)
        upstreamNames = try container.decode([String: String].self, forKey: .upstreamNames)
        addresses = try container.decode([String].self, forKey: .addresses)
        maxConcurrency = try container.decode(Int.self, forKey: .maxConcurrency)
        rttConfigured = try container.decode(Double.self, forKey: .rttConfigured)
        _rttMeasured = try container.decode(OrNull<Double>.self, forKey: .rttMeasured)
        rttUsed = try container.decode(Double.self, forKey: .rttUsed)
        _decodeStep = try container.decode(OrNull<Double>.self, forKey: .decodeStep)
        queuedRequests = try container.decode(Int.self, forKey: .queuedRequests)
        waitSeconds = try container.decode(Double.self, forKey: .waitSeconds)
        peerRequests = try container.decode(Int.self, forKey: .peerRequests)
        peerQueuedRequests = try container.decode(Int.self, forKey: .peerQueuedRequests)
        peerTokens = try container.decode(Int.self, forKey: .peerTokens)
        isBreakerOpen = try container.decode(Bool.self, forKey: .isBreakerOpen)
        penaltySeconds = try container.decode(Double.self, forKey: .penaltySeconds)
        kvCapacityTokens = try container.decode(Int.self, forKey: .kvCapacityTokens)
        prefixBlocks = try container.decode(Int.self, forKey: .prefixBlocks)
        isCordoned = try container.decode(Bool.self, forKey: .isCordoned)
        _drainEndsAt = try container.decode(OrNull<String>.self, forKey: .drainEndsAt)
        _curtailment = try container.decode(OrNull<CurtailmentDocument>.self, forKey: .curtailment)
        report = try container.decode(NodeReportDocument.self, forKey: .report)
    }

    package func encode(to encoder: any Encoder) throws {
        try summary.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(url, forKey: .url)
        try container.encode(speedClass, forKey: .speedClass)
        try container.encode(upstreamNames, forKey: .upstreamNames)
        try container.encode(addresses, forKey: .addresses)
        try container.encode(maxConcurrency, forKey: .maxConcurrency)
        try container.encode(rttConfigured, forKey: .rttConfigured)
        try container.encode(_rttMeasured, forKey: .rttMeasured)
        try container.encode(rttUsed, forKey: .rttUsed)
        try container.encode(_decodeStep, forKey: .decodeStep)
        try container.encode(queuedRequests, forKey: .queuedRequests)
        try container.encode(waitSeconds, forKey: .waitSeconds)
        try container.encode(peerRequests, forKey: .peerRequests)
        try container.encode(peerQueuedRequests, forKey: .peerQueuedRequests)
        try container.encode(peerTokens, forKey: .peerTokens)
        try container.encode(isBreakerOpen, forKey: .isBreakerOpen)
        try container.encode(penaltySeconds, forKey: .penaltySeconds)
        try container.encode(kvCapacityTokens, forKey: .kvCapacityTokens)
        try container.encode(prefixBlocks, forKey: .prefixBlocks)
        try container.encode(isCordoned, forKey: .isCordoned)
        try container.encode(_drainEndsAt, forKey: .drainEndsAt)
        try container.encode(_curtailment, forKey: .curtailment)
        try container.encode(report, forKey: .report)
    }

    /// JSON has no infinity or NaN.
    static func finite(_ value: Double?) -> Double? { value.flatMap { $0.isFinite ? $0 : nil } }
}

/// What a node says of itself, and whether that is believed.
package struct NodeReportDocument: Codable, Sendable {
    /// `none` (it shows no metrics), `unread` (the policy makes nothing of them), `trusted` or `distrusted`.
    package var state: String
    /// Why it is not believed: `implausible`, `frozen`, `contradicted` or `other_model`.
    @OrNull package var distrust: String?
    /// The same in words.
    @OrNull package var reason: String?
    /// Of the last report that could be true.
    @OrNull package var runningRequests: Double?
    @OrNull package var waitingRequests: Double?
    @OrNull package var kvUsage: Double?
    /// What it says that its cache holds; the node's own `kv_capacity_tokens` is what is believed.
    @OrNull package var kvCapacityTokens: Double?
    @OrNull package var ageSeconds: Double?

    enum CodingKeys: String, CodingKey {
        case state, distrust, reason
        case runningRequests = "running_requests"
        case waitingRequests = "waiting_requests"
        case kvUsage = "kv_usage"
        case kvCapacityTokens = "kv_capacity_tokens"
        case ageSeconds = "age_seconds"
    }

    init(_ report: NodeReportStatus) {
        state = report.state.rawValue
        distrust = report.distrust
        reason = report.reason
        runningRequests = report.runningRequests
        waitingRequests = report.waitingRequests
        kvUsage = report.kvUsage
        kvCapacityTokens = report.kvCapacityTokens
        ageSeconds = report.ageSeconds
    }
}

/// A site's lessened power.
package struct CurtailmentDocument: Codable, Sendable {
    package var toPercent: Double
    package var startsAt: String
    @OrNull package var endsAt: String?

    enum CodingKeys: String, CodingKey {
        case toPercent = "to_percent"
        case startsAt = "starts_at"
        case endsAt = "ends_at"
    }

    init(_ curtailment: Curtailment) {
        toPercent = Double(curtailment.permille) / 10
        startsAt = curtailment.startsAt.rfc3339
        endsAt = curtailment.endsAt?.rfc3339
    }
}

/// A site as this gateway sees it.
package struct SiteDocument: Codable, Sendable {
    package var id: String
    @OrNull package var region: String?
    /// `ready`, `announced` (it will be curtailed) or `curtailed`.
    package var state: String
    package var powerPercent: Double
    @OrNull package var curtailment: CurtailmentDocument?
    package var nodes: Int
    package var nodesServing: Int
    package var inflightRequests: Int
    package var inflightTokens: Int
    package var rttConfigured: Double
    @OrNull package var rttMeasured: Double?

    enum CodingKeys: String, CodingKey {
        case id, region, state, curtailment, nodes
        case powerPercent = "power_percent"
        case nodesServing = "nodes_serving"
        case inflightRequests = "inflight_requests"
        case inflightTokens = "inflight_tokens"
        case rttConfigured = "rtt_configured_seconds"
        case rttMeasured = "rtt_measured_seconds"
    }

    init(_ site: SiteStatus) {
        id = site.id.rawValue
        region = site.region
        state = site.permille < 1_000 || site.hasBegun ? "curtailed" : site.curtailment != nil ? "announced" : "ready"
        powerPercent = Double(site.permille) / 10
        curtailment = site.curtailment.map { CurtailmentDocument($0) }
        nodes = site.nodes
        nodesServing = site.nodesServing
        inflightRequests = site.inflightRequests
        inflightTokens = site.inflightTokens
        rttConfigured = site.rttConfigured
        rttMeasured = site.rttMeasured
    }
}

/// A node that was added or registered itself.
package struct AdmissionDocument: Codable, Sendable {
    package var id: String
    /// `added` or `registered`.
    package var origin: String
    /// It was not there before.
    package var created: Bool
    /// How often it has to register again: three misses in a row, and it leaves.
    @OrNull package var heartbeatSeconds: Double?

    enum CodingKeys: String, CodingKey {
        case id, origin, created
        case heartbeatSeconds = "heartbeat_seconds"
    }

    init(_ admission: NodeAdmission) {
        id = admission.id.rawValue
        origin = admission.origin.rawValue
        created = admission.isNew
        heartbeatSeconds = admission.heartbeat.map { Double($0.milliseconds) / 1_000 }
    }
}

/// A node that was removed.
package struct RemovalDocument: Codable, Sendable {
    package var id: String
    package var removed = true
}

import Billing
import Domain
import Routing

// What operators see of the fleet.
extension FleetService {
    /// Every configured node, in the order of the configuration.
    package func nodes() -> [NodeStatus] {
        let configured = state.withLock { $0.nodes }
        return router.status(now: .now()).compactMap { status in
            configured[status.id].map { Self.status(of: $0, status) }
        }
    }

    /// All that is known of one node; nil where none is called so.
    package func detail(of id: NodeID) -> NodeDetail? {
        let now = MonotonicTime.now()
        let known = state.withLock { state in
            state.nodes[id].map { node in
                (
                    node: node, site: state.sites.first { $0.id == node.site },
                    measured: state.roundTrips.nanoseconds(of: id), addresses: state.addresses(of: id),
                    drainEndsAt: state.words.words.draining[id],
                    curtailment: state.words.standingCurtailment(of: node.site, now: now)
                )
            }
        }
        guard let known, let found = router.detail(of: id, now: now) else { return nil }
        let node = known.node
        var detail = NodeDetail(status: Self.status(of: node, found.status))
        detail.url = node.url.description
        detail.speedClass = node.speedClass
        for served in node.models { detail.upstreamNames[served.model] = served.upstreamName }
        detail.addresses = known.addresses.compactMap(\.ipAddress)
        detail.rttConfigured = known.site?.rtt.seconds ?? 0
        detail.rttMeasured = known.measured.map { Double($0) / 1e9 }
        detail.drainEndsAt = known.drainEndsAt
        detail.curtailment = known.curtailment
        detail.take(found)
        detail.report = NodeReportStatus(found, isRead: router.readsMetrics && MetricsProbe.reads(node.engine))
        return detail
    }

    /// Every configured site, in the order of the configuration.
    package func sites() -> [SiteStatus] {
        let now = MonotonicTime.now()
        let nodes = Dictionary(grouping: nodes(), by: \.site)
        return state.withLock { state in
            let present = state.words.storeTime(at: now)
            return state.sites.map { site in
                let own = nodes[site.id] ?? []
                let curtailment = state.words.standingCurtailment(of: site.id, now: now)
                return SiteStatus(
                    id: site.id, region: site.region, curtailment: curtailment,
                    permille: curtailment?.permille(at: present) ?? 1_000,
                    hasBegun: curtailment.map { $0.startsAt <= present } ?? false,
                    rttConfigured: site.rtt.seconds,
                    rttMeasured: state.roundTrips.nanoseconds(of: own.map(\.id)).map { Double($0) / 1e9 },
                    nodes: own.count, nodesServing: own.count { $0.state == .ready || $0.state == .curtailed },
                    inflightRequests: own.reduce(0) { $0 + $1.inflightRequests },
                    inflightTokens: own.reduce(0) { $0 + $1.inflightTokens })
            }
        }
    }

    private static func status(of node: NodeConfiguration, _ status: RoutingNodeStatus) -> NodeStatus {
        let state: NodeStatus.State =
            switch status.state {
            case .ready: .ready
            case .warming: .warming
            case .unhealthy: .unhealthy
            case .cordoned: .cordoned
            case .draining: .draining
            case .curtailed: .curtailed
            }
        return NodeStatus(
            id: node.id, site: node.site, engine: node.engine, models: node.models.map(\.model), state: state,
            inflightRequests: status.inflightRequests, inflightTokens: status.inflightTokens,
            prefillTokensPerSecond: status.prefillTokensPerSecond, firstTokenSeconds: status.firstTokenSeconds,
            origin: node.origin)
    }
}

extension NodeDetail {
    fileprivate mutating func take(_ found: RoutingNodeDetail) {
        maxConcurrency = found.maxConcurrency
        rttUsed = Double(found.rttNanoseconds) / 1e9
        decodeStep = found.decodeStepSeconds
        queuedRequests = found.queuedRequests
        waitSeconds = found.waitSeconds
        peerRequests = found.status.peerRequests
        peerQueuedRequests = found.peerQueuedRequests
        peerTokens = found.peerTokens
        isBreakerOpen = found.status.isBreakerOpen
        penaltySeconds = found.status.penaltySeconds
        kvCapacityTokens = found.status.kvCapacityTokens
        prefixBlocks = found.status.prefixBlocks
        isCordoned = found.isCordoned
    }
}

extension NodeReportStatus {
    fileprivate init(_ found: RoutingNodeDetail, isRead: Bool) {
        self.init()
        guard isRead else { return }
        state = found.status.distrust != nil ? .distrusted : found.report == nil ? .none : .trusted
        distrust = found.status.distrust?.rawValue
        reason = found.status.distrust.map(Self.reason)
        runningRequests = found.report?.runningRequests
        waitingRequests = found.report?.waitingRequests
        kvUsage = found.report?.kvUsage
        kvCapacityTokens = found.report?.kvCapacityTokens
        ageSeconds = found.reportAgeSeconds
    }

    private static func reason(_ distrust: ReportDistrust) -> String {
        switch distrust {
        case .implausible: "its reports cannot be true: negative, NaN or enormous numbers, or a new start in each"
        case .frozen: "its metrics have not changed for half a minute, though requests came and went"
        case .contradicted: "it claims fewer requests than it is answering for this gateway"
        case .otherModel: "its metrics are of a model that it is not configured with"
        }
    }
}

extension WordKeeper {
    /// nil where the site has its full power, and will.
    func standingCurtailment(of site: SiteID, now: MonotonicTime) -> Curtailment? {
        let present = storeTime(at: now)
        return words.curtailed[site].flatMap { $0.stands(at: present) ? $0 : nil }
    }
}

extension Duration {
    fileprivate var seconds: Double { Double(nanoseconds) / 1e9 }
}

import Billing
import Domain
import Logging
import NIOCore
import NIOPosix
import Routing
import Synchronization

/// How often the fleet is looked at. The defaults are production's; tests shorten them.
package struct FleetTimings: Hashable, Sendable {
    /// Between two probes of a node that takes requests.
    package var probeInterval = Duration.seconds(2)
    /// Between two probes of one that does not: it should come back soon after it can.
    package var probeIntervalUnready = Duration.milliseconds(500)
    package var probeTimeout = Duration.seconds(1)
    /// Between two resolutions of a name.
    package var resolveInterval = Duration.seconds(30)
    /// After a name did not resolve.
    package var resolveIntervalFailed = Duration.seconds(5)
    /// Between two reads of what operators said.
    package var wordInterval = Duration.milliseconds(500)
    /// How soon news are noticed where nothing is due: a first address, a first word.
    package var tick = Duration.milliseconds(100)
    /// How soon a replaced configuration is noticed where something is. Each wake of a task costs three threads'.
    package var tickQuiet = Duration.milliseconds(300)
    /// How soon the name of a node that a reload brought is resolved.
    package var tickNames = Duration.seconds(1)

    package init() {}
}

/// Knows the nodes: probes them, resolves their names, and makes operators' words true in the router.
///
/// Owns the process's router. ``run()`` does the looking, in tasks of its own and on one event loop, off the request
/// path; everything else may be called from any thread at any time. Failure modes: where a name no longer resolves, the
/// last good addresses stay; where the store is away, the last words stay (a node whose word was never read counts as
/// not cordoned once the store has been asked); a probe that cannot be sent is a failed one.
package final class FleetService: Sendable {
    /// Told a node's addresses whenever they change, the first time included; never under a lock.
    package typealias AddressObserver = @Sendable (NodeID, [SocketAddress]) -> Void
    /// Told of a node whose drain has come to its deadline: what still runs there is to be ended.
    package typealias DrainObserver = @Sendable (NodeID) -> Void

    package let router: SharedRouter

    let state: Mutex<FleetState>
    let words: any OperatorWordStore
    private let probe: HealthProbe
    private let metrics: MetricsProbe
    let timings: FleetTimings
    let logger: Logger
    private let onAddresses: AddressObserver
    let onDrainEnded: DrainObserver

    /// - Parameters:
    ///   - eventLoop: Where probes run.
    ///   - seed: Of the router's ties.
    package init(
        configuration: GatewayConfiguration, eventLoop: any EventLoop, words: any OperatorWordStore, logger: Logger,
        timings: FleetTimings = FleetTimings(), seed: UInt64 = .random(in: .min ... .max),
        onDrainEnded: @escaping DrainObserver = { _ in }, onAddresses: @escaping AddressObserver
    ) {
        self.router = SharedRouter(
            Router(
                fleet: FleetSnapshot(nodes: configuration.nodeSpecs), policy: configuration.routing.policy, seed: seed))
        router.configure(configuration, logger: logger)
        var state = FleetState()
        _ = state.configured(configuration.nodes, now: .now())
        state.sites = configuration.sites
        self.state = Mutex(state)
        self.words = words
        self.probe = HealthProbe(eventLoop: eventLoop, timeout: timings.probeTimeout)
        self.metrics = MetricsProbe(eventLoop: eventLoop, timeout: timings.probeTimeout)
        self.timings = timings
        self.logger = logger
        self.onAddresses = onAddresses
        self.onDrainEnded = onDrainEnded
    }

    /// The present fleet, for the event loops' snapshots.
    package var fleet: FleetSnapshot { router.fleet }

    /// What is known of a node's addresses now; empty where its name has not resolved yet.
    package func addresses(of node: NodeID) -> [SocketAddress] { state.withLock { $0.addresses(of: node) } }

    /// Takes the nodes of a new configuration. Publish the result to the event loops afterwards: nodes that left get no
    /// more requests by then, and new ones get none before their first good probe.
    ///
    /// The policy stays what it was at the start. Nodes that stay keep their in-flight work and cordon; one whose
    /// address or engine changed is warming again.
    @discardableResult
    package func replace(_ configuration: GatewayConfiguration) -> FleetSnapshot {
        // Both owners change under one lock, or two reloads at once could leave them with different fleets.
        let (next, moved) = state.withLock { state in
            let moved = state.configured(configuration.nodes, now: .now())
            state.sites = configuration.sites
            let next = router.replaceFleet(with: configuration.nodeSpecs)
            for node in moved { router.serverReplaced(node) }
            for (node, rtt) in state.toldRoundTrips { router.measured(node, rttNanoseconds: rtt) }
            // Nodes that are new may be under a word that stands already.
            apply(state.reconcileWords(now: .now()))
            return (next, moved)
        }
        router.configure(configuration, logger: logger)
        for node in configuration.nodes {
            let addresses = addresses(of: node.id)
            if !addresses.isEmpty { onAddresses(node.id, addresses) }
        }
        for node in moved { logger.info("a node moved and is warming", metadata: ["node": "\(node)"]) }
        return next
    }

    /// Looks after the fleet until its task is cancelled.
    package func run() async {
        let resolver = HostResolver(threads: .singleton)
        for (node, addresses) in state.withLock({ state in state.order.map { ($0, state.addresses(of: $0)) } })
        where !addresses.isEmpty {
            onAddresses(node, addresses)
        }
        await withDiscardingTaskGroup { group in
            group.addTask { await self.readWords() }
            group.addTask { await self.probeNodes() }
            // Two, so that one name whose servers are silent does not hold up all others.
            group.addTask { await self.resolveNames(resolver) }
            group.addTask { await self.resolveNames(resolver) }
        }
    }

    // MARK: Probes

    private func probeNodes() async {
        await withDiscardingTaskGroup { group in
            while !Task.isCancelled {
                let (due, wait) = state.withLock { state in
                    let now = MonotonicTime.now()
                    let due = state.schedule.take(now: now)
                    let next = state.schedule.nextDue.map { Duration.nanoseconds($0.nanoseconds(since: now)) }
                    return (due, next.map { min(max($0, .milliseconds(1)), timings.tickQuiet) } ?? timings.tick)
                }
                for node in due { group.addTask { await self.probeOnce(node) } }
                try? await Task.sleep(for: wait)
            }
        }
    }

    private func probeOnce(_ id: NodeID) async {
        let (node, address) = state.withLock { ($0.nodes[id], $0.probeAddress(of: id)) }
        let finding: ProbeFinding
        var roundTrip: Int64?
        if let node, let address {
            (finding, roundTrip) = await probe.measured(node, at: address)
        } else {
            finding = ProbeFinding(result: .failed, reason: "its name does not resolve")
        }
        if finding.result == .healthy, router.readsMetrics, let node, let address {
            await readMetrics(of: node, at: address)
        }
        let now = MonotonicTime.now()
        let change: (before: RoutingNodeState, after: RoutingNodeState)? = state.withLock { state in
            // A probe of the address that the node had before a reload says nothing of the new one.
            let isCurrent = state.nodes[id]?.url == node?.url
            let change = isCurrent ? router.probed(id, finding.result, now: now) : nil
            if isCurrent, finding.result == .healthy, let roundTrip {
                for (node, rtt) in state.measured(id, roundTrip, now: now) {
                    router.measured(node, rttNanoseconds: rtt)
                }
            }
            let isServing = change?.after == .ready || change?.after == .curtailed
            state.schedule.probeEnded(
                id, interval: isServing ? timings.probeInterval : timings.probeIntervalUnready,
                jitter: .random(in: 0..<1), now: now)
            return change
        }
        guard let change, change.before != change.after else { return }
        logger.log(
            level: change.after == .unhealthy ? .warning : .info, "a node is \(change.after.rawValue)",
            metadata: ["node": "\(id)", "was": "\(change.before.rawValue)", "reason": "\(finding.reason)"])
    }

    /// Metrics only correct what the gateway counts itself: a node that shows none is none the worse.
    private func readMetrics(of node: NodeConfiguration, at address: SocketAddress) async {
        guard let reading = await metrics.run(node, at: address) else { return }
        let isCurrent = state.withLock { $0.nodes[node.id]?.url == node.url }
        guard isCurrent else { return }
        switch reading {
        case .report(let report): router.reported(node.id, report, now: .now())
        case .otherModel: router.reportedOtherModel(node.id, now: .now())
        case .silent: break
        }
    }

    // MARK: Names

    private func resolveNames(_ resolver: HostResolver) async {
        while !Task.isCancelled {
            // Due again only after this attempt could have ended, so that the other task takes another name.
            let host = state.withLock { state in state.takeHost(now: .now(), lease: timings.resolveInterval) }
            if let host { await resolve(host, resolver) } else { try? await Task.sleep(for: timings.tickNames) }
        }
    }

    private func resolve(_ host: String, _ resolver: HostResolver) async {
        var answer: [SocketAddress]?
        var reason = ""
        do {
            answer = try await resolver.resolve(host)
        } catch {
            guard !Task.isCancelled else { return }
            reason = "\(error)"
        }
        let interval = answer == nil ? timings.resolveIntervalFailed : timings.resolveInterval
        let (changed, failureChanged) = state.withLock {
            $0.resolved(host, answer, next: .now().advanced(by: interval))
        }
        for node in changed { onAddresses(node, addresses(of: node)) }
        guard failureChanged else { return }
        if answer == nil {
            logger.warning("a node's name does not resolve; its last addresses stay", metadata: ["reason": "\(reason)"])
        } else {
            logger.info("a node's name resolves again", metadata: ["host": "\(host)"])
        }
    }
}

import Billing
import Domain
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Redis
import Routing
import Synchronization

/// The running gateway: listener, event loops and what they share. `serve` and `demo` make one each.
///
/// Order of start: store, journal, replay, fleet, listener; nothing is admitted before what an earlier run left in the
/// journal has been applied. Order of stop: listener, requests, charges, journal.
package final class GatewayServer: Sendable {
    /// How often the spending service looks at its retries and heartbeats.
    static let spendingTick = Duration.milliseconds(50)
    /// How long a start waits for the loops' own connections to Redis.
    static let storeWait = Duration.seconds(5)
    /// Between two tries to read prices that changed.
    static let pricesRetry = Duration.milliseconds(250)
    /// What the store gets after the last request to take the last charges.
    static let flushTime = Duration.seconds(5)
    static let backlog: Int32 = 4_096

    struct Published {
        var configuration: GatewayConfiguration
        var prices: PriceBook
        /// Nodes that are not in the file.
        var members = FleetMembers()
        /// Of the stored ones; nil before they were read.
        var membersVersion: String?
        /// Grows with each change, so that two changes at once end with the later one on every loop.
        var version: Int64 = 0
    }

    package let fleet: FleetService
    /// The data plane's port: what was bound where the configuration said 0.
    package let port: Int

    let parts: GatewayParts
    let listener: any Channel
    let published: Mutex<Published>
    let isDraining = Atomic<Bool>(false)
    private let background: Mutex<[Task<Void, Never>]>
    /// On the loop that it serves, not a task: a sleeping task's wake goes through three threads.
    private let spendingTimer = Mutex<RepeatedTask?>(nil)
    /// The change under way, for the next to wait for.
    private let turn = Mutex<Task<Void, Never>?>(nil)
    private let poller: Mutex<NIOLoopBound<AuthVersionPoller>?>

    init(parts: GatewayParts, fleet: FleetService, listener: any Channel) {
        self.parts = parts
        self.fleet = fleet
        self.listener = listener
        port = listener.localAddress?.port ?? 0
        published = Mutex(Published(configuration: parts.configuration, prices: parts.prices))
        background = Mutex([])
        poller = Mutex(nil)
    }

    package var operators: RedisOperatorStore { parts.operators }

    func keep(_ poller: NIOLoopBound<AuthVersionPoller>) {
        self.poller.withLock { $0 = poller }
    }

    func keep(_ timer: RepeatedTask) {
        spendingTimer.withLock { $0 = timer }
    }

    func keep(_ tasks: [Task<Void, Never>]) {
        background.withLock { $0.append(contentsOf: tasks) }
    }

    // MARK: Reload

    /// Takes a new configuration. Returns when every loop has it.
    ///
    /// - Returns: The keys whose change needs a restart: those keep their old value.
    @discardableResult
    package func reload(_ configuration: GatewayConfiguration) async throws -> [String] {
        try await inTurn { [self] in
            let held = published.withLock { $0.configuration }
            try await operators.seedPrices(of: configuration, logger: parts.logger)
            let prices = try await operators.loadPrices()
            published.withLock {
                // Those keys keep what runs, so that the next reload names them again.
                $0.configuration = configuration.keepingWhatNeedsRestart(of: held)
                $0.prices = prices
                $0.version += 1
            }
            fleet.replace(published.withLock { $0.effective() })
            parts.services.buffers.resize(bytesMax: configuration.limits.bufferedBytes)
            try await publish()
            return configuration.needsRestart(comparedTo: held)
        }
    }

    /// Prices changed in the store: reads them until that succeeds, since nobody will say it again.
    func pricesChanged() async {
        while !isDraining.load(ordering: .relaxed) {
            do {
                return try await inTurn { [self] in
                    let prices = try await operators.loadPrices()
                    published.withLock {
                        $0.prices = prices
                        $0.version += 1
                    }
                    try await publish()
                }
            } catch {
                parts.logger.warning("prices could not be read; trying again", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: Self.pricesRetry)
            }
        }
    }

    /// One change after the other, or the older of two could be published last.
    func inTurn<Result: Sendable>(
        _ change: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let task = turn.withLock { last in
            let task = Task { [last] in
                await last?.value
                return try await change()
            }
            last = Task { _ = await task.result }
            return task
        }
        return try await task.value
    }

    func publish() async throws {
        let (held, effective) = published.withLock { ($0, $0.effective()) }
        let snapshot = GatewaySnapshot(
            version: held.version, configuration: effective, fleet: fleet.fleet, prices: held.prices,
            learning: parts.services.promptLearning)
        for loop in parts.loops {
            // Read on the loop: a name that resolves anew meanwhile is told to the loop after this.
            try await loop.run { [fleet] in $0.publish(snapshot, addresses: fleet.addresses(of:)) }
        }
    }

    /// Files besides the configuration whose change asks for a reload.
    package var watchedFiles: [String] { published.withLock { $0.configuration.filesRead } }

    /// After the file was moved away by whoever rotates logs.
    package func reopenAccessLog() {
        parts.services.accessLog?.reopen()
    }

    // MARK: Stop

    /// Drains and stops: readiness fails at once, no new connections, requests end or are ended at `timeouts.drain`,
    /// every charge is in the store or in the journal when this returns.
    package func shutDown() async {
        isDraining.store(true, ordering: .sequentiallyConsistent)
        parts.logger.info("draining")
        try? await listener.close()
        for loop in parts.loops { try? await loop.run { $0.drain() } }
        let drain = published.withLock { $0.configuration.timeouts.drain }
        if await !requestsEnded(within: drain) {
            parts.logger.warning("the drain time is over: ending what is left")
            for loop in parts.loops { try? await loop.run { $0.expireDrain() } }
            _ = await requestsEnded(within: .seconds(1))
        }
        let transport = await parts.loops[0].transport
        let left = await parts.services.spending.flush(
            on: transport, loop: parts.loops[0].eventLoop, deadline: MonotonicTime.now().advanced(by: Self.flushTime))
        if left > 0 {
            parts.logger.warning("charges stay in the journal until the next start", metadata: ["charges": "\(left)"])
        }
        spendingTimer.withLock { $0 }?.cancel()
        for task in background.withLock({ $0 }) { task.cancel() }
        for task in background.withLock({ $0 }) { await task.value }
        if let poller = poller.withLock({ $0 }) {
            try? await parts.loops[0].eventLoop.submit { poller.value.stop() }.get()
        }
        await parts.close()
        parts.logger.info("stopped")
    }

    private func requestsEnded(within limit: Duration) async -> Bool {
        let deadline = MonotonicTime.now().advanced(by: limit)
        while true {
            var running = 0
            for loop in parts.loops { running += (try? await loop.run { $0.runningCount + $0.connectionCount }) ?? 0 }
            if running == 0 { return true }
            guard MonotonicTime.now() < deadline else { return false }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }
}

extension GatewayServer: GatewayControl {
    package func nodes() async -> [NodeStatus] { fleet.nodes() }

    package func detail(of node: NodeID) async -> NodeDetail? { fleet.detail(of: node) }

    package func sites() async -> [SiteStatus] { fleet.sites() }

    package func say(_ word: OperatorWord, of node: NodeID) async throws {
        try await fleet.say(word, of: node)
    }

    package func say(_ word: OperatorWord, of site: SiteID) async throws {
        try await fleet.say(word, of: site)
    }

    package func modelNames() async -> [String: ModelID] {
        let models = published.withLock { $0.configuration.models }
        let names = models.flatMap { model in ([model.id] + model.aliases).map { ($0.rawValue, model.id) } }
        return Dictionary(names, uniquingKeysWith: { first, _ in first })
    }

    package func regions() async -> [String] {
        Set(published.withLock { $0.configuration.sites.compactMap(\.region) }).sorted()
    }

    package func metricsText() async -> String {
        let shards = (try? await parts.metrics.snapshots()) ?? []
        let spending = parts.services.spending.snapshot
        return MetricsRegistry.render(
            shards: shards,
            gauges: MetricsGauges(
                nodes: fleet.nodes(), reservationsOpen: spending.openHolds,
                journalUnsyncedCharges: spending.unsyncedCharges,
                accessLogDropped: parts.services.accessLog?.droppedCount ?? 0,
                isReady: await unreadiness() == nil, spending: spending))
    }

    package func unreadiness() async -> String? {
        if isDraining.load(ordering: .sequentiallyConsistent) { return "draining" }
        if !parts.journal.isHealthy { return "the journal cannot be written" }
        for loop in parts.loops where !(await loop.isStoreConnected) { return "Redis is not reachable" }
        return nil
    }
}

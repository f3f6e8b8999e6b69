import Billing
import Domain
import Logging
import NIOCore
import NIOPosix
import Redis
import Routing
import Synchronization

/// Why the gateway does not start: what is wrong and what to do, in one line.
package struct GatewayStartFailure: Error, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

extension GatewayServer {
    /// Starts everything, in order; what was started is stopped again where a later step fails.
    ///
    /// - Parameter peppers: What key hashes are made with.
    /// - Throws: ``GatewayStartFailure``.
    package static func start(
        configuration: GatewayConfiguration, peppers: Peppers, logger: Logger
    ) async throws -> GatewayServer {
        for warning in configuration.warnings { logger.warning("\(warning)") }
        let redisConfiguration = try redisConfiguration(configuration)
        let controlGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoops)
        let undo = UndoList()
        undo.add {
            try? await group.shutdownGracefully()
            try? await controlGroup.shutdownGracefully()
        }
        do {
            let session = try await connect(redisConfiguration, on: controlGroup.next())
            undo.add { await session.close() }
            let operators = RedisOperatorStore(
                session: session, peppers: peppers, defaults: configuration.orgDefaults)
            for warning in try await operators.checkServer() { logger.warning("\(warning)") }
            let journal = try Journal(
                JournalConfiguration(
                    directory: configuration.journal.directory,
                    sync: configuration.journal.sync == .fsync ? .fsync : .interval),
                logger: logger)
            undo.add { journal.close() }

            let fleetLoops = Mutex<[LoopHandle]>([])
            let fleet = FleetService(
                configuration: configuration, eventLoop: controlGroup.next(),
                words: RedisOperatorWordStore(session: session), logger: logger,
                onDrainEnded: { node in
                    for loop in fleetLoops.withLock({ $0 }) { loop.execute { $0.endRequests(on: node) } }
                },
                onAddresses: { node, addresses in
                    for loop in fleetLoops.withLock({ $0 }) {
                        loop.execute { $0.updateAddresses(addresses, of: node) }
                    }
                })
            let services = SharedServices(
                router: fleet.router, spending: SpendingService(journal: journal, logger: logger),
                buffers: BufferBudget(bytesMax: configuration.limits.bufferedBytes),
                accessLog: try AccessLog.open(configuration.accessLog), logger: logger)
            undo.add { services.accessLog?.close() }

            try await operators.seedPrices(of: configuration, logger: logger)
            let prices = try await operators.loadPrices()
            let snapshot = GatewaySnapshot(
                configuration: configuration, fleet: fleet.fleet, prices: prices, learning: services.promptLearning)
            let loops = try await makeLoops(
                group, services: services, peppers: peppers, redis: redisConfiguration, snapshot: snapshot)
            undo.add { for loop in loops { await loop.close() } }
            try await waitForStore(loops, redis: redisConfiguration)
            fleetLoops.withLock { $0 = loops }
            for loop in loops { try await loop.run { $0.publish(snapshot, addresses: { _ in [] }) } }
            do {
                try await services.spending.replay(on: await loops[0].transport, loop: loops[0].eventLoop)
            } catch let failure as ReplayFailure {
                // The others are served; the spending service goes on trying for these.
                logger.critical("\(failure)")
            }

            var shards: [(eventLoop: any EventLoop, shard: NIOLoopBound<MetricsShard>)] = []
            for loop in loops {
                shards.append(
                    (
                        loop.eventLoop,
                        try await loop.eventLoop.submit { [context = loop.context] in
                            NIOLoopBound(context.value.metrics, eventLoop: context.value.eventLoop)
                        }.get()
                    ))
            }
            let parts = GatewayParts(
                configuration: configuration, prices: prices, group: group, controlGroup: controlGroup, loops: loops,
                services: services, journal: journal, session: session, operators: operators,
                nodeStore: RedisNodeStore(session: session),
                metrics: MetricsRegistry(shards),
                logger: logger)
            let listener = try await listen(configuration, loops: loops, group: group)
            let server = GatewayServer(parts: parts, fleet: fleet, listener: listener)
            server.startBackground()
            logger.info("listening", metadata: ["address": "\(configuration.listen.host):\(server.port)"])
            return server
        } catch {
            await undo.run()
            if error is GatewayStartFailure { throw error }
            throw GatewayStartFailure("\(error)")
        }
    }

    // MARK: Steps

    private static func redisConfiguration(_ configuration: GatewayConfiguration) throws -> RedisConfiguration {
        do {
            return RedisConfiguration(url: try RedisURL(configuration.redisURL.reveal()))
        } catch {
            throw GatewayStartFailure("redis.url: \(error)")
        }
    }

    private static func connect(_ redis: RedisConfiguration, on eventLoop: any EventLoop) async throws -> RedisSession {
        do {
            return try await RedisSession.connect(redis, on: eventLoop)
        } catch {
            throw GatewayStartFailure(
                "cannot use Redis at \(redis.url): \(error); start it, or set redis.url or TOLLGATE_REDIS_URL")
        }
    }

    private static func makeLoops(
        _ group: MultiThreadedEventLoopGroup, services: SharedServices, peppers: Peppers, redis: RedisConfiguration,
        snapshot: GatewaySnapshot
    ) async throws -> [LoopHandle] {
        var loops: [LoopHandle] = []
        for eventLoop in group.makeIterator() {
            let handle = try await eventLoop.submit { () throws -> LoopHandle in
                let client = RedisClient(configuration: redis, eventLoop: eventLoop)
                client.start()
                let metrics = MetricsShard(models: snapshot.models.map(\.id.rawValue))
                let context = LoopContext(
                    eventLoop: eventLoop, services: services,
                    transport: RedisLedgerStore(client: client, metrics: metrics),
                    keys: try KeyAuthenticator(client: client, peppers: peppers), metrics: metrics, snapshot: snapshot)
                return LoopHandle(
                    eventLoop: eventLoop, context: NIOLoopBound(context, eventLoop: eventLoop),
                    redis: NIOLoopBound(client, eventLoop: eventLoop))
            }.get()
            loops.append(handle)
        }
        return loops
    }

    private static func waitForStore(_ loops: [LoopHandle], redis: RedisConfiguration) async throws {
        let deadline = MonotonicTime.now().advanced(by: storeWait)
        for loop in loops {
            while await !loop.isStoreConnected {
                guard MonotonicTime.now() < deadline else {
                    throw GatewayStartFailure("Redis at \(redis.url) stopped answering during the start; start again")
                }
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    private static func listen(
        _ configuration: GatewayConfiguration, loops: [LoopHandle], group: MultiThreadedEventLoopGroup
    ) async throws -> any Channel {
        let byLoop = Dictionary(uniqueKeysWithValues: loops.map { (ObjectIdentifier($0.eventLoop), $0) })
        let pipeline = ClientPipeline(headerBytes: configuration.limits.headerBytes)
        do {
            return try await ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: backlog)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelOption(
                    .writeBufferWaterMark, value: .init(low: 64 * 1024, high: 256 * 1024)
                )
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        guard let loop = byLoop[ObjectIdentifier(channel.eventLoop)]?.context.value else { return }
                        try pipeline.initialize(channel, on: loop)
                    }
                }
                .bind(host: configuration.listen.host, port: configuration.listen.port).get()
        } catch {
            throw GatewayStartFailure(
                "cannot listen on \(configuration.listen): \(error); is another server running there?")
        }
    }

    /// The fleet, the spending tick and the poll for changed keys and prices.
    private func startBackground() {
        let loops = parts.loops
        let fleet = fleet
        let tick = TimeAmount.nanoseconds(Self.spendingTick.nanoseconds)
        let context = loops[0].context
        keep(
            loops[0].eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: tick) { _ in
                context.value.services.spending.tick(on: context.value.transport)
                context.value.services.router.tickAdmission(now: .now())
            })
        loops[0].eventLoop.execute { [weak self, redis = loops[0].redis] in
            let poller = AuthVersionPoller(client: redis.value) { changes in
                if changes.contains(.auth) { for loop in loops { loop.execute { $0.keys.flush() } } }
                if changes.contains(.prices) { Task { [weak self] in await self?.pricesChanged() } }
            }
            poller.start()
            self?.keep(NIOLoopBound(poller, eventLoop: redis.value.eventLoop))
        }
        keep([Task { await fleet.run() }])
        keep([Task { [weak self] in await self?.watchMembers() }])
        let discovery = DiscoveryService(
            eventLoop: parts.controlGroup.next(), logger: parts.logger,
            configuration: { [self] in published.withLock { $0.configuration } },
            onNodes: { [self] nodes in await discovered(nodes) })
        keep([Task { await discovery.run() }])
        if fleet.router.weighsPrompts {
            let gossip = GossipService(session: parts.session, router: fleet.router, logger: parts.logger)
            keep([Task { await gossip.run() }])
        }
    }
}

extension AccessLog {
    fileprivate static func open(_ destination: AccessLogDestination) throws -> AccessLog? {
        switch destination {
        case .standardOutput: try AccessLog(sink: .standardOutput)
        case .file(let path): try AccessLog(sink: .file(path))
        case .off: nil
        }
    }
}

/// What to undo where a start fails, last first.
private final class UndoList: Sendable {
    private let steps = Mutex<[@Sendable () async -> Void]>([])

    func add(_ step: @escaping @Sendable () async -> Void) {
        steps.withLock { $0.append(step) }
    }

    func run() async {
        for step in steps.withLock({ $0 }).reversed() { await step() }
    }
}

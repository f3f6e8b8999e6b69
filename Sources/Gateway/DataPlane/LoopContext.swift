import Billing
import Domain
import NIOCore
import Routing
import Tokenization

/// Everything that requests on one event loop need, so that no request waits for another thread to decide.
///
/// Bound to its loop; the snapshot is replaced by ``publish(_:addresses:)`` on it. What is shared between loops (router,
/// spending, buffer budget, access log) is behind a short lock or an atomic of its own.
package final class LoopContext {
    /// Distinct orgs whose cache salt is kept; past it the table starts anew.
    static let cacheSaltsMax = 10_000

    package let eventLoop: any EventLoop
    package let wheel: TimerWheel
    package let metrics: MetricsShard
    package let dateClock = HTTPDateClock()
    package let services: SharedServices
    package let transport: any LedgerTransport
    package let keys: KeyAuthenticator
    package private(set) var snapshot: GatewaySnapshot
    package private(set) var isDraining = false
    package var generator: LoopRandom
    package var retryBudget: RetryBudget
    /// Made with the first request that needs it: it holds some 7 MB.
    private(set) lazy var promptCounter = PromptCounter(cache: services.textCounts)

    private var pools: [NodeID: UpstreamPool] = [:]
    private var connections: [ObjectIdentifier: any ClientConnection] = [:]
    private(set) var running: [ObjectIdentifier: Exchange] = [:]
    private var cacheSalts: [OrgID: String] = [:]
    /// Of the request that is being routed.
    var promptBlocks: PromptBlocks

    package init(
        eventLoop: any EventLoop, services: SharedServices, transport: any LedgerTransport, keys: KeyAuthenticator,
        metrics: MetricsShard, snapshot: GatewaySnapshot
    ) {
        self.eventLoop = eventLoop
        self.services = services
        self.transport = transport
        self.keys = keys
        self.metrics = metrics
        self.snapshot = snapshot
        promptBlocks = PromptBlocks(key: keys.promptBlockKey)
        wheel = TimerWheel(eventLoop: eventLoop)
        generator = LoopRandom()
        retryBudget = RetryBudget(permille: snapshot.configuration.retry.budgetPermille)
    }

    // MARK: Configuration

    /// Takes a new snapshot. Pools of nodes that are gone, or moved, close as their requests end.
    package func publish(_ snapshot: GatewaySnapshot, addresses: (NodeID) -> [SocketAddress]) {
        eventLoop.assertInEventLoop()
        guard snapshot.version >= self.snapshot.version else { return }
        for (id, pool) in pools where snapshot.nodes[id] == nil {
            pool.close()
            pools[id] = nil
        }
        if snapshot.configuration.retry != self.snapshot.configuration.retry {
            retryBudget = RetryBudget(permille: snapshot.configuration.retry.budgetPermille)
        }
        self.snapshot = snapshot
        metrics.publish(models: snapshot.models.map(\.id.rawValue))
        for node in snapshot.nodes.values {
            let configuration = poolConfiguration(of: node)
            let pool =
                pools[node.id]
                ?? UpstreamPool(
                    eventLoop: eventLoop, wheel: wheel, addresses: [], configuration: configuration, metrics: metrics)
            pool.updateConfiguration(configuration)
            pools[node.id] = pool
            let found = addresses(node.id)
            if !found.isEmpty { pool.updateAddresses(found) }
        }
    }

    package func updateAddresses(_ addresses: [SocketAddress], of node: NodeID) {
        eventLoop.assertInEventLoop()
        pools[node]?.updateAddresses(addresses)
    }

    package func pool(of node: NodeID) -> UpstreamPool? { pools[node] }

    private func poolConfiguration(of node: NodeEntry) -> UpstreamPool.Configuration {
        var configuration = UpstreamPool.Configuration()
        configuration.connectionsMax = node.maxConcurrency
        configuration.connectTimeout = snapshot.configuration.timeouts.connect
        configuration.tls = node.tls
        return configuration
    }

    /// What keeps one org's prefix cache apart from another's on a shared node: the same on every replica, and nothing
    /// that a customer could guess for somebody else.
    func cacheSalt(of org: OrgID) -> String? {
        if let salt = cacheSalts[org] { return salt }
        if cacheSalts.count >= Self.cacheSaltsMax { cacheSalts.removeAll(keepingCapacity: true) }
        guard let salt = keys.cacheSalt(of: org) else { return nil }
        cacheSalts[org] = salt
        return salt
    }

    /// Where the chain of a prompt's block hashes begins: what one org has cached is nothing to another.
    func blockSalt(of org: OrgID, _ model: ModelID) -> UInt64? {
        guard let salt = cacheSalt(of: org) else { return nil }
        return promptBlocks.hash(model.rawValue, salt: promptBlocks.hash(salt, salt: 0))
    }

    // MARK: Connections and requests

    package var connectionCount: Int { connections.count }
    package var runningCount: Int { running.count }

    func register(_ connection: any ClientConnection) {
        connections[ObjectIdentifier(connection)] = connection
        services.connections.wrappingAdd(1, ordering: .relaxed)
        metrics.add(1, to: .connectionsOpen)
    }

    func unregister(_ connection: any ClientConnection) {
        if connections.removeValue(forKey: ObjectIdentifier(connection)) != nil {
            metrics.add(-1, to: .connectionsOpen)
            services.connections.wrappingSubtract(1, ordering: .relaxed)
        }
    }

    func began(_ exchange: Exchange) { running[ObjectIdentifier(exchange)] = exchange }
    func ended(_ exchange: Exchange) { running[ObjectIdentifier(exchange)] = nil }

    /// Idle connections close; others after the answer that they wait for.
    package func drain() {
        isDraining = true
        for connection in Array(connections.values) { connection.drain() }
    }

    /// The drain time is over: what still runs gets an error event, and is settled.
    package func expireDrain() {
        for connection in Array(connections.values) { connection.drainExpired() }
        for exchange in Array(running.values) { exchange.drainExpired() }
    }

    /// After the last request: closes what goes to nodes.
    package func closePools() {
        for pool in pools.values { pool.close() }
        pools.removeAll()
    }
}

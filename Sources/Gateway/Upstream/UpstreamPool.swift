import Domain
import NIOCore
import NIOPosix

/// The connections from one event loop to one node.
///
/// A request takes the connection that was parked last (its caches are warm, the others may age), else a fresh one, on
/// this loop. Idle connections close a second before llama.cpp would close them (5 s), which keeps most requests from
/// meeting a stale one; those that do are sent again once, on a fresh connection. There is no queue: the router bounds
/// what a node is given, and what passes `connectionsMax` all the same fails.
///
/// Loop-bound: not Sendable, every call on the loop.
package final class UpstreamPool: TimerTarget {
    package struct Configuration: Sendable {
        /// Idle connections kept; a further one closes instead.
        package var idleMax = 64
        /// Below the 5 s after which llama.cpp closes.
        package var idleTimeout = Duration.seconds(4)
        /// Open and connecting ones together: the node's `max_concurrency`.
        package var connectionsMax = 64
        /// Until the connection can take a request, the TLS handshake included; a request may bring its own.
        package var connectTimeout = Duration.seconds(1)
        /// nil for plain HTTP.
        package var tls: NodeTLS?

        package init() {}
    }

    /// A body up to here is copied behind its head and goes out as one buffer; a larger one is written beside it.
    package static let coalescedBodyBytesMax = 16 * 1024
    /// Addresses tried for one request before it fails.
    package static let addressesTriedMax = 2

    package let eventLoop: any EventLoop
    package private(set) var configuration: Configuration
    /// Requests on a fresh connection and on a kept one, and requests sent again because that was stale.
    package private(set) var connectCount = 0
    package private(set) var reuseCount = 0
    package private(set) var sentAgainCount = 0

    let metrics: MetricsShard?
    private let wheel: TimerWheel
    private var addresses: [SocketAddress]
    private var nextAddress = 0
    private var idle: ContiguousArray<UpstreamConnection> = []
    private var open: [ObjectIdentifier: UpstreamConnection] = [:]
    private var idleTimer = TimerToken.none
    private var isIdleTimerSet = false
    private var isClosed = false
    private var drained: EventLoopPromise<Void>?

    /// - Parameters:
    ///   - wheel: The loop's; times out idle connections.
    ///   - addresses: Where the node is; none until its name was resolved.
    ///   - metrics: The loop's shard, which counts connections opened, kept and found stale.
    package init(
        eventLoop: any EventLoop, wheel: TimerWheel, addresses: [SocketAddress] = [],
        configuration: Configuration = Configuration(), metrics: MetricsShard? = nil
    ) {
        self.eventLoop = eventLoop
        self.wheel = wheel
        self.addresses = addresses
        self.configuration = configuration
        self.metrics = metrics
    }

    package var openCount: Int { open.count }
    package var idleCount: Int { idle.count }

    /// Sends a request to the node.
    ///
    /// `upstreamStarted` may come before this returns; failures never do.
    package func dispatch(_ request: consuming UpstreamRequest, delegate: any UpstreamDelegate) -> UpstreamCall {
        let call = UpstreamCall(pool: self, request: request, delegate: delegate)
        let bodyBytes = call.request.body.readableBytes
        if bodyBytes > 0, bodyBytes <= Self.coalescedBodyBytesMax {
            call.request.head.writeImmutableBuffer(call.request.body)
            call.request.body = ByteBuffer()
        }
        if let connection = idle.popLast() {
            reuseCount += 1
            connection.send(call)
        } else {
            connect(call)
        }
        return call
    }

    /// Where the node is from now on. Connections to other addresses end when they are idle; running requests go on.
    package func updateAddresses(_ addresses: [SocketAddress]) {
        guard addresses != self.addresses else { return }
        self.addresses = addresses
        nextAddress = 0
        let stale = idle.filter { !addresses.contains($0.address) }
        idle.removeAll { !addresses.contains($0.address) }
        for connection in stale { connection.idleExpired() }
    }

    /// Connections that were made under another TLS than the new one end when they are idle.
    package func updateConfiguration(_ configuration: Configuration) {
        let isOtherTLS = configuration.tls != self.configuration.tls
        self.configuration = configuration
        closeIdle(keeping: isOtherTLS ? 0 : configuration.idleMax)
    }

    /// Refuses what comes from now on, closes idle connections now and the others after their answers.
    /// - Parameter promise: Succeeds when the last connection is closed.
    package func close(promise: EventLoopPromise<Void>? = nil) {
        isClosed = true
        if let promise {
            if let drained { drained.futureResult.cascade(to: promise) } else { drained = promise }
        }
        wheel.cancel(idleTimer)
        closeIdle(keeping: 0)
        tellDrained()
    }

    /// As ``close(promise:)``, and running requests fail with `.poolClosed`.
    package func closeNow() {
        close()
        for connection in Array(open.values) {
            guard let call = connection.call else { continue }
            let delegate = call.delegate
            call.cancel()
            delegate?.upstreamFailed(.poolClosed)
        }
    }

    // MARK: - From connections

    func park(_ connection: UpstreamConnection) {
        guard !isClosed, idle.count < configuration.idleMax, addresses.contains(connection.address),
            connection.tls == configuration.tls
        else { return connection.idleExpired() }
        let now = wheel.now()
        connection.idleSinceNanoseconds = now.nanoseconds
        idle.append(connection)
        // One timer for all: set for the eldest at the time, it can only be early for who is eldest when it fires.
        guard !isIdleTimerSet else { return }
        isIdleTimerSet = true
        idleTimer = wheel.schedule(at: now.advanced(by: configuration.idleTimeout), target: self, kind: 0)
    }

    /// The connection closed or is about to. Called again for the same one, it does nothing.
    func connectionClosed(_ connection: UpstreamConnection, wasIdle: Bool) {
        if wasIdle, let index = idle.lastIndex(where: { $0 === connection }) { idle.remove(at: index) }
        open[ObjectIdentifier(connection)] = nil
        tellDrained()
    }

    func sendAgain(_ call: UpstreamCall) {
        sentAgainCount += 1
        metrics?.count(.upstreamStaleRetries)
        call.connection = nil
        call.wasSentAgain = true
        connect(call)
    }

    /// Tells of the failure in the loop's next turn, so that it never comes before `dispatch` has returned.
    func failSoon(_ call: UpstreamCall, _ failure: UpstreamFailure) {
        call.connection = nil
        eventLoop.assumeIsolated().execute { call.fail(failure) }
    }

    // MARK: - Connecting

    private func connect(_ call: UpstreamCall) {
        if isClosed { return failSoon(call, .poolClosed) }
        guard !addresses.isEmpty else { return failSoon(call, .noAddress) }
        guard open.count < configuration.connectionsMax else { return failSoon(call, .poolExhausted) }
        let address = addresses[nextAddress % addresses.count]
        let tls = configuration.tls
        let connection = UpstreamConnection(pool: self, address: address, tls: tls, call: call)
        let timeout = call.request.connectTimeout ?? configuration.connectTimeout
        let deadline = tls == nil ? nil : wheel.now().advanced(by: timeout)
        call.connection = connection
        open[ObjectIdentifier(connection)] = connection
        connectCount += 1
        metrics?.count(.upstreamConnects)
        let handler = NIOLoopBound(connection, eventLoop: eventLoop)
        var bootstrap = ClientBootstrap(group: eventLoop)
        if address.protocol != .unix { bootstrap = bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1) }
        bootstrap
            .connectTimeout(.nanoseconds(timeout.nanoseconds))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(tls.makeHandler()) }
                    try channel.pipeline.syncOperations.addHandler(handler.value)
                }
            }
            .connect(to: address)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success:
                    if let deadline {
                        connection.awaitHandshake(until: deadline, on: self.wheel)
                    } else {
                        connection.connected()
                    }
                case .failure(let error): self.connectFailed(connection, error)
                }
            }
    }

    func connectFailed(_ connection: UpstreamConnection, _ error: any Error) {
        connectionClosed(connection, wasIdle: false)
        guard let call = connection.connectFailed() else { return }
        call.connection = nil
        call.addressesTried += 1
        nextAddress = addresses.isEmpty ? 0 : (nextAddress + 1) % addresses.count
        if call.addressesTried < min(addresses.count, Self.addressesTriedMax) { return connect(call) }
        if case .some(.connectTimeout) = error as? ChannelError { return failSoon(call, .connectTimedOut) }
        if let reason = UpstreamTLSFailure(error) { return failSoon(call, .tlsFailed(reason)) }
        failSoon(call, .connectFailed)
    }

    // MARK: - Idle connections

    package func timerFired(_ kind: UInt8) {
        isIdleTimerSet = false
        let now = wheel.now()
        let limit = configuration.idleTimeout.nanoseconds
        // Parked in order of time and taken from the end: the eldest is always the first.
        let expired = idle.prefix { now.nanoseconds - $0.idleSinceNanoseconds >= limit }
        idle.removeFirst(expired.count)
        for connection in expired { connection.idleExpired() }
        guard let eldest = idle.first, !isIdleTimerSet else { return }
        isIdleTimerSet = true
        let deadline = MonotonicTime(nanoseconds: eldest.idleSinceNanoseconds + limit)
        idleTimer = wheel.schedule(at: deadline, target: self, kind: 0)
    }

    private func closeIdle(keeping count: Int) {
        let surplus = idle.prefix(max(0, idle.count - count))
        idle.removeFirst(surplus.count)
        for connection in surplus { connection.idleExpired() }
    }

    private func tellDrained() {
        guard isClosed, open.isEmpty, let drained else { return }
        self.drained = nil
        drained.succeed()
    }
}

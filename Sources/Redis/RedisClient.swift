import Domain
import NIOCore
import NIOPosix

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A Redis connection of one event loop: pipelined, with deadlines, reconnecting for ever until closed.
///
/// Every method must be called on that loop. Commands of one tick of the loop leave in one write. Completions run on
/// the loop, exactly once each, never before the call that took them returns. After ``start()`` the client lives until
/// ``close(deadline:completion:)``.
package final class RedisClient {
    package typealias Completion = (Result<RESPValue, RedisError>) -> Void

    /// What becomes of a command when there is no connection.
    package enum WhenDisconnected: Sendable {
        /// Fails with ``RedisError/notConnected``.
        case fail
        /// Waits for one until the deadline, then fails with ``RedisError/notConnected``. A refused login ends the wait.
        case wait
    }

    /// A command on its way: who wants the reply and, while it waits for a connection, its bytes.
    private struct Command {
        let completion: Completion
        var encoded: ByteBuffer?
    }

    /// Capacity above which the outgoing buffer is given back after a burst.
    private static let outgoingCapacityKept = 256 << 10

    package let eventLoop: any EventLoop
    /// Called when a connection is ready after another was lost, with the run id of the server now reached, before any
    /// command that waited is sent. A new run id means that Redis restarted or that another server took its place.
    package var onReconnect: ((_ runID: String) -> Void)?

    private let configuration: RedisConfiguration
    private var machine: RedisConnectionStateMachine<Command>
    private var channel: (any Channel)?
    private var outgoing = RESPCommandEncoder()
    private var connectFailureDescription: String?
    private var isFlushScheduled = false
    private var isTimerArmed = false
    private var closeCompletions: [() -> Void] = []
    /// Scripts that `SCRIPT LOAD` is being sent for, by hash; and what became of the last one that failed.
    private var scriptsLoading: Set<String> = []
    private var scriptFailures: [String: RedisError] = [:]

    package init(configuration: RedisConfiguration, eventLoop: any EventLoop) {
        self.configuration = configuration
        self.eventLoop = eventLoop
        machine = RedisConnectionStateMachine(
            limits: configuration.limits, handshake: Self.handshake(for: configuration))
    }

    package var isConnected: Bool { machine.isReady }
    /// Identifies the server process at the other end; nil while not connected.
    package var runID: String? { machine.isReady ? machine.runID : nil }
    /// Why there is no connection; nil where there is one or the first attempt is still under way.
    package var lastConnectFailure: RedisError? { machine.lastConnectFailure }
    /// The same in words that fit a log line, the URL with its password hidden; nil where there is a connection.
    package var lastConnectFailureDescription: String? {
        guard let failure = machine.lastConnectFailure else { return nil }
        if failure == .notConnected, let connectFailureDescription { return connectFailureDescription }
        return "\(configuration.url): \(failure)"
    }
    /// Commands sent and not answered yet, timed out ones included.
    package var pendingCount: Int { machine.pendingCount }

    /// Begins to connect. Call once.
    package func start() {
        eventLoop.preconditionInEventLoop()
        perform(machine.started())
    }

    /// Sends a command and reports its reply. An error reply is a failure; errors inside arrays are values.
    package func send(
        _ arguments: [RESPArgument], deadline: MonotonicTime, whenDisconnected: WhenDisconnected = .fail,
        completion: @escaping Completion
    ) {
        send(
            deadline: deadline, whenDisconnected: whenDisconnected, encode: { $0.encode(arguments) },
            completion: completion)
    }

    package func send(
        _ arguments: [RESPArgument], timeout: Duration, whenDisconnected: WhenDisconnected = .fail,
        completion: @escaping Completion
    ) {
        send(
            arguments, deadline: .now().advanced(by: timeout), whenDisconnected: whenDisconnected,
            completion: completion)
    }

    /// Sends the one command that `encode` writes straight into the outgoing bytes.
    ///
    /// - Parameter encode: `begin` once and as many arguments as announced. Must not call the client.
    package func send(
        deadline: MonotonicTime, whenDisconnected: WhenDisconnected = .fail,
        encode: (inout RESPCommandEncoder) -> Void, completion: @escaping Completion
    ) {
        eventLoop.preconditionInEventLoop()
        var command = Command(completion: completion)
        if !machine.isReady, whenDisconnected == .wait {
            var encoder = RESPCommandEncoder()
            encode(&encoder)
            guard encoder.isComplete else { return rejectIncomplete(completion) }
            command.encoded = encoder.buffer
        }
        let waitingBytes = whenDisconnected == .wait ? command.encoded?.readableBytes ?? 0 : nil
        switch machine.commandSubmitted(command, deadline: deadline, waitingBytes: waitingBytes) {
        case .write:
            let start = outgoing.buffer.writerIndex
            encode(&outgoing)
            guard outgoing.isComplete, outgoing.buffer.writerIndex > start else {
                outgoing.rollBack(to: start)
                _ = machine.commandWithdrawn()
                return rejectIncomplete(completion)
            }
            machine.commandEncoded(bytes: outgoing.buffer.writerIndex - start)
            scheduleFlush()
            armTimer()
        case .wait:
            armTimer()
        case .reject(let command, let error):
            complete(later: command.completion, with: error)
        }
    }

    /// Runs a script by its hash. A server that does not know it is given the source first, unseen by the caller.
    ///
    /// That repetition runs after commands which were sent meanwhile; a caller to whom order matters awaits the reply.
    package func evaluate(
        _ script: RedisScript, keys: [RESPArgument], args: [RESPArgument], deadline: MonotonicTime,
        whenDisconnected: WhenDisconnected = .fail, completion: @escaping Completion
    ) {
        let encode = { (encoder: inout RESPCommandEncoder) in
            encoder.begin(3 + keys.count + args.count)
            encoder.append("EVALSHA")
            encoder.append(script.sha1)
            encoder.append(keys.count)
            for key in keys { encoder.append(argument: key) }
            for argument in args { encoder.append(argument: argument) }
        }
        send(deadline: deadline, whenDisconnected: whenDisconnected, encode: encode) { result in
            guard case .failure(.server(code: "NOSCRIPT", _)) = result else { return completion(result) }
            self.load(script, deadline: deadline)
            self.send(deadline: deadline, whenDisconnected: whenDisconnected, encode: encode) { result in
                guard case .failure(.server(code: "NOSCRIPT", _)) = result else { return completion(result) }
                completion(self.scriptFailures[script.sha1].map(Result.failure) ?? result)
            }
        }
    }

    /// Refuses new commands, answers the pending ones until `deadline`, then closes. `completion` runs when the
    /// connection is gone.
    package func close(deadline: MonotonicTime, completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        switch machine.state {
        case .closed:
            eventLoop.assumeIsolated().execute(completion)
        case .draining, .closing:
            closeCompletions.append(completion)
        case .idle, .connecting, .handshaking, .ready, .disconnecting, .backingOff:
            closeCompletions.append(completion)
            perform(machine.closeRequested(deadline: deadline))
            armTimer()
        }
    }

    // MARK: Events of the channel

    func channelBecameActive(_ channel: any Channel) {
        self.channel = channel
        perform(machine.connected(now: .now()))
        armTimer()
    }

    func replyReceived(_ value: RESPValue) {
        switch machine.replyReceived(value) {
        case .complete(let command):
            command.completion(Self.result(of: value))
        case .completeLast(let command):
            command.completion(Self.result(of: value))
            perform([.closeChannel])
        case .dropLate:
            break
        case .perform(let actions):
            perform(actions)
        }
    }

    func protocolViolated(_ message: String) {
        perform(machine.protocolViolated(message))
    }

    func channelBecameInactive(_ channel: any Channel) {
        self.channel = nil
        discardOutgoing()
        perform(machine.channelClosed(now: .now(), jitter: .random(in: 0..<1)))
        armTimer()
    }

    // MARK: Actions

    private func perform(_ actions: [RedisConnectionStateMachine<Command>.Action]) {
        assert(machine.illegalEvents == 0, "an event came that is illegal in state \(machine.state)")
        for action in actions {
            switch action {
            case .connect:
                connect()
            case .sendHandshake(let steps):
                for step in steps { encodeHandshake(step) }
                flush()
            case .fail(let command, let error):
                command.completion(.failure(error))
            case .announceReady(let runID, let isReconnect):
                scriptsLoading = []
                connectFailureDescription = nil
                if isReconnect { onReconnect?(runID) }
                // The callback may have closed the client.
                if machine.isReady { writeWaiting() }
            case .closeChannel:
                discardOutgoing()
                channel?.close(promise: nil)
            case .announceClosed:
                let completions = closeCompletions
                closeCompletions = []
                for completion in completions { completion() }
            }
        }
    }

    private func connect() {
        let limits = configuration.limits
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        var bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(.nanoseconds(limits.connectTimeout.nanoseconds))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = RedisChannelHandler(client: bound.value, limits: limits)
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
            }
        let connecting: EventLoopFuture<any Channel>
        switch configuration.url.address {
        case .tcp(let host, let port):
            // Keep-alive finds out that an idle peer has vanished; deadlines do for a busy one.
            bootstrap =
                bootstrap
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .channelOption(.socketOption(.so_keepalive), value: 1)
            connecting = bootstrap.connect(host: host, port: port)
        case .unix(let path):
            connecting = bootstrap.connect(unixDomainSocketPath: path)
        }
        // Success is told by `channelBecameActive`, which alone is certain to come before the first bytes.
        connecting.assumeIsolated().whenFailure { error in
            guard self.channel == nil else { return }
            self.connectFailureDescription =
                "cannot connect to \(self.configuration.url): \(Self.reason(of: error))"
            self.perform(self.machine.connectFailed(.notConnected, now: .now(), jitter: .random(in: 0..<1)))
            self.armTimer()
        }
    }

    /// The system's words where NIO wraps them: `Connection refused`.
    private static func reason(of error: any Error) -> String {
        var error = error
        if let connectionError = error as? NIOConnectionError {
            if let resolution = connectionError.dnsAAAAError ?? connectionError.dnsAError {
                return "the name does not resolve (\(resolution))"
            }
            error = connectionError.connectionErrors.first?.error ?? error
        }
        if case ChannelError.connectTimeout = error { return "no answer in time" }
        guard let ioError = error as? IOError else { return "\(error)" }
        return String(cString: strerror(ioError.errnoCode))
    }

    private func encodeHandshake(_ step: RedisHandshakeStep) {
        let url = configuration.url
        switch step {
        case .authenticate:
            let credentials = [url.user, url.password].compactMap { $0.map(RESPArgument.string) }
            outgoing.encode(["AUTH"] + credentials)
        case .identify:
            outgoing.encode(["INFO", "server"])
        case .select:
            outgoing.encode(["SELECT", .integer(Int64(url.database))])
        case .setName:
            outgoing.encode(["CLIENT", "SETNAME", .string(configuration.clientName)])
        }
    }

    private static func handshake(for configuration: RedisConfiguration) -> [RedisHandshakeStep] {
        var steps: [RedisHandshakeStep] = []
        if configuration.url.password != nil { steps.append(.authenticate) }
        steps.append(.identify)
        if configuration.url.database != 0 { steps.append(.select) }
        if !configuration.clientName.isEmpty { steps.append(.setName) }
        return steps
    }

    private func writeWaiting() {
        let released = machine.waitingReleased()
        for command in released.write {
            guard var encoded = command.encoded else { continue }
            outgoing.buffer.writeBuffer(&encoded)
        }
        scheduleFlush()
        armTimer()
        perform(released.fail)
    }

    /// Once for all that this tick of the loop submits: NIO runs what `execute` takes after the I/O events at hand and
    /// before it waits for new ones.
    private func scheduleFlush() {
        guard !isFlushScheduled, outgoing.buffer.readableBytes > 0 else { return }
        isFlushScheduled = true
        eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    private func flush() {
        guard let channel, outgoing.buffer.readableBytes > 0 else { return }
        channel.writeAndFlush(outgoing.buffer, promise: nil)
        machine.flushed()
        discardOutgoing()
    }

    /// Reuses the storage where the socket took all at once (the buffer is ours alone again), and not for ever what a
    /// burst needed.
    private func discardOutgoing() {
        if outgoing.buffer.capacity > Self.outgoingCapacityKept {
            outgoing.buffer = ByteBuffer()
        } else {
            outgoing.buffer.clear()
        }
    }

    /// One timer for all deadlines, in steps of the tick while there is something to wait for.
    private func armTimer() {
        guard !isTimerArmed, machine.needsTimer else { return }
        isTimerArmed = true
        let tick = TimeAmount.nanoseconds(configuration.limits.tick.nanoseconds)
        eventLoop.assumeIsolated().scheduleTask(in: tick) {
            self.isTimerArmed = false
            self.perform(self.machine.timerFired(now: .now()))
            self.armTimer()
        }
    }

    // MARK: Replies

    private static func result(of value: RESPValue) -> Result<RESPValue, RedisError> {
        if case .error(let error) = value { .failure(RedisError(error)) } else { .success(value) }
    }

    /// A failure that is known at once is told in the next round: callers are not entered from their own call.
    private func complete(later completion: @escaping Completion, with error: RedisError) {
        eventLoop.assumeIsolated().execute { completion(.failure(error)) }
    }

    private func rejectIncomplete(_ completion: @escaping Completion) {
        assertionFailure("a command was encoded with fewer or more arguments than announced")
        eventLoop.assumeIsolated().execute {
            completion(.failure(.server(code: "ERR", message: "the command was not encoded to its end")))
        }
    }

    /// Sends the source once however many commands found it missing; they follow on the same connection, so the server
    /// knows the script when it reads them.
    private func load(_ script: RedisScript, deadline: MonotonicTime) {
        guard scriptsLoading.insert(script.sha1).inserted else { return }
        send(["SCRIPT", "LOAD", .string(script.source)], deadline: deadline) { result in
            self.scriptsLoading.remove(script.sha1)
            if case .failure(let error) = result {
                self.scriptFailures[script.sha1] = error
            } else {
                self.scriptFailures[script.sha1] = nil
            }
        }
    }
}

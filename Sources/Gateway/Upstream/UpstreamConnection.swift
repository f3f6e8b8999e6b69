import Domain
import NIOCore
import NIOSSL
import NIOTLS

/// The shell of one connection to a node: performs what ``UpstreamConnectionStateMachine`` decides.
///
/// Ownership: while open it belongs to its pool (idle or not); while a call runs, call and connection know each other.
/// Back-pressure: the call toggles auto-read; nothing is queued here. Close: by whoever ends the call early (at once),
/// by the node (told by `channelInactive`), or by the pool when idle. The delegate is called synchronously, so each
/// call-out may cancel this call and even start the next one here: after each, the call is compared.
///
/// Loop-bound: not Sendable.
final class UpstreamConnection: ChannelInboundHandler, TimerTarget {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let address: SocketAddress
    /// What it was made under; nil where it is plain.
    let tls: NodeTLS?
    /// When it was parked last, for the pool's idle timeout.
    var idleSinceNanoseconds: Int64 = 0

    private let pool: UpstreamPool
    private var machine = UpstreamConnectionStateMachine()
    private var parser = UpstreamResponseParser()
    private var context: ChannelHandlerContext?
    private(set) var call: UpstreamCall?
    private var sawError = false
    /// Whether this read cycle delivered something that a flush may wait for.
    private var hasRelayed = false
    private var handshake = HandshakeState.none

    /// The TLS handshake between the socket's connecting and the connection's first request.
    private enum HandshakeState {
        case none
        /// Under way; the timer ends it.
        case awaited(TimerToken, TimerWheel)
        case over
    }

    init(pool: UpstreamPool, address: SocketAddress, tls: NodeTLS?, call: UpstreamCall) {
        self.pool = pool
        self.address = address
        self.tls = tls
        self.call = call
    }

    // MARK: - From the pool and the call

    /// The socket is connected: sends what waits for it. A call that was cancelled meanwhile has closed the channel.
    func connected() {
        guard let call else { return close() }
        guard perform(machine.connected()) else { return }
        send(call)
    }

    /// The socket of a TLS connection is connected: its handshake has the rest of the time for connecting.
    func awaitHandshake(until deadline: MonotonicTime, on wheel: TimerWheel) {
        guard call != nil else { return close() }
        guard case .none = handshake else { return }
        handshake = .awaited(wheel.schedule(at: deadline, target: self, kind: 0), wheel)
    }

    /// - Returns: Whether it was under way until now.
    @discardableResult
    private func endHandshake() -> Bool {
        defer { handshake = .over }
        guard tls != nil else { return false }
        switch handshake {
        case .none: return true
        case .awaited(let timer, let wheel):
            wheel.cancel(timer)
            return true
        case .over: return false
        }
    }

    private func handshakeFailed(_ error: any Error) {
        pool.connectFailed(self, error)
        context?.close(promise: nil)
    }

    package func timerFired(_ kind: UInt8) {
        guard endHandshake() else { return }
        handshakeFailed(ChannelError.connectTimeout(.zero))
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .some(.handshakeCompleted) = event as? TLSUserEvent, endHandshake() { return connected() }
        context.fireUserInboundEventTriggered(event)
    }

    /// - Returns: The call that waited, nil if it was cancelled.
    func connectFailed() -> UpstreamCall? {
        _ = machine.connectionClosed(endsBody: false)
        defer { call = nil }
        return call
    }

    /// Writes the request and waits for the answer. The connection must be idle.
    func send(_ call: UpstreamCall) {
        guard let context, perform(machine.requestSent()) else {
            self.call = nil
            close()
            return pool.failSoon(call, .closedBeforeResponse)
        }
        self.call = call
        call.connection = self
        parser.reset()
        if call.isReadingPaused { setAutoRead(false) }
        if call.request.body.readableBytes > 0 {
            // Two buffers, one writev.
            context.write(wrapOutboundOut(call.request.head), promise: nil)
            context.writeAndFlush(wrapOutboundOut(call.request.body), promise: nil)
        } else {
            context.writeAndFlush(wrapOutboundOut(call.request.head), promise: nil)
        }
        guard !call.hasStarted else { return }
        call.hasStarted = true
        call.delegate?.upstreamStarted()
    }

    func callCancelled() {
        call = nil
        perform(machine.callCancelled())
    }

    func idleExpired() {
        perform(machine.idleExpired())
    }

    func setAutoRead(_ isOn: Bool) {
        // An error means that the channel is closing; there is nothing to read then.
        try? context?.channel.syncOptions?.setOption(.autoRead, value: isOn)
    }

    // MARK: - From the channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch machine.bytesArrived() {
        case .releaseRequest: call?.releaseRequest()
        case let other: guard perform(other) else { return }
        }
        guard let call else { return }
        parser.feed(unwrapInboundIn(data))
        do throws(UpstreamFailure) {
            while let event = try parser.next() {
                switch event {
                case .body(let bytes):
                    hasRelayed = true
                    call.delegate?.upstreamBody(bytes)
                case .head(let head):
                    hasRelayed = true
                    let written = isRequestWritten(context)
                    guard perform(machine.headReceived(keepAlive: head.keepAlive, requestWritten: written)) else {
                        return
                    }
                    call.delegate?.upstreamHead(head)
                case .end:
                    return end(call)
                }
                guard self.call === call else { return }
            }
        } catch {
            self.call = nil
            perform(machine.responseRejected())
            call.fail(error)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard hasRelayed else { return }
        hasRelayed = false
        call?.delegate?.upstreamReadComplete()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Reset, broken pipe and the like; `channelInactive` follows and knows what it means for the call.
        sawError = true
        if endHandshake() { return handshakeFailed(error) }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if endHandshake() { return handshakeFailed(NIOSSLError.uncleanShutdown) }
        let call = call
        self.call = nil
        let endsBody = !sawError && parser.finish()
        let action = machine.connectionClosed(endsBody: endsBody)
        pool.connectionClosed(self, wasIdle: action == .forget)
        guard let call else { return }
        switch action {
        case .sendAgain: pool.sendAgain(call)
        case .end:
            let delegate = call.delegate
            call.finish()
            delegate?.upstreamEnd()
        case .fail(let failure): call.fail(failure)
        case .none, .releaseRequest, .park, .close, .forget, .illegal: call.fail(.closedMidResponse)
        }
    }

    // MARK: - Steps

    /// Parks or closes before it tells, so that a request which the delegate starts now finds this connection.
    private func end(_ call: UpstreamCall) {
        let action = machine.responseEnded(excess: parser.hasExcess)
        let delegate = call.delegate
        self.call = nil
        hasRelayed = false
        if call.isReadingPaused, action == .park { setAutoRead(true) }
        call.finish()
        parser.reset()
        perform(action)
        delegate?.upstreamEnd()
    }

    /// - Returns: False where the connection has to be left alone from here on.
    @discardableResult
    private func perform(_ action: UpstreamConnectionStateMachine.Action) -> Bool {
        switch action {
        case .none: return true
        case .park:
            pool.park(self)
            return true
        case .illegal:
            pool.metrics?.count(.illegalEvents)
            assertionFailure("event out of order on an upstream connection")
            close()
            return false
        case .close, .forget, .releaseRequest, .sendAgain, .end, .fail:
            close()
            return false
        }
    }

    private func close() {
        endHandshake()
        pool.connectionClosed(self, wasIdle: false)
        context?.close(promise: nil)
    }

    /// Whether the socket has taken every byte of the request.
    private func isRequestWritten(_ context: ChannelHandlerContext) -> Bool {
        ((try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0) == 0
    }
}

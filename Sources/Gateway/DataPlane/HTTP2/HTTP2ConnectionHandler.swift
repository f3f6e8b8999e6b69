import Domain
import NIOCore
import NIOHTTP2

/// One client connection speaking HTTP/2: knows its streams, closes when idle, and says goodbye when the gateway drains.
///
/// Ownership: the loop's connection table holds it while it is open; its ``HTTP2StreamHandler``s hold the requests.
///
/// Close: without a stream for `timeouts.idle` (`timeouts.header` before the first), at a connection error, and after the
/// last stream where the gateway drains. A GOAWAY goes first. At a drain there are two, since streams may be on their way:
/// one that lets them in, with a PING; once that is answered, one with the last stream that is served, so that the client
/// knows what it may send again elsewhere.
final class HTTP2ConnectionHandler: ChannelInboundHandler, TimerTarget, ClientConnection {
    typealias InboundIn = HTTP2Frame
    typealias OutboundOut = HTTP2Frame

    private enum State {
        /// Exits: draining, closed.
        case open
        /// Closes when no stream is left. Exits: closed.
        case draining
        case closed
    }

    /// Tells the drain's PING from others; the bits mean nothing.
    private static let drainPing = HTTP2PingData(withInteger: 0x746F_6C6C_6761_7465)

    let loop: LoopContext
    let limits: HTTP2Limits
    let clientAddress: String
    private var context: ChannelHandlerContext?
    private var state = State.open
    private var streams: [ObjectIdentifier: HTTP2StreamHandler] = [:]
    private var lastStreamID = HTTP2StreamID.rootStream
    private var timer: TimerToken?

    init(loop: LoopContext, limits: HTTP2Limits, clientAddress: String) {
        self.loop = loop
        self.limits = limits
        self.clientAddress = clientAddress
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loop.register(self)
        if loop.isDraining { state = .draining }
        armIdle(loop.snapshot.timeouts.header)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        shutDown()
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        shutDown()
        context.fireChannelInactive()
    }

    /// Frames of the connection itself have been acted upon by the handler in front; here only a drain's PING counts.
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .ping(Self.drainPing, ack: true) = unwrapInboundIn(data).payload, case .draining = state,
            !streams.isEmpty
        else { return }
        writeGoAway(lastStreamID: lastStreamID)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // One stream's fault must not take the others along; that stream has been reset.
        guard !Self.isOfOneStream(error) else { return }
        // More streams than were granted: the GOAWAY is written, and what runs may end.
        if error is NIOHTTP2Errors.MaxStreamsViolation, !streams.isEmpty {
            if case .open = state { state = .draining }
            return
        }
        context.close(promise: nil)
    }

    private func shutDown() {
        if case .closed = state { return }
        state = .closed
        disarm()
        loop.unregister(self)
    }

    private static func isOfOneStream(_ error: any Error) -> Bool {
        switch error {
        case is NIOHTTP2Errors.StreamError, is NIOHTTP2Errors.StreamClosed,
            is NIOHTTP2Errors.MissingPseudoHeader, is NIOHTTP2Errors.DuplicatePseudoHeader,
            is NIOHTTP2Errors.PseudoHeaderAfterRegularHeader, is NIOHTTP2Errors.UnknownPseudoHeader,
            is NIOHTTP2Errors.UnsupportedPseudoHeader, is NIOHTTP2Errors.InvalidPseudoHeaders,
            is NIOHTTP2Errors.InvalidPseudoHeaderValue, is NIOHTTP2Errors.EmptyPathHeader,
            is NIOHTTP2Errors.InvalidHTTP2HeaderFieldName, is NIOHTTP2Errors.InvalidHTTP2HeaderFieldValue,
            is NIOHTTP2Errors.ForbiddenHeaderField, is NIOHTTP2Errors.TrailersWithoutEndStream,
            is NIOHTTP2Errors.ContentLengthViolated, is NIOHTTP2Errors.ContentLengthHeadersMismatch,
            is NIOHTTP2Errors.ContentLengthHeaderNegative, is NIOHTTP2Errors.ContentLengthHeaderMalformedValue:
            true
        default: false
        }
    }

    // MARK: Streams

    func streamOpened(_ stream: HTTP2StreamHandler, id: HTTP2StreamID) {
        streams[ObjectIdentifier(stream)] = stream
        lastStreamID = max(lastStreamID, id)
        disarm()
    }

    func streamClosed(_ stream: HTTP2StreamHandler) {
        guard streams.removeValue(forKey: ObjectIdentifier(stream)) != nil, streams.isEmpty else { return }
        switch state {
        case .open: armIdle(loop.snapshot.timeouts.idle)
        // Not at once: the stream's last frame may be among those being written now.
        case .draining:
            context?.eventLoop.assumeIsolated().execute { [weak self] in
                guard let self, self.streams.isEmpty else { return }
                self.context?.close(promise: nil)
            }
        case .closed: break
        }
    }

    // MARK: Timer, drain

    func drain() {
        guard case .open = state else { return }
        state = .draining
        guard !streams.isEmpty else { return sayGoodbye() }
        writeGoAway(lastStreamID: .maxID)
        context?.writeAndFlush(
            wrapOutboundOut(HTTP2Frame(streamID: .rootStream, payload: .ping(Self.drainPing, ack: false))),
            promise: nil)
    }

    func drainExpired() {
        for stream in Array(streams.values) { stream.drainExpired() }
        sayGoodbye()
    }

    func timerFired(_ kind: UInt8) {
        timer = nil
        guard streams.isEmpty else { return }
        sayGoodbye()
    }

    private func sayGoodbye() {
        if case .closed = state { return }
        writeGoAway(lastStreamID: lastStreamID)
        context?.close(promise: nil)
    }

    private func writeGoAway(lastStreamID: HTTP2StreamID) {
        guard let context else { return }
        let frame = HTTP2Frame(
            streamID: .rootStream,
            payload: .goAway(lastStreamID: lastStreamID, errorCode: .noError, opaqueData: nil))
        context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
    }

    private func armIdle(_ nanoseconds: Int64) {
        disarm()
        timer = loop.wheel.schedule(
            at: MonotonicTime.now().advanced(byNanoseconds: nanoseconds), target: self, kind: 0)
    }

    private func disarm() {
        if let timer { loop.wheel.cancel(timer) }
        timer = nil
    }
}

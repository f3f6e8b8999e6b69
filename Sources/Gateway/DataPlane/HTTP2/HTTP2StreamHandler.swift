import Domain
import NIOCore
import NIOHTTP1
import NIOHTTP2

/// One HTTP/2 stream: one request, one ``Exchange``.
///
/// The frame decoder in front has checked the fields (no `Connection`, lower-case names, pseudo fields whole and first)
/// and that the body is as long as `content-length` says; `:authority` has become Host.
///
/// Back-pressure: a body that waits for memory stops the stream's reads, and so the client's window. The node is not read
/// while more waits for this client than the stream's high-water mark. Close: a reset stream or a closed connection
/// cancels the exchange in the same turn of the loop. A client that does not take its answer has `timeouts.idle` for it.
final class HTTP2StreamHandler: ChannelInboundHandler, TimerTarget {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private enum State {
        /// Exits: serving, closed.
        case idle
        /// Exits: answered, closed.
        case serving
        /// What the client still sends is dropped. Exits: closed.
        case answered
        case closed
    }

    private let connection: HTTP2ConnectionHandler
    private let writer: HTTP2ResponseWriter
    private var context: ChannelHandlerContext?
    private var state = State.idle
    private var exchange: Exchange?
    private var readingHolds = 0
    private var timer: TimerToken?
    /// The client has sent all of its request.
    private(set) var isRequestWhole = false

    /// - Parameter frames: The codec's context: what is written on it is frames.
    init(connection: HTTP2ConnectionHandler, frames: ChannelHandlerContext) {
        self.connection = connection
        writer = HTTP2ResponseWriter(frames: frames, clock: connection.loop.dateClock)
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        writer.handler = self
    }

    func channelActive(context: ChannelHandlerContext) {
        if let id = try? context.channel.syncOptions?.getOption(HTTP2StreamChannelOptions.streamID) {
            connection.streamOpened(self, id: id)
        }
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        shutDown()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        shutDown()
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (unwrapInboundIn(data), state) {
        case (.head(let head), .idle): begin(head)
        case (.body(let bytes), .serving): exchange?.bodyReceived(bytes)
        case (.end, _):
            isRequestWhole = true
            if case .serving = state { exchange?.bodyCompleted() }
        default: break
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        exchange?.downstreamWritabilityChanged(isWritable: context.channel.isWritable)
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset, of which `channelInactive` follows; or a head that the codec could make no request of.
        guard case .idle = state, context.channel.isActive else { return }
        refuseUnreadable(
            Failure(
                .malformedRequest,
                "The request is not well-formed HTTP/2. It needs :method, :scheme, :authority and :path, each once."))
    }

    private func shutDown() {
        if case .closed = state { return }
        state = .closed
        if let timer { connection.loop.wheel.cancel(timer) }
        timer = nil
        let ending = exchange
        exchange = nil
        ending?.clientClosed()
        connection.streamClosed(self)
    }

    // MARK: Request

    private func begin(_ head: HTTPRequestHead) {
        let bytes =
            head.uri.utf8.count
            + head.headers.reduce(0) {
                $0 + $1.name.utf8.count + $1.value.utf8.count + HTTP2Limits.fieldOverheadBytes
            }
        guard bytes <= connection.limits.headerBytes else {
            return refuseUnreadable(
                Failure(
                    .headersTooLarge,
                    "The request's headers are larger than \(connection.limits.headerBytes) bytes. Send fewer or shorter ones."
                ))
        }
        state = .serving
        let incoming = IncomingHead(head)
        writer.isBodiless = head.method == .HEAD
        let address = connection.loop.clientAddress(of: incoming, peer: connection.clientAddress)
        let exchange = Exchange(loop: connection.loop, writer: writer, clientAddress: address)
        self.exchange = exchange
        exchange.start(incoming)
    }

    private func refuseUnreadable(_ failure: Failure) {
        state = .serving
        let exchange = Exchange(
            loop: connection.loop, writer: writer, clientAddress: connection.clientAddress)
        self.exchange = exchange
        exchange.refuseUnreadable(failure)
    }

    /// The answer's last byte is written, or waits for the client's window.
    func answerEnded() {
        exchange = nil
        // Most streams have closed by now, with the answer's last frame.
        guard case .serving = state else { return }
        state = .answered
        let loop = connection.loop
        timer = loop.wheel.schedule(
            at: MonotonicTime.now().advanced(byNanoseconds: loop.snapshot.timeouts.idle), target: self, kind: 0)
    }

    func timerFired(_ kind: UInt8) {
        timer = nil
        context?.close(promise: nil)
    }

    func drainExpired() {
        exchange?.drainExpired()
    }

    /// Counted, as for HTTP/1.1.
    func setReading(_ isReading: Bool) {
        readingHolds += isReading ? -1 : 1
        guard let context, context.channel.isActive, readingHolds == (isReading ? 0 : 1) else { return }
        try? context.channel.syncOptions?.setOption(.autoRead, value: isReading)
        if isReading { context.channel.read() }
    }
}

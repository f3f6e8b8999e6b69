import Domain
import NIOCore
import NIOHTTP1

/// One client connection speaking HTTP/1.1: requests in order, one answered at a time.
///
/// Ownership: holds the connection's ``Exchange`` in flight and, behind it, the parts of at most
/// ``pipelinedRequestsMax`` requests that the client sent without waiting. The decoder in front refuses malformed and
/// smuggled framing; what passes it has one unambiguous length.
///
/// Back-pressure: reads go on while a request runs (so that a client that leaves is noticed at once) and stop only
/// while a body waits for memory or the pipelined parts pass ``pipelinedBytesMax``.
///
/// Close: a closed or half-closed client cancels its exchange. After the connection's last answer only its sending half
/// closes, when all is written; what the client still sends is read and dropped, at most ``discardedBytesMax`` or for
/// ``discardedNanoseconds``.
package final class DownstreamHandler: ChannelInboundHandler, TimerTarget, ClientConnection {
    package typealias InboundIn = HTTPServerRequestPart
    package typealias OutboundOut = ByteBuffer

    static let pipelinedRequestsMax = 8
    static let pipelinedBytesMax = 64 * 1024
    static let discardedBytesMax = 64 * 1024
    static let discardedNanoseconds: Int64 = 1_000_000_000

    private enum State {
        /// Between requests. Exits: serving, closed.
        case idle
        /// A request is received or answered. Exits: idle, discarding, closed.
        case serving
        /// A request without a body is answered before the decoder has said that it ended. Exits: idle, discarding,
        /// closed.
        case ending
        /// The last answer is written or on its way; what the client still sends is dropped. Exits: closed.
        case discarding(bytes: Int)
        case closed
    }

    private enum Timer: UInt8 {
        case header, idle, discard
    }

    private let loop: LoopContext
    private var context: ChannelHandlerContext!
    private var writer: HTTP1ResponseWriter!
    private var state = State.idle
    private var exchange: Exchange?
    /// The connection's other end, unless the PROXY protocol named another.
    private var clientAddress: String
    private let isAddressGiven: Bool
    /// The running request's last part has been read.
    private var isRequestWhole = false
    private var timer: TimerToken?
    private var timerKind = Timer.header
    /// Bytes of the next head have come.
    private var isHeadBegun = false
    /// This turn of reading brought a part: what else it brought is no head that dawdles.
    private var hasReadPart = false

    private var waiting = CircularBuffer<HTTPServerRequestPart>()
    private var waitingRequests = 0
    private var waitingBytes = 0
    /// No further request of this connection is read: it sent too many at once, or the gateway drains.
    private var isLastRequest = false
    /// The decoder gave up on what follows the running request.
    private var poison: Failure?
    private var readingHolds = 0

    /// - Parameter clientAddress: What the PROXY protocol said; nil takes the connection's other end.
    package init(loop: LoopContext, clientAddress: String? = nil) {
        self.loop = loop
        self.clientAddress = clientAddress ?? ""
        isAddressGiven = clientAddress != nil
    }

    // MARK: Channel

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        writer = HTTP1ResponseWriter(handler: self, context: context, clock: loop.dateClock)
        if context.channel.isActive { connected() }
    }

    package func channelActive(context: ChannelHandlerContext) {
        connected()
        context.fireChannelActive()
    }

    private func connected() {
        guard timer == nil, case .idle = state else { return }
        if !isAddressGiven { clientAddress = context.remoteAddress?.ipAddress ?? "" }
        loop.register(self)
        if loop.isDraining { isLastRequest = true }
        arm(.header, nanoseconds: loop.snapshot.timeouts.header)
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        hasReadPart = true
        switch state {
        case .closed: return
        case .discarding: return discard(part)
        case .ending: return endUnread(part)
        case .idle: begin(part)
        case .serving:
            if waiting.isEmpty, !isRequestWhole { deliver(part) } else { enqueue(part) }
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        let wasPart = hasReadPart
        hasReadPart = false
        if case .idle = state, !wasPart {
            isHeadBegun = true
            // Bytes came but no whole head: from here its sender has the header timeout, not the idle one.
            if timerKind == .idle { arm(.header, nanoseconds: loop.snapshot.timeouts.header) }
        }
        context.fireChannelReadComplete()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        exchange?.downstreamWritabilityChanged(isWritable: context.channel.isWritable)
        context.fireChannelWritabilityChanged()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        shutDown()
        context.fireChannelInactive()
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        shutDown()
        self.context = nil
        writer = nil
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let parserError = error as? HTTPParserError else {
            return context.close(promise: nil)
        }
        let failure =
            parserError == .headerOverflow
            ? Failure(
                .headersTooLarge,
                "The request's headers are too many, or larger than \(loop.snapshot.limits.headerBytes) bytes. Send fewer or shorter ones."
            )
            : Failure(
                .malformedRequest,
                "The request is not well-formed HTTP/1.1. Check its request line, header fields and length.")
        switch state {
        case .idle: refuseUnreadable(failure)
        case .serving where !isRequestWhole:
            isLastRequest = true
            exchange?.bodyFailed(failure)
        case .serving: poison = failure
        case .ending, .discarding, .closed: context.close(promise: nil)
        }
    }

    private func shutDown() {
        if case .closed = state { return }
        state = .closed
        disarm()
        waiting.removeAll()
        loop.unregister(self)
        let ending = exchange
        exchange = nil
        ending?.clientClosed()
    }

    // MARK: Requests

    private func begin(_ part: HTTPServerRequestPart) {
        // Only a head can come first: the decoder guarantees the order of the parts.
        guard case .head(let head) = part else { return }
        disarm()
        state = .serving
        isRequestWhole = false
        isHeadBegun = false
        let incoming = IncomingHead(head)
        let closes =
            !head.isKeepAlive || incoming.isUpgrade || loop.isDraining || (isLastRequest && waitingRequests == 0)
        writer.reset(isHTTP10: head.version.minor == 0, closes: closes, isHEAD: head.method == .HEAD)
        let exchange = Exchange(
            loop: loop, writer: writer, clientAddress: loop.clientAddress(of: incoming, peer: clientAddress))
        self.exchange = exchange
        exchange.start(incoming)
    }

    private func deliver(_ part: HTTPServerRequestPart) {
        switch part {
        case .head: break
        case .body(let bytes): exchange?.bodyReceived(bytes)
        case .end:
            isRequestWhole = true
            exchange?.bodyCompleted()
        }
    }

    /// Keeps what the client sent ahead, within bounds.
    private func enqueue(_ part: HTTPServerRequestPart) {
        guard !isLastRequest else { return }
        switch part {
        case .head:
            guard waitingRequests < Self.pipelinedRequestsMax else {
                isLastRequest = true
                return
            }
            waitingRequests += 1
        case .body(let bytes):
            if waitingBytes <= Self.pipelinedBytesMax, waitingBytes + bytes.readableBytes > Self.pipelinedBytesMax {
                setReading(false)
            }
            waitingBytes += bytes.readableBytes
        case .end: break
        }
        waiting.append(part)
    }

    /// The writer has sent an answer's last byte.
    func answerEnded(closes: Bool) {
        exchange = nil
        guard case .serving = state else { return }
        if closes { return endOutput() }
        guard isRequestWhole else {
            state = .ending
            return arm(.discard, nanoseconds: Self.discardedNanoseconds)
        }
        state = .idle
        serveNext()
    }

    private func serveNext() {
        while case .idle = state, let part = takeWaiting() { begin(part) }
        while case .serving = state, !isRequestWhole, let part = takeWaiting() { deliver(part) }
        guard case .idle = state else { return }
        if let poison { return refuseUnreadable(poison) }
        if isLastRequest { return endOutput() }
        arm(.idle, nanoseconds: loop.snapshot.timeouts.idle)
    }

    /// Nothing more will be written: tells the client when the last of it is out, drops what it still sends, and closes
    /// when it has closed. Closing at once would lose what waits to be written, and unread bytes would reset the
    /// connection and take the answer with it.
    private func endOutput() {
        state = .discarding(bytes: 0)
        waiting.removeAll()
        // A client that does not take its answer has the idle timeout for it.
        arm(.discard, nanoseconds: loop.snapshot.timeouts.idle)
        context.channel.close(mode: .output).assumeIsolated().whenComplete { [weak self] _ in
            guard let self, case .discarding = self.state else { return }
            self.arm(.discard, nanoseconds: Self.discardedNanoseconds)
        }
    }

    /// Closes a connection that waits for its next request: at once, unless some of its last answer is unwritten.
    private func closeIdle() {
        let unwritten = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
        if unwritten == 0 { context.close(promise: nil) } else { endOutput() }
    }

    private func takeWaiting() -> HTTPServerRequestPart? {
        guard let part = waiting.popFirst() else { return nil }
        switch part {
        case .head: waitingRequests -= 1
        case .body(let bytes):
            let before = waitingBytes
            waitingBytes -= bytes.readableBytes
            if before > Self.pipelinedBytesMax, waitingBytes <= Self.pipelinedBytesMax { setReading(true) }
        case .end: break
        }
        return part
    }

    /// Answers what the decoder could not read, and ends the connection.
    private func refuseUnreadable(_ failure: Failure) {
        poison = nil
        disarm()
        state = .serving
        isRequestWhole = false
        writer.reset(isHTTP10: false, closes: true)
        let exchange = Exchange(loop: loop, writer: writer, clientAddress: clientAddress)
        self.exchange = exchange
        exchange.refuseUnreadable(failure)
    }

    private func endUnread(_ part: HTTPServerRequestPart) {
        guard case .end = part else { return endOutput() }
        disarm()
        state = .idle
        serveNext()
    }

    private func discard(_ part: HTTPServerRequestPart) {
        guard case .discarding(let dropped) = state else { return }
        // Whatever comes, the answer may still wait to be written: the timer closes, or the client.
        guard case .body(let bytes) = part else { return }
        let total = dropped + bytes.readableBytes
        state = .discarding(bytes: total)
        if total > Self.discardedBytesMax { context.close(promise: nil) }
    }

    // MARK: Reading, timers, drain

    /// Counted: a body that waits for memory and a full pipeline may both hold the reads.
    func setReading(_ isReading: Bool) {
        readingHolds += isReading ? -1 : 1
        guard case .closed = state else {
            if readingHolds == (isReading ? 0 : 1) {
                context.channel.setOption(.autoRead, value: isReading).whenFailure { _ in }
            }
            return
        }
    }

    /// The gateway stops: idle connections close now, others after the answer that they wait for.
    package func drain() {
        isLastRequest = true
        switch state {
        case .idle: closeIdle()
        case .serving: writer.closeAfterAnswer()
        case .discarding, .closed: break
        case .ending: context.close(promise: nil)
        }
    }

    /// The drain time is over.
    package func drainExpired() {
        exchange?.drainExpired()
        if case .closed = state { return }
        context.close(promise: nil)
    }

    package func timerFired(_ kind: UInt8) {
        timer = nil
        guard let kind = Timer(rawValue: kind) else { return }
        switch (kind, state) {
        case (.idle, .idle): closeIdle()
        // A client that connected ahead of need: an answer to nothing would meet its next request.
        case (.header, .idle) where !isHeadBegun: context.close(promise: nil)
        case (.header, .idle):
            refuseUnreadable(
                Failure(.requestTimeout, "The request's headers did not arrive in time. Send the whole head at once."))
        case (.discard, _): context.close(promise: nil)
        default: break
        }
    }

    private func arm(_ kind: Timer, nanoseconds: Int64) {
        disarm()
        timerKind = kind
        timer = loop.wheel.schedule(
            at: MonotonicTime.now().advanced(byNanoseconds: nanoseconds), target: self, kind: kind.rawValue)
    }

    private func disarm() {
        if let timer { loop.wheel.cancel(timer) }
        timer = nil
    }
}

import Domain
import NIOCore
import NIOHTTP1

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A request that has arrived whole.
struct NodeHTTPRequest {
    var head: HTTPRequestHead
    var body: ByteBuffer

    var path: String { String(head.uri.prefix { $0 != "?" }) }
    /// HTTP/1.0 knows no chunks.
    var takesChunks: Bool { head.version == .http1_1 }
    var saysClose: Bool { !head.isKeepAlive }
}

/// One client connection: gathers requests, answers them one after the other, and tells the core when the client is gone.
///
/// Owned by its channel; the core holds it from accept to close. Requests that arrive before the answer to the last one
/// wait, at most ``pipelinedMax``, then the connection closes. Reads stay on while an answer is under way, so that a
/// client's leaving is seen at once. What is written but not yet taken is bounded by the core, which stops at
/// the channel's high-water mark and goes on when ``channelWritabilityChanged(context:)`` says so.
final class NodeConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    static let pipelinedMax = 16

    private let core: NodeCore
    private let bodyBytesMax: Int
    private let rtt: TimeAmount
    /// Requests that are on their way for ``rtt``.
    private var travelling = 0
    private var context: ChannelHandlerContext?
    private var incoming: NodeHTTPRequest?
    private var pipelined: [NodeHTTPRequest] = []
    private var exchange: Exchange?
    private var isBusy = false
    private var isDispatching = false
    /// Nothing more is read from or written to this connection.
    private var isClosing = false

    init(core: NodeCore, bodyBytesMax: Int, rtt: Duration) {
        self.core = core
        self.bodyBytesMax = bodyBytesMax
        self.rtt = .nanoseconds(rtt.nanoseconds)
    }

    var isWritable: Bool { context?.channel.isWritable ?? false }

    // MARK: What the core asks for

    func write(_ buffer: ByteBuffer) {
        guard !isClosing, buffer.readableBytes > 0 else { return }
        context?.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    /// The answer is complete.
    /// - Parameter closing: Whether the connection ends with it, whatever the head said.
    func finished(closing: Bool) {
        exchange = nil
        isBusy = false
        if closing { close() } else { dispatch() }
    }

    /// Closes when all that was written is out.
    func close() {
        guard !isClosing, let context else { return }
        isClosing = true
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).whenComplete { _ in channel.close(promise: nil) }
    }

    /// Closes at once: a client that does not read must not hold up the node's stop.
    func stop() {
        isClosing = true
        context?.close(promise: nil)
    }

    /// Ends the connection with a TCP reset: what a killed process or a lost machine looks like.
    func reset() {
        guard !isClosing else { return }
        isClosing = true
        exchange = nil
        if let channel = context?.channel as? any SocketOptionProvider {
            channel.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in }
        }
        context?.close(promise: nil)
    }

    /// The core has begun an answer that takes time.
    func began(_ exchange: Exchange) {
        self.exchange = exchange
    }

    // MARK: Channel events

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        if !core.connectionOpened(self) { close() }
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        isClosing = true
        pipelined.removeAll()
        core.connectionClosed(self, aborting: exchange)
        exchange = nil
        self.context = nil
        context.fireChannelInactive()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, let exchange { core.connectionTakesMore(exchange) }
        context.fireChannelWritabilityChanged()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosing else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            let announced = head.headers.first(name: "content-length").flatMap { Int($0) } ?? 0
            guard announced <= bodyBytesMax else { return refuseBody() }
            if head.headers.first(name: "expect")?.lowercased() == "100-continue" {
                write(ByteBuffer(staticString: "HTTP/1.1 100 Continue\r\n\r\n"))
            }
            incoming = NodeHTTPRequest(head: head, body: ByteBuffer())
        case .body(var bytes):
            guard let gathered = incoming?.body.readableBytes else { return }
            guard gathered + bytes.readableBytes <= bodyBytesMax else { return refuseBody() }
            if gathered == 0 { incoming?.body = bytes } else { incoming?.body.writeBuffer(&bytes) }
        case .end:
            guard let request = incoming else { return }
            incoming = nil
            guard pipelined.count + travelling < Self.pipelinedMax else { return close() }
            guard rtt > .nanoseconds(0) else { return arrived(request) }
            travelling += 1
            context.eventLoop.assumeIsolated().scheduleTask(in: rtt) {
                self.travelling -= 1
                if !self.isClosing { self.arrived(request) }
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Bytes that are no HTTP get an answer where no other one is under way; anything else is a dead connection.
        if error is HTTPParserError, !isBusy {
            refuse(.badRequest("The request is no valid HTTP/1.1."))
        } else {
            close()
        }
    }

    private func arrived(_ request: NodeHTTPRequest) {
        pipelined.append(request)
        dispatch()
    }

    private func dispatch() {
        // An answer that is complete at once calls `finished`, and so this, from within the loop.
        guard !isDispatching else { return }
        isDispatching = true
        while !isBusy, !isClosing, !pipelined.isEmpty {
            isBusy = true
            core.requestArrived(pipelined.removeFirst(), on: self)
        }
        isDispatching = false
    }

    private func refuseBody() {
        refuse(NodeRefusal(413, "BadRequestError", "The body may have at most \(bodyBytesMax) bytes."))
    }

    private func refuse(_ refusal: NodeRefusal) {
        incoming = nil
        var buffer = ByteBuffer()
        core.render(refusal.body, status: refusal.status, saysClose: true, into: &buffer)
        write(buffer)
        close()
    }
}

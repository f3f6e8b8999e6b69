import Domain
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOTLS

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// One GET of the gateway's own to a node: an HTTP/1.1 exchange on a connection of its own, so that it also sees what a
/// new connection of the data plane would.
struct NodeQuery: Sendable {
    enum Answer: Hashable, Sendable {
        case answered(HTTPResponseStatus, body: ByteBuffer)
        /// Why there is no answer, in words for the log.
        case failed(String)
    }

    /// An answer, and how long its head took from when the request was written; nil where none came.
    struct Outcome: Hashable, Sendable {
        var answer: Answer
        var roundTripNanoseconds: Int64?
    }

    let eventLoop: any EventLoop
    /// Bounds the whole exchange, connecting included.
    let timeout: Duration
    /// How much of a body is read; the rest is left with the connection.
    let bodyBytesMax: Int
    /// Whether the body of an answer with this status is of use.
    let wantsBody: @Sendable (HTTPResponseStatus) -> Bool

    /// - Parameter path: Below the node's own base path.
    func get(_ path: String, from node: NodeConfiguration, at address: SocketAddress) async -> Answer {
        await exchange(path, from: node, at: address).answer
    }

    /// The same, with how long it took.
    func exchange(_ path: String, from node: NodeConfiguration, at address: SocketAddress) async -> Outcome {
        let promise = eventLoop.makePromise(of: Outcome.self)
        let timeout = TimeAmount.nanoseconds(timeout.nanoseconds)
        let request = Self.request(path, to: node)
        let tls = node.tls
        let deadline = NIODeadline.now() + timeout
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(tls.makeHandler()) }
                    try channel.pipeline.syncOperations.addHTTPClientHandlers(leftOverBytesStrategy: .dropBytes)
                    try channel.pipeline.syncOperations.addHandler(
                        NodeQueryHandler(self, request: request, deadline: deadline, promise: promise))
                }
            }
            .connect(to: address)
            .whenFailure { error in promise.succeed(Outcome(answer: .failed(Self.reason(of: error)))) }
        return (try? await promise.futureResult.get()) ?? Outcome(answer: .failed("the question was given up"))
    }

    private static func request(_ path: String, to node: NodeConfiguration) -> HTTPRequestHead {
        var headers = HTTPHeaders()
        headers.add(name: "Host", value: node.url.authority)
        headers.add(name: "User-Agent", value: "tollgate")
        headers.add(name: "Accept", value: "*/*")
        headers.add(name: "Connection", value: "close")
        if let key = node.apiKey { headers.add(name: "Authorization", value: "Bearer \(key.reveal())") }
        return HTTPRequestHead(version: .http1_1, method: .GET, uri: node.url.basePath + path, headers: headers)
    }

    static func reason(of error: any Error) -> String {
        switch error {
        case ChannelError.connectTimeout: "no answer in time"
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case is HTTPParserError: "its answer is not HTTP"
        default: UpstreamTLSFailure(error)?.rawValue ?? "\(type(of: error))"
        }
    }
}

/// One exchange: writes the request when active, completes the promise once, then closes.
private final class NodeQueryHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let query: NodeQuery
    private let request: HTTPRequestHead
    private let deadline: NIODeadline
    private var promise: EventLoopPromise<NodeQuery.Outcome>?
    /// When the request was written: over TLS, once the handshake let it pass.
    private var writtenAt: MonotonicTime?
    private var roundTripNanoseconds: Int64?
    private var timer: Scheduled<Void>?
    private var status: HTTPResponseStatus?
    private var body = ByteBuffer()

    init(
        _ query: NodeQuery, request: HTTPRequestHead, deadline: NIODeadline,
        promise: EventLoopPromise<NodeQuery.Outcome>
    ) {
        self.query = query
        self.request = request
        self.deadline = deadline
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.complete(self.answer ?? .failed("no answer in time"), context)
        }
        writtenAt = .now()
        context.write(wrapOutboundOut(.head(request)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent { writtenAt = .now() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            status = head.status
            roundTripNanoseconds = writtenAt.map { MonotonicTime.now().nanoseconds(since: $0) }
            if !query.wantsBody(head.status), let answer { complete(answer, context) }
        case .body(var part):
            guard promise != nil else { return }
            let wanted = query.bodyBytesMax - body.readableBytes
            if let slice = part.readSlice(length: min(wanted, part.readableBytes)) { body.writeImmutableBuffer(slice) }
            if body.readableBytes == query.bodyBytesMax, let answer { complete(answer, context) }
        case .end:
            if let answer { complete(answer, context) }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        complete(answer ?? .failed(NodeQuery.reason(of: error)), context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        complete(answer ?? .failed("it closed the connection unanswered"), context)
    }

    /// What came so far; nil before the head.
    private var answer: NodeQuery.Answer? { status.map { .answered($0, body: body) } }

    private func complete(_ answer: NodeQuery.Answer, _ context: ChannelHandlerContext) {
        guard let promise else { return }
        self.promise = nil
        timer?.cancel()
        timer = nil
        promise.succeed(NodeQuery.Outcome(answer: answer, roundTripNanoseconds: roundTripNanoseconds))
        context.close(promise: nil)
    }
}

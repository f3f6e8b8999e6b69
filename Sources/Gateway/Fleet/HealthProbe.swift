import NIOCore
import NIOHTTP1
import NIOPosix
import Routing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What one probe found, and why, in words for the log.
package struct ProbeFinding: Hashable, Sendable {
    package var result: ProbeResult
    package var reason: String
}

/// Asks a node whether it is well: one HTTP/1.1 exchange on a connection of its own, so that a probe also sees what a
/// new connection of the data plane would.
///
/// `GET /health`, or `GET /v1/models` where the node is some OpenAI-compatible service, which promises no `/health`.
/// Any 2xx is well; a 503 that speaks of loading is a model still being loaded; all else is a failure.
package struct HealthProbe: Sendable {
    /// How much of a 503's body is read.
    static let bodyBytesMax = 1_024

    private let eventLoop: any EventLoop
    private let timeout: Duration

    package init(eventLoop: any EventLoop, timeout: Duration) {
        self.eventLoop = eventLoop
        self.timeout = timeout
    }

    /// - Parameter timeout: Bounds the whole exchange, connecting included.
    package func run(_ node: NodeConfiguration, at address: SocketAddress) async -> ProbeFinding {
        let promise = eventLoop.makePromise(of: ProbeFinding.self)
        let timeout = TimeAmount.nanoseconds(timeout.nanoseconds)
        let request = Self.request(to: node)
        let tls = node.tls
        let deadline = NIODeadline.now() + timeout
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(tls.makeHandler()) }
                    try channel.pipeline.syncOperations.addHTTPClientHandlers(leftOverBytesStrategy: .dropBytes)
                    try channel.pipeline.syncOperations.addHandler(
                        ProbeHandler(request: request, deadline: deadline, promise: promise))
                }
            }
            .connect(to: address)
            .whenFailure { error in
                promise.succeed(ProbeFinding(result: .failed, reason: Self.reason(of: error)))
            }
        return (try? await promise.futureResult.get())
            ?? ProbeFinding(result: .failed, reason: "the probe was given up")
    }

    private static func request(to node: NodeConfiguration) -> HTTPRequestHead {
        var headers = HTTPHeaders()
        headers.add(name: "Host", value: node.url.authority)
        headers.add(name: "User-Agent", value: "tollgate")
        headers.add(name: "Accept", value: "*/*")
        headers.add(name: "Connection", value: "close")
        if let key = node.apiKey { headers.add(name: "Authorization", value: "Bearer \(key.reveal())") }
        let path = node.engine == .openai ? "/v1/models" : "/health"
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
private final class ProbeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let request: HTTPRequestHead
    private let deadline: NIODeadline
    private var promise: EventLoopPromise<ProbeFinding>?
    private var timer: Scheduled<Void>?
    private var status: HTTPResponseStatus?
    private var body = ByteBuffer()

    init(request: HTTPRequestHead, deadline: NIODeadline, promise: EventLoopPromise<ProbeFinding>) {
        self.request = request
        self.deadline = deadline
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.complete(self.finding ?? ProbeFinding(result: .failed, reason: "no answer in time"), context)
        }
        context.write(wrapOutboundOut(.head(request)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            status = head.status
            // What a 2xx says in its body changes nothing, and a list of models can be long.
            if head.status != .serviceUnavailable, let finding { complete(finding, context) }
        case .body(var part):
            guard promise != nil else { return }
            let wanted = HealthProbe.bodyBytesMax - body.readableBytes
            if let slice = part.readSlice(length: min(wanted, part.readableBytes)) { body.writeImmutableBuffer(slice) }
            if body.readableBytes == HealthProbe.bodyBytesMax, let finding { complete(finding, context) }
        case .end:
            if let finding { complete(finding, context) }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        complete(finding ?? ProbeFinding(result: .failed, reason: HealthProbe.reason(of: error)), context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        complete(finding ?? ProbeFinding(result: .failed, reason: "it closed the connection unanswered"), context)
    }

    /// What the answer says so far; nil before its head.
    private var finding: ProbeFinding? {
        guard let status else { return nil }
        if (200..<300).contains(status.code) { return ProbeFinding(result: .healthy, reason: "status \(status.code)") }
        let isLoading =
            status == .serviceUnavailable
            && String(buffer: body).lowercased().contains("loading")
        return isLoading
            ? ProbeFinding(result: .loading, reason: "it is loading its model")
            : ProbeFinding(result: .failed, reason: "status \(status.code)")
    }

    private func complete(_ finding: ProbeFinding, _ context: ChannelHandlerContext) {
        guard let promise else { return }
        self.promise = nil
        timer?.cancel()
        timer = nil
        promise.succeed(finding)
        context.close(promise: nil)
    }
}

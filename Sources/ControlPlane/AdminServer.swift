import Billing
import Domain
import Gateway
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle

/// What hummingbird hands to each request: the connection too, to close it on a client that never finishes its body.
struct AdminContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel
    /// The request bears the join token, not the operator's.
    var isJoining = false

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}

/// The control plane: the admin API, metrics and health, on a listener and an event loop of their own, so that nothing
/// an operator does can hold up a customer's stream.
///
/// Stops on graceful shutdown: no new connections, requests that run are finished.
package struct AdminServer: Service {
    /// Connections at once; more wait in the kernel's backlog.
    package static let connectionsMax = 256
    /// Longest an idle connection is kept.
    package static let idleTimeout = TimeAmount.seconds(60)
    /// Longest a client may take to send a body.
    package static let bodyTimeoutDefault = Duration.seconds(10)
    /// Longest head: all header fields together, in bytes.
    package static let headerBytesMax = 32 * 1024

    private let host: String
    private let port: Int
    private let token: AdminToken
    private let joinToken: AdminToken?
    private let services: AdminServices
    private let bodyTimeout: Duration
    private let onListening: @Sendable (Int) async -> Void

    /// - Parameters:
    ///   - port: 0 takes any free one.
    ///   - joinToken: With which nodes may register themselves; nil where none may.
    ///   - orgDefaults: What a limit is where an org's creator names only some of them; the store's own defaults.
    ///   - bodyTimeout: Longest a client may take to send a body; its connection is then closed.
    ///   - onListening: Told the port once connections are accepted.
    package init(
        host: String, port: Int, token: AdminToken, joinToken: AdminToken? = nil, store: any OperatorStore,
        gateway: any GatewayControl,
        orgDefaults: OrgDefaults, logger: Logger, bodyTimeout: Duration = AdminServer.bodyTimeoutDefault,
        onListening: @escaping @Sendable (Int) async -> Void = { _ in }
    ) {
        self.host = host
        self.port = port
        self.token = token
        self.joinToken = joinToken
        self.services = AdminServices(store: store, gateway: gateway, orgDefaults: orgDefaults, logger: logger)
        self.bodyTimeout = bodyTimeout
        self.onListening = onListening
    }

    /// - Throws: What binding the listener throws; nothing once it listens.
    package func run() async throws {
        // The group that lasts as long as the process: hummingbird's server lets go of its loop only some time after
        // `run` has returned, and must not find it shut down then.
        try await application(on: MultiThreadedEventLoopGroup.singleton).run()
    }

    private func application(on group: MultiThreadedEventLoopGroup) -> Application<RouterResponder<AdminContext>> {
        let logger = services.logger
        // Hummingbird tells of its own start and stop at `info`; here only its warnings matter.
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let host = host
        let requestedPort = port
        let onListening = onListening
        return Application(
            router: router(),
            server: .http1(
                configuration: .init(
                    idleTimeout: Self.idleTimeout,
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: Self.headerBytesMax, maxHeaderListSize: Self.headerBytesMax,
                        maxHeaderFieldCount: 100))),
            configuration: ApplicationConfiguration(
                address: .hostname(host, port: requestedPort),
                availableConnectionsDelegate: MaximumAvailableConnections(Self.connectionsMax, logger: quiet)),
            onServerRunning: { channel in
                let port = channel.localAddress?.port ?? requestedPort
                logger.info("control plane listening", metadata: ["host": "\(host)", "port": "\(port)"])
                await onListening(port)
            },
            eventLoopGroupProvider: .shared(group),
            logger: quiet
        )
    }

    private func router() -> Router<AdminContext> {
        let router = Router(context: AdminContext.self)
        router.add(middleware: FailureMiddleware(logger: services.logger))
        router.add(middleware: TokenMiddleware(token: token, joinToken: joinToken))
        let services = services
        let bodyTimeout = bodyTimeout
        for route in AdminRoute.all {
            router.on(route.routerPath, method: route.method) { request, context in
                let answer = try await route.handler(
                    AdminRequest(
                        parameters: try route.parameters(from: context.parameters),
                        query: try route.query(from: request.uri.query),
                        body: try await Self.body(of: request, context: context, timeout: bodyTimeout),
                        isJoining: context.isJoining),
                    services)
                return answer.response()
            }
        }
        refuseOtherMethods(router)
        return router
    }

    /// Without these a known path with a wrong method would say that the path does not exist.
    private func refuseOtherMethods(_ router: Router<AdminContext>) {
        for (path, routes) in Dictionary(grouping: AdminRoute.all, by: \.path) {
            let allowed = routes.map(\.method.rawValue).sorted().joined(separator: ", ")
            let methods: [HTTPRequest.Method] = [.get, .head, .post, .put, .patch, .delete, .options]
            for method in methods where !routes.contains(where: { $0.method == method }) {
                router.on(routes[0].routerPath, method: method) { _, _ -> Response in
                    throw AdminFailure(
                        .methodNotAllowed, "\(path) takes \(allowed).", headers: [.allow: allowed])
                }
            }
        }
    }

    /// The whole body, at most ``RequestFields/bodyBytesMax``.
    private static func body(
        of request: Request, context: AdminContext, timeout: Duration
    ) async throws -> ByteBuffer {
        let tooLarge = AdminFailure(
            .bodyTooLarge, "A body has at most \(RequestFields.bodyBytesMax) bytes.")
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > RequestFields.bodyBytesMax {
            throw tooLarge
        }
        let body = request.body
        let channel = context.channel
        return try await withThrowingTaskGroup(of: ByteBuffer?.self) { group in
            group.addTask {
                do {
                    return try await body.collect(upTo: RequestFields.bodyBytesMax)
                } catch is NIOTooManyBytesError {
                    throw tooLarge
                }
            }
            group.addTask {
                try await Task.sleep(for: timeout)
                return nil
            }
            defer { group.cancelAll() }
            guard let collected = try await group.next(), let collected else {
                // Nothing can be answered in the middle of a body that never ends without waiting for its end.
                channel.close(promise: nil)
                throw AdminFailure(.invalidRequest, "The body took too long.")
            }
            return collected
        }
    }
}

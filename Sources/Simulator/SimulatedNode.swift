import Domain
import JSON
import NIOCore
import NIOHTTP1
import NIOPosix

/// A live HTTP server that behaves as vLLM on a GPU of a ``NodeProfile``: for tests, the demo and `tollgate simulate node`.
///
/// One node lives on one event loop of the group and costs a listener and a few kilobytes; a process may have many.
package final class SimulatedNode: Sendable {
    package struct Configuration: Sendable {
        package static let hostDefault = "127.0.0.1"

        package var host = hostDefault
        /// 0 takes a free one.
        package var port = 0
        /// The only model that it serves.
        package var model: String
        package var profile = NodeProfile.h100
        package var speed = NodeSpeed.times(1)
        package var fault = FaultPlan.none
        /// Of lengths, texts and `@p` faults.
        package var seed: UInt64 = 1
        /// The `engine` label of its metrics.
        package var engineName = "0"
        /// With one, everything under `/v1` needs it as a bearer token.
        package var apiKey: String?
        /// Prompt and completion together.
        package var contextTokensMax = 131_072
        package var embeddingDimensions = 384
        package var bodyBytesMax = 16 << 20
        package var connectionsMax = 4_096
        /// What every request waits before it arrives: the round trip to a site that is not here.
        package var rtt = Duration.zero
        /// Keeps the last requests in ``NodeStatistics/recorded``.
        package var recordBodies = false

        package init(model: String) {
            self.model = model
        }
    }

    /// The port it listens on.
    package let port: Int
    /// Without a slash at the end: `http://127.0.0.1:8000`.
    package let baseURL: String
    /// Where it listens and what it serves, as one JSON object.
    package let summary: String
    private let loop: any EventLoop
    private let listener: any Channel
    private let core: NIOLoopBound<NodeCore>
    private let board: StatisticsBoard

    private init(
        configuration: Configuration, loop: any EventLoop, listener: any Channel, core: NIOLoopBound<NodeCore>,
        board: StatisticsBoard
    ) {
        let port = listener.localAddress?.port ?? configuration.port
        let host = configuration.host.contains(":") ? "[\(configuration.host)]" : configuration.host
        let baseURL = "http://\(host):\(port)"
        self.port = port
        self.baseURL = baseURL
        var writer = JSONWriter()
        writer.object { summary in
            summary.member("base_url", baseURL + "/v1")
            summary.member("host", configuration.host)
            summary.member("port", port)
            summary.member("model", configuration.model)
            summary.member("profile", configuration.profile.name)
        }
        summary = writer.text
        self.loop = loop
        self.listener = listener
        self.core = core
        self.board = board
    }

    /// Listens; answers requests when this returns.
    ///
    /// - Throws: What binding throws: the port is taken, the address is not of this machine.
    package static func start(
        configuration: Configuration, group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) async throws -> SimulatedNode {
        let loop = group.next()
        let board = StatisticsBoard()
        let core = try await loop.submit {
            NIOLoopBound(NodeCore(configuration: configuration, loop: loop, board: board), eventLoop: loop)
        }.get()
        // A loop as the group keeps every connection on it, so nothing of the node needs a lock.
        let listener = try await ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        ByteToMessageHandler(HTTPRequestDecoder()),
                        NodeConnectionHandler(
                            core: core.value, bodyBytesMax: configuration.bodyBytesMax, rtt: configuration.rtt))
                }
            }
            .bind(host: configuration.host, port: configuration.port).get()
        return SimulatedNode(configuration: configuration, loop: loop, listener: listener, core: core, board: board)
    }

    /// As of the last thing that happened on the node.
    package var stats: NodeStatistics { board.current }

    /// Waits until the statistics are as wanted.
    ///
    /// - Throws: ``StatisticsTimeout`` with the last ones, where that does not come about in time.
    package func stats(
        within timeout: Duration = .seconds(30), where isWanted: @escaping @Sendable (NodeStatistics) -> Bool
    ) async throws -> NodeStatistics {
        let (board, loop) = (board, loop)
        return try await withCheckedThrowingContinuation { continuation in
            guard let ticket = board.wait(isWanted, continuation) else { return }
            loop.scheduleTask(in: .nanoseconds(timeout.nanoseconds)) { board.expire(ticket) }
        }
    }

    /// Replaces the fault plan; its counts and times start now. In force when this returns.
    package func setFault(_ plan: FaultPlan) async throws {
        let core = core
        try await loop.submit { core.value.setFault(plan) }.get()
    }

    /// - Throws: ``FaultPlanError`` for a text that is no plan.
    package func setFault(_ text: String) async throws {
        try await setFault(FaultPlan(parsing: text))
    }

    /// Stops listening and closes every connection, answers under way included. Idempotent.
    package func stop() async throws {
        let core = core
        let listener = listener
        try await loop.submit { core.value.closeAll() }.get()
        guard listener.isActive else { return }
        try await listener.close().get()
        // Those that were accepted in between.
        try await loop.submit { core.value.closeAll() }.get()
    }

    /// Returns when the node no longer listens.
    package func closed() async throws {
        try await listener.closeFuture.get()
    }
}

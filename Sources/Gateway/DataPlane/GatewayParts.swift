import Domain
import Logging
import NIOCore
import NIOPosix
import Redis

/// What a ``GatewayServer`` is put together from, and takes apart again.
package struct GatewayParts: Sendable {
    let configuration: GatewayConfiguration
    let prices: PriceBook
    let group: MultiThreadedEventLoopGroup
    /// Of the control plane, the fleet's probes and the store's slower questions: not of requests.
    let controlGroup: MultiThreadedEventLoopGroup
    let loops: [LoopHandle]
    let services: SharedServices
    let journal: Journal
    let session: RedisSession
    let operators: RedisOperatorStore
    let nodeStore: any NodeStore
    let metrics: MetricsRegistry
    let logger: Logger

    /// After the last request and the last charge.
    func close() async {
        for loop in loops { await loop.close() }
        await session.close()
        journal.close()
        services.accessLog?.close()
        try? await group.shutdownGracefully()
        try? await controlGroup.shutdownGracefully()
    }
}

/// A loop with what lives on it, for those outside.
struct LoopHandle: Sendable {
    let eventLoop: any EventLoop
    let context: NIOLoopBound<LoopContext>
    let redis: NIOLoopBound<RedisClient>

    func run<Result: Sendable>(_ body: @escaping @Sendable (LoopContext) -> Result) async throws -> Result {
        try await eventLoop.submit { [context] in body(context.value) }.get()
    }

    func execute(_ body: @escaping @Sendable (LoopContext) -> Void) {
        eventLoop.execute { [context] in body(context.value) }
    }

    var isStoreConnected: Bool {
        get async { (try? await eventLoop.submit { [redis] in redis.value.isConnected }.get()) ?? false }
    }

    var transport: NIOLoopBound<any LedgerTransport> {
        get async {
            await withCheckedContinuation { continuation in
                eventLoop.execute { [context, eventLoop] in
                    continuation.resume(returning: NIOLoopBound(context.value.transport, eventLoop: eventLoop))
                }
            }
        }
    }

    func close() async {
        await withCheckedContinuation { continuation in
            eventLoop.execute { [context, redis] in
                context.value.closePools()
                redis.value.close(deadline: MonotonicTime.now().advanced(by: .seconds(1))) { continuation.resume() }
            }
        }
    }
}

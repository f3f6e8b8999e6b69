import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import Support
import Synchronization

/// TLS in front of a node: what comes in goes on in the clear, and back.
final class TLSFront: Sendable {
    let port: Int
    private let listener: any Channel
    private let counter = CountHandshakes.Counter()

    /// Connections on which a request came.
    var handshakes: Int { counter.value.load(ordering: .relaxed) }

    init(_ pair: TestCertificates.Pair, backend: Int) async throws {
        let context = try NIOSSLContext(
            configuration: TLSConfiguration.makeServerConfiguration(
                certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(pair.certificate.utf8))
                    .map { .certificate($0) },
                privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(pair.key.utf8), format: .pem))))
        let count = counter
        listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { client in
                client.eventLoop.makeCompletedFuture {
                    try client.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                    try client.pipeline.syncOperations.addHandler(CountHandshakes(count))
                }.flatMap {
                    ClientBootstrap(group: client.eventLoop).channelInitializer { node in
                        node.eventLoop.makeCompletedFuture {
                            try node.pipeline.syncOperations.addHandler(PassOn(to: client))
                        }
                    }.connect(host: "127.0.0.1", port: backend)
                }.flatMapThrowing { node in
                    try client.pipeline.syncOperations.addHandler(PassOn(to: node))
                }.flatMap { client.setOption(.autoRead, value: true) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        port = listener.localAddress?.port ?? 0
    }

    func stop() async throws { try await listener.close() }
}

private final class CountHandshakes: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }

    private let counter: Counter

    init(_ counter: Counter) { self.counter = counter }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        counter.value.add(1, ordering: .relaxed)
        context.fireChannelRead(data)
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }
}

extension CountHandshakes: RemovableChannelHandler {}

/// Writes what it reads to another channel of the same loop, and closes with it.
private final class PassOn: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let other: any Channel

    init(to other: any Channel) { self.other = other }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        other.writeAndFlush(unwrapInboundIn(data), promise: nil)
    }
    func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

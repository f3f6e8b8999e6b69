import Foundation
import Gateway
import NIOCore
import NIOPosix
import NIOSSL
import Support
import Testing

/// A node that does what a test says, byte by byte.
final class UpstreamTestNode: Sendable {
    let channel: any Channel
    private let accepted: AsyncStream<Connection>

    /// One connection that a pool opened.
    final class Connection: Sendable {
        let channel: any Channel
        private let reader: Reader

        init(channel: any Channel, inbound: AsyncStream<ByteBuffer>) {
            self.channel = channel
            reader = Reader(inbound)
        }

        /// Reads a head and as much body as its `content-length` says.
        func readRequest() async throws -> String { try await reader.readRequest() }

        /// Waits until the peer has closed, however it did that.
        func waitForClose() async { await reader.readToEnd() }

        func write(_ text: String) async throws {
            try await channel.writeAndFlush(ByteBuffer(string: text)).get()
        }

        func close() async throws { try await channel.close().get() }

        /// Ends with a reset rather than in order.
        func reset() async throws {
            let provider = try #require(channel as? any SocketOptionProvider)
            try await provider.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
            try await channel.close().get()
        }
    }

    private actor Reader {
        private var iterator: AsyncStream<ByteBuffer>.AsyncIterator?
        private var buffer = ""

        init(_ inbound: AsyncStream<ByteBuffer>) { iterator = inbound.makeAsyncIterator() }

        /// The iterator is taken out and put back: an actor's own cannot be advanced across an await.
        private func next() async -> ByteBuffer? {
            guard var taken = iterator else { return nil }
            iterator = nil
            let value = await taken.next(isolation: self)
            iterator = taken
            return value
        }

        func readRequest() async throws -> String {
            while true {
                if let end = buffer.range(of: "\r\n\r\n") {
                    let head = buffer[..<end.upperBound]
                    let length = head.firstMatch(of: /content-length: ([0-9]+)/).flatMap { Int($0.1) } ?? 0
                    let wanted = head.utf8.count + length
                    if buffer.utf8.count >= wanted {
                        let request = String(decoding: buffer.utf8.prefix(wanted), as: UTF8.self)
                        buffer = String(decoding: buffer.utf8.dropFirst(wanted), as: UTF8.self)
                        return request
                    }
                }
                guard let bytes = await next() else { throw ChannelError.eof }
                buffer += String(buffer: bytes)
            }
        }

        func readToEnd() async {
            while await next() != nil {}
        }
    }

    private final class Inbound: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let continuation: AsyncStream<ByteBuffer>.Continuation

        init(_ continuation: AsyncStream<ByteBuffer>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    /// - Parameter reads: False for a node that takes connections and reads nothing of them.
    /// - Parameter tls: Who it says it is, over TLS; nil for plain HTTP.
    init(group: any EventLoopGroup, reads: Bool = true, tls: TestCertificates.Pair? = nil) async throws {
        let context = try tls.map { try NIOSSLContext(configuration: $0.serverConfiguration()) }
        let (stream, continuation) = AsyncStream<Connection>.makeStream()
        accepted = stream
        channel = try await ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: reads)
            .childChannelInitializer { channel in
                let (bytes, inbound) = AsyncStream<ByteBuffer>.makeStream()
                continuation.yield(Connection(channel: channel, inbound: bytes))
                return channel.eventLoop.makeCompletedFuture {
                    if let context {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                    }
                    try channel.pipeline.syncOperations.addHandler(Inbound(inbound))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    /// The next connection, in the order of their coming.
    func accept() async throws -> Connection {
        var iterator = accepted.makeAsyncIterator()
        return try #require(await iterator.next())
    }
}

/// What a delegate was told, in order.
enum UpstreamTestEvent: Hashable, Sendable {
    case started
    case head(Int)
    case body(String)
    case readComplete
    case end
    case failed(UpstreamFailure)
}

/// Passes on what it is told, so that a test can wait for it.
final class UpstreamTestDelegate: UpstreamDelegate, Sendable {
    private let continuation: AsyncStream<UpstreamTestEvent>.Continuation
    let events: AsyncStream<UpstreamTestEvent>

    init() {
        (events, continuation) = AsyncStream<UpstreamTestEvent>.makeStream()
    }

    func upstreamStarted() { continuation.yield(.started) }
    func upstreamHead(_ head: UpstreamResponseHead) { continuation.yield(.head(head.status)) }
    func upstreamBody(_ bytes: ByteBuffer) { continuation.yield(.body(String(buffer: bytes))) }
    func upstreamReadComplete() { continuation.yield(.readComplete) }
    func upstreamEnd() { continuation.yield(.end) }
    func upstreamFailed(_ failure: UpstreamFailure) { continuation.yield(.failed(failure)) }

    /// Ends the stream: call it on the loop, once nothing more may come.
    func finish() { continuation.finish() }

    /// Waits for the end of the call. Bodies are joined, `readComplete` is left out.
    func outcome() async -> [UpstreamTestEvent] {
        var result: [UpstreamTestEvent] = []
        for await event in events {
            switch (event, result.last) {
            case (.readComplete, _): continue
            case (.body(let more), .body(let before)): result[result.count - 1] = .body(before + more)
            default: result.append(event)
            }
            switch event {
            case .end, .failed: return result
            default: continue
            }
        }
        return result
    }

    /// Waits until the event comes, and drops those before it.
    func wait(for wanted: (UpstreamTestEvent) -> Bool) async {
        for await event in events where wanted(event) { return }
        Issue.record("the call ended before the event came")
    }
}

/// A pool on a loop of its own, with a node on another.
struct UpstreamTestHarness: Sendable {
    let group: MultiThreadedEventLoopGroup
    let nodeGroup: MultiThreadedEventLoopGroup
    let loop: any EventLoop
    let pool: NIOLoopBound<UpstreamPool>

    init(
        addresses: [SocketAddress] = [],
        configure: @Sendable @escaping (inout UpstreamPool.Configuration) -> Void = { _ in }
    ) async throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        nodeGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        self.loop = loop
        pool = try await loop.submit {
            var configuration = UpstreamPool.Configuration()
            configure(&configuration)
            let pool = UpstreamPool(
                eventLoop: loop, wheel: TimerWheel(eventLoop: loop), addresses: addresses,
                configuration: configuration)
            return NIOLoopBound(pool, eventLoop: loop)
        }.get()
    }

    /// Runs on the pool's loop.
    func run<Result: Sendable>(_ body: @Sendable @escaping (UpstreamPool) throws -> Result) async throws -> Result {
        let pool = pool
        return try await loop.submit { try body(pool.value) }.get()
    }

    func dispatch(
        _ delegate: UpstreamTestDelegate, path: String = "/", body: String = ""
    ) async throws -> NIOLoopBound<UpstreamCall> {
        let loop = loop
        return try await run { pool in
            let head = "POST \(path) HTTP/1.1\r\nhost: node\r\ncontent-length: \(body.utf8.count)\r\n\r\n"
            let request = UpstreamRequest(head: ByteBuffer(string: head), body: ByteBuffer(string: body))
            return NIOLoopBound(pool.dispatch(request, delegate: delegate), eventLoop: loop)
        }
    }

    /// Asks again and again, on the loop, until it is so.
    func waitUntil(_ condition: @Sendable @escaping (UpstreamPool) -> Bool) async throws {
        while try await !run(condition) {
            try Task.checkCancellation()
            await Task.yield()
        }
    }

    func shutdown() async throws {
        try await run { $0.closeNow() }
        try await group.shutdownGracefully()
        try await nodeGroup.shutdownGracefully()
    }
}

extension TestCertificates.Pair {
    func serverConfiguration() throws -> TLSConfiguration {
        TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificate.utf8)).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(key.utf8), format: .pem)))
    }
}

import Billing
import Domain
import Foundation
import NIOCore
import NIOPosix
import Support
import Testing

@testable import Gateway

/// A broken invariant fails the request that met it, with the 500 that `openapi.yaml` describes, and no other.
@Suite(.timeLimit(.minutes(1))) struct InternalErrorTests {
    private struct Rig {
        let server: GatewayServer
        let key: String
        let directory: JournalTestDirectory
        let fixture: StoreFixture
    }

    private func start() async throws -> Rig {
        let fixture = try await StoreFixture.start()
        let directory = JournalTestDirectory()
        let configuration = try ConfigurationLoader.parse(
            yaml: """
                listen: 127.0.0.1:0
                admin: { listen: 127.0.0.1:0, token: 0123456789abcdef0123456789abcdef }
                redis: { url: "\(fixture.server.url)" }
                journal: { directory: \(directory.path) }
                event_loops: 1
                access_log: off
                timeouts: { drain: 0s }
                """, fileName: "gate.yaml", environment: [:])
        let server = try await GatewayServer.start(
            configuration: configuration, peppers: try Peppers(StoreFixture.peppers), logger: JournalFixture.logger)
        _ = try await fixture.store.createOrg(
            id: JournalFixture.org, name: "An org", openingCredit: NanoUSD(unchecked: 1_000), limits: nil, keysMax: nil)
        let key = try await fixture.store.createKey(
            org: JournalFixture.org, name: "", limits: .unlimited, models: nil)
        return Rig(server: server, key: key.secret, directory: directory, fixture: fixture)
    }

    /// What a client's connection brought, as text.
    private final class Client: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let parts: AsyncStream<ByteBuffer>.Continuation

        init(_ parts: AsyncStream<ByteBuffer>.Continuation) { self.parts = parts }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { parts.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { parts.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    private func connect(_ port: Int) async throws -> (channel: any Channel, parts: AsyncStream<ByteBuffer>) {
        let (stream, parts) = AsyncStream<ByteBuffer>.makeStream()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Client(parts))
                }
            }.connect(host: "127.0.0.1", port: port).get()
        return (channel, stream)
    }

    private func answer(_ text: String) throws -> AnswerContract.Answer {
        let end = try #require(text.firstRange(of: "\r\n\r\n"), "\(text)")
        let lines = text[..<end.lowerBound].split(separator: "\r\n")
        let headers = lines.dropFirst().map { line in
            let halves = line.split(separator: ":", maxSplits: 1)
            return (name: halves[0].lowercased(), value: halves[1].trimmingCharacters(in: .whitespaces))
        }
        let status = try #require(Int(lines[0].split(separator: " ")[1]))
        return AnswerContract.Answer(status: status, headers: headers, body: Array(text[end.upperBound...].utf8))
    }

    @Test(arguments: ["/v1/chat/completions", "/v1/messages"])
    func anIllegalEventEndsItsRequestAsDescribedAndNoOther(path: String) async throws {
        let rig = try await start()
        let loop = rig.server.parts.loops[0]
        let head = """
            POST \(path) HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer \(rig.key)\r\n\
            Content-Type: application/json\r\nContent-Length: 100\r\n\r\n
            """
        let victim = try await connect(rig.server.port)
        try await victim.channel.writeAndFlush(ByteBuffer(string: head)).get()
        while try await loop.run({ $0.runningCount }) != 1 { await Task.yield() }
        let id = try #require(try await loop.run { $0.running.values.first?.requestID })
        let neighbour = try await connect(rig.server.port)
        try await neighbour.channel.writeAndFlush(ByteBuffer(string: head)).get()
        while try await loop.run({ $0.runningCount }) != 2 { await Task.yield() }
        // The node's request was written before there is a node: no order of real events does that.
        try await loop.run { context in
            for exchange in context.running.values where exchange.requestID == id {
                let action = exchange.machine.requestWritten()
                #expect(exchange.machine.illegalEvent != nil)
                // Or the debug build would trap, as it should.
                exchange.machine.acknowledgeIllegalEvent()
                exchange.perform(action)
            }
        }
        var text = ""
        for await part in victim.parts { text += String(buffer: part) }
        let answer = try answer(text)
        #expect(answer.status == 500)
        #expect(answer.headers.contains { $0 == ("connection", "close") })
        let contract = try AnswerContract(yaml: String(buffer: OpenAPIDocument.bytes))
        #expect(contract.violations("POST", path, answer) == [], "\(text)")
        #expect(try await loop.run { $0.runningCount } == 1)
        try await neighbour.channel.close().get()
        await rig.server.shutDown()
    }
}

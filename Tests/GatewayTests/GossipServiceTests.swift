import Domain
import Logging
import Redis
import Routing
import Support
import Testing

@testable import Gateway

@Suite struct GossipServiceTests {
    private func told(_ session: RedisSession) async throws -> [GossipMessage] {
        let reply = try await session.command("XRANGE", .string(GossipService.key), "-", "+")
        return (reply.array ?? []).compactMap { entry in
            entry.array?.last?.array?.last?.bytes.flatMap(GossipCodec.decode)
        }
    }

    @Test func theLastThatAStoppingGatewayTellsIsItsFarewell() async throws {
        let fixture = try await StoreFixture.start()
        let session = fixture.session
        let router = SharedRouter(Router(fleet: FleetSnapshot(nodes: []), policy: .predictedCost, seed: 1))
        let service = GossipService(session: session, router: router, logger: Logger(label: "test"))
        let running = Task { await service.run() }
        let deadline = MonotonicTime.now().advanced(by: .seconds(10))
        while try await told(session).isEmpty, MonotonicTime.now() < deadline { await Task.yield() }
        running.cancel()
        await running.value
        let messages = try await told(session)
        #expect(messages.count >= 2)
        #expect(messages.map(\.isLast) == Array(repeating: false, count: messages.count - 1) + [true])
        #expect(messages.map(\.sequence) == messages.map(\.sequence).sorted())
        await session.close()
    }
}

import Domain
import NIOCore
import Redis
import Support
import Testing

@testable import Gateway

@Suite struct StoresPollerTests {
    @Test func everyDifferenceIsTold() async throws {
        let fixture = try await StoreFixture.start()
        let url = try RedisURL(fixture.server.url)
        let loop = fixture.session.eventLoop
        let (changes, continuation) = AsyncStream.makeStream(of: AuthVersionPoller.Changes.self)
        let stop = try await loop.submit {
            let client = RedisClient(configuration: RedisConfiguration(url: url), eventLoop: loop)
            client.start()
            let poller = AuthVersionPoller(client: client) { continuation.yield($0) }
            poller.start()
            return NIOLoopBound((poller: poller, client: client), eventLoop: loop)
        }.get()
        var told = changes.makeAsyncIterator()
        #expect(await told.next() == [.auth, .prices])
        _ = try await fixture.session.command("INCR", .string(StoreKeys.authVersion))
        #expect(await told.next() == .auth)
        _ = try await fixture.session.command("INCR", .string(StoreKeys.pricesVersion))
        #expect(await told.next() == .prices)
        // A store that went back to an older state differs too.
        _ = try await fixture.session.command("DEL", .string(StoreKeys.authVersion))
        #expect(await told.next() == .auth)
        try await loop.submit {
            stop.value.poller.stop()
            stop.value.client.close(deadline: .now())
        }.get()
        await fixture.session.close()
    }
}

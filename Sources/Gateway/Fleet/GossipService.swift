import Domain
import Logging
import Redis
import Routing

/// Tells the other gateways of the fleet what this one has in flight and where it placed which prompts, and takes in what
/// they tell: through a stream in Redis, which holds keyed hashes and counts and is trimmed to its last messages.
///
/// Nothing waits for it. Where the store is away, or a message is lost, routing goes by what the gateway knows itself and
/// what nodes report (``PeerLoads`` in the router).
package struct GossipService: Sendable {
    package static let key = "tg:{fleet}:gossip"
    /// Messages that the stream keeps: half a second of 64 gateways, and some.
    private static let messagesKept = 512
    /// Messages taken in at once.
    private static let messagesRead = 256
    /// How often a gateway looks for others while it hears none.
    private static let aloneInterval = Duration.seconds(1)
    /// How long after the last message another gateway counts as there.
    private static let aloneAfter = Duration.seconds(10)
    private static let timeout = Duration.milliseconds(500)

    private let session: RedisSession
    private let router: SharedRouter
    private let logger: Logger
    /// Names this process among the gateways.
    private let ownID: UInt64

    package init(
        session: RedisSession, router: SharedRouter, logger: Logger, ownID: UInt64 = .random(in: .min ... .max)
    ) {
        self.session = session
        self.router = router
        self.logger = logger
        self.ownID = ownID
    }

    /// Talks until its task is cancelled, and says farewell then.
    package func run() async {
        await talk()
        // A task of its own, since this one is cancelled; where the store is away, the others will notice the silence.
        await Task { _ = try? await tell(router.gossipFarewell()) }.value
    }

    private func talk() async {
        var position: String?
        var heardAt: MonotonicTime?
        var isFailing = false
        while !Task.isCancelled {
            let now = MonotonicTime.now()
            let isAlone = heardAt.map { now.nanoseconds(since: $0) > Self.aloneAfter.nanoseconds } ?? true
            do throws(RedisError) {
                let own = try await tell(router.gossip(now: now))
                // What was said before this gateway came is old.
                let (others, last) = try await hear(after: position ?? own)
                position = last ?? position ?? own
                for (peer, message) in others {
                    heardAt = .now()
                    router.gossiped(message, from: peer, now: .now())
                }
                if isFailing { logger.info("gossip between gateways goes on") }
                isFailing = false
            } catch {
                if !isFailing, !Task.isCancelled {
                    logger.warning(
                        "gossip between gateways failed; routing goes by what this one knows",
                        metadata: ["reason": "\(error)"])
                }
                isFailing = true
            }
            let interval = isAlone ? Self.aloneInterval : GossipMessage.deltaInterval
            // Gateways that started together must not ask together for ever.
            try? await Task.sleep(for: .nanoseconds(Int64(Double(interval.nanoseconds) * .random(in: 0.9..<1.1))))
        }
    }

    /// - Returns: The message's place in the stream.
    private func tell(_ message: GossipMessage) async throws(RedisError) -> String? {
        try await session.command(
            [
                "XADD", .string(Self.key), "MAXLEN", "~", .integer(Int64(Self.messagesKept)), "*",
                "g", .string(String(ownID, radix: 16)), "m", .bytes(GossipCodec.encode(message)),
            ], timeout: Self.timeout
        ).string
    }

    private func hear(
        after position: String?
    ) async throws(RedisError) -> (others: [(UInt64, GossipMessage)], last: String?) {
        let reply = try await session.command(
            [
                "XREAD", "COUNT", .integer(Int64(Self.messagesRead)), "STREAMS", .string(Self.key),
                .string(position ?? "$"),
            ], timeout: Self.timeout)
        // [[key, [[place, [g, peer, m, message]], ...]]], or nothing where there is nothing new.
        guard let entries = reply.array?.first?.array?.last?.array else { return ([], nil) }
        var others: [(UInt64, GossipMessage)] = []
        for entry in entries {
            guard let fields = entry.array?.last?.array, fields.count == 4,
                let peer = fields[1].string.flatMap({ UInt64($0, radix: 16) }), peer != ownID,
                let message = fields[3].bytes.flatMap(GossipCodec.decode)
            else { continue }
            others.append((peer, message))
        }
        return (others, entries.last?.array?.first?.string)
    }
}

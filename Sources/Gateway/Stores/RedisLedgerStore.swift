import Billing
import Domain
import NIOCore
import Redis

/// SYNC over one event loop's Redis connection.
///
/// Bound to the client's loop. Owns nothing: the client's owner starts and closes it. Back-pressure is the caller's:
/// it keeps one SYNC outstanding per org.
package final class RedisLedgerStore: LedgerTransport {
    /// How long an answer is awaited. The call may still execute later; revisions make that harmless.
    package static let timeout = Duration.seconds(2)

    /// How long a refusal waits for the rates that go with it: a client that did something wrong need not wait long to
    /// hear so.
    package static let ratesTimeout = Duration.milliseconds(500)

    private let client: RedisClient
    private let metrics: MetricsShard?

    /// - Parameter metrics: Of the client's loop: told how long each answer took.
    package init(client: RedisClient, metrics: MetricsShard? = nil) {
        self.client = client
        self.metrics = metrics
    }

    package var eventLoop: any EventLoop { client.eventLoop }

    package func sync(
        _ request: SyncRequest, completion: @escaping (Result<SyncAnswer, LedgerTransportFailure>) -> Void
    ) {
        let sentAt = MonotonicTime.now()
        client.evaluate(
            StoreScripts.sync, keys: [.string(StoreKeys.account(request.org))], args: SyncCodec.arguments(request),
            deadline: sentAt.advanced(by: Self.timeout)
        ) { [metrics] result in
            if case .success = result { metrics?.redisAnswered(seconds: MonotonicTime.now().seconds(since: sentAt)) }
            completion(Self.answer(result))
        }
    }

    package func readRates(of key: KeyID, org: OrgID, completion: @escaping (RateStatus?) -> Void) {
        client.evaluate(
            StoreScripts.ratesRead, keys: [.string(StoreKeys.account(org))], args: ["", .string(key.rawValue)],
            deadline: MonotonicTime.now().advanced(by: Self.ratesTimeout)
        ) { result in
            completion((try? result.get()).flatMap(SyncCodec.rates))
        }
    }

    private static func answer(_ result: Result<RESPValue, RedisError>) -> Result<SyncAnswer, LedgerTransportFailure> {
        switch result {
        case .success(let reply):
            guard let answer = SyncCodec.answer(reply) else {
                return .failure(.refused("the reply is no answer to a SYNC"))
            }
            return .success(answer)
        case .failure(.server(let code, let message)):
            // A server that is loading, busy or no longer the primary may serve again in a moment.
            return ["LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"].contains(code)
                ? .failure(.unreachable) : .failure(.refused("\(code) \(message)"))
        case .failure(.protocolViolation(let what)):
            return .failure(.refused(what))
        case .failure(.notConnected), .failure(.timedOut), .failure(.connectionClosed), .failure(.overloaded):
            return .failure(.unreachable)
        }
    }
}

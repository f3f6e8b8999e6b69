import Domain
import NIOCore
import Redis

/// Watches what the control plane changes: asks the store every 250 ms whether what authenticates, or a price, differs.
///
/// One for the process, bound to its client's loop; the callback publishes to the other loops. Differs, not only grew:
/// a store that went back to an older state must flush the caches too. A poll that fails is repeated in 250 ms; after
/// ``staleAfter`` without an answer everything counts as changed, because revocations are honoured within 10 s even
/// where the store cannot be reached.
package final class AuthVersionPoller {
    package static let interval = Duration.milliseconds(250)
    package static let staleAfter = Duration.seconds(9)

    package struct Changes: OptionSet, Hashable, Sendable {
        package static let auth = Changes(rawValue: 1)
        package static let prices = Changes(rawValue: 2)

        package let rawValue: Int

        package init(rawValue: Int) { self.rawValue = rawValue }
    }

    private struct Versions {
        var auth: Int64
        var prices: Int64
    }

    private let client: RedisClient
    private let onChange: (Changes) -> Void
    private var versions: Versions?
    private var answeredAt = MonotonicTime.now()
    private var timer: Scheduled<Void>?
    private var isStopped = false

    /// - Parameter onChange: Called on the loop. The first answer counts as a change of everything: what was read
    ///   before it may be older.
    package init(client: RedisClient, onChange: @escaping (Changes) -> Void) {
        self.client = client
        self.onChange = onChange
    }

    package func start() {
        client.eventLoop.preconditionInEventLoop()
        poll()
    }

    package func stop() {
        client.eventLoop.preconditionInEventLoop()
        isStopped = true
        timer?.cancel()
    }

    private func poll() {
        client.send(
            ["MGET", .string(StoreKeys.authVersion), .string(StoreKeys.pricesVersion)], timeout: Self.interval
        ) { [weak self] result in
            self?.answered(result)
        }
    }

    private func answered(_ result: Result<RESPValue, RedisError>) {
        guard !isStopped else { return }
        let now = MonotonicTime.now()
        if let found = Self.versions(result) {
            answeredAt = now
            let changes = Self.changes(from: versions, to: found)
            versions = found
            if !changes.isEmpty { onChange(changes) }
        } else if now.nanoseconds(since: answeredAt) > Self.staleAfter.nanoseconds {
            answeredAt = now
            onChange(.auth)
        }
        timer = client.eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(Self.interval.nanoseconds)) {
            self.poll()
        }
    }

    private static func changes(from known: Versions?, to found: Versions) -> Changes {
        guard let known else { return [.auth, .prices] }
        var changes: Changes = []
        if known.auth != found.auth { changes.insert(.auth) }
        if known.prices != found.prices { changes.insert(.prices) }
        return changes
    }

    /// A key that is not there yet is version 0.
    private static func versions(_ result: Result<RESPValue, RedisError>) -> Versions? {
        guard case .success(.array(let values)) = result, values.count == 2,
            let auth = values[0].isNull ? 0 : values[0].int64, let prices = values[1].isNull ? 0 : values[1].int64
        else { return nil }
        return Versions(auth: auth, prices: prices)
    }
}

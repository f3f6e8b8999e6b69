import Domain
import NIOCore

/// A Redis connection for code that awaits: the control plane and start-up. Request paths use ``RedisClient``.
///
/// Commands wait for a connection up to their timeout. Owns a client of its own on one event loop; end it with
/// ``close(timeout:)``.
package struct RedisSession: Sendable {
    package static let timeoutDefault = Duration.seconds(5)

    /// How often a server that is loading its data is asked again.
    private static let loadingPollInterval = Duration.milliseconds(50)

    package let eventLoop: any EventLoop
    private let client: NIOLoopBound<RedisClient>

    /// Starts to connect; does not wait for it.
    package static func start(_ configuration: RedisConfiguration, on eventLoop: any EventLoop) async -> RedisSession {
        await withCheckedContinuation { continuation in
            eventLoop.execute {
                let client = RedisClient(configuration: configuration, eventLoop: eventLoop)
                client.start()
                continuation.resume(
                    returning: RedisSession(
                        eventLoop: eventLoop, client: NIOLoopBound(client, eventLoop: eventLoop)))
            }
        }
    }

    /// Connects, and returns when a server serves: one that is still loading its data is waited for.
    ///
    /// - Throws: Why there is no connection: the server's own words about a refused login, `notConnected` where nobody
    ///   answered within `timeout` (``RedisURL/description`` says where that was tried).
    package static func connect(
        _ configuration: RedisConfiguration, on eventLoop: any EventLoop, timeout: Duration = timeoutDefault
    ) async throws(RedisError) -> RedisSession {
        let session = await start(configuration, on: eventLoop)
        let deadline = MonotonicTime.now().advanced(by: timeout)
        while true {
            let remaining = deadline.nanoseconds(since: .now())
            do throws(RedisError) {
                _ = try await session.command("PING", timeout: .nanoseconds(max(remaining, 0)))
                return session
            } catch .server(code: "LOADING", _) where remaining > 0 {
                try? await Task.sleep(for: loadingPollInterval)
            } catch {
                let reason = error == .notConnected ? await session.lastConnectFailure ?? error : error
                await session.close()
                throw reason
            }
        }
    }

    package var lastConnectFailure: RedisError? {
        get async { await onLoop { client, resume in resume(client.lastConnectFailure) } }
    }

    package var lastConnectFailureDescription: String? {
        get async { await onLoop { client, resume in resume(client.lastConnectFailureDescription) } }
    }

    /// Identifies the server process at the other end; nil while not connected.
    package var runID: String? {
        get async { await onLoop { client, resume in resume(client.runID) } }
    }

    package func command(
        _ arguments: RESPArgument..., timeout: Duration = timeoutDefault
    ) async throws(RedisError) -> RESPValue {
        try await command(arguments, timeout: timeout)
    }

    package func command(
        _ arguments: [RESPArgument], timeout: Duration = timeoutDefault
    ) async throws(RedisError) -> RESPValue {
        let deadline = MonotonicTime.now().advanced(by: timeout)
        return try await onLoop { client, resume in
            client.send(arguments, deadline: deadline, whenDisconnected: .wait, completion: resume)
        }.get()
    }

    package func evaluate(
        _ script: RedisScript, keys: [RESPArgument], args: [RESPArgument], timeout: Duration = timeoutDefault
    ) async throws(RedisError) -> RESPValue {
        let deadline = MonotonicTime.now().advanced(by: timeout)
        return try await onLoop { client, resume in
            client.evaluate(
                script, keys: keys, args: args, deadline: deadline, whenDisconnected: .wait, completion: resume)
        }.get()
    }

    /// Awaits what is pending up to `timeout`, then ends the connection.
    package func close(timeout: Duration = .seconds(1)) async {
        let deadline = MonotonicTime.now().advanced(by: timeout)
        await onLoop { client, resume in
            client.close(deadline: deadline) { resume(()) }
        }
    }

    /// Runs `body` on the client's loop and returns what it resumes with. It must do so exactly once.
    private func onLoop<Value: Sendable>(
        _ body: @escaping @Sendable (RedisClient, @escaping (Value) -> Void) -> Void
    ) async -> Value {
        await withCheckedContinuation { (continuation: CheckedContinuation<Value, Never>) in
            eventLoop.execute {
                body(client.value) { continuation.resume(returning: $0) }
            }
        }
    }
}

import Domain
import NIOCore
import NIOPosix
import Support
import Synchronization
import Testing

@testable import Redis

/// Against a real redis-server each.
@Suite struct RedisClientTests {
    private static func session(
        _ url: String, configure: (inout RedisLimits) -> Void = { _ in }
    ) async throws -> RedisSession {
        var configuration = RedisConfiguration(url: try RedisURL(url))
        configure(&configuration.limits)
        return try await RedisSession.connect(configuration, on: MultiThreadedEventLoopGroup.singleton.next())
    }

    /// Runs `body` with a started client on its loop; it ends by calling its second argument.
    private static func withClient<Value: Sendable>(
        _ url: String, configure: (inout RedisLimits) -> Void = { _ in },
        _ body: @escaping @Sendable (RedisClient, @escaping (Value) -> Void) -> Void
    ) async throws -> Value {
        var configuration = RedisConfiguration(url: try RedisURL(url))
        configure(&configuration.limits)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return await withCheckedContinuation { continuation in
            loop.execute { [configuration] in
                let client = RedisClient(configuration: configuration, eventLoop: loop)
                client.start()
                body(client) { value in
                    client.close(deadline: .now()) { continuation.resume(returning: value) }
                }
            }
        }
    }

    // MARK: Talking

    @Test func commandsAndRepliesOfEveryKindRoundTrip() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let session = try await Self.session(redis.url)
        let binary: [UInt8] = [0, 13, 10, 255]
        #expect(try await session.command("SET", "key", .bytes(binary)) == .ok)
        #expect(try await session.command("GET", "key") == .bulkString(binary))
        #expect(try await session.command("GET", "missing") == .null)
        #expect(try await session.command("INCRBY", "count", -7) == .integer(-7))
        #expect(try await session.command("LRANGE", "missing", 0, -1) == .array([]))
        #expect(try await session.command("CLIENT", "GETNAME") == .bulkString(Array("tollgate".utf8)))
        #expect(
            try await session.command("EVAL", "return {1, {2, 'x'}, false, redis.error_reply('MY own')}", 0)
                == .array([
                    .integer(1), .array([.integer(2), .bulkString(Array("x".utf8))]), .null,
                    .error(RedisServerError("MY own")),
                ]))
        await #expect(
            throws: RedisError.server(
                code: "WRONGTYPE", message: "Operation against a key holding the wrong kind of value")
        ) { try await session.command("LPUSH", "key", "x") }
        await session.close()
    }

    @Test func unixSocketsAndDatabasesWork() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let unix = try await Self.session("\(redis.unixURL)?db=3")
        _ = try await unix.command("SET", "key", "in three")
        let zero = try await Self.session(redis.url)
        #expect(try await zero.command("GET", "key") == .null)
        _ = try await zero.command("SELECT", 3)
        #expect(try await zero.command("GET", "key").string == "in three")
        #expect(try await zero.command("INFO", "server").string?.contains(await zero.runID ?? "?") == true)
        await unix.close()
        await zero.close()
    }

    @Test func aLargeValueSurvivesBothWays() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let session = try await Self.session(redis.url)
        var generator = SplitMix64(seed: 1)
        let value = (0..<(4 << 20)).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
        _ = try await session.command("SET", "key", .bytes(value))
        #expect(try await session.command("GET", "key") == .bulkString(value))
        await session.close()
    }

    @Test func tenThousandCommandsInOneTickAreAnsweredInOrder() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let replies: [RESPValue] = try await Self.withClient(redis.url) { client, finish in
            var replies: [RESPValue] = []
            func burst() {
                for number in 0..<10_000 {
                    client.send(["ECHO", .integer(Int64(number))], timeout: .seconds(20)) { result in
                        replies.append((try? result.get()) ?? .null)
                        if replies.count == 10_000 { finish(replies) }
                    }
                }
            }
            client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in burst() }
        }
        #expect(replies == (0..<10_000).map { .bulkString(Array("\($0)".utf8)) })
    }

    @Test func commandsThatWaitedForTheConnectionKeepTheirOrder() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let replies: [Int64] = try await Self.withClient(redis.url) { client, finish in
            var replies: [Int64] = []
            for _ in 0..<1_000 {
                client.send(["INCR", "count"], timeout: .seconds(20), whenDisconnected: .wait) { result in
                    replies.append((try? result.get().int64) ?? -1)
                    if replies.count == 1_000 { finish(replies) }
                }
            }
        }
        #expect(replies == Array(1...1_000))
    }

    @Test func commandsOfOneTickLeaveInOneWrite() async throws {
        // Redis counts its reads: a burst written in pieces would need one for each.
        let redis = try RedisServerProcess.start(appendOnly: false)
        let reads: [Int64] = try await Self.withClient(redis.url) { client, finish in
            func readsProcessed(_ then: @escaping (Int64) -> Void) {
                client.send(["INFO", "stats"], timeout: .seconds(10), whenDisconnected: .wait) { result in
                    let text = (try? result.get().string) ?? ""
                    let line = text.split(whereSeparator: \.isNewline).first {
                        $0.hasPrefix("total_reads_processed:")
                    }
                    then(line.flatMap { Int64($0.drop { $0 != ":" }.dropFirst()) } ?? -1)
                }
            }
            readsProcessed { before in
                for _ in 0..<99 { client.send(["PING"], timeout: .seconds(10)) { _ in } }
                client.send(["PING"], timeout: .seconds(10)) { _ in
                    readsProcessed { after in finish([before, after]) }
                }
            }
        }
        #expect(reads[0] > 0)
        #expect(reads[1] - reads[0] == 2)
    }

    // MARK: Failing

    @Test func aCommandTimesOutAndItsLateReplyIsNotTakenForAnothers() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let outcomes: [String] = try await Self.withClient(redis.url) { client, finish in
            var outcomes: [String] = []
            func ended(_ name: String, _ result: Result<RESPValue, RedisError>) {
                switch result {
                case .success(let value): outcomes.append("\(name): \(value.string ?? "?")")
                case .failure(let error): outcomes.append("\(name): \(error)")
                }
                if outcomes.count == 3 { finish(outcomes) }
            }
            client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in
                client.send(["DEBUG", "SLEEP", "0.5"], timeout: .seconds(10)) { ended("sleep", $0) }
                client.send(["ECHO", "late"], timeout: .milliseconds(100)) { result in
                    ended("late", result)
                    client.send(["ECHO", "next"], timeout: .seconds(10)) { ended("next", $0) }
                }
            }
        }
        #expect(outcomes == ["late: \(RedisError.timedOut)", "sleep: OK", "next: next"])
    }

    @Test func aServerThatStaysSilentPastTheGraceIsReplaced() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let (error, reconnected): (RedisError?, Bool) = try await Self.withClient(
            redis.url, configure: { $0.lateReplyGrace = .milliseconds(100) }
        ) { client, finish in
            var failure: RedisError?
            client.onReconnect = { _ in finish((failure, client.isConnected)) }
            client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in
                client.send(["CLIENT", "PAUSE", 700], timeout: .seconds(10)) { _ in
                    client.send(["PING"], timeout: .milliseconds(50)) { _ in }
                    client.send(["PING"], timeout: .seconds(30)) { result in
                        if case .failure(let error) = result { failure = error }
                    }
                }
            }
        }
        #expect(error == .connectionClosed(commandMayHaveRun: true))
        #expect(reconnected)
    }

    @Test func withoutAServerCommandsFailAtOnceOrAtTheirDeadline() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        redis.kill9()
        let (failFast, waited, description): (RedisError?, RedisError?, String?) = try await Self.withClient(
            redis.url
        ) { client, finish in
            var failFast: RedisError?
            client.send(["PING"], timeout: .seconds(10)) { result in
                if case .failure(let error) = result { failFast = error }
            }
            client.send(["PING"], timeout: .milliseconds(200), whenDisconnected: .wait) { result in
                guard case .failure(let error) = result else { return }
                finish((failFast, error, client.lastConnectFailureDescription))
            }
        }
        #expect(failFast == .notConnected)
        #expect(waited == .notConnected)
        #expect(description == "cannot connect to redis://127.0.0.1:\(redis.port)/0: Connection refused")
    }

    @Test func reconnectsAfterKill9AndSeesAnotherRunID() async throws {
        let redis = try RedisServerProcess.start(appendOnly: true)
        let session = try await Self.session(redis.url)
        let before = await session.runID
        _ = try await session.command("SET", "key", "kept")
        redis.kill9()
        await #expect(throws: RedisError.self) { try await session.command("PING", timeout: .milliseconds(100)) }
        try redis.restart()
        #expect(try await session.command("GET", "key", timeout: .seconds(10)).string == "kept")
        let after = await session.runID
        #expect(after?.count == 40)
        #expect(before != after)
        await session.close()
    }

    @Test func aKilledServerFailsWhatWasPendingAndAnnouncesTheReconnect() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let (error, runIDs): (RedisError?, [String?]) = try await Self.withClient(redis.url) { client, finish in
            var failure: RedisError?
            var first: String?
            client.onReconnect = { runID in finish((failure, [first, runID, client.runID])) }
            client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in
                first = client.runID
                client.send(["DEBUG", "SLEEP", "30"], timeout: .seconds(60)) { result in
                    if case .failure(let error) = result { failure = error }
                }
                // Off the loop: it must go on while the server is exchanged.
                client.eventLoop.scheduleTask(in: .milliseconds(50)) {
                    Task.detached { try redis.restart() }
                }
            }
        }
        #expect(error == .connectionClosed(commandMayHaveRun: true))
        #expect(runIDs[0]?.count == 40)
        #expect(runIDs[0] != runIDs[1])
        #expect(runIDs[1] == runIDs[2])
    }

    @Test func overloadIsToldAtOnce() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let outcomes: [RedisError?] = try await Self.withClient(
            redis.url, configure: { $0.pendingCommandsMax = 5 }
        ) { client, finish in
            var outcomes: [RedisError?] = []
            client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in
                for _ in 0..<8 {
                    client.send(["PING"], timeout: .seconds(10)) { result in
                        if case .failure(let error) = result { outcomes.append(error) } else { outcomes.append(nil) }
                        if outcomes.count == 8 { finish(outcomes) }
                    }
                }
            }
        }
        #expect(outcomes.filter { $0 == .overloaded }.count == 3)
        #expect(outcomes.filter { $0 == nil }.count == 5)
    }

    // MARK: What servers say

    @Test func loginIsNeededAndFailuresSayWhatToDo() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false, extra: ["--requirepass", "hunter2"])
        let at = "127.0.0.1:\(redis.port)"
        let admin = try await Self.session("redis://:hunter2@\(at)")
        _ = try await admin.command("ACL", "SETUSER", "app", "on", ">sesame", "~*", "&*", "+@all")
        await admin.close()
        for url in ["redis://:hunter2@\(at)", "redis://default:hunter2@\(at)", "redis://app:sesame@\(at)/1"] {
            let session = try await Self.session(url)
            #expect(try await session.command("PING").string == "PONG")
            await session.close()
        }
        let wrong = await #expect(throws: RedisError.self) { try await Self.session("redis://app:wrong@\(at)") }
        #expect(
            wrong?.description
                == "Redis refused: WRONGPASS AUTH refused: WRONGPASS invalid username-password pair or user is disabled."
                + " (check the user and the password in the Redis URL)")
        let none = await #expect(throws: RedisError.self) { try await Self.session("redis://\(at)") }
        #expect(none?.description.contains("the server wants a password: redis://user:password@host") == true)
    }

    @Test func aDatabaseThatDoesNotExistIsNamedAsTheReason() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let error = await #expect(throws: RedisError.self) {
            try await Self.session("redis://127.0.0.1:\(redis.port)/99")
        }
        #expect(error?.description.contains("SELECT refused: ERR DB index is out of range") == true)
    }

    @Test func aReadOnlyReplicaIsSurfaced() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let session = try await Self.session(redis.url)
        _ = try await session.command("REPLICAOF", "127.0.0.1", 1)
        await #expect(
            throws: RedisError.server(
                code: "READONLY", message: "You can't write against a read only replica.")
        ) { try await session.command("SET", "key", "value") }
        await session.close()
    }

    @Test func aLoadingServerIsSurfacedToCommandsAndWaitedForByConnect() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let filler = try await Self.session(redis.url)
        _ = try await filler.command("EVAL", "for i = 1, 300 do redis.call('SET', i, string.rep('x', 1024)) end", 0)
        _ = try await filler.command("SAVE")
        await filler.close()
        // 300 keys of 3 ms: about a second of loading, with a look at the sockets after each kilobyte.
        try redis.restart(
            extra: ["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"],
            waitForReady: false)
        let loading: Result<RESPValue, RedisError> = try await Self.withClient(redis.url) { client, finish in
            client.send(["GET", "1"], timeout: .seconds(10), whenDisconnected: .wait, completion: finish)
        }
        #expect(throws: RedisError.server(code: "LOADING", message: "Redis is loading the dataset in memory")) {
            try loading.get()
        }
        let session = try await Self.session(redis.url)
        #expect(try await session.command("DBSIZE") == .integer(300))
        await session.close()
    }

    @Test func aServerThatIsNotRedisIsRefused() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let server = try await ServerBootstrap(group: loop)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(NotRedisHandler())
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        let configuration = RedisConfiguration(url: try RedisURL("redis://127.0.0.1:\(port)"))
        let error = await #expect(throws: RedisError.self) {
            _ = try await RedisSession.connect(configuration, on: loop, timeout: .milliseconds(300))
        }
        #expect(error == .protocolViolation(#"Protocol error, got "H" as reply type byte"#))
        try await server.close()
    }

    // MARK: Scripts

    @Test func scriptsRunByHashAndAreLoadedAgainWhenTheServerForgot() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let session = try await Self.session(redis.url)
        let script = RedisScript(source: "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
        for round in 1...3 {
            let reply = try await session.evaluate(script, keys: ["key"], args: [.integer(Int64(round))])
            #expect(reply.array?.map(\.string) == ["key", "\(round)", nil])
            // Each ran once, the loading included.
            #expect(reply.array?.last == .integer(Int64(round)))
            if round > 1 { _ = try await session.command("SCRIPT", "FLUSH") }
        }
        #expect(try await session.command("SCRIPT", "LOAD", .string(script.source)).string == script.sha1)
        await session.close()
    }

    @Test func aBurstOfUnknownScriptsLoadsTheSourceOnce() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let script = RedisScript(source: "return redis.call('INCR', KEYS[1])")
        let (replies, statistics): ([Int64], String) = try await Self.withClient(redis.url) { client, finish in
            var replies: [Int64] = []
            for _ in 0..<500 {
                client.evaluate(
                    script, keys: ["count"], args: [], deadline: .now().advanced(by: .seconds(10)),
                    whenDisconnected: .wait
                ) { result in
                    replies.append((try? result.get().int64) ?? -1)
                    guard replies.count == 500 else { return }
                    client.send(["INFO", "commandstats"], timeout: .seconds(10)) { result in
                        finish((replies, (try? result.get().string) ?? ""))
                    }
                }
            }
        }
        #expect(replies == Array(1...500))
        #expect(statistics.contains("cmdstat_script|load:calls=1,"))
        #expect(statistics.contains("cmdstat_evalsha:calls=1000,"))
    }

    @Test func aScriptThatDoesNotCompileSaysSo() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let session = try await Self.session(redis.url)
        let error = await #expect(throws: RedisError.self) {
            try await session.evaluate(RedisScript(source: "return ("), keys: [], args: [])
        }
        #expect(error?.description.contains("Error compiling script") == true)
        await session.close()
    }

    // MARK: Closing

    @Test func closingAnswersWhatIsPendingAndRefusesWhatComesAfter() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let configuration = RedisConfiguration(url: try RedisURL(redis.url))
        let events: [String] = await withCheckedContinuation { continuation in
            loop.execute {
                var events: [String] = []
                let client = RedisClient(configuration: configuration, eventLoop: loop)
                client.start()
                client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { _ in
                    for number in 1...3 {
                        client.send(["ECHO", .integer(Int64(number))], timeout: .seconds(10)) { result in
                            events.append((try? result.get().string) ?? "failed")
                        }
                    }
                    client.close(deadline: .now().advanced(by: .seconds(10))) {
                        events.append("closed")
                        client.send(["PING"], timeout: .seconds(10), whenDisconnected: .wait) { result in
                            if case .failure(.notConnected) = result { events.append("refused") }
                            continuation.resume(returning: events)
                        }
                    }
                }
            }
        }
        #expect(events == ["1", "2", "3", "closed", "refused"])
    }

    @Test func closingWithoutAConnectionEndsTheAttempts() async throws {
        let redis = try RedisServerProcess.start(appendOnly: false)
        redis.kill9()
        let configuration = RedisConfiguration(url: try RedisURL(redis.url))
        let session = await RedisSession.start(configuration, on: MultiThreadedEventLoopGroup.singleton.next())
        await session.close()
        await #expect(throws: RedisError.notConnected) { try await session.command("PING") }
    }
}

/// Answers as a web server would.
private final class NotRedisHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let reply = ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n")
        context.writeAndFlush(wrapOutboundOut(reply), promise: nil)
    }
}

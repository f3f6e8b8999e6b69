import Domain
import NIOCore
import NIOPosix
import Routing
import Support
import Testing

@testable import Gateway

private let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
private let helloOutcome: [UpstreamTestEvent] = [.started, .head(200), .body("hello"), .end]

/// The pool over TLS, against real sockets.
@Suite(.timeLimit(.minutes(1)))
struct UpstreamTLSTests {
    private static func tls(
        _ authority: String = TestCertificates.authority, host: String = "localhost"
    ) throws -> NodeTLS {
        NodeTLS(trust: try NodeTrust(pem: Array(authority.utf8)), host: host)
    }

    private func withNode(
        _ pair: TestCertificates.Pair? = TestCertificates.good, tls: NodeTLS, reads: Bool = true,
        timeout: Duration = .seconds(10), _ body: (UpstreamTestHarness, UpstreamTestNode) async throws -> Void
    ) async throws {
        let harness = try await UpstreamTestHarness {
            $0.tls = tls
            $0.connectTimeout = timeout
        }
        let node = try await UpstreamTestNode(group: harness.nodeGroup, reads: reads, tls: pair)
        let address = try #require(node.channel.localAddress)
        try await harness.run { $0.updateAddresses([address]) }
        try await body(harness, node)
        try await harness.shutdown()
    }

    @Test(arguments: ["localhost", "127.0.0.1"])
    func aConnectionIsCheckedByNameOrAddressAndUsedAgain(host: String) async throws {
        try await withNode(tls: Self.tls(host: host)) { harness, node in
            var connection: UpstreamTestNode.Connection?
            for round in 0..<3 {
                let delegate = UpstreamTestDelegate()
                _ = try await harness.dispatch(delegate, path: "/\(round)", body: String(repeating: "b", count: 50_000))
                if connection == nil { connection = try await node.accept() }
                let request = try await connection?.readRequest()
                #expect(request?.hasPrefix("POST /\(round) HTTP/1.1\r\n") == true)
                #expect(request?.utf8.count ?? 0 > 50_000)
                try await connection?.write(hello)
                #expect(await delegate.outcome() == helloOutcome)
            }
            #expect(try await harness.run { [$0.connectCount, $0.reuseCount, $0.idleCount] } == [1, 2, 1])
        }
    }

    /// In order is a close_notify, then the socket's end; the other is a node that died.
    @Test(arguments: [true, false]) func aKeptConnectionThatTheNodeClosesIsSentAgainOnce(isInOrder: Bool) async throws {
        try await withNode(tls: Self.tls()) { harness, node in
            try await expectStaleConnectionIsSentAgainOnce(harness, node, endsInOrder: isInOrder)
        }
    }

    @Test func anIdleConnectionThatTheNodeClosesIsForgotten() async throws {
        try await withNode(tls: Self.tls()) { harness, node in
            let first = UpstreamTestDelegate()
            _ = try await harness.dispatch(first)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await connection.write(hello)
            #expect(await first.outcome() == helloOutcome)
            try await connection.close()
            try await harness.waitUntil { $0.idleCount == 0 && $0.openCount == 0 }
        }
    }

    private static let strangers: [(TestCertificates.Pair?, UpstreamTLSFailure)] = [
        (TestCertificates.foreign, .untrusted), (TestCertificates.otherName, .wrongName), (nil, .notTLS),
    ]

    @Test(arguments: Self.strangers.indices)
    func whoCannotProveItIsTheNodeGetsNoRequest(row: Int) async throws {
        let (pair, reason) = Self.strangers[row]
        try await withNode(pair, tls: Self.tls()) { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            if pair == nil { try await connection.write("HTTP/1.1 400 Bad Request\r\n\r\n") }
            #expect(await delegate.outcome() == [.failed(.tlsFailed(reason))])
            #expect(UpstreamFailure.tlsFailed(reason).label == "tls_failed")
            #expect(try await harness.run { $0.openCount } == 0)
        }
    }

    @Test func aNodeThatClosesInTheHandshakeIsTold() async throws {
        try await withNode(nil, tls: Self.tls(), reads: false) { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            try await node.accept().close()
            let outcome = await delegate.outcome()
            #expect(outcome == [.failed(.tlsFailed(.closed))] || outcome == [.failed(.connectFailed)])
        }
    }

    @Test func theHandshakeIsPartOfConnecting() async throws {
        try await withNode(nil, tls: Self.tls(), reads: false, timeout: .milliseconds(100)) { harness, _ in
            let delegate = UpstreamTestDelegate()
            let began = MonotonicTime.now()
            _ = try await harness.dispatch(delegate)
            #expect(await delegate.outcome() == [.failed(.connectTimedOut)])
            #expect(MonotonicTime.now().seconds(since: began) >= 0.1)
            #expect(try await harness.run { $0.openCount } == 0)
        }
    }

    @Test func aCallThatIsCancelledInTheHandshakeEndsItsConnection() async throws {
        try await withNode(nil, tls: Self.tls()) { harness, node in
            let delegate = UpstreamTestDelegate()
            let call = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await harness.run { _ in call.value.cancel() }
            await connection.waitForClose()
            #expect(try await harness.run { $0.openCount } == 0)
        }
    }

    @Test func aCancelledRequestReachesTheNodeThoughItDoesNotReadTLSFarewells() async throws {
        try await withNode(tls: Self.tls()) { harness, node in
            let delegate = UpstreamTestDelegate()
            let call = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            let began = MonotonicTime.now()
            try await harness.run { _ in call.value.cancel() }
            await connection.waitForClose()
            #expect(MonotonicTime.now().seconds(since: began) < 2)
        }
    }

    @Test func connectionsMadeUnderOtherAuthoritiesAreNotUsedAgain() async throws {
        try await withNode(tls: Self.tls()) { harness, node in
            let delegates = [UpstreamTestDelegate(), UpstreamTestDelegate()]
            var connections: [UpstreamTestNode.Connection] = []
            for delegate in delegates {
                _ = try await harness.dispatch(delegate)
                connections.append(try await node.accept())
                _ = try await connections.last?.readRequest()
            }
            try await connections[0].write(hello)
            #expect(await delegates[0].outcome() == helloOutcome)
            let other = try Self.tls(TestCertificates.otherAuthority)
            try await harness.run { pool in
                var configuration = pool.configuration
                configuration.tls = other
                pool.updateConfiguration(configuration)
            }
            #expect(try await harness.run { $0.idleCount } == 0)
            // The one at work goes on, and is not kept.
            try await connections[1].write(hello)
            #expect(await delegates[1].outcome() == helloOutcome)
            #expect(try await harness.run { $0.idleCount } == 0)
            let third = UpstreamTestDelegate()
            _ = try await harness.dispatch(third)
            #expect(await third.outcome() == [.failed(.tlsFailed(.untrusted))])
        }
    }

    @Test func aRequestBringsItsOwnTimeToConnect() async throws {
        let listener = try UpstreamFullListener()
        let harness = try await UpstreamTestHarness(addresses: [listener.address]) { $0.connectTimeout = .seconds(30) }
        let delegate = UpstreamTestDelegate()
        let began = MonotonicTime.now()
        let loop = harness.loop
        _ = try await harness.run { pool in
            var request = upstreamTestRequest("/")
            request.connectTimeout = .milliseconds(100)
            return NIOLoopBound(pool.dispatch(request, delegate: delegate), eventLoop: loop)
        }
        #expect(await delegate.outcome() == [.failed(.connectTimedOut)])
        #expect((0.1..<10).contains(MonotonicTime.now().seconds(since: began)))
        try await harness.shutdown()
    }

    // MARK: Probes

    @Test func probesSpeakTLSAndSayWhatIsWrong() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let table: [(TestCertificates.Pair?, ProbeFinding)] = [
            (TestCertificates.good, ProbeFinding(result: .healthy, reason: "status 200")),
            (
                TestCertificates.foreign,
                ProbeFinding(result: .failed, reason: UpstreamTLSFailure.untrusted.rawValue)
            ),
            (
                TestCertificates.otherName,
                ProbeFinding(result: .failed, reason: UpstreamTLSFailure.wrongName.rawValue)
            ),
        ]
        for (pair, expected) in table {
            let node = try await UpstreamTestNode(group: group, tls: pair)
            let port = try #require(node.channel.localAddress?.port)
            var configuration = fleetNode("n", host: "localhost", port: port)
            configuration.url.isSecure = true
            configuration.trust = try NodeTrust(pem: Array(TestCertificates.authority.utf8))
            let answer = Task {
                let connection = try await node.accept()
                _ = try await connection.readRequest()
                try await connection.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            }
            let finding = await HealthProbe(eventLoop: group.any(), timeout: .seconds(10)).run(
                configuration, at: try SocketAddress(ipAddress: "127.0.0.1", port: port))
            #expect(finding == expected)
            answer.cancel()
            try await node.channel.close().get()
        }
    }
}

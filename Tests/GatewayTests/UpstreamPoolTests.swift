import Gateway
import NIOCore
import NIOPosix
import Testing

private let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
private let helloOutcome: [UpstreamTestEvent] = [.started, .head(200), .body("hello"), .end]

/// The pool, its connections and their state machine against real sockets.
@Suite(.timeLimit(.minutes(1)))
struct UpstreamPoolTests {
    /// Runs `body` with a pool for one node.
    private func withNode(
        reads: Bool = true, configure: @Sendable @escaping (inout UpstreamPool.Configuration) -> Void = { _ in },
        _ body: (UpstreamTestHarness, UpstreamTestNode) async throws -> Void
    ) async throws {
        let harness = try await UpstreamTestHarness(configure: configure)
        let node = try await UpstreamTestNode(group: harness.nodeGroup, reads: reads)
        let address = try #require(node.channel.localAddress)
        try await harness.run { $0.updateAddresses([address]) }
        try await body(harness, node)
        try await harness.shutdown()
    }

    @Test func connectionIsUsedAgain() async throws {
        try await withNode { harness, node in
            var connection: UpstreamTestNode.Connection?
            for round in 0..<3 {
                let delegate = UpstreamTestDelegate()
                _ = try await harness.dispatch(delegate, path: "/\(round)", body: "body \(round)")
                if connection == nil { connection = try await node.accept() }
                let request = try await connection?.readRequest()
                #expect(request == "POST /\(round) HTTP/1.1\r\nhost: node\r\ncontent-length: 6\r\n\r\nbody \(round)")
                try await connection?.write(hello)
                #expect(await delegate.outcome() == helloOutcome)
            }
            let counts = try await harness.run { [$0.connectCount, $0.reuseCount, $0.openCount, $0.idleCount] }
            #expect(counts == [1, 2, 1, 1])
        }
    }

    @Test func connectionParkedLastIsTakenFirst() async throws {
        try await withNode { harness, node in
            let delegates = [UpstreamTestDelegate(), UpstreamTestDelegate()]
            var connections: [UpstreamTestNode.Connection] = []
            for delegate in delegates {
                _ = try await harness.dispatch(delegate)
                connections.append(try await node.accept())
            }
            for (delegate, connection) in zip(delegates, connections) {
                try await connection.write(hello)
                #expect(await delegate.outcome() == helloOutcome)
            }
            for connection in connections { _ = try await connection.readRequest() }
            let third = UpstreamTestDelegate()
            _ = try await harness.dispatch(third, path: "/third")
            #expect(try await connections[1].readRequest().hasPrefix("POST /third "))
        }
    }

    @Test(arguments: [true, false])
    func requestOnAStaleConnectionIsSentAgainOnceAndUnseen(isInOrder: Bool) async throws {
        try await withNode { harness, node in
            try await expectStaleConnectionIsSentAgainOnce(harness, node, endsInOrder: isInOrder)
        }
    }

    @Test func secondCloseBeforeTheResponseIsTold() async throws {
        try await withNode { harness, node in
            let first = UpstreamTestDelegate()
            _ = try await harness.dispatch(first)
            let stale = try await node.accept()
            _ = try await stale.readRequest()
            try await stale.write(hello)
            #expect(await first.outcome() == helloOutcome)

            let second = UpstreamTestDelegate()
            _ = try await harness.dispatch(second)
            _ = try await stale.readRequest()
            try await stale.reset()
            let fresh = try await node.accept()
            _ = try await fresh.readRequest()
            try await fresh.close()
            #expect(await second.outcome() == [.started, .failed(.closedBeforeResponse)])
            #expect(try await harness.run { [$0.sentAgainCount, $0.connectCount, $0.openCount] } == [1, 2, 0])
        }
    }

    @Test func freshConnectionThatClosesIsNotTriedAgain() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await connection.close()
            #expect(await delegate.outcome() == [.started, .failed(.closedBeforeResponse)])
            #expect(try await harness.run { $0.sentAgainCount } == 0)
        }
    }

    @Test func staleConnectionIsNotSentAgainOnceAByteCame() async throws {
        try await withNode { harness, node in
            let first = UpstreamTestDelegate()
            _ = try await harness.dispatch(first)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await connection.write(hello)
            #expect(await first.outcome() == helloOutcome)
            let second = UpstreamTestDelegate()
            _ = try await harness.dispatch(second)
            _ = try await connection.readRequest()
            try await connection.write("H")
            try await connection.close()
            #expect(await second.outcome() == [.started, .failed(.closedMidResponse)])
        }
    }

    @Test func connectionThatTheNodeClosesWhileIdleIsForgotten() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write(hello)
            #expect(await delegate.outcome() == helloOutcome)
            try await connection.close()
            try await harness.waitUntil { $0.openCount == 0 && $0.idleCount == 0 }
        }
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ])
    func connectionThatCannotBeTrustedIsClosed(_ response: String) async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write(response)
            #expect(await delegate.outcome() == helloOutcome)
            await connection.waitForClose()
            #expect(try await harness.run { [$0.openCount, $0.idleCount] } == [0, 0])
        }
    }

    @Test func bytesThatNobodyAskedForCloseAnIdleConnection() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write(hello)
            #expect(await delegate.outcome() == helloOutcome)
            try await connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await connection.waitForClose()
            try await harness.waitUntil { $0.openCount == 0 && $0.idleCount == 0 }
        }
    }

    @Test func malformedResponseFailsAndCloses() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
            #expect(await delegate.outcome() == [.started, .failed(.malformedResponse(.contentLength))])
            await connection.waitForClose()
        }
    }

    @Test func bodyWithoutLengthEndsWithTheConnectionUnlessItIsReset() async throws {
        try await withNode { harness, node in
            for (isReset, last) in [(false, UpstreamTestEvent.end), (true, .failed(.closedMidResponse))] {
                let delegate = UpstreamTestDelegate()
                _ = try await harness.dispatch(delegate)
                let connection = try await node.accept()
                _ = try await connection.readRequest()
                try await connection.write("HTTP/1.1 200 OK\r\n\r\nhello")
                await delegate.wait { $0 == .body("hello") }
                if isReset { try await connection.reset() } else { try await connection.close() }
                #expect(await delegate.outcome() == [last])
            }
        }
    }

    @Test func cancelInMidBodyClosesAtOnceAndSilencesTheCall() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            let call = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await delegate.wait { $0 == .body("hello") }
            await delegate.wait { $0 == .readComplete }
            try await harness.run { _ in
                call.value.cancel()
                call.value.cancel()
            }
            await connection.waitForClose()
            #expect(try await harness.run { [$0.openCount, $0.idleCount] } == [0, 0])
            try await harness.run { _ in delegate.finish() }
            #expect(await delegate.outcome() == [])
        }
    }

    @Test func cancelBeforeTheAnswerClosesToo() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamTestDelegate()
            let call = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await harness.run { _ in call.value.cancel() }
            await connection.waitForClose()
            try await harness.run { _ in delegate.finish() }
            #expect(await delegate.outcome() == [.started])
        }
    }

    @Test func requestStartedFromTheEndOfAnotherUsesItsConnection() async throws {
        try await withNode { harness, node in
            let second = UpstreamTestDelegate()
            let first = UpstreamChainingDelegate(pool: harness.pool, next: second)
            try await harness.run { pool in
                _ = pool.dispatch(upstreamTestRequest("/first"), delegate: first)
            }
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            try await connection.write(hello)
            #expect(try await connection.readRequest().hasPrefix("POST /second "))
            try await connection.write(hello)
            #expect(await second.outcome() == helloOutcome)
            #expect(try await harness.run { $0.connectCount } == 1)
        }
    }

    @Test func slowReaderStopsTheNodeAndLosesNothing() async throws {
        try await withNode { harness, node in
            let slow = UpstreamTestDelegate()
            let call = try await harness.dispatch(slow)
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            let size = 16 * 1024 * 1024
            try await connection.write("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\n\r\n")
            await slow.wait { $0 == .head(200) }
            try await harness.run { _ in call.value.pauseReading() }
            let written = connection.channel.eventLoop.makePromise(of: Void.self)
            connection.channel.writeAndFlush(ByteBuffer(repeating: 0x78, count: size), promise: written)
            // Other requests are served by the same loop meanwhile, which sees each connection that is readable.
            var other: UpstreamTestNode.Connection?
            for _ in 0..<20 {
                let delegate = UpstreamTestDelegate()
                _ = try await harness.dispatch(delegate)
                if other == nil { other = try await node.accept() }
                _ = try await other?.readRequest()
                try await other?.write(hello)
                #expect(await delegate.outcome() == helloOutcome)
            }
            // A mark in the stream of events: what came before it came while reading was paused.
            try await harness.run { _ in slow.upstreamStarted() }
            var before = 0
            for await event in slow.events {
                if event == .started { break }
                if case .body = event { before += 1 }
            }
            #expect(before == 0)
            try await harness.run { _ in call.value.resumeReading() }
            var received = 0
            for await event in slow.events {
                if case .body(let text) = event { received += text.utf8.count }
                if event == .end { break }
            }
            #expect(received == size)
            try await written.futureResult.get()
        }
    }

    @Test func connectionOfACallThatEndsPausedReadsAgain() async throws {
        try await withNode { harness, node in
            let delegate = UpstreamPausingDelegate()
            let call = try await harness.run { pool in
                let call = pool.dispatch(upstreamTestRequest("/"), delegate: delegate)
                delegate.call.value = call
                return NIOLoopBound(call, eventLoop: pool.eventLoop)
            }
            let connection = try await node.accept()
            _ = try await connection.readRequest()
            // One read brings all: the call ends while reading is paused.
            try await connection.write(hello)
            #expect(await delegate.recorder.outcome() == [.head(200), .body("hello"), .end])
            #expect(try await harness.run { _ in call.value.isOver })
            let next = UpstreamTestDelegate()
            _ = try await harness.dispatch(next)
            _ = try await connection.readRequest()
            try await connection.write(hello)
            #expect(await next.outcome() == helloOutcome)
        }
    }

    @Test func answerBeforeTheUploadEndsIsRelayedAndTheConnectionClosed() async throws {
        try await withNode(reads: false) { harness, node in
            let delegate = UpstreamTestDelegate()
            // More than any socket buffers of both sides hold.
            _ = try await harness.dispatch(delegate, body: String(repeating: "x", count: 16 * 1024 * 1024))
            let connection = try await node.accept()
            try await connection.write("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            #expect(await delegate.outcome() == [.started, .head(413), .body("big"), .end])
            #expect(try await harness.run { [$0.openCount, $0.idleCount] } == [0, 0])
        }
    }

    @Test func largeBodyArrivesWhole() async throws {
        try await withNode { harness, node in
            for size in [UpstreamPool.coalescedBodyBytesMax, UpstreamPool.coalescedBodyBytesMax + 1, 1_000_000] {
                let delegate = UpstreamTestDelegate()
                let body = String((0..<size).map { Character(UnicodeScalar(UInt8(0x61 + $0 % 26))) })
                _ = try await harness.dispatch(delegate, body: body)
                let connection = try await node.accept()
                #expect(try await connection.readRequest().hasSuffix("\r\n\r\n" + body))
                try await connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
                #expect(await delegate.outcome() == helloOutcome)
            }
        }
    }

    @Test func idleConnectionClosesAfterItsTime() async throws {
        try await withNode(configure: { $0.idleTimeout = .milliseconds(20) }) { harness, node in
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write(hello)
            #expect(await delegate.outcome() == helloOutcome)
            await connection.waitForClose()
            try await harness.waitUntil { $0.openCount == 0 && $0.idleCount == 0 }
        }
    }

    @Test func idleConnectionsAreBounded() async throws {
        try await withNode(configure: { $0.idleMax = 1 }) { harness, node in
            let delegates = [UpstreamTestDelegate(), UpstreamTestDelegate()]
            var connections: [UpstreamTestNode.Connection] = []
            for delegate in delegates {
                _ = try await harness.dispatch(delegate)
                connections.append(try await node.accept())
            }
            for (delegate, connection) in zip(delegates, connections) {
                try await connection.write(hello)
                #expect(await delegate.outcome() == helloOutcome)
            }
            await connections[1].waitForClose()
            #expect(try await harness.run { [$0.openCount, $0.idleCount] } == [1, 1])
        }
    }

    @Test func requestPastTheConnectionLimitFails() async throws {
        try await withNode(configure: { $0.connectionsMax = 1 }) { harness, node in
            let first = UpstreamTestDelegate()
            let call = try await harness.dispatch(first)
            _ = try await node.accept()
            let second = UpstreamTestDelegate()
            _ = try await harness.dispatch(second)
            #expect(await second.outcome() == [.failed(.poolExhausted)])
            // The place is free again as soon as the call is cancelled.
            let third = UpstreamTestDelegate()
            try await harness.run { pool in
                call.value.cancel()
                _ = pool.dispatch(upstreamTestRequest("/third"), delegate: third)
            }
            let connection = try await node.accept()
            try await connection.write(hello)
            #expect(await third.outcome() == helloOutcome)
        }
    }

    @Test func connectionToAnAddressThatIsGoneClosesWhenIdle() async throws {
        try await withNode { harness, node in
            let other = try await UpstreamTestNode(group: harness.nodeGroup)
            let (idle, busy) = (UpstreamTestDelegate(), UpstreamTestDelegate())
            _ = try await harness.dispatch(idle)
            let idleConnection = try await node.accept()
            _ = try await harness.dispatch(busy)
            let busyConnection = try await node.accept()
            try await idleConnection.write(hello)
            #expect(await idle.outcome() == helloOutcome)
            let address = try #require(other.channel.localAddress)
            try await harness.run { $0.updateAddresses([address]) }
            await idleConnection.waitForClose()
            try await busyConnection.write(hello)
            #expect(await busy.outcome() == helloOutcome)
            await busyConnection.waitForClose()
            let next = UpstreamTestDelegate()
            _ = try await harness.dispatch(next)
            _ = try await other.accept()
        }
    }

    @Test func closedPoolEndsAfterItsLastAnswer() async throws {
        try await withNode { harness, node in
            let (idle, busy) = (UpstreamTestDelegate(), UpstreamTestDelegate())
            _ = try await harness.dispatch(idle)
            let idleConnection = try await node.accept()
            _ = try await harness.dispatch(busy)
            let busyConnection = try await node.accept()
            try await idleConnection.write(hello)
            #expect(await idle.outcome() == helloOutcome)
            let drained = harness.loop.makePromise(of: Void.self)
            try await harness.run { $0.close(promise: drained) }
            await idleConnection.waitForClose()
            let refused = UpstreamTestDelegate()
            _ = try await harness.dispatch(refused)
            #expect(await refused.outcome() == [.failed(.poolClosed)])
            try await busyConnection.write(hello)
            #expect(await busy.outcome() == helloOutcome)
            try await drained.futureResult.get()
            await busyConnection.waitForClose()
        }
    }

    @Test func failuresOfConnectingAreTold() async throws {
        let harness = try await UpstreamTestHarness()
        let nowhere = UpstreamTestDelegate()
        _ = try await harness.dispatch(nowhere)
        #expect(await nowhere.outcome() == [.failed(.noAddress)])

        // A port that was just given up: nobody listens there.
        let gone = try await UpstreamTestNode(group: harness.nodeGroup)
        let goneAddress = try #require(gone.channel.localAddress)
        try await gone.channel.close().get()
        try await harness.run { $0.updateAddresses([goneAddress]) }
        let refused = UpstreamTestDelegate()
        _ = try await harness.dispatch(refused)
        #expect(await refused.outcome() == [.failed(.connectFailed)])

        // A second address is tried, and from then on first.
        let node = try await UpstreamTestNode(group: harness.nodeGroup)
        let address = try #require(node.channel.localAddress)
        try await harness.run { $0.updateAddresses([goneAddress, address]) }
        for connects in [2, 1] {
            let before = try await harness.run { $0.connectCount }
            let delegate = UpstreamTestDelegate()
            _ = try await harness.dispatch(delegate)
            let connection = try await node.accept()
            try await connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
            #expect(await delegate.outcome() == helloOutcome)
            #expect(try await harness.run { $0.connectCount } == before + connects)
        }
        try await harness.shutdown()
    }

    @Test func connectTimesOutAndCanBeCancelled() async throws {
        let full = try UpstreamFullListener()
        let harness = try await UpstreamTestHarness(addresses: [full.address]) {
            $0.connectTimeout = .seconds(3600)
        }
        let cancelled = UpstreamTestDelegate()
        let call = try await harness.dispatch(cancelled)
        #expect(try await harness.run { $0.openCount } == 1)
        let openAfterCancel = try await harness.run { pool in
            call.value.cancel()
            var configuration = pool.configuration
            configuration.connectTimeout = .milliseconds(100)
            pool.updateConfiguration(configuration)
            return pool.openCount
        }
        #expect(openAfterCancel == 0)
        let late = UpstreamTestDelegate()
        _ = try await harness.dispatch(late)
        #expect(await late.outcome() == [.failed(.connectTimedOut)])
        try await harness.run { _ in cancelled.finish() }
        #expect(await cancelled.outcome() == [])
        try await harness.shutdown()
    }

    @Test func cancelInTheTurnOfTheDispatchIsSilent() async throws {
        try await withNode { harness, _ in
            let delegate = UpstreamTestDelegate()
            try await harness.run { pool in
                pool.dispatch(upstreamTestRequest("/"), delegate: delegate).cancel()
                #expect(pool.openCount == 0)
            }
            try await harness.run { _ in delegate.finish() }
            // A loopback connect may succeed at once, and then the request was handed over before the cancel.
            #expect(await delegate.outcome().allSatisfy { $0 == .started })
        }
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Synchronization
import Testing

/// design.md's table "The HTTP contract", between client and gateway.
@Suite(.serialized) struct ContractTests {
    private func shared() async throws -> (GatewayUnderTest, SharedGateway, Customer) {
        let shared = try await SharedGateway.get()
        return (shared.gateway, shared, try await Customer.create(on: shared.gateway))
    }

    // MARK: Pipelining and the connection's end

    @Test func eightRequestsWaitBehindTheOneThatRunsAndAreAnsweredInOrder() async throws {
        let (gateway, _, customer) = try await shared()
        let answers = try await gateway.wire { wire in
            try wire.send(Self.pipeline(count: 9, key: customer.key))
            var answers = try (0..<9).map { _ in try wire.response() }
            // The connection is as good as before.
            try wire.send(Ask.chat("fast", key: customer.key, tokens: 1))
            answers.append(try wire.response())
            return answers
        }
        #expect(answers.allSatisfy { $0.status == 200 })
        let lengths = try answers.map { try $0.json()["usage"]?["completion_tokens"]?.integer }
        #expect(lengths == [4, 2, 3, 4, 5, 6, 7, 8, 9, 1])
        _ = try await customer.books(settles: 10)
    }

    @Test func theNinthThatWaitsClosesTheConnectionAfterTheAnswersBeforeIt() async throws {
        let (gateway, _, customer) = try await shared()
        let (answers, isOrderly) = try await gateway.wire { wire in
            try wire.send(Self.pipeline(count: 10, key: customer.key))
            let answers = try (0..<9).map { _ in try wire.response() }
            return (answers, try wire.waitForClose())
        }
        #expect(answers.allSatisfy { $0.status == 200 })
        #expect(answers.last?.header("connection") == "close")
        #expect(isOrderly)
        _ = try await customer.books(settles: 9)
    }

    /// The first takes time, so that the others are there before it is answered.
    private static func pipeline(count: Int, key: String) -> [UInt8] {
        Ask.chat("slow", key: key, tokens: 4).bytes
            + (2...count).flatMap { Ask.chat("fast", key: key, tokens: $0).bytes }
    }

    @Test(arguments: [false, true])
    func upgradeIsIgnoredAndTheConnectionClosesAfterTheAnswer(hasBody: Bool) async throws {
        let (gateway, _, customer) = try await shared()
        let ask = (hasBody ? Ask.chat("fast", key: customer.key) : Ask.get("/v1/models", key: customer.key))
            .with("Connection", "Upgrade, HTTP2-Settings").with("Upgrade", "h2c")
            .with("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
        let (answer, isOrderly) = try await gateway.wire { wire in
            try wire.send(ask)
            return (try wire.response(), try wire.waitForClose())
        }
        #expect(answer.status == 200)
        #expect(answer.header("connection") == "close")
        #expect(answer.header("upgrade") == nil)
        #expect(isOrderly)
        _ = try await customer.books(settles: hasBody ? 1 : 0)
    }

    @Test func connectionCloseIsServedAndClosed() async throws {
        let (gateway, _, customer) = try await shared()
        let (answer, isOrderly) = try await gateway.wire { wire in
            try wire.send(Ask.chat("fast", key: customer.key).with("Connection", "close"))
            return (try wire.response(), try wire.waitForClose())
        }
        #expect(answer.status == 200)
        #expect(answer.header("connection") == "close")
        #expect(isOrderly)
        _ = try await customer.onlySettle()
    }

    @Test func largeAnswersReachASlowReaderWholeBeforeTheConnectionCloses() async throws {
        let (gateway, _, customer) = try await shared()
        // Each is less than a megabyte, so it is written at once; all of them are more than the kernel takes.
        let inputs = (0..<190).map { "\"text \($0)\"" }.joined(separator: ",")
        let ask = Ask.post("/v1/embeddings", "{\"model\":\"fast\",\"input\":[\(inputs)]}", key: customer.key)
        let wire = try gateway.connect(receiveBufferBytes: 16 << 10)
        for _ in 1...5 { try wire.send(ask) }
        try wire.send(ask.with("Connection", "close"))
        // They are charged, and so written, before the client reads the first byte.
        _ = try await customer.books(settles: 6)
        let (answers, isOrderly) = try await blocking {
            let answers = try (1...6).map { _ in try wire.response() }
            return (answers, try wire.waitForClose())
        }
        for answer in answers {
            #expect(answer.status == 200)
            #expect((600_000..<1 << 20).contains(answer.body.count))
            #expect(try JSONValue(parsing: answer.body, bytesMax: 4 << 20)["data"]?.array?.count == 190)
        }
        #expect(isOrderly)
    }

    @Test func http10IsServedPlainAndStreamed() async throws {
        let (gateway, _, customer) = try await shared()
        for stream in [false, true] {
            var ask = Ask.chat("fast", key: customer.key, stream: stream, tokens: 5)
            ask.version = "HTTP/1.0"
            ask.hasHost = false
            let request = ask
            let answer = try await gateway.wire { wire in
                try wire.send(request)
                let answer = try wire.response()
                // The end of the connection is the end of the answer.
                guard try wire.waitForClose() else { throw Wire.Failure.reset("") }
                return answer
            }
            #expect(answer.status == 200)
            #expect(answer.header("transfer-encoding") == nil)
            if stream { #expect(answer.events.last == "[DONE]") }
        }
        #expect(try await customer.books(settles: 2).settles.allSatisfy { $0.completion == 5 })
    }

    @Test(arguments: [1, 13, 4_096])
    func chunkedUploadsAreServed(chunkBytes: Int) async throws {
        let (gateway, _, customer) = try await shared()
        let prompt = String(repeating: "word ", count: 600)
        let answer = try await gateway.ask(
            .chat("fast", key: customer.key, tokens: 3, prompt: prompt).with(chunks: chunkBytes))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try await customer.onlySettle().completion == 3)
    }

    // MARK: Before the body

    @Test func headersBeyondTheirBoundGet431AndTheConnectionCloses() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let customer = try await Customer.create(on: small.gateway)
        let one = Ask.get("/v1/models", key: customer.key)
            .with("X-Long", String(repeating: "x", count: SmallGateway.headerBytes + 500))
        let many = (0..<300).reduce(Ask.get("/v1/models", key: customer.key)) { $0.with("X-\($1)", "0123456789") }
        for ask in [one, many] {
            let (answer, isOrderly) = try await small.gateway.wire { wire in
                try wire.send(ask)
                return (try wire.response(), try wire.waitForClose())
            }
            #expect(answer.status == 431)
            #expect(answer.errorCode == "headers_too_large")
            #expect(answer.header("connection") == "close")
            #expect(isOrderly)
        }
        let fits = Ask.get("/v1/models", key: customer.key).with("X-Long", String(repeating: "x", count: 3_000))
        #expect(try await small.gateway.ask(fits).status == 200)
    }

    @Test func expectContinueIsAnsweredWhereKeyAndSizePass() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.wire { wire in
            let ask = Ask.chat("fast", key: customer.key, tokens: 2).with("Expect", "100-continue")
            let bytes = ask.bytes
            let head = bytes.count - (ask.body?.count ?? 0)
            try wire.send(Array(bytes[..<head]))
            // Nothing of the body goes before the gateway says so.
            let interim = try Self.interim(wire)
            try wire.send(Array(bytes[head...]))
            return (interim, try wire.response())
        }
        #expect(answer.0 == "HTTP/1.1 100 Continue\r\n\r\n")
        #expect(answer.1.status == 200)
        _ = try await customer.onlySettle()
    }

    private static func interim(_ wire: Wire) throws -> String {
        String(decoding: try wire.take(through: Array("\r\n\r\n".utf8)), as: UTF8.self)
    }

    @Test func expectContinueIsRefusedAtOnceWhereKeyOrSizeFail() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let customer = try await Customer.create(on: small.gateway)
        let body = "Content-Type: application/json\r\nExpect: 100-continue\r\n"
        let start = "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n\(body)"
        let withoutKey = start + "Content-Length: 100\r\n\r\n"
        let tooLarge = start + "Authorization: Bearer \(customer.key)\r\nContent-Length: 70000\r\n\r\n"
        for (text, status) in [(withoutKey, 401), (tooLarge, 413)] {
            let answer = try await small.gateway.wire { wire in
                try wire.send(text)
                return try wire.response()
            }
            #expect(answer.status == status)
            #expect(answer.interim.isEmpty)
            #expect(answer.header("connection") == "close")
        }
        try await customer.expectNoCharge()
    }

    @Test func aClientThatKeepsSendingGetsTheEarlyAnswerAndNoReset() async throws {
        let (gateway, _, _) = try await shared()
        let (answer, isOrderly) = try await gateway.wire { wire in
            try wire.send(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
                    + "Authorization: Bearer wrong\r\nContent-Length: 60000\r\n\r\n")
            for _ in 0..<60 { try wire.send([UInt8](repeating: UInt8(ascii: " "), count: 1_000)) }
            return (try wire.response(), try wire.waitForClose())
        }
        #expect(answer.status == 401)
        #expect(answer.header("connection") == "close")
        #expect(isOrderly)
    }

    @Test func aClientThatNeverStopsSendingIsCutOff() async throws {
        let (gateway, _, _) = try await shared()
        let started = MonotonicTime.now()
        let (answer, sent) = try await gateway.wire { wire in
            try wire.send(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
                    + "Content-Length: 4000000000\r\n\r\n")
            let answer = try wire.response()
            let piece = [UInt8](repeating: UInt8(ascii: " "), count: 16_384)
            return (answer, wire.sendWhatGoes(piece, count: 100_000, within: .seconds(10)))
        }
        #expect(answer.status == 401)
        // What the kernels' buffers hold, and the 64 KiB that are dropped.
        #expect(sent < 16 << 20)
        #expect(MonotonicTime.now().seconds(since: started) < 8)
    }

    @Test(arguments: [
        ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Content-Encoding", "zstd, gzip"),
    ])
    func compressedBodiesGet415(name: String, value: String) async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("fast", key: customer.key).with(name, value))
        #expect(answer.status == 415)
        #expect(answer.errorCode == "unsupported_media_type")
        try await customer.expectNoCharge()
    }

    @Test func bodiesWithoutALengthGet411AndOtherTypesGet415() async throws {
        let (gateway, _, customer) = try await shared()
        let start = "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer \(customer.key)\r\n"
        let unmeasured = try await gateway.wire { wire in
            try wire.send(start + "Content-Type: application/json\r\n\r\n")
            return try wire.response()
        }
        #expect(unmeasured.status == 411)
        #expect(unmeasured.errorCode == "length_required")
        let text = try await gateway.wire { wire in
            try wire.send(start + "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
            return try wire.response()
        }
        #expect(text.status == 415)
        #expect(text.errorCode == "unsupported_media_type")
    }

    // MARK: Clients that leave

    @Test func aHalfClosedClientIsGone() async throws {
        let (gateway, shared, customer) = try await shared()
        let node = shared.node("prefill-halved")
        let before = node.stats
        let wire = try gateway.connect()
        try wire.send(Ask.chat("prefill-halved", key: customer.key, tokens: 3))
        _ = try await node.stats { $0.requests > before.requests }
        wire.halfClose()
        _ = try await node.stats { $0.aborted > before.aborted }
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.completion == 0)
        #expect(try await gateway.accessLine(of: entry.requestID ?? "")["status"]?.integer == 499)
        #expect(try await blocking { try wire.waitForClose() })
    }

    // MARK: Memory

    @Test func bodiesBeyondTheSharedBoundWaitAndGoOnWhenOthersHaveLeft() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let gateway = small.gateway
        let customer = try await Customer.create(on: gateway)
        let (first, firstRest) = try Self.halfSent(gateway, customer, bytes: 60_000)
        let (second, secondRest) = try Self.halfSent(gateway, customer, bytes: 60_000)
        // 50,000 bytes each do not fit into 96 KiB: one of the two is not read any further.
        try await until("both to be read as far as they fit") {
            guard try await gateway.gauge("tollgate_requests_open") == 2 else { return false }
            return try await gateway.gauge("tollgate_buffered_bytes") >= 50_000
        }
        let bytes = try await gateway.gauge("tollgate_buffered_bytes")
        #expect((50_000...SmallGateway.bufferedBytes).contains(bytes))
        let answers = try await blocking {
            try first.send(firstRest)
            let answer = try first.response()
            try second.send(secondRest)
            return [answer, try second.response()]
        }
        #expect(answers.map(\.status) == [200, 200])
        _ = try await customer.books(settles: 2)
    }

    @Test func bodiesThatWaitTooLongForMemoryGet503() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let gateway = small.gateway
        let customer = try await Customer.create(on: gateway)
        let (first, firstRest) = try Self.halfSent(gateway, customer, bytes: 60_000)
        // The first is in memory before the second comes.
        try await until("the first body's bytes in memory") {
            try await gateway.gauge("tollgate_buffered_bytes") >= 50_000
        }
        let (second, _) = try Self.halfSent(gateway, customer, bytes: 60_000)
        let answer = try await blocking { try second.response() }
        #expect(answer.status == 503)
        #expect(answer.errorCode == "overloaded")
        #expect(answer.header("retry-after-ms") == "1000")
        let contract = try await gateway.contract()
        #expect(contract.violations("POST", "/v1/chat/completions", answer.asSent) == [])
        let served = try await blocking {
            try first.send(firstRest)
            return try first.response()
        }
        #expect(served.status == 200)
        _ = try await customer.onlySettle()
        #expect(try await gateway.gauge("tollgate_buffered_bytes") == 0)
    }

    /// Several at once, of which only the first fits, and each endpoint's own form of the answer.
    @Test func everyBodyThatFindsNoMemoryIsRefusedAsDescribed() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let gateway = small.gateway
        let customer = try await Customer.create(on: gateway)
        let contract = try await gateway.contract()
        let (first, firstRest) = try Self.halfSent(gateway, customer, bytes: 60_000)
        try await until("the first body's bytes in memory") {
            try await gateway.gauge("tollgate_buffered_bytes") >= 50_000
        }
        let paths = contract.paths.filter { contract.methods(of: $0) == ["POST"] }
        #expect(paths.count == 9)
        let waiting = try paths.map { path in
            var ask = Ask.chat("m", key: customer.key, tokens: 1, prompt: String(repeating: "x", count: 60_000))
            ask.path = path
            let wire = try gateway.connect()
            try wire.send(Array(ask.bytes.dropLast(10_000)))
            return (path, wire)
        }
        for (path, wire) in waiting {
            let answer = try await blocking { try wire.response() }
            #expect(answer.status == 503, "\(path): \(answer.text)")
            #expect(contract.violations("POST", path, answer.asSent) == [], "\(path): \(answer.text)")
        }
        let served = try await blocking {
            try first.send(firstRest)
            return try first.response()
        }
        #expect(served.status == 200)
        _ = try await customer.onlySettle()
        #expect(try await gateway.gauge("tollgate_buffered_bytes") == 0)
    }

    @Test func bodiesThatNoEndpointReadsAreBoundedAsDescribed() async throws {
        let gateway = try await SmallGateway.withSmallSizes().gateway
        let customer = try await Customer.create(on: gateway)
        let contract = try await gateway.contract()
        for path in contract.paths where contract.methods(of: path) == ["GET"] {
            let target = path.replacingOccurrences(of: "{id}", with: "m")
            let ask = Ask.get(target, key: customer.key)
            var large = ask
            large.body = [UInt8](repeating: 0x20, count: SmallGateway.bodyBytes + 1)
            for (asked, status) in [(ask, 200), (ask.with("Content-Encoding", "gzip"), 415), (large, 413)] {
                let answer = try await gateway.ask(asked)
                #expect(answer.status == status, "\(path): \(answer.text)")
                #expect(contract.violations("GET", path, answer.asSent) == [], "\(path) \(status)")
            }
        }
        try await customer.expectNoCharge()
    }

    /// A connection with all but the last 10,000 bytes of a request sent, and these.
    private static func halfSent(
        _ gateway: GatewayUnderTest, _ customer: Customer, bytes: Int
    ) throws -> (Wire, [UInt8]) {
        let ask = Ask.chat("m", key: customer.key, tokens: 1, prompt: String(repeating: "x", count: bytes))
        let wire = try gateway.connect()
        let all = ask.bytes
        try wire.send(Array(all.dropLast(10_000)))
        return (wire, Array(all.suffix(10_000)))
    }

    @Test func bodiesBeyondTheirBoundGet413WhateverTheirFraming() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let customer = try await Customer.create(on: small.gateway)
        let large = Ask.chat(
            "m", key: customer.key, prompt: String(repeating: "y", count: SmallGateway.bodyBytes))
        for ask in [large, large.with(chunks: 8_000)] {
            let answer = try await small.gateway.ask(ask)
            #expect(answer.status == 413)
            #expect(answer.errorCode == "request_too_large")
        }
        try await customer.expectNoCharge()
    }

    @Test func connectionsBeyondTheirBoundAreClosedAndServedAgainWhenOthersHaveLeft() async throws {
        let small = try await SmallGateway.withSmallSizes()
        let gateway = small.gateway
        let customer = try await Customer.create(on: gateway)
        let wires = try (0..<SmallGateway.connections).map { _ in try gateway.connect() }
        // They are counted when the gateway has accepted them.
        try await until("all of them to be open") {
            try await gateway.gauge("tollgate_connections_open") == SmallGateway.connections
        }
        let extra = try gateway.connect()
        _ = try await blocking { try extra.waitForClose() }
        for wire in wires { wire.close() }
        try await until("service again") {
            (try? await gateway.ask(.get("/v1/models", key: customer.key)).status) == 200
        }
    }

    // MARK: Time

    @Test func aBodyThatNeverEndsGets408() async throws {
        let small = try await SmallGateway.withShortTimes()
        let customer = try await Customer.create(on: small.gateway)
        let (answer, isOrderly) = try await small.gateway.wire { wire in
            let bytes = Ask.chat("m", key: customer.key).bytes
            try wire.send(Array(bytes.dropLast(5)))
            return (try wire.response(), try wire.waitForClose())
        }
        #expect(answer.status == 408)
        #expect(answer.errorCode == "request_timeout")
        #expect(isOrderly)
        try await customer.expectNoCharge()
    }

    @Test func aHeadThatNeverEndsGets408() async throws {
        let small = try await SmallGateway.withShortTimes()
        let (answer, isOrderly) = try await small.gateway.wire { wire in
            try wire.send("GET /v1/models HTTP/1.1\r\nHost: g\r\nX-More: ")
            return (try wire.response(), try wire.waitForClose())
        }
        #expect(answer.status == 408)
        #expect(answer.errorCode == "request_timeout")
        #expect(isOrderly)
    }

    @Test func aConnectionWithoutARequestIsClosedInSilence() async throws {
        let small = try await SmallGateway.withShortTimes()
        #expect(try await small.gateway.wire { try $0.rest() } == "")
    }

    @Test func anIdleConnectionIsClosedInSilence() async throws {
        let small = try await SmallGateway.withShortTimes()
        let customer = try await Customer.create(on: small.gateway)
        let rest = try await small.gateway.wire { wire in
            try wire.send(Ask.get("/v1/models", key: customer.key))
            _ = try wire.response()
            return try wire.rest()
        }
        #expect(rest == "")
    }

    @Test func aRequestBeyondItsWholeTimeGets504AndCostsNothing() async throws {
        let small = try await SmallGateway.withShortTimes()
        try await small.slow.setFault("first_token:30s")
        let customer = try await Customer.create(on: small.gateway)
        let answer = try await small.gateway.ask(.chat("slow", key: customer.key))
        #expect(answer.status == 504)
        #expect(answer.errorCode == "upstream_timeout")
        try await customer.expectNoCharge()
        _ = try await small.slow.stats { $0.aborted >= 1 }
    }
}

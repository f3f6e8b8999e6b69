import Domain
import Foundation
import JSON
import Simulator
import Synchronization
import Testing

/// TLS and HTTP/2 on the data plane, frame by frame.
@Suite(.serialized) struct HTTP2Tests {
    private static let maySendSecond = DispatchSemaphore(value: 0)
    private static let hungUpAt = Mutex<MonotonicTime?>(nil)
    private static let flooded = Atomic<Int>(0)
    /// The node's end of the connection that it floods, until it is through.
    private static let flooding = Mutex<ScriptedNode.Peer?>(nil)
    private static let uploaded = Atomic<Int>(0)
    private static let floodEvents = 640
    private static let floodEventBytes = 64 << 10
    /// No token is longer than a kibibyte, so a node that was asked for fewer would be stopped.
    private static let floodTokens = floodEvents * 64

    private struct Secure: Sendable {
        let gateway: GatewayUnderTest
        let certificate: Certificate
        let nodes: [ScriptedNode]
        let simulated: SimulatedNode
        let late: SimulatedNode
    }

    private static let started = Task { () async throws -> Secure in
        let certificate = try await Certificate()
        var plan = GatewayPlan()
        plan.sections = [
            certificate.section, "limits: { header_bytes: 4KiB, body_bytes: 2MiB }",
            "timeouts: { header: 1s, body: 1s, idle: 1500ms }",
        ]
        plan.loops = 1
        let simulated = try await SimulatedNode.serving("fast")
        let late = try await SimulatedNode.serving("late", fault: "first_token:700ms")
        plan.serve("fast", port: simulated.port)
        plan.serve("late", port: late.port)
        var nodes: [ScriptedNode] = []
        for (model, script) in scripts {
            nodes.append(try ScriptedNode(script))
            plan.serve(model, port: nodes[nodes.count - 1].port, engine: "openai")
        }
        return Secure(
            gateway: try await GatewayUnderTest.start(plan), certificate: certificate, nodes: nodes,
            simulated: simulated, late: late)
    }

    private static let scripts: [(String, @Sendable (ScriptedNode.Peer) -> Void)] = [
        (
            "stepwise",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead + peer.event(ScriptedNode.content("first")))
                maySendSecond.wait()
                peer.write(peer.event(ScriptedNode.content("second")))
                peer.write(peer.event(ScriptedNode.usage(prompt: 4, completion: 2)) + peer.event("[DONE]"))
                peer.write("0\r\n\r\n")
            }
        ),
        (
            "hang",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead + peer.event(ScriptedNode.content("first")))
                peer.waitForClose()
                hungUpAt.withLock { $0 = MonotonicTime.now() }
            }
        ),
        (
            "count",
            { peer in
                let count = peer.readBody().count
                uploaded.store(count, ordering: .relaxed)
                peer.write(ScriptedNode.answer(prompt: 9, completion: 1))
            }
        ),
        (
            "flood",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead)
                flooding.withLock { $0 = peer }
                defer { flooding.withLock { $0 = nil } }
                let text = String(repeating: "x", count: floodEventBytes)
                for _ in 0..<floodEvents {
                    guard peer.write(peer.event(ScriptedNode.content(text))) else { return }
                    flooded.add(1, ordering: .relaxed)
                }
                peer.write(peer.event(ScriptedNode.usage(prompt: 4, completion: floodEvents)))
                peer.write(peer.event("[DONE]") + "0\r\n\r\n")
            }
        ),
    ]

    private func shared() async throws -> (GatewayUnderTest, Customer) {
        let started = try await Self.started.value
        return (started.gateway, try await Customer.create(on: started.gateway))
    }

    /// Blocking work with an HTTP/2 connection.
    private func http2<Value: Sendable>(
        _ gateway: GatewayUnderTest, window: UInt32? = nil, _ work: @escaping @Sendable (H2Wire) throws -> Value
    ) async throws -> Value {
        let port = gateway.port
        return try await blocking { try work(H2Wire(port: port, window: window)) }
    }

    // MARK: Protocols

    @Test func theClientChoosesTheProtocolByALPN() async throws {
        let (gateway, customer) = try await shared()
        let body = Ask.chatBody("fast", tokens: 4)
        for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--no-alpn", "1.1")] {
            let answer = try await run([
                "curl", "-sk", flag, "-w", "\n%{http_version} %{response_code}", "-H",
                "authorization: Bearer \(customer.key)", "-H", "content-type: application/json", "-d", body,
                "https://127.0.0.1:\(gateway.port)/v1/chat/completions",
            ])
            #expect(answer.output.hasSuffix("\n\(version) 200"), "\(flag): \(answer)")
            #expect(answer.output.contains("\"completion_tokens\":4"))
        }
        let last = try await run([
            "curl", "-sk", "--http1.1", "-w", "%{response_code}", "-H", "authorization: Bearer \(customer.key)", "-H",
            "connection: close", "-o", "/dev/null", "https://127.0.0.1:\(gateway.port)/v1/models",
        ])
        #expect(last.code == 0)
        #expect(last.output == "200")
        try await until("no connection to be left") { try await gateway.gauge("tollgate_connections_open") == 0 }
        _ = try await customer.books(settles: 3)
    }

    @Test func oldTLSAndPlainTextAreRefused() async throws {
        let (gateway, _) = try await shared()
        let url = "https://127.0.0.1:\(gateway.port)/v1/models"
        let old = try await run(["curl", "-sk", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url])
        #expect(old.code == 35, "\(old)")
        let plain = try await gateway.wire { wire in
            try wire.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            return try wire.rest()
        }
        #expect(!plain.contains("HTTP/"))
        let modern = try await run(["curl", "-sk", "--tlsv1.3", "-o", "/dev/null", "-w", "%{response_code}", url])
        #expect(modern.output == "401")
    }

    @Test func aHandshakeThatDawdlesIsClosedAndWasCounted() async throws {
        let (gateway, _) = try await shared()
        let wire = try gateway.connect()
        try await until("the connection to be counted") { try await gateway.gauge("tollgate_connections_open") >= 1 }
        let started = MonotonicTime.now()
        #expect(try await blocking { try wire.rest() } == "")
        #expect(MonotonicTime.now().seconds(since: started) < 5)
        try await until("no connection") { try await gateway.gauge("tollgate_connections_open") == 0 }
        let metrics = try await gateway.metrics()
        #expect(!metrics.contains("tollgate_connections_refused_total{reason=\"handshake\"} 0\n"))
    }

    // MARK: Requests

    @Test func plainAndStreamedAnswersAreTheSameAsOverHTTP11() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let answers = try await http2(gateway) { wire in
            try wire.send(1, .chat("fast", key: key, tokens: 5))
            try wire.send(3, .chat("fast", key: key, stream: true, tokens: 5))
            try wire.send(5, .get("/v1/models", key: key))
            return try [1, 3, 5].map { try wire.response($0) }
        }
        #expect(answers.map(\.status) == [200, 200, 200])
        #expect(try answers[0].json()["usage"]?["completion_tokens"]?.integer == 5)
        #expect(answers[0].header("content-type") == "application/json")
        #expect(answers[1].events.last == "[DONE]")
        #expect(answers[1].header("content-type")?.hasPrefix("text/event-stream") == true)
        for answer in answers {
            #expect(answer.requestID.wholeMatch(of: /req_[0-9a-f]{32}/) != nil, "\(answer.requestID)")
            #expect(answer.header("openai-processing-ms") != nil)
            #expect(answer.header("connection") == nil)
            #expect(answer.header("transfer-encoding") == nil)
        }
        let line = try await gateway.accessLine(of: answers[0].requestID)
        #expect(line["status"]?.integer == 200)
        #expect(line["client"]?.string == "127.0.0.1")
        _ = try await customer.books(settles: 2)
    }

    @Test func eventsArriveOneByOne() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let text = try await http2(gateway) { wire in
            try wire.send(1, .chat("stepwise", key: key, stream: true))
            let (head, _) = try wire.head(1)
            guard head.status == 200, let first = try wire.next(1) else { throw NotInTime("the first event") }
            let before = String(decoding: first.payload, as: UTF8.self)
            // The node says nothing more until this client has its first event.
            Self.maySendSecond.signal()
            var rest = ""
            while let frame = try wire.next(1) {
                rest += String(decoding: frame.payload, as: UTF8.self)
                if frame.endsStream { break }
            }
            return (before, rest)
        }
        #expect(text.0.contains("first"))
        #expect(!text.0.contains("second"))
        #expect(text.1.contains("second"))
        #expect(text.1.hasSuffix("data: [DONE]\n\n"))
        _ = try await customer.onlySettle()
    }

    @Test func aResetInMidStreamEndsTheNodesWorkWithin100Milliseconds() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        Self.hungUpAt.withLock { $0 = nil }
        let resetAt = try await http2(gateway) { wire in
            try wire.send(1, .chat("hang", key: key, stream: true))
            _ = try wire.head(1)
            _ = try wire.next(1)
            let now = MonotonicTime.now()
            try wire.reset(1)
            // The connection goes on.
            try wire.send(3, .get("/v1/models", key: key))
            guard try wire.response(3).status == 200 else { throw NotInTime("the next stream") }
            return now
        }
        let hungUpAt = try await eventually("the node's connection to close") { Self.hungUpAt.withLock { $0 } }
        #expect(hungUpAt.seconds(since: resetAt) < 0.1)
        #expect(try await customer.onlySettle().estimated)
    }

    @Test func aConnectionThatBreaksEndsTheWorkOfAllItsStreams() async throws {
        let (gateway, customer) = try await shared()
        let node = try await Self.started.value.nodes[1]
        let key = customer.key
        let before = node.requests
        let port = gateway.port
        let wire = try await blocking {
            let wire = try H2Wire(port: port)
            for stream in stride(from: UInt32(1), to: 81, by: 2) {
                try wire.send(stream, .chat("hang", key: key, stream: true))
            }
            return wire
        }
        try await until("the node to have all of them") { node.requests == before + 40 }
        try await blocking { wire.close() }
        try await customer.waitUntilNothingIsHeld()
        try await until("no request to be left") { try await gateway.gauge("tollgate_requests_open") == 0 }
        // None was answered to its end: each costs its prompt and what was delivered.
        let books = try await customer.books(settles: 40)
        #expect(books.settles.allSatisfy { $0.estimated && $0.completion <= 1 })
        #expect(try await gateway.gauge("tollgate_illegal_events_total") == 0)
    }

    @Test func aHundredStreamsRunAtOnceAndOneMoreIsTheConnectionsLast() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let (statuses, refused) = try await http2(gateway) { wire in
            var frames: [UInt8] = []
            for stream in stride(from: UInt32(1), to: 201, by: 2) {
                frames += try wire.request(stream, .chat("late", key: key, tokens: 2))
            }
            try wire.send(frames)
            try wire.send(201, .get("/v1/models", key: key))
            let refused = try wire.next(0)
            return (try stride(from: UInt32(1), to: 201, by: 2).map { try wire.response($0).status }, refused)
        }
        #expect(statuses == Array(repeating: 200, count: 100))
        #expect(refused?.kind == .goAway)
        _ = try await customer.books(settles: 100)
    }

    @Test func aSlowReaderStopsTheNodeAndGetsItAll() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let total = Self.floodEvents * Self.floodEventBytes
        let port = gateway.port
        let wire = try await blocking {
            let wire = try H2Wire(port: port)
            wire.opensWindows = false
            try wire.send(1, .chat("flood", key: key, stream: true, tokens: Self.floodTokens))
            _ = try wire.head(1)
            return wire
        }
        // Its socket is full and stays so while the gateway's one loop serves others: a loop that read this node, too,
        // would have read it between two of their answers.
        try await until("the node to stand still", within: .seconds(60)) {
            let before = Self.flooded.load(ordering: .relaxed)
            guard let node = Self.flooding.withLock({ $0 }), !node.isWritable else { return before == Self.floodEvents }
            try await Self.serveOthers(port: port, key: key)
            return !node.isWritable && Self.flooded.load(ordering: .relaxed) == before
        }
        #expect(Self.flooded.load(ordering: .relaxed) * Self.floodEventBytes < total / 2)
        let received = try await blocking {
            wire.opensWindows = true
            try wire.openWindow(0, by: 1 << 20)
            try wire.openWindow(1, by: 1 << 20)
            var received = 0
            while let frame = try wire.next(1) {
                received += frame.payload.count
                if frame.endsStream { break }
            }
            return received
        }
        #expect(received > total)
        #expect(try await customer.onlySettle().completion == Self.floodEvents)
    }

    /// Requests one after the other, on a connection of their own.
    private static func serveOthers(port: Int, key: String) async throws {
        try await blocking {
            let wire = try H2Wire(port: port)
            for stream in stride(from: UInt32(1), to: 41, by: 2) {
                try wire.send(stream, .get("/v1/models", key: key))
                guard try wire.response(stream).status == 200 else { throw NotInTime("an answer beside the flood") }
            }
        }
    }

    @Test func aLargeUploadPassesThroughTheWindows() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let file = FileManager.default.temporaryDirectory.appending(path: "tollgate-body-\(UUID().uuidString)")
        let body = Ask.chatBody("count", tokens: 2, prompt: String(repeating: "word ", count: 200_000))
        try Data(body.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let answer = try await run([
            "curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{response_code}", "-H", "authorization: Bearer \(key)",
            "-H", "content-type: application/json", "--data-binary", "@\(file.path)",
            "https://127.0.0.1:\(gateway.port)/v1/chat/completions",
        ])
        #expect(answer.output == "200")
        #expect(Self.uploaded.load(ordering: .relaxed) > 1_000_000)
        _ = try await customer.onlySettle()
    }

    // MARK: Refusals

    @Test func refusalsAreThoseOfHTTP11() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        var nameless = Ask.get("/v1/models", key: key)
        nameless.hasHost = false
        let cases: [(Ask, Int, String)] = [
            (nameless, 400, "malformed_request"),
            (.get("/v1/nothing", key: key), 404, "unknown_url"),
            (.get("/v1/chat/completions", key: key), 405, "method_not_allowed"),
            (.chat("fast"), 401, "missing_api_key"),
            (.chat("fast", key: key).with("content-encoding", "gzip"), 415, "unsupported_media_type"),
            (.post("/v1/chat/completions", "{", key: key), 400, "invalid_json"),
            (.chat("unknown", key: key), 404, "model_not_found"),
            (.chat("fast", key: key).with("x-large", String(repeating: "x", count: 5_000)), 431, "headers_too_large"),
        ]
        let answers = try await http2(gateway) { wire in
            try cases.enumerated().map { index, item in
                try wire.send(UInt32(2 * index + 1), item.0)
                return try wire.response(UInt32(2 * index + 1))
            }
        }
        for (answer, (_, status, code)) in zip(answers, cases) {
            #expect(answer.status == status)
            #expect(answer.errorCode == code)
        }
        try await customer.expectNoCharge()
    }

    @Test func aRefusalBeforeTheBodyEndsComesWholeAndStopsTheUpload() async throws {
        let (gateway, _) = try await shared()
        let (answer, reset) = try await http2(gateway) { wire in
            try wire.send(try wire.request(1, .chat("fast"), endsStream: false))
            return (try wire.response(1), try wire.next(1))
        }
        #expect(answer.status == 401)
        #expect(reset?.kind == .reset)
        #expect(reset?.errorCode == 0)
    }

    @Test func aBodyThatDawdlesGets408() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let answer = try await http2(gateway) { wire in
            try wire.send(try wire.request(1, .chat("fast", key: key), endsStream: false))
            return try wire.response(1)
        }
        #expect(answer.status == 408)
        try await customer.expectNoCharge()
    }

    @Test func anAnswerThatNobodyTakesIsDroppedAfterTheIdleTime() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let (status, reset) = try await http2(gateway, window: 0) { wire in
            try wire.send(1, .get("/v1/models", key: key))
            return (try wire.head(1).answer.status, try wire.next(1))
        }
        #expect(status == 200)
        #expect(reset?.kind == .reset)
    }

    @Test func aClientThatWaitsForLeaveToSendGetsIt() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let body = Array(Ask.chatBody("fast", tokens: 2).utf8)
        var ask = Ask.chat("fast", key: key).with("expect", "100-continue")
            .with("content-type", "application/json").with("content-length", "\(body.count)")
        ask.body = nil
        let head = ask
        let statuses = try await http2(gateway) { wire in
            try wire.send(try wire.request(1, head, endsStream: false))
            let leave = try wire.head(1).answer.status
            try wire.send(H2Wire.data(1, body, endsStream: true))
            return [leave, try wire.response(1).status]
        }
        #expect(statuses == [100, 200])
        _ = try await customer.onlySettle()
    }

    @Test func anIdleConnectionGetsAGoodbye() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let (goodbye, end) = try await http2(gateway) { wire in
            try wire.send(1, .get("/v1/models", key: key))
            _ = try wire.response(1)
            return (try wire.next(0), try wire.next(0) == nil)
        }
        #expect(goodbye?.kind == .goAway)
        #expect(goodbye?.errorCode == 0)
        #expect(goodbye?.lastStream == 1)
        #expect(end)
    }

    // MARK: Floods

    /// What a client that overdoes it is told: the code of the GOAWAY, and that the connection ended.
    private func fate(
        _ gateway: GatewayUnderTest, _ work: @escaping @Sendable (H2Wire) throws -> Void
    ) async throws -> (code: UInt32?, isClosed: Bool) {
        try await http2(gateway) { wire in
            // The gateway may close before all of it is sent.
            try? work(wire)
            var code: UInt32?
            while let frame = try wire.next(0) {
                if frame.kind == .goAway { code = frame.errorCode }
            }
            return (code, true)
        }
    }

    private static let enhanceYourCalm: UInt32 = 0xB

    @Test func aRapidResetEndsTheConnection() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let fate = try await fate(gateway) { wire in
            for stream in stride(from: UInt32(1), to: 2_001, by: 2) {
                try wire.send(
                    try wire.request(stream, .chat("late", key: key, tokens: 1))
                        + H2Wire.frame(.reset, stream: stream, payload: H2Wire.bytes(8)))
            }
        }
        #expect(fate.code == Self.enhanceYourCalm)
        #expect(fate.isClosed)
        try await customer.waitUntilNothingIsHeld()
    }

    @Test(arguments: [H2Wire.Frame.Kind.ping, .settings])
    func aFloodOfControlFramesEndsTheConnection(kind: H2Wire.Frame.Kind) async throws {
        let (gateway, _) = try await shared()
        let fate = try await fate(gateway) { wire in
            let frame = H2Wire.frame(kind, payload: kind == .ping ? [UInt8](repeating: 7, count: 8) : [])
            for _ in 0..<100 { try wire.send(Array((0..<20).map { _ in frame }.joined())) }
        }
        #expect(fate.code == Self.enhanceYourCalm)
    }

    @Test func aHeaderBlockFarTooLargeEndsTheConnection() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let fate = try await fate(gateway) { wire in
            try wire.send(1, .get("/v1/models", key: key).with("x-large", String(repeating: "x", count: 30_000)))
        }
        #expect(fate.code != nil)
        #expect(fate.code != 0)
    }

    @Test func oneStreamsBadHeadLeavesTheOthersAlone() async throws {
        let (gateway, customer) = try await shared()
        let key = customer.key
        let (bad, good) = try await http2(gateway) { wire in
            try wire.send(1, .chat("late", key: key, tokens: 2))
            try wire.send(3, .get("/v1/models", key: key).with("connection", "close"))
            return (try wire.next(3), try wire.response(1))
        }
        #expect(bad?.kind == .reset)
        #expect(good.status == 200)
        _ = try await customer.onlySettle()
    }
}

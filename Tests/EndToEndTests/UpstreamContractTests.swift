import Domain
import Foundation
import JSON
import Synchronization
import Testing

/// design.md's table "The HTTP contract", between gateway and node: nodes here answer with exactly the bytes that a test
/// wants.
@Suite(.serialized) struct UpstreamContractTests {
    private static let flooded = Atomic<Int>(0)
    private static let uploads = Mutex<[String: Int]>([:])
    private static let isAnswered = DispatchSemaphore(value: 0)
    private static let staleRequests = Atomic<Int>(0)
    /// Events of the flood, and bytes of text in each.
    private static let floodEvents = 640
    private static let floodEventBytes = 64 << 10
    /// No token is longer than a kibibyte, so a node that was asked for fewer would be stopped.
    private static let floodTokens = floodEvents * 64

    private struct Scripted: Sendable {
        let gateway: GatewayUnderTest
        let nodes: [String: ScriptedNode]
    }

    private static let started = Task { () async throws -> Scripted in
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        var nodes: [String: ScriptedNode] = [:]
        for (model, script) in scripts {
            let node = try ScriptedNode(script)
            nodes[model] = node
            let options = model == "drip" ? ["timeouts: { stream_idle: 600ms }"] : []
            plan.serve(model, port: node.port, engine: "openai", options: options)
        }
        return Scripted(gateway: try await GatewayUnderTest.start(plan), nodes: nodes)
    }

    private func start() async throws -> (GatewayUnderTest, Scripted, Customer) {
        let started = try await Self.started.value
        return (started.gateway, started, try await Customer.create(on: started.gateway))
    }

    private static let scripts: [(String, @Sendable (ScriptedNode.Peer) -> Void)] = [
        (
            "hints",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
                peer.write(ScriptedNode.streamHead)
                for word in ["a", "b"] { peer.write(peer.event(ScriptedNode.content(word))) }
                peer.write(peer.event(ScriptedNode.usage(prompt: 4, completion: 2)) + peer.event("[DONE]"))
                peer.write("0\r\nX-Trailer: secret\r\n\r\n")
            }
        ),
        (
            "early",
            { peer in
                peer.write(ScriptedNode.answer(prompt: 5, completion: 1))
                // Takes nothing more until the client has its answer.
                isAnswered.wait()
                var total = 0
                while case let part = peer.read(), !part.isEmpty { total += part.count }
                uploads.withLock { $0["early"] = total }
            }
        ),
        (
            "flood",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead)
                let event = Array(
                    peer.event(ScriptedNode.content(String(repeating: "x", count: floodEventBytes))).utf8)
                for _ in 0..<floodEvents {
                    guard peer.write(event) else { return }
                    flooded.add(event.count, ordering: .relaxed)
                }
                peer.write(peer.event(ScriptedNode.usage(prompt: 4, completion: floodEvents)) + peer.event("[DONE]"))
                peer.write("0\r\n\r\n")
            }
        ),
        (
            "bytewise",
            { peer in
                _ = peer.readBody()
                let stream =
                    ": a comment\r\n\r\ndata:" + ScriptedNode.content("a") + "\r\n\r\ndata: {\ndata: \"choices\":[],\n"
                    + "data: \"model\":\"m\"}\n\nevent: message\nid: 7\ndata: " + ScriptedNode.content("b")
                    + "\n\n" + "data: " + ScriptedNode.usage(prompt: 3, completion: 2) + "\n\ndata: [DONE]\n\n"
                peer.write(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")
                for byte in stream.utf8 { peer.write([byte]) }
            }
        ),
        (
            "leaks",
            { peer in
                _ = peer.readBody()
                let body =
                    #"{"error":{"message":"upstream/leaks at 10.1.2.3:8000 (/srv/models/x.gguf) said no","type":"BadRequestError","#
                    + #""param":null,"code":400}}"#
                peer.write(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nServer: vllm-internal\r\n"
                        + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
            }
        ),
        (
            "garbage",
            { peer in
                _ = peer.readBody()
                peer.write("SSH-2.0-OpenSSH_9.6\r\n")
            }
        ),
        (
            "huge-head",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 200 OK\r\nX: \(String(repeating: "x", count: 300_000))\r\n\r\n")
            }
        ),
        (
            "half",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"id\":")
            }
        ),
        (
            "empty",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")
            }
        ),
        (
            "redirect",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
            }
        ),
        (
            "two-lengths",
            { peer in
                _ = peer.readBody()
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}xyz")
            }
        ),
        (
            "bad-chunk",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead + peer.event(ScriptedNode.content("a")) + "zz\r\n")
                peer.waitForClose()
            }
        ),
        (
            "error-event",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead + peer.event(ScriptedNode.content("a")))
                peer.write(peer.event(#"{"error":{"message":"CUDA error on 10.1.2.3:8000","type":"x","code":500}}"#))
                peer.write(peer.event("[DONE]") + "0\r\n\r\n")
                peer.waitForClose()
            }
        ),
        (
            "plain-on-stream",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.answer(prompt: 5, completion: 1))
            }
        ),
        (
            "drip",
            { peer in
                _ = peer.readBody()
                let answer = Array(ScriptedNode.answer(prompt: 5, completion: 1).utf8)
                let piece = answer.count / 5
                for start in stride(from: 0, to: answer.count, by: piece) {
                    peer.write(Array(answer[start..<min(start + piece, answer.count)]))
                    Thread.sleep(forTimeInterval: 0.25)
                }
            }
        ),
        (
            "after-done",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.streamHead + peer.event(ScriptedNode.content("a")))
                peer.write(peer.event(ScriptedNode.usage(prompt: 3, completion: 1)) + peer.event("[DONE]"))
                peer.write(peer.event(ScriptedNode.content("late")))
                // It never ends its answer; the client must not wait for that.
                peer.waitForClose()
            }
        ),
        (
            "stale",
            { peer in
                _ = peer.readBody()
                // Keeps the connection, and drops the next request on it unanswered.
                guard staleRequests.add(1, ordering: .relaxed).newValue > 0 else { return }
                peer.write(ScriptedNode.answer(prompt: 5, completion: 1))
                _ = peer.read()
            }
        ),
        (
            "negative",
            { peer in
                _ = peer.readBody()
                peer.write(ScriptedNode.answer(prompt: -5, completion: -1))
            }
        ),
        (
            "fractions",
            { peer in
                _ = peer.readBody()
                let body =
                    #"{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"12345678"}}],"#
                    + #""usage":{"prompt_tokens":1.5,"completion_tokens":"2"}}"#
                peer.write(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
                )
            }
        ),
    ]

    // MARK: What nodes add

    @Test func interimAnswersAndTrailersOfTheNodeAreDropped() async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat("hints", key: customer.key, stream: true))
        #expect(answer.status == 200)
        #expect(answer.interim.isEmpty)
        #expect(answer.header("link") == nil)
        #expect(answer.events.count == 3)
        #expect(answer.events.last == "[DONE]")
        #expect(!answer.text.contains("secret"))
        #expect(try await customer.onlySettle().completion == 2)
    }

    @Test func anAnswerBeforeTheUploadsEndIsRelayedAndTheUploadStops() async throws {
        let (gateway, scripted, customer) = try await start()
        let prompt = String(repeating: "p", count: 7 << 20)
        let answer = try await gateway.ask(.chat("early", key: customer.key, prompt: prompt))
        Self.isAnswered.signal()
        #expect(answer.status == 200, "\(answer.text.prefix(300))")
        #expect(try answer.json()["model"]?.string == "early")
        let total = try await eventually("the end of the node's connection") {
            Self.uploads.withLock { $0["early"] }
        }
        #expect(total < prompt.utf8.count)
        #expect(scripted.nodes["early"]?.requests == 1)
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == 5)
    }

    @Test func aSlowReaderHoldsBackTheNodeAndLosesNothing() async throws {
        let (gateway, _, customer) = try await start()
        let wire = try gateway.connect(receiveBufferBytes: 16 << 10)
        let before = gateway.process.residentBytes
        try wire.send(Ask.chat("flood", key: customer.key, stream: true, tokens: Self.floodTokens))
        // What the node can send stands still once every buffer between is full.
        var last = (bytes: -1, since: MonotonicTime.now())
        try await until("the node to be held back", within: .seconds(20)) {
            let bytes = Self.flooded.load(ordering: .relaxed)
            if bytes != last.bytes { last = (bytes, .now()) }
            return bytes > 0 && MonotonicTime.now().seconds(since: last.since) > 0.7
        }
        let all = Self.floodEvents * Self.floodEventBytes
        #expect(last.bytes < all / 2, "the kernels' buffers hold a few megabytes, not \(last.bytes)")
        #expect(gateway.process.residentBytes - before < 12 << 20)
        let (events, text) = try await blocking {
            _ = try wire.head()
            var bytes = 0
            var tail: [UInt8] = []
            while let part = try wire.bodyPart() {
                bytes += part.count
                tail = (tail + part).suffix(64)
            }
            return (bytes, String(decoding: tail, as: UTF8.self))
        }
        #expect(events > all)
        #expect(text.hasSuffix("data: [DONE]\n\n"))
        #expect(gateway.process.residentBytes - before < 24 << 20)
        let entry = try await customer.onlySettle()
        #expect(entry.completion == Self.floodEvents)
        #expect(!entry.estimated)
    }

    @Test func eventsInAnyPiecesAndSpellingArriveWhole() async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat("bytewise", key: customer.key, stream: true))
        #expect(answer.status == 200)
        #expect(answer.text.hasSuffix("data: [DONE]\n\n"))
        let contents = answer.text.matches(of: /"content":"(\w)"/).map { String($0.1) }
        #expect(contents == ["a", "b"])
        #expect(answer.text.contains("\"model\":\"bytewise\""))
        #expect(!answer.text.contains("\"model\":\"m\""))
        #expect(try await customer.onlySettle().completion == 2)
    }

    @Test func aNodesRefusalIsPassedOnWithoutWhatItTellsOfTheNode() async throws {
        let (gateway, scripted, customer) = try await start()
        let answer = try await gateway.ask(.chat("leaks", key: customer.key))
        #expect(answer.status == 400)
        #expect(answer.errorCode == "400")
        #expect(answer.text.contains("leaks"))
        for secret in ["10.1.2.3", "/srv/models", "upstream/leaks", "vllm-internal"] {
            #expect(!answer.text.contains(secret))
            #expect(answer.headers.allSatisfy { !$0.value.contains(secret) })
        }
        #expect(scripted.nodes["leaks"]?.requests == 1)
        try await customer.expectNoCharge()
    }

    // MARK: Answers that are none

    @Test(arguments: ["garbage", "huge-head", "half", "empty", "redirect", "two-lengths"])
    func anAnswerThatIsNoneGets502AndCostsNothing(model: String) async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat(model, key: customer.key))
        #expect(answer.status == 502, "\(answer.text)")
        #expect(answer.errorCode == "upstream_invalid_response")
        #expect(answer.header("location") == nil)
        try await customer.expectNoCharge()
    }

    @Test(arguments: ["bad-chunk", "error-event"])
    func aStreamThatBreaksEndsWithAnErrorEventAndIsChargedForWhatCame(model: String) async throws {
        let (gateway, _, customer) = try await start()
        let ask = Ask.chat(model, key: customer.key, stream: true)
        let answer = try await gateway.ask(ask)
        #expect(answer.status == 200)
        #expect(answer.events.count == 2)
        #expect(!answer.text.contains("[DONE]"))
        #expect(Answer.errorCode(of: answer.events.last ?? "").contains("not an error") == false)
        #expect(!answer.text.contains("10.1.2.3"))
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.completion == 1)
        #expect(ask.promptEstimates.contains(entry.prompt))
    }

    @Test func aPlainAnswerToAStreamingRequestIsPassedOnAsItIs() async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat("plain-on-stream", key: customer.key, stream: true))
        #expect(answer.status == 200)
        #expect(answer.header("content-type") == "application/json")
        #expect(try answer.json()["choices"]?[0]?["message"]?["content"]?.string == "hello")
        #expect(try await customer.onlySettle().prompt == 5)
    }

    @Test func aPlainAnswerMayTakeLongerThanTheIdleTimeAsLongAsBytesCome() async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat("drip", key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try await customer.onlySettle().prompt == 5)
    }

    @Test func theStreamEndsWithDoneWhateverTheNodeSaysAfterwards() async throws {
        let (gateway, _, customer) = try await start()
        let answer = try await gateway.ask(.chat("after-done", key: customer.key, stream: true))
        #expect(answer.events.count == 2)
        #expect(answer.events.last == "[DONE]")
        #expect(!answer.text.contains("late"))
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == 3)
        #expect(!entry.estimated)
    }

    @Test func aRequestOnAStaleConnectionIsSentAgainAndChargedOnce() async throws {
        let (gateway, scripted, customer) = try await start()
        let answers = try await gateway.wire { wire in
            try (0..<3).map { _ in
                try wire.send(Ask.chat("stale", key: customer.key))
                return try wire.response()
            }
        }
        #expect(answers.map(\.status) == [200, 200, 200])
        #expect(scripted.nodes["stale"]?.requests == 3)
        _ = try await customer.books(settles: 3)
        let metrics = try await Metrics(gateway.metrics())
        #expect(metrics.value("tollgate_upstream_retries_total", ["reason": "stale_connection"]) ?? 0 >= 2)
        #expect(metrics.value("tollgate_upstream_connects_total") ?? 0 >= 3)
    }

    @Test(arguments: ["negative", "fractions"])
    func usageThatCannotBeIsReplacedByTheGatewaysOwnCount(model: String) async throws {
        let (gateway, _, customer) = try await start()
        let ask = Ask.chat(model, key: customer.key)
        #expect(try await gateway.ask(ask).status == 200)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(ask.promptEstimates.contains(entry.prompt))
        #expect(entry.completion == 2)
    }
}

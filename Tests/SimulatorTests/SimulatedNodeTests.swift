import JSON
import Simulator
import Testing

/// Starts a node for one test and stops it whatever comes.
func withNode(
    speed: NodeSpeed = .instant, fault: String = "",
    _ change: (inout SimulatedNode.Configuration) -> Void = { _ in },
    _ body: (SimulatedNode) async throws -> Void
) async throws {
    var configuration = SimulatedNode.Configuration(model: "m")
    configuration.speed = speed
    configuration.fault = try FaultPlan(parsing: fault)
    change(&configuration)
    let node = try await SimulatedNode.start(configuration: configuration)
    do {
        try await body(node)
    } catch {
        try await node.stop()
        throw error
    }
    try await node.stop()
}

/// A chat request of a fixed length.
func chat(_ tokens: Int, _ fields: String = "", text: String = "hello") -> String {
    """
    {"model":"m","messages":[{"role":"user","content":"\(text)"}],"max_tokens":\(tokens),"ignore_eos":true\(fields)}
    """
}

let streaming = #","stream":true,"stream_options":{"include_usage":true}"#

@Suite struct SimulatedNodeTests {
    /// Both ways to produce an answer must look the same from outside.
    static let speeds = [NodeSpeed.instant, .times(1_000)]

    @Test(arguments: speeds) func plainChatAnswersWithHonestUsage(speed: NodeSpeed) async throws {
        try await withNode(speed: speed) { node in
            let port = node.port
            let response = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions", chat(12, #","n":2"#))
            }
            let json = try response.json()
            #expect(response.status == 200)
            #expect(response.headers["content-type"] == "application/json")
            #expect(json["object"] == "chat.completion")
            #expect(json["model"] == "m")
            #expect(json["choices"]?.array?.map { $0["index"]?.integer } == [0, 1])
            for choice in json["choices"]?.array ?? [] {
                #expect(choice["message"]?["content"]?.string?.split(separator: " ").count == 12)
                #expect(choice["message"]?["role"] == "assistant")
                #expect(choice["finish_reason"] == "length")
            }
            #expect(json["usage"]?["prompt_tokens"] == 9)
            #expect(json["usage"]?["completion_tokens"] == 24)
            #expect(json["usage"]?["total_tokens"] == 33)
            let stats = try await node.stats { $0.answered == 1 }
            #expect(stats.promptTokens == 9)
            #expect(stats.generatedTokens == 24)
            #expect(stats.running == 0)
            #expect(stats.aborted == 0)
        }
    }

    @Test(arguments: speeds) func streamHasVLLMsShape(speed: NodeSpeed) async throws {
        try await withNode(speed: speed) { node in
            let port = node.port
            let response = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions", chat(5, streaming))
            }
            #expect(response.headers["content-type"] == "text/event-stream; charset=utf-8")
            var events = response.events
            #expect(events.count == 9)
            #expect(events.removeLast() == "[DONE]")
            let json = try events.map { try JSONValue(parsing: $0) }
            #expect(json.allSatisfy { $0["object"] == "chat.completion.chunk" && $0["model"] == "m" })
            #expect(Set(json.map { $0["id"]?.string }).count == 1)
            let deltas = json.dropLast().map { $0["choices"]?[0]?["delta"] }
            #expect(deltas.first == ["role": "assistant", "content": ""])
            #expect(deltas[1...5].allSatisfy { $0?["content"]?.string?.hasPrefix(" ") == true })
            #expect(deltas[6] == .object([]))
            #expect(json[6]["choices"]?[0]?["finish_reason"] == "length")
            #expect(json[5]["choices"]?[0]?["finish_reason"] == .null)
            #expect(json[7]["choices"] == [])
            #expect(json[7]["usage"]?["completion_tokens"] == 5)
            #expect(json.dropLast().allSatisfy { $0["usage"] == nil })
        }
    }

    @Test func streamWithoutIncludeUsageHasNone() async throws {
        try await withNode { node in
            let port = node.port
            let response = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions", chat(3, #","stream":true"#))
            }
            #expect(response.events.count == 6)
            #expect(!response.body.contains("usage"))
        }
    }

    @Test(arguments: speeds) func completionTakesListsAndTokenIDs(speed: NodeSpeed) async throws {
        try await withNode(speed: speed) { node in
            let port = node.port
            let (lists, tokens, stream) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", "/v1/completions", #"{"prompt":["abcd","abcdefgh"],"n":2,"max_tokens":3}"#),
                    try client.ask("POST", "/v1/completions", #"{"prompt":[1,2,3],"max_tokens":1}"#),
                    try client.ask(
                        "POST", "/v1/completions",
                        #"{"prompt":"a","max_tokens":4,"ignore_eos":true\#(streaming)}"#)
                )
            }
            let json = try lists.json()
            #expect(json["choices"]?.array?.map { $0["index"]?.integer } == [0, 1, 2, 3])
            #expect(json["usage"]?["prompt_tokens"] == 3)
            #expect(try tokens.json()["usage"]?["prompt_tokens"] == 3)
            #expect(stream.events.count == 7)
            let first = try JSONValue(parsing: stream.events[0])
            #expect(first["object"] == "text_completion")
            #expect(first["choices"]?[0]?["text"]?.string?.isEmpty == false)
            #expect(try JSONValue(parsing: stream.events[5])["usage"]?["completion_tokens"] == 4)
        }
    }

    @Test func streamAndPlainAnswerHoldTheSameText() async throws {
        try await withNode { node in
            let port = node.port
            let (plain, stream) = try await live {
                let client = try RawClient(port: port)
                let fields = #","seed":4,"stop":["the","wait"]"#
                return (
                    try client.ask("POST", "/v1/chat/completions", chat(300, fields)),
                    try client.ask("POST", "/v1/chat/completions", chat(300, fields + streaming))
                )
            }
            let events = try stream.events.dropLast().map { try JSONValue(parsing: $0) }
            let text = events.compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined()
            let message = try plain.json()["choices"]?[0]
            #expect(message?["message"]?["content"]?.string == text)
            #expect(message?["finish_reason"] == "stop")
            #expect(!text.contains("the") && !text.contains("wait"))
            #expect(try plain.json()["usage"]?["completion_tokens"] == events.last?["usage"]?["completion_tokens"])
        }
    }

    @Test func repeatedPromptIsReportedAsCached() async throws {
        try await withNode { node in
            let port = node.port
            let long = String(repeating: "0123456789abcdef", count: 40)
            let cached = try await live {
                let client = try RawClient(port: port)
                return try [chat(1, text: long), chat(1, text: long), chat(1, #","cache_salt":"x""#, text: long)].map {
                    try client.ask("POST", "/v1/chat/completions", $0).json()["usage"]?["prompt_tokens_details"]?[
                        "cached_tokens"]?.integer
                }
            }
            #expect(cached == [0, 160, 0])
            #expect(node.stats.cachedTokens == 160)
        }
    }

    @Test func embeddingsComeAsFloatsOrBase64() async throws {
        try await withNode { node in
            let port = node.port
            let (floats, encoded) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", "/v1/embeddings", #"{"input":["hello","world","hello"],"dimensions":8}"#),
                    try client.ask(
                        "POST", "/v1/embeddings", #"{"input":"hello","encoding_format":"base64","dimensions":8}"#)
                )
            }
            let data = try floats.json()["data"]?.array ?? []
            #expect(data.count == 3)
            #expect(data[0]["embedding"]?.array?.count == 8)
            #expect(data[0]["embedding"] == data[2]["embedding"])
            #expect(data[0]["embedding"] != data[1]["embedding"])
            #expect(try floats.json()["usage"]?["prompt_tokens"] == 6)
            #expect(try encoded.json()["data"]?[0]?["embedding"]?.string?.utf8.count == 44)
            #expect(try await node.stats { $0.answered == 2 }.answered == 2)
        }
    }

    @Test func modelsHealthAndMetricsAnswer() async throws {
        try await withNode { node in
            let port = node.port
            let (models, health, metrics, tokens) = try await live {
                let client = try RawClient(port: port)
                _ = try client.ask("POST", "/v1/chat/completions", chat(7))
                return (
                    try client.ask("GET", "/v1/models"), try client.ask("GET", "/health"),
                    try client.ask("GET", "/metrics"), try client.ask("POST", "/tokenize", #"{"prompt":"abcde"}"#)
                )
            }
            #expect(try models.json()["data"]?[0]?["id"] == "m")
            #expect(health.status == 200 && health.body.isEmpty)
            let labels = #"{engine="0",model_name="m"}"#
            for line in [
                "vllm:num_requests_running\(labels) 0", "vllm:num_requests_waiting\(labels) 0",
                "vllm:kv_cache_usage_perc\(labels) 0.0", "vllm:prompt_tokens_total\(labels) 9",
                "vllm:generation_tokens_total\(labels) 7", "vllm:prefix_cache_hits_total\(labels) 0",
                "vllm:prefix_cache_queries_total\(labels) 9", "simulator:aborted_requests_total\(labels) 0",
            ] {
                #expect(metrics.body.components(separatedBy: "\n").contains(line), "\(line)")
            }
            #expect(try tokens.json()["count"] == 2)
        }
    }

    @Test func whatReachesTheNodeIsRecordedByteForByte() async throws {
        try await withNode({ $0.recordBodies = true }) { node in
            let port = node.port
            let body = chat(1, "  ,\t\"x\" : 1.50e+0")
            _ = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions?a=b", body, headers: ["X-Trace: 7"])
            }
            let request = try #require(try await node.stats { !$0.recorded.isEmpty }.recorded.first)
            #expect(request.body == Array(body.utf8))
            #expect(request.uri == "/v1/chat/completions?a=b")
            #expect(request.values(of: "x-trace") == ["7"])
        }
    }

    @Test func keyIsNeededUnderV1Only() async throws {
        try await withNode({ $0.apiKey = "secret" }) { node in
            let port = node.port
            let statuses = try await live {
                let client = try RawClient(port: port)
                let path = "/v1/chat/completions"
                return [
                    try client.ask("POST", path, chat(1)).status,
                    try client.ask("POST", path, chat(1), headers: ["Authorization: Bearer wrong"]).status,
                    try client.ask("POST", path, chat(1), headers: ["Authorization: Bearer secret"]).status,
                    try client.ask("GET", "/v1/models").status,
                    try client.ask("GET", "/health").status,
                ]
            }
            #expect(statuses == [401, 401, 200, 401, 200])
        }
    }

    @Test(arguments: [
        ("POST", "/v1/chat/completions", "{", 400),
        ("POST", "/v1/chat/completions", "", 400),
        ("POST", "/v1/chat/completions", "\u{0}", 400),
        ("POST", "/v1/chat/completions", String(repeating: "[", count: 100_000), 400),
        ("POST", "/v1/chat/completions", #"{"model":"other"}"#, 404),
        ("POST", "/v1/completions", #"{"prompt":[[1],["x"]]}"#, 400),
        ("POST", "/v1/completions", #"{"prompt":""}"#, 400),
        ("POST", "/v1/embeddings", #"{"input":"x","encoding_format":"hex"}"#, 400),
        ("POST", "/v1/embeddings", #"{"input":[]}"#, 400),
        ("GET", "/v1/chat/completions", "", 405),
        ("DELETE", "/v1/models", "", 405),
        ("GET", "/nowhere", "", 404),
        ("POST", "/fault", "explode", 400),
    ])
    func badInputGetsAnErrorObject(method: String, path: String, body: String, status: Int) async throws {
        try await withNode { node in
            let port = node.port
            let (bad, good) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask(method, path, body), try client.ask("POST", "/v1/chat/completions", chat(1))
                )
            }
            #expect(bad.status == status)
            #expect(try bad.json()["error"]?["message"]?.string?.isEmpty == false)
            #expect(try bad.json()["error"]?["code"]?.integer == status)
            #expect(good.status == 200)
        }
    }

    @Test func oversizedBodyAndBrokenHTTPAreAnsweredAndClosed() async throws {
        try await withNode({ $0.bodyBytesMax = 100 }) { node in
            let port = node.port
            let (large, broken) = try await live {
                let first = try RawClient(port: port)
                first.send("POST /v1/chat/completions HTTP/1.1\r\nHost: n\r\nContent-Length: 101\r\n\r\n")
                let second = try RawClient(port: port)
                second.send("NONSENSE\r\n\r\n")
                return (try first.rest(), try second.rest())
            }
            #expect(large.hasPrefix("HTTP/1.1 413 "))
            #expect(broken.hasPrefix("HTTP/1.1 400 "))
        }
    }

    @Test func connectionPastTheLimitIsClosed() async throws {
        try await withNode({ $0.connectionsMax = 1 }) { node in
            let port = node.port
            let (refused, served) = try await live {
                let first = try RawClient(port: port)
                let served = try first.ask("GET", "/health").status
                return (try RawClient(port: port).rest(), served)
            }
            #expect(refused.isEmpty)
            #expect(served == 200)
        }
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        try await withNode(speed: .times(1_000)) { node in
            let port = node.port
            let lengths = try await live {
                let client = try RawClient(port: port)
                for tokens in [9, 1, 5] { client.send("POST", "/v1/chat/completions", chat(tokens)) }
                return try (0..<3).map { _ in try client.response().json()["usage"]?["completion_tokens"]?.integer }
            }
            #expect(lengths == [9, 1, 5])
        }
    }

    @Test func oldHTTPGetsAStreamThatEndsWithTheConnection() async throws {
        try await withNode { node in
            let port = node.port
            let text = try await live {
                let client = try RawClient(port: port)
                let body = chat(2, streaming)
                client.send("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
                return try client.rest()
            }
            #expect(text.contains("\r\nconnection: close\r\n"))
            #expect(!text.contains("transfer-encoding"))
            #expect(text.hasSuffix("}\n\ndata: [DONE]\n\n"))
        }
    }

    @Test(arguments: [chat(5_000), chat(5_000, streaming)])
    func disconnectFreesTheEngineAtOnce(body: String) async throws {
        // 7 ms a step: the answer would take 35 s.
        try await withNode {
            $0.speed = .times(1)
        } _: { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", "/v1/chat/completions", body)
            _ = try await node.stats { $0.running == 1 && $0.generatedTokens >= 2 }
            client.value.close()
            let stats = try await node.stats { $0.aborted == 1 }
            #expect(stats.running == 0)
            #expect(stats.kvUsage == 0)
            #expect(stats.connections == 0)
            #expect(stats.generatedTokens < 4_000)
            let metrics = try await live { try RawClient(port: port).ask("GET", "/metrics").body }
            #expect(metrics.contains(#"simulator:aborted_requests_total{engine="0",model_name="m"} 1"#))
        }
    }

    @Test func longStreamsThatAreTakenAtOnceEndOnce() async throws {
        // Each write passes the high-water mark and empties the buffer within itself, so the channel turns writable in
        // the middle of it.
        try await withNode { node in
            let port = node.port
            let answers = try await live {
                let client = try RawClient(port: port)
                return try (0..<20).map { _ in try client.ask("POST", "/v1/chat/completions", chat(800, streaming)) }
            }
            #expect(answers.map(\.events.count) == Array(repeating: 804, count: 20))
            #expect(try await node.stats { $0.requests == 20 }.requests == 20)
            #expect(try await node.stats { $0.answered >= 20 }.answered == 20)
        }
    }

    @Test func slowReaderHoldsNoMoreThanTheMarkAndGetsEverything() async throws {
        try await withNode { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", "/v1/chat/completions", chat(60_000, streaming))
            let stats = try await node.stats { $0.generatedTokens == 60_000 }
            #expect(stats.answered == 0)
            let events = try await live { try client.value.response().events }
            #expect(events.count == 60_004)
            #expect(try await node.stats { $0.answered == 1 }.aborted == 0)
        }
    }

    @Test func stoppedNodeNoLongerListens() async throws {
        try await withNode { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("GET", "/health")
            _ = try await live { try client.value.response() }
            try await node.stop()
            #expect(try await live { try client.value.rest() } == "")
            await #expect(throws: RawClient.Failure.self) { try await live { _ = try RawClient(port: port) } }
            try await node.stop()
        }
    }

    @Test func oneProcessRunsManyNodesOnOnePortEach() async throws {
        var nodes: [SimulatedNode] = []
        for _ in 0..<8 { nodes.append(try await .start(configuration: .init(model: "m"))) }
        #expect(Set(nodes.map(\.port)).count == 8)
        for node in nodes { try await node.stop() }
        var configuration = SimulatedNode.Configuration(model: "m")
        configuration.port = nodes[0].port
        let again = try await SimulatedNode.start(configuration: configuration)
        #expect(again.port == nodes[0].port)
        try await again.stop()
    }
}

/// Lets a client, which one task at a time uses, cross into ``live(_:)``.
final class Mutexed: @unchecked Sendable {
    // SAFETY: the tests await each use before the next; nothing touches the client from two places at once.
    let value: RawClient

    init(_ value: RawClient) {
        self.value = value
    }
}

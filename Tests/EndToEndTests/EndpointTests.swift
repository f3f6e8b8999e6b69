import Domain
import Foundation
import JSON
import Testing

/// Every endpoint that goes to a node: what the node is sent, what the client gets, what is charged.
@Suite(.serialized) struct EndpointTests {
    private static let started = Task { () async throws -> (GatewayUnderTest, ScriptedNode) in
        let node = try ScriptedNode(answer)
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 1, budget: 0% }", "stream: { ping_after: 150ms }"]
        plan.serve("m", port: node.port, engine: "vllm", options: ["context_tokens: 4096", "max_output_tokens: 512"])
        plan.serve("theirs", port: node.port, engine: "openai")
        return (try await GatewayUnderTest.start(plan), node)
    }

    /// Signalled when the client has had its signs of life.
    private static let hasPinged = DispatchSemaphore(value: 0)

    /// A node that answers each path as vLLM does, and says in `x` what it was sent.
    private static let answer: @Sendable (ScriptedNode.Peer) -> Void = { peer in
        let path = String(peer.head.split(separator: " ")[1])
        let body = String(decoding: peer.readBody(), as: UTF8.self)
        let isStream = body.contains(#""stream":true"#)
        func plain(_ json: String) {
            peer.write(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \(json.utf8.count)\r\n\r\n\(json)"
            )
        }
        func events(_ events: [(String, String)]) {
            peer.write(ScriptedNode.streamHead)
            for (name, json) in events { peer.write(ScriptedNode.chunk("event: \(name)\ndata: \(json)\n\n")) }
            peer.write("0\r\n\r\n")
        }
        switch path {
        case "/v1/responses" where body.contains("silent"):
            peer.write(ScriptedNode.streamHead)
            peer.write(
                ScriptedNode.chunk("event: response.created\ndata: {\"type\":\"response.created\",\"response\":{}}\n\n")
            )
            hasPinged.wait()
            peer.write(
                ScriptedNode.chunk(
                    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":0}}}\n\n"
                ))
            peer.write("0\r\n\r\n")
        case "/v1/responses" where isStream:
            events([
                ("response.created", #"{"type":"response.created","response":{"id":"r","model":"up"}}"#),
                ("response.output_text.delta", #"{"type":"response.output_text.delta","delta":"hi"}"#),
                (
                    "response.completed",
                    #"{"type":"response.completed","response":{"id":"r","model":"up","usage":{"input_tokens":6,"output_tokens":2,"input_tokens_details":{"cached_tokens":4}}}}"#
                ),
            ])
        case "/v1/responses":
            plain(
                #"{"id":"r","object":"response","model":"up","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"usage":{"input_tokens":6,"output_tokens":2},"x":"#
                    + Self.quoted(body) + "}")
        case "/v1/messages" where body.contains("die"):
            peer.write(ScriptedNode.streamHead)
            peer.write(
                ScriptedNode.chunk(
                    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hi\"}}\n\n"
                ))
        case "/v1/messages" where isStream:
            events([
                (
                    "message_start",
                    #"{"type":"message_start","message":{"model":"up","usage":{"input_tokens":7,"output_tokens":1}}}"#
                ),
                ("content_block_delta", #"{"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}"#),
                (
                    "message_delta",
                    #"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#
                ),
                ("message_stop", #"{"type":"message_stop"}"#),
            ])
        case "/v1/messages":
            plain(
                #"{"id":"m","type":"message","model":"up","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":7,"output_tokens":3}}"#
            )
        case "/v1/rerank":
            plain(#"{"id":"r","model":"up","results":[{"index":0,"relevance_score":0.9}],"usage":{"total_tokens":21}}"#)
        case "/v1/score":
            plain(#"{"object":"list","model":"up","data":[{"index":0,"score":0.9}],"usage":{"prompt_tokens":11}}"#)
        case "/tokenize": plain(#"{"count":2,"max_model_len":4096,"tokens":[1,2]}"#)
        case "/detokenize": plain(#"{"prompt":"hi"}"#)
        default: plain(#"{"error":{"message":"no such path"}}"#)
        }
    }

    private static func quoted(_ text: String) -> String {
        String(decoding: JSONWriter.encoded(text), as: UTF8.self)
    }

    private func start() async throws -> (GatewayUnderTest, Customer) {
        let (gateway, _) = try await Self.started.value
        return (gateway, try await Customer.create(on: gateway))
    }

    private func ask(_ path: String, _ body: String, key: String, plainKey: Bool = false) -> Ask {
        Ask(
            path: path, key: plainKey ? nil : key, headers: plainKey ? [("x-api-key", key)] : [],
            body: Array(body.utf8))
    }

    @Test func aResponseIsRelayedAndCharged() async throws {
        let (gateway, customer) = try await start()
        let answer = try await gateway.ask(
            ask("/v1/responses", #"{"model":"m","input":"hi","x":[1]}"#, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        let json = try answer.json()
        #expect(json["model"]?.string == "m")
        let sent = try #require(json["x"]?.string)
        #expect(sent.contains(#""max_output_tokens":512"#) && sent.contains(#""cache_salt":""#))
        #expect(sent.hasSuffix(#""input":"hi","x":[1]}"#) && !sent.contains("stream_options"))
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == 6 && entry.completion == 2 && !entry.estimated)
    }

    @Test func aStreamedResponseKeepsItsEventsAndEndsWithItsOwnLastOne() async throws {
        let (gateway, customer) = try await start()
        let answer = try await gateway.ask(
            ask("/v1/responses", #"{"model":"m","input":"hi","stream":true}"#, key: customer.key))
        #expect(answer.status == 200)
        #expect(
            answer.text.matches(of: /(?m)^event: (.*)$/).map { String($0.1) }
                == ["response.created", "response.output_text.delta", "response.completed"])
        #expect(!answer.text.contains("[DONE]") && !answer.text.contains(#""up""#))
        #expect(answer.text.contains(#""usage":{"input_tokens":6"#))
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == 6 && entry.cached == 4 && entry.completion == 2 && !entry.estimated)
    }

    @Test func aSilentStreamGetsSignsOfLife() async throws {
        let (gateway, customer) = try await start()
        let request = ask("/v1/responses", #"{"model":"m","input":"silent","stream":true}"#, key: customer.key)
        let text = try await gateway.wire { wire in
            try wire.send(request)
            // One after the other: the next silence counts from the last sign.
            _ = try wire.take(through: Array(": ping\n\n".utf8))
            _ = try wire.take(through: Array(": ping\n\n".utf8))
            Self.hasPinged.signal()
            return String(decoding: try wire.take(through: Array("}}\n\n".utf8)), as: UTF8.self)
        }
        #expect(text.contains("event: response.completed\n"))
        #expect(try await customer.onlySettle().completion == 0)
    }

    @Test(arguments: [false, true])
    func aMessageIsRelayedAndChargedForEitherKindOfKey(plainKey: Bool) async throws {
        let (gateway, customer) = try await start()
        for stream in [false, true] {
            let body = #"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":\#(stream)}"#
            let answer = try await gateway.ask(ask("/v1/messages", body, key: customer.key, plainKey: plainKey))
            #expect(answer.status == 200, "\(answer.text)")
            #expect(!answer.text.contains(#""up""#))
            #expect(answer.text.contains("event: message_stop") == stream)
        }
        let entries = try await customer.books(settles: 2).settles
        #expect(entries.allSatisfy { $0.prompt == 7 && $0.completion == 3 && !$0.estimated })
    }

    @Test func messagesFailInAnthropicsWords() async throws {
        let (gateway, customer) = try await start()
        func error(_ body: String, key: String) async throws -> (Int, String?, JSONValue) {
            let answer = try await gateway.ask(ask("/v1/messages", body, key: key, plainKey: true))
            let json = try answer.json()
            #expect(json["type"]?.string == "error" && json["request_id"]?.string == answer.header("x-request-id"))
            return (answer.status, json["error"]?["type"]?.string, json)
        }
        let chat = #"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#
        #expect(try await error(chat, key: "sk-tg-wrong").0 == 401)
        #expect(try await error(chat, key: "sk-tg-wrong").1 == "authentication_error")
        #expect(
            try await error(#"{"model":"none","messages":[{"content":"x"}]}"#, key: customer.key).1 == "not_found_error"
        )
        #expect(try await error("{", key: customer.key).1 == "invalid_request_error")
        let dead = try await gateway.ask(
            ask("/v1/messages", #"{"model":"m","messages":[{"content":"die"}],"stream":true}"#, key: customer.key))
        #expect(dead.text.contains("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\""))
        #expect(!dead.text.contains("message_stop"))
        let entry = try await customer.onlySettle()
        #expect(entry.estimated && entry.completion == 1)
    }

    @Test(arguments: [
        ("/v1/rerank", #"{"model":"m","query":"q","documents":["a","b"]}"#, 21),
        ("/v1/score", #"{"model":"m","text_1":"q","text_2":["a"]}"#, 11),
    ])
    func comparisonsAreChargedTheirPrompts(path: String, body: String, tokens: Int) async throws {
        let (gateway, customer) = try await start()
        let answer = try await gateway.ask(ask(path, body, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try answer.json()["model"]?.string == "m")
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == tokens && entry.completion == 0 && !entry.estimated)
    }

    @Test(arguments: [
        ("/tokenize", #"{"model":"m","prompt":"hi"}"#, "tokens"),
        ("/detokenize", #"{"model":"m","tokens":[1]}"#, "prompt"),
    ])
    func tokensAreGivenFreely(path: String, body: String, member: String) async throws {
        let (gateway, customer) = try await start()
        let answer = try await gateway.ask(ask(path, body, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try answer.json().object?.contains { $0.key == member } == true)
        try await customer.expectNoCharge()
    }

    @Test(arguments: ["/v1/messages", "/v1/rerank", "/v1/score", "/tokenize"])
    func whatTheModelsEngineDoesNotServeIsSaidBeforeItCosts(path: String) async throws {
        let (gateway, customer) = try await start()
        let body =
            #"{"model":"theirs","messages":[{"content":"x"}],"prompt":"x","query":"q","documents":["a"],"text_1":"a","text_2":"b"}"#
        let answer = try await gateway.ask(
            ask(path, path == "/v1/score" ? #"{"model":"theirs","text_1":"a","text_2":"b"}"# : body, key: customer.key))
        #expect(answer.status == 404)
        #expect(answer.text.contains("does not serve \(path)"))
        try await customer.expectNoCharge()
    }

    @Test(arguments: [
        (#"{"model":"m","prompt":"x","max_tokens":4096}"#, true),
        (#"{"model":"m","prompt":"x","max_tokens":4095}"#, false),
        (#"{"model":"m","prompt":[1,2,3,4],"max_tokens":4093}"#, true),
        (#"{"model":"m","prompt":[1,2,3,4],"max_tokens":4092}"#, false),
        (#"{"model":"m","prompt":[[1],[1,2,3,4]],"max_tokens":4093}"#, true),
    ])
    func overflowThatIsCertainIsRefusedWithTheNumbers(body: String, isRefused: Bool) async throws {
        let (gateway, customer) = try await start()
        let answer = try await gateway.ask(ask("/v1/completions", body, key: customer.key))
        #expect((answer.errorCode == "context_length_exceeded") == isRefused, "\(answer.text)")
        if isRefused { #expect(answer.status == 400 && answer.text.contains("4096")) }
    }

    @Test func theDocumentIsServedWithoutAKey() async throws {
        let (gateway, _) = try await start()
        let answer = try await gateway.ask(.get("/openapi.yaml"))
        #expect(answer.status == 200 && answer.header("content-type") == "application/yaml")
        #expect(answer.text.hasPrefix("openapi: 3.1"))
        #expect(answer.header("x-request-id") != nil)
        #expect(try await gateway.ask(.post("/openapi.yaml", "{}")).status == 405)
    }
}

import JSON
import Simulator
import Testing

/// Server-sent events with their names.
struct NamedEvent {
    var name: String?
    var json: JSONValue?

    static func all(in body: String) -> [NamedEvent] {
        body.components(separatedBy: "\n\n").filter { !$0.isEmpty }.map { text in
            var event = NamedEvent()
            for line in text.split(separator: "\n") {
                if line.hasPrefix("event: ") { event.name = String(line.dropFirst(7)) }
                if line.hasPrefix("data: ") { event.json = try? JSONValue(parsing: String(line.dropFirst(6))) }
            }
            return event
        }
    }
}

/// The names with repetitions left out.
func order(_ events: [NamedEvent]) -> [String] {
    events.reduce(into: []) { if $0.last != $1.name, let name = $1.name { $0.append(name) } }
}

@Suite struct ResponsesEndpointTests {
    private static let path = "/v1/responses"

    private static func body(_ fields: String) -> String {
        #"{"model":"m","input":"hello","instructions":"be brief","ignore_eos":true\#(fields)}"#
    }

    @Test(arguments: SimulatedNodeTests.speeds)
    func streamHasItsEventsInOrderAndUsageInTheLast(speed: NodeSpeed) async throws {
        try await withNode(speed: speed) { node in
            let port = node.port
            let body = try await live {
                try RawClient(port: port).ask("POST", Self.path, Self.body(#","max_output_tokens":5,"stream":true"#))
                    .body
            }
            let events = NamedEvent.all(in: body)
            #expect(
                order(events) == [
                    "response.created", "response.in_progress", "response.output_item.added",
                    "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                    "response.content_part.done", "response.output_item.done", "response.incomplete",
                ])
            #expect(events.map { $0.json?["sequence_number"]?.integer } == (0..<events.count).map { $0 })
            #expect(events.allSatisfy { $0.json?["type"]?.string == $0.name })
            #expect(!body.contains("[DONE]"))
            let deltas = events.compactMap {
                $0.name?.hasSuffix("text.delta") == true ? $0.json?["delta"]?.string : nil
            }
            #expect(deltas.count == 5)
            let last = events.last?.json?["response"]
            #expect(last?["output"]?[0]?["content"]?[0]?["text"]?.string == deltas.joined())
            #expect(last?["incomplete_details"] == ["reason": "max_output_tokens"])
            #expect(last?["instructions"] == "be brief")
            #expect(last?["usage"]?["input_tokens"] == 15)
            #expect(last?["usage"]?["output_tokens"] == 5)
            #expect(last?["usage"]?["total_tokens"] == 20)
            #expect(last?["usage"]?["input_tokens_details"]?["cached_tokens"] == 0)
            #expect(try await node.stats { $0.answered == 1 }.generatedTokens == 5)
        }
    }

    @Test func plainAnswerIsTheStreamsLastResponse() async throws {
        try await withNode { node in
            let port = node.port
            let (plain, stream) = try await live {
                let client = try RawClient(port: port)
                let body = #"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]}],"#
                return (
                    try client.ask("POST", Self.path, body + #""seed":3}"#),
                    try client.ask("POST", Self.path, body + #""seed":3,"stream":true}"#)
                )
            }
            let last = NamedEvent.all(in: stream.body).last
            #expect(last?.name == "response.completed")
            for name in ["status", "usage", "model", "tools", "text"] {
                #expect(try plain.json()[name] == last?.json?["response"]?[name], "\(name)")
            }
            let text = try plain.json()["output"]?[0]?["content"]?[0]?["text"]
            #expect(text == last?.json?["response"]?["output"]?[0]?["content"]?[0]?["text"])
            #expect(text?.string?.isEmpty == false)
        }
    }

    @Test func itBeginsBeforeTheFirstToken() async throws {
        try await withNode(fault: "first_token:600s") { node in
            let port = node.port
            let client = Mutexed(try RawClient(port: port))
            client.value.send("POST", Self.path, Self.body(#","stream":true"#))
            let head = try await live { try client.value.take(through: "response.in_progress\",") }
            #expect(head.contains("response.created"))
            client.value.close()
            #expect(try await node.stats { $0.aborted == 1 }.waiting == 0)
        }
    }

    @Test func storedResponsesAndBackgroundAreRefused() async throws {
        try await withNode { node in
            let port = node.port
            let statuses = try await live {
                let client = try RawClient(port: port)
                return try [#","previous_response_id":"resp_1""#, #","background":true"#, #","input":[]"#].map {
                    try client.ask("POST", Self.path, #"{"model":"m"\#($0)}"#).status
                }
            }
            #expect(statuses == [404, 400, 400])
        }
    }
}

@Suite struct MessagesEndpointTests {
    private static let path = "/v1/messages"

    private static func body(_ fields: String) -> String {
        #"{"model":"m","messages":[{"role":"user","content":"hello"}]\#(fields)}"#
    }

    @Test(arguments: SimulatedNodeTests.speeds)
    func streamHasAnthropicsEvents(speed: NodeSpeed) async throws {
        try await withNode(speed: speed) { node in
            let port = node.port
            let body = try await live {
                try RawClient(port: port).ask(
                    "POST", Self.path, Self.body(#","max_tokens":5,"ignore_eos":true,"stream":true"#)
                ).body
            }
            let events = NamedEvent.all(in: body)
            #expect(
                order(events) == [
                    "message_start", "content_block_start", "ping", "content_block_delta", "content_block_stop",
                    "message_delta", "message_stop",
                ])
            #expect(events.allSatisfy { $0.json?["type"]?.string == $0.name })
            #expect(events[0].json?["message"]?["usage"] == ["input_tokens": 9, "output_tokens": 0])
            #expect(events[0].json?["message"]?["model"] == "m")
            let delta = events[events.count - 2].json
            #expect(delta?["delta"] == ["stop_reason": "max_tokens", "stop_sequence": nil])
            #expect(delta?["usage"] == ["input_tokens": 9, "output_tokens": 5])
        }
    }

    @Test func stopReasonsSayWhy() async throws {
        try await withNode { node in
            let port = node.port
            let answers = try await live {
                let client = try RawClient(port: port)
                return try [
                    #","max_tokens":3,"ignore_eos":true"#, #","max_tokens":9000,"seed":1"#,
                    #","max_tokens":9000,"seed":1,"stop_sequences":["the","wait"]"#,
                    #","max_tokens":900,"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"}"#,
                ].map { try client.ask("POST", Self.path, Self.body($0)).json() }
            }
            #expect(
                answers.map { $0["stop_reason"]?.string } == ["max_tokens", "end_turn", "stop_sequence", "tool_use"])
            #expect(["the", "wait"].contains(answers[2]["stop_sequence"]?.string))
            #expect(answers[3]["content"]?[0]?["type"] == "tool_use")
        }
    }

    @Test(arguments: [
        (#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#, 400),
        (#"{"model":"other","max_tokens":1,"messages":[{"role":"user","content":"x"}]}"#, 404),
        (#"{"model":"m","max_tokens":1,"messages":[{"role":"tool","content":"x"}]}"#, 400),
        ("{", 400),
    ])
    func errorsHaveAnthropicsShape(body: String, status: Int) async throws {
        try await withNode { node in
            let port = node.port
            let answer = try await live { try RawClient(port: port).ask("POST", Self.path, body) }
            #expect(answer.status == status)
            #expect(try answer.json()["type"] == "error")
            #expect(try answer.json()["error"]?["message"]?.string?.isEmpty == false)
        }
    }
}

@Suite struct FurtherEndpointFaultTests {
    /// Path, body of a stream of 50 tokens, the event that says it is the end, and what marks a token.
    static let streams: [(String, String, String, String)] = [
        (
            "/v1/responses", #"{"input":"x","max_output_tokens":50,"ignore_eos":true,"stream":true}"#,
            "response.incomplete", "event: response.output_text.delta"
        ),
        (
            "/v1/messages",
            #"{"messages":[{"role":"user","content":"x"}],"max_tokens":50,"ignore_eos":true,"stream":true}"#,
            "message_stop", "event: content_block_delta"
        ),
    ]

    @Test(arguments: streams)
    func dieEndsTheStreamInTheMiddle(path: String, body: String, last: String, token: String) async throws {
        try await withNode(fault: "die:20") { node in
            let client = Mutexed(try RawClient(port: node.port))
            client.value.send("POST", path, body)
            let text = try await live {
                do {
                    return try client.value.rest()
                } catch RawClient.Failure.reset(let text) {
                    return text
                }
            }
            #expect(!client.value.isAtEnd)
            #expect(text.components(separatedBy: token).count - 1 <= 20)
            #expect(!text.contains(last))
        }
    }

    @Test(arguments: streams)
    func stallFallsSilent(path: String, body: String, last: String, token: String) async throws {
        try await withNode(fault: "stall:20") { node in
            let client = Mutexed(try RawClient(port: node.port))
            client.value.send("POST", path, body)
            let silent = try await live {
                for _ in 0..<20 { _ = try client.value.take(through: token) }
                _ = try client.value.take(through: "\n\n\r\n")
                return client.value.isSilent(milliseconds: 100)
            }
            #expect(silent)
            client.value.close()
            #expect(try await node.stats { $0.aborted == 1 }.running == 0)
        }
    }

    @Test(arguments: streams)
    func noDoneLeavesOutTheLastEventOnly(path: String, body: String, last: String, token: String) async throws {
        try await withNode { node in
            let port = node.port
            let whole = try await live { try RawClient(port: port).ask("POST", path, body).body }
            try await node.setFault("no_done")
            let cut = try await live { try RawClient(port: port).ask("POST", path, body).body }
            #expect(order(NamedEvent.all(in: whole)).dropLast() == order(NamedEvent.all(in: cut))[...])
            #expect(NamedEvent.all(in: whole).last?.name == last)
        }
    }

    @Test(arguments: streams)
    func badJSONBreaksOneEvent(path: String, body: String, last: String, token: String) async throws {
        try await withNode(fault: "bad_json") { node in
            let port = node.port
            let events = NamedEvent.all(
                in: try await live { try RawClient(port: port).ask("POST", path, body).body })
            #expect(events.count { $0.json == nil } == 1)
            #expect(events.last?.name == last)
        }
    }

    @Test(arguments: streams)
    func usageIsOffMissingOrOverrun(path: String, body: String, last: String, token: String) async throws {
        try await withNode { node in
            let port = node.port
            func answer(_ fault: String) async throws -> [NamedEvent] {
                try await node.setFault(fault)
                return NamedEvent.all(in: try await live { try RawClient(port: port).ask("POST", path, body).body })
            }
            func outputs(_ events: [NamedEvent]) -> [Int] {
                events.compactMap {
                    ($0.json?["usage"] ?? $0.json?["response"]?["usage"])?["output_tokens"]?.integer
                }
            }
            let larger = try await answer("usage:+50%")
            #expect(outputs(larger).last == 75)
            let silent = try await answer("no_usage")
            #expect(outputs(silent).isEmpty)
            let overrun = try await answer("overrun:10")
            #expect(outputs(overrun).last == 60)
            #expect(overrun.count { $0.name.map { token.hasSuffix($0) } ?? false } == 60)
        }
    }

    @Test(arguments: [
        ("/v1/responses", #"{"input":"x","max_output_tokens":2}"#),
        ("/v1/messages", #"{"messages":[{"role":"user","content":"x"}],"max_tokens":2}"#),
        ("/v1/rerank", #"{"query":"a","documents":["a","b"]}"#), ("/v1/score", #"{"text_1":"a","text_2":"b"}"#),
        ("/tokenize", #"{"prompt":"a"}"#), ("/detokenize", #"{"tokens":[97]}"#),
    ])
    func everyEndpointMeetsTheFaultsOfItsRequests(path: String, body: String) async throws {
        try await withNode { node in
            let port = node.port
            func status(_ fault: String) async throws -> Int {
                try await node.setFault(fault)
                return try await live { try RawClient(port: port).ask("POST", path, body).status }
            }
            #expect(try await status("") == 200)
            #expect(try await status("status:502") == 502)
            #expect(try await status("loading:60s") == 503)
            await #expect(throws: RawClient.Failure.reset("")) { _ = try await status("refuse") }
            await #expect(throws: RawClient.Failure.reset("")) { _ = try await status("die:0") }
            try await node.setFault("bad_json")
            let broken = try await live { try RawClient(port: port).ask("POST", path, body) }
            #expect(throws: JSONError.self) { try broken.json() }
            try await node.setFault("close")
            let text = try await live {
                let client = try RawClient(port: port)
                client.send("POST", path, body)
                return try client.rest()
            }
            #expect(!text.lowercased().contains("connection: close"))
        }
    }
}

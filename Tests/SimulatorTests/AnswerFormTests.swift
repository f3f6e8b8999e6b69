import JSON
import Testing

@testable import Simulator

@Suite struct SchemaFillerTests {
    private func made(_ schema: String, seed: UInt64 = 1) throws -> JSONValue {
        var filler = SchemaFiller(schema: try JSONValue(parsing: schema), seed: seed)
        return try filler.value()
    }

    @Test func valuesKeepTheirBounds() throws {
        for seed in UInt64(0)..<200 {
            let value = try made(
                """
                {"type":"object","required":["a","z"],"properties":{
                "a":{"type":"integer","minimum":5,"maximum":5},"b":{"type":"number","exclusiveMaximum":0},
                "c":{"type":"string","minLength":30,"maxLength":31},"d":{"type":"array","items":{"type":"null"},
                "minItems":3},"e":{"enum":["x",2]},"f":{"const":{"k":1}},"g":{"type":["null","boolean"]},
                "h":{"type":"integer","multipleOf":7,"minimum":8},"i":{"anyOf":[{"type":"string","format":"date"}]}}}
                """, seed: seed)
            #expect(value["a"] == 5)
            #expect((value["b"]?.double ?? 1) < 0)
            #expect((30...31).contains(value["c"]?.string?.utf8.count ?? 0))
            #expect(value["d"] == [nil, nil, nil])
            #expect(value["e"] == "x" || value["e"] == 2)
            #expect(value["f"] == ["k": 1])
            #expect(value["g"]?.bool == true || value["g"]?.bool == false)
            #expect(value["h"] == 14)
            #expect(value["i"] == "2026-01-02")
            #expect(value["z"]?.string?.isEmpty == false)
        }
    }

    @Test func recursiveSchemasEnd() throws {
        let tree = """
            {"$ref":"#/$defs/node","$defs":{"node":{"type":"object","required":["value"],"properties":{
            "value":{"type":"string"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]},
            "children":{"type":"array","items":{"$ref":"#/$defs/node"}}}}}}
            """
        let value = try made(tree)
        #expect(value["value"]?.string?.isEmpty == false)
        #expect(value["children"]?[0]?["value"]?.string?.isEmpty == false)
        for endless in [
            ##"{"$ref":"#"}"##, #"{"type":"array","minItems":1000000}"#, ##"{"$ref":"#/nowhere"}"##,
            ##"{"type":"object","required":["a"],"properties":{"a":{"$ref":"#"}}}"##,
        ] {
            #expect(throws: NodeRefusal.self) { try made(endless) }
        }
    }

    @Test func allOfHasTheMembersOfEach() throws {
        let value = try made(
            """
            {"allOf":[{"type":"object","properties":{"a":{"const":1}}},{"properties":{"b":{"const":2}}}],
            "properties":{"c":{"const":3}}}
            """)
        #expect(value == ["a": 1, "b": 2, "c": 3])
    }
}

@Suite struct AnswerFormTests {
    private static let tools =
        #","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":"#
        + #"{"city":{"type":"string"}},"required":["city"]}}}]"#

    private static func chat(_ fields: String) -> String {
        #"{"model":"m","messages":[{"role":"user","content":"x"}]\#(fields)}"#
    }

    @Test(arguments: [#""required""#, #"{"type":"function","function":{"name":"f"}}"#])
    func forcedToolIsCalledPlainAndStreamed(choice: String) async throws {
        try await withNode { node in
            let port = node.port
            let body = Self.chat(Self.tools + #","seed":1,"tool_choice":\#(choice)"#)
            let (plain, stream) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", "/v1/chat/completions", body).json(),
                    try client.ask("POST", "/v1/chat/completions", body.dropLast() + streaming + "}")
                )
            }
            let call = plain["choices"]?[0]?["message"]?["tool_calls"]?[0]
            #expect(plain["choices"]?[0]?["finish_reason"] == "tool_calls")
            #expect(call?["function"]?["name"] == "f")
            let arguments = try #require(call?["function"]?["arguments"]?.string)
            #expect(try JSONValue(parsing: arguments)["city"]?.string?.isEmpty == false)
            let events = try stream.events.dropLast().map { try JSONValue(parsing: $0) }
            let deltas = events.compactMap { $0["choices"]?[0]?["delta"]?["tool_calls"]?[0] }
            #expect(deltas[0]["function"]?["name"] == "f" && deltas[0]["id"]?.string?.isEmpty == false)
            #expect(deltas.compactMap { $0["function"]?["arguments"]?.string }.joined() == arguments)
            #expect(events[events.count - 2]["choices"]?[0]?["finish_reason"] == "tool_calls")
            #expect(plain["usage"]?["completion_tokens"]?.integer == deltas.count - 1)
        }
    }

    @Test(arguments: [
        #","tool_choice":"required""#, #"\#(tools),"tool_choice":{"type":"function","function":{"name":"g"}}"#,
        #","response_format":{"type":"json_schema"}"#, #","response_format":{"type":"xml"}"#,
        #","top_logprobs":2"#, #","logprobs":true,"top_logprobs":21"#, #","temperature":"warm""#, #","top_p":2"#,
    ])
    func whatCannotBeIsRefused(fields: String) async throws {
        try await withNode { node in
            let port = node.port
            let answer = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions", Self.chat(fields))
            }
            #expect(answer.status == 400)
        }
    }

    @Test func jsonIsCutAtTheLimitAndWholeBelowIt() async throws {
        try await withNode { node in
            let port = node.port
            let format = #","response_format":{"type":"json_object"}"#
            let (cut, whole) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask("POST", "/v1/chat/completions", Self.chat(format + #","max_tokens":2"#)).json(),
                    try client.ask("POST", "/v1/chat/completions", Self.chat(format)).json()
                )
            }
            #expect(cut["choices"]?[0]?["finish_reason"] == "length")
            #expect(cut["usage"]?["completion_tokens"] == 2)
            #expect(whole["choices"]?[0]?["finish_reason"] == "stop")
            let content = try #require(whole["choices"]?[0]?["message"]?["content"]?.string)
            #expect(try JSONValue(parsing: content)["answer"]?.string?.isEmpty == false)
        }
    }

    @Test func logprobsNameEveryTokenAsItIsWritten() async throws {
        try await withNode { node in
            let port = node.port
            let (chat, legacy) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask(
                        "POST", "/v1/chat/completions",
                        Self.chat(#","max_tokens":6,"ignore_eos":true,"logprobs":true,"top_logprobs":3"#)
                    ).json()["choices"]?[0],
                    try client.ask(
                        "POST", "/v1/completions",
                        #"{"prompt":"Grüße, \"you\"","max_tokens":4,"ignore_eos":true,"logprobs":2,"echo":true}"#
                    ).json()["choices"]?[0]
                )
            }
            let content = chat?["logprobs"]?["content"]?.array ?? []
            #expect(content.count == 6)
            #expect(content.compactMap { $0["token"]?.string }.joined() == chat?["message"]?["content"]?.string)
            for entry in content {
                let top = entry["top_logprobs"]?.array ?? []
                #expect(Set(top.map { $0["token"]?.string }).count == 3)
                #expect(top.first?["token"] == entry["token"])
            }
            let text = try #require(legacy?["text"]?.string)
            #expect(text.hasPrefix("Grüße, \"you\""))
            #expect(legacy?["logprobs"]?["tokens"]?.array?.compactMap(\.string).joined() == text)
            #expect(legacy?["logprobs"]?["token_logprobs"]?[0] == .null)
        }
    }

    @Test func echoAloneGeneratesNothing() async throws {
        try await withNode { node in
            let port = node.port
            let json = try await live {
                try RawClient(port: port).ask(
                    "POST", "/v1/completions", #"{"prompt":["ab",[97,98]],"max_tokens":0,"echo":true}"#
                ).json()
            }
            #expect(json["choices"]?[0]?["text"] == "ab")
            #expect(json["usage"]?["completion_tokens"] == 0)
        }
    }

    @Test func continuousUsageCountsUp() async throws {
        try await withNode { node in
            let port = node.port
            let body = Self.chat(
                #","max_tokens":4,"ignore_eos":true,"stream":true,"#
                    + #""stream_options":{"include_usage":true,"continuous_usage_stats":true}"#)
            let events = try await live { try RawClient(port: port).ask("POST", "/v1/chat/completions", body).events }
            let counts = try events.dropLast().map {
                try JSONValue(parsing: $0)["usage"]?["completion_tokens"]?.integer
            }
            #expect(counts == [0, 1, 2, 3, 4, 4, 4])
        }
    }

    @Test func overflowSaysWhatVLLMSays() async throws {
        try await withNode({ $0.contextTokensMax = 100 }) { node in
            let port = node.port
            let answer = try await live {
                try RawClient(port: port).ask("POST", "/v1/chat/completions", Self.chat(#","max_tokens":95"#))
            }
            #expect(answer.status == 400)
            let message = try #require(try answer.json()["error"]?["message"]?.string)
            #expect(
                message.hasPrefix(
                    "This model's maximum context length is 100 tokens. However, you requested 95 output tokens and "
                        + "your prompt contains at least 6 input tokens, for a total of at least 101 tokens."))
        }
    }
}

@Suite struct TokenizerEndpointTests {
    @Test(arguments: ["", "a", "abcd", "abcde", "Grüße 日本 👩‍👩‍👧", "\0", "a\0\0", "\0\0\0\0\0"])
    func detokenizeUndoesTokenize(text: String) async throws {
        try await withNode { node in
            let port = node.port
            let quoted = JSONValue.string(text).text
            let (tokens, back) = try await live {
                let client = try RawClient(port: port)
                let tokens = try client.ask(
                    "POST", "/tokenize", #"{"model":"m","prompt":\#(quoted),"return_token_strs":true}"#
                ).json()
                let list = tokens["tokens"]?.text ?? ""
                return (tokens, try client.ask("POST", "/detokenize", #"{"model":"m","tokens":\#(list)}"#).json())
            }
            #expect(back["prompt"]?.string == text)
            #expect(tokens["count"]?.integer == (text.utf8.count + 3) / 4)
            #expect(tokens["token_strs"]?.array?.count == tokens["count"]?.integer)
        }
    }

    @Test func rerankPutsTheBestFirstAndScoresAgreeWithTheirOrder() async throws {
        try await withNode { node in
            let port = node.port
            let (ranked, scores, uneven) = try await live {
                let client = try RawClient(port: port)
                return (
                    try client.ask(
                        "POST", "/v1/rerank",
                        #"{"query":"red apples","documents":["blue sky",{"text":"red apples"},"apples"],"top_n":2}"#
                    ).json(),
                    try client.ask(
                        "POST", "/score", #"{"text_1":"red apples","text_2":["blue sky","red apples","apples"]}"#
                    ).json(),
                    try client.ask("POST", "/v1/score", #"{"text_1":["a","b"],"text_2":"a"}"#).status
                )
            }
            #expect(ranked["results"]?.array?.map { $0["index"]?.integer } == [1, 2])
            #expect(ranked["results"]?[0]?["document"] == ["text": "red apples"])
            #expect(ranked["usage"] == ["prompt_tokens": 16, "total_tokens": 16])
            let values = scores["data"]?.array?.compactMap { $0["score"]?.double } ?? []
            #expect(values.count == 3 && values[1] > values[2] && values[2] > values[0])
            #expect(ranked["results"]?[0]?["relevance_score"]?.double == values[1])
            #expect(uneven == 400)
        }
    }
}

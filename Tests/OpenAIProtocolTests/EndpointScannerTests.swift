import Domain
import OpenAIProtocol
import Testing

/// What the scanner reads of the bodies that only one endpoint has.
struct EndpointScannerTests {
    // MARK: Responses

    @Test func aResponsesInputIsAStringOrItems() throws {
        let plain = try scan(#"{"model":"m","input":"hi","max_output_tokens":9,"stream":true}"#, .responses)
        #expect(plain.maxTokens == 9 && plain.stream && plain.contentParts.conversations == 1)
        let items = #"""
            {"model":"m","instructions":"be kind","input":[
              {"role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_image","image_url":"data:"}]},
              {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
              {"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"data:"}]},
              {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"t"}]},
              {"type":"message","role":"assistant","content":[{"type":"output_text","text":"y","annotations":[]}]}],
             "tools":[{"type":"function","name":"f","parameters":{}},{"type":"custom","name":"g"}],
             "previous_response_id":null,"background":false,"conversation":null,"stream_options":{"x":1}}
            """#
        let scanned = try scan(items, .responses)
        #expect(scanned.contentParts == .init(conversations: 1, messages: 5, images: 2))
        #expect(scanned.maxTokens == nil && scanned.steering.isEmpty)
    }

    @Test(arguments: [
        (#""input":"x","previous_response_id":"r""#, "previous_response_id"),
        (#""input":"x","conversation":"c""#, "conversation"),
        (#""input":"x","conversation":{"id":"c"}"#, "conversation"),
        (#""input":"x","background":true"#, "background"),
        (#""input":"x","prompt":{"id":"p"}"#, "prompt"),
        (#""input":"x","max_tokens":5"#, "max_tokens"),
        (#""input":"x","max_completion_tokens":5"#, "max_completion_tokens"),
        (#""input":"x","max_output_tokens":0"#, "max_output_tokens"),
        (#""input":"x","tools":[{"type":"function"},{"type":"web_search_preview"}]"#, "tools[1].type"),
        (#""input":"x","tools":[{"type":"mcp","server_url":"http://x"}]"#, "tools[0].type"),
        (#""input":"x","tools":[{"name":"untyped"}]"#, "tools[0].type"),
        (#""input":"x","tools":{}"#, "tools"),
        (#""input":[]"#, "input"), (#""input":7"#, "input"), (#""input":[7]"#, "input[0]"),
        (#""input":[{"type":"item_reference","id":"i"}]"#, "input[0].type"),
        (#""input":[{"type":"web_search_call"}]"#, "input[0].type"),
        (#""input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]"#, "input[0].content"),
        (#""input":[{"role":"user","content":[{"type":"input_audio"}]}]"#, "input[0].content"),
        (#""input":[{"type":"function_call_output","output":[{"type":"input_file"}]}]"#, "input[0].output"),
        ("\"stream\":true", "input"),
    ])
    func whatAResponseMayNotSayIsNamed(members: String, parameter: String) {
        let failure = scanFailure(#"{"model":"m","# + members + "}", .responses)
        #expect(failure?.code == .invalidRequest)
        #expect(failure?.parameter == parameter, "\(failure?.message ?? "accepted")")
    }

    // MARK: Messages

    @Test func anAnthropicConversationCountsTheImagesThatToolsGaveBack() throws {
        let body = #"""
            {"model":"m","max_tokens":64,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],
             "thinking":{"type":"enabled","budget_tokens":32},"stop_sequences":["x"],"metadata":{"user_id":"u"},
             "messages":[{"role":"user","content":[{"type":"text","text":"a"},
                {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}}]},
              {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},
                {"type":"tool_use","id":"t1","name":"f","input":{"type":"video","audio":1}}]},
              {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[
                {"type":"text","text":"r"},{"type":"image","source":{"type":"url","url":"http://x"}}]}]}],
             "tools":[{"name":"f","input_schema":{}},{"type":"custom","name":"g","input_schema":{}}]}
            """#
        let scanned = try scan(body, .messages)
        #expect(scanned.maxTokens == 64 && scanned.contentParts == .init(conversations: 1, messages: 3, images: 2))
    }

    @Test(arguments: [
        (#""messages":[]"#, "messages"), (#""max_tokens":4"#, "messages"),
        (#""messages":[{"role":"user","content":"x"}],"max_completion_tokens":4"#, "max_completion_tokens"),
        (
            #""messages":[{"role":"user","content":"x"}],"tools":[{"type":"web_search_20250305","name":"w"}]"#,
            "tools[0].type"
        ),
        (#""messages":[{"role":"user","content":"x"}],"mcp_servers":[{"url":"http://x"}]"#, "mcp_servers"),
        (#""messages":[{"role":"user","content":"x"}],"container":"c""#, "container"),
        (#""messages":[{"role":"user","content":"x"}],"system":[{"type":"document"}]"#, "system"),
        (#""messages":[{"role":"user","content":[{"type":"document","source":{}}]}]"#, "messages[0].content"),
        (
            #""messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"document"}]}]}]"#,
            "messages[0].content"
        ),
    ])
    func whatAMessageMayNotSayIsNamed(members: String, parameter: String) {
        let failure = scanFailure(#"{"model":"m","# + members + "}", .messages)
        #expect(failure?.code == .invalidRequest)
        #expect(failure?.parameter == parameter, "\(failure?.message ?? "accepted")")
    }

    // MARK: Comparisons

    @Test(arguments: [
        (#"{"model":"m","query":"abcd","documents":["a","b","c"],"top_n":2}"#, Endpoint.rerank, 3, 12),
        (#"{"model":"m","query":"abcd","documents":["a"]}"#, .rerank, 1, 0),
        (#"{"model":"m","text_1":"abcd","text_2":["a","b"]}"#, .score, 2, 6),
        (#"{"model":"m","text_1":"abcd","text_2":"a"}"#, .score, 1, 0),
        (#"{"model":"m","queries":"abcd","documents":["a","b"]}"#, .score, 2, 6),
        (#"{"model":"m","query":"abcd","items":["a","b"]}"#, .score, 2, 6),
        // As many on both sides: each is read once.
        (#"{"model":"m","text_1":["abcd","efgh"],"text_2":["a","b"]}"#, .score, 2, 0),
    ])
    func theLeftSideIsReadForEachOfTheRight(body: String, endpoint: Endpoint, pairs: Int, repeated: Int) throws {
        let scanned = try scan(body, endpoint)
        #expect(scanned.promptCount == pairs && scanned.contentParts.conversations == pairs)
        #expect(scanned.repeatedBytes == repeated)
        #expect(
            PromptEstimate.promptTokensMax(
                bodyBytes: scanned.bodyBytes, parts: scanned.contentParts, repeatedBytes: scanned.repeatedBytes,
                templateTokensMax: 10, imageTokensMax: 0) == body.utf8.count + repeated + 10 * pairs)
    }

    @Test(arguments: [
        (#"{"model":"m","query":"q"}"#, Endpoint.rerank, "documents"),
        (#"{"model":"m","documents":["a"]}"#, .rerank, "query"),
        (#"{"model":"m","query":"q","documents":[]}"#, .rerank, "documents"),
        (#"{"model":"m","query":"q","documents":["a",{"text":"b"}]}"#, .rerank, "documents[1]"),
        (#"{"model":"m","query":["q",1],"documents":["a"]}"#, .rerank, "query[1]"),
        (#"{"model":"m","query":5,"documents":["a"]}"#, .rerank, "query"),
        (#"{"model":"m","text_1":"q"}"#, .score, "text_2"),
        (#"{"model":"m","text_1":"q","query":"q","text_2":"a"}"#, .score, "query"),
        (#"{"model":"m","query":"q","documents":["a"],"stream":true}"#, .rerank, "stream"),
        (#"{"model":"m","text_1":["a","b"],"text_2":["a","b","c"]}"#, .score, "text_1"),
        (#"{"model":"m","text_1":["a","b"],"text_2":"a"}"#, .score, "text_1"),
    ])
    func aComparisonNeedsBothSides(body: String, endpoint: Endpoint, parameter: String) {
        #expect(scanFailure(body, endpoint)?.parameter == parameter)
    }

    // MARK: Tokens

    @Test func tokensAreReadFromTextsAndConversationsAndGivenBack() throws {
        #expect(try scan(#"{"model":"m","prompt":"x"}"#, .tokenize).contentParts.conversations == 0)
        #expect(
            try scan(#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#, .tokenize).contentParts
                .conversations == 1)
        #expect(try scan(#"{"model":"m","content":"x"}"#, .tokenize).promptCount == 1)
        #expect(try scan(#"{"model":"m","tokens":[1,2,3]}"#, .detokenize).promptTokensMin == 3)
        #expect(scanFailure(#"{"model":"m"}"#, .tokenize)?.parameter == "prompt")
        #expect(scanFailure(#"{"model":"m","tokens":["x",1]}"#, .detokenize)?.parameter == "tokens")
    }

    @Test func promptsGivenAsTokensSayHowManyThereAreAtLeast() throws {
        #expect(try scan(#"{"model":"m","prompt":[1,2,3]}"#, .completions).promptTokensMin == 3)
        #expect(try scan(#"{"model":"m","prompt":"three tokens maybe"}"#, .completions).promptTokensMin == 0)
        #expect(try scan(#"{"model":"m","prompt":[[1],[1,2,3,4],[1,2]]}"#, .completions).promptTokensMin == 4)
        #expect(try scan(#"{"model":"m","input":[[1],[1,2]]}"#, .embeddings).promptTokensMin == 2)
    }

    // MARK: What goes upstream

    @Test func theLimitGoesUpstreamUnderTheEndpointsOwnName() throws {
        func patched(_ body: String, _ endpoint: Endpoint) throws -> String {
            let scanned = try scan(body, endpoint)
            let plan = PatchPlan(upstreamModel: "up", maxTokens: 7, forceStreamUsage: true, cacheSalt: nil)
            return text(applyEdits(scanned.edits(for: plan, endpoint: endpoint), to: Array(body.utf8)))
        }
        #expect(
            try patched(#"{"model":"m","input":"x","stream":true}"#, .responses)
                == #"{"max_output_tokens":7,"model":"up","input":"x","stream":true}"#)
        #expect(
            try patched(#"{"model":"m","input":"x","max_output_tokens":9}"#, .responses)
                == #"{"model":"up","input":"x","max_output_tokens":7}"#)
        #expect(
            try patched(#"{"model":"m","messages":[{"content":"x"}],"stream":true}"#, .messages)
                == #"{"max_tokens":7,"model":"up","messages":[{"content":"x"}],"stream":true}"#)
        #expect(
            try patched(#"{"model":"m","query":"q","documents":["a"]}"#, .rerank)
                == #"{"model":"up","query":"q","documents":["a"]}"#)
    }
}

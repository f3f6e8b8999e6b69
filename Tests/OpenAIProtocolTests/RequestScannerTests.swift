import Domain
import JSON
import OpenAIProtocol
import Support
import Testing

struct RequestScannerTests {
    @Test func readsEverythingThatTheGatewayDecidesBy() throws {
        let body = """
            { "model" : "llama-3.1-8b", "stream":true,"stream_options":{"include_usage":true,"x":1},
              "max_completion_tokens": 77, "n": 3, "user":"u","prompt_cache_key":"k", "tools":[{"a":1}],
              "messages":[{"role":"system","content":"s"},{"content":[{"type":"text","text":"t"},
              {"type":"image_url","image_url":{"url":"data:..."}}, "plain"],"role":"user"},
              {"role":"assistant","content":null,"tool_calls":[]}], "unknown":{"deep":[1,2,{"x":null}]} }
            """
        let scanned = try scan(body)
        let bytes = Array(body.utf8)
        #expect(scanned.model == "llama-3.1-8b" && text(bytes[scanned.modelSpan]) == #""llama-3.1-8b""#)
        #expect(scanned.stream && scanned.includeUsage)
        #expect(scanned.maxTokens == 77 && scanned.limitSpans[.maxTokens] == nil)
        #expect(text(bytes[try #require(scanned.limitSpans[.maxCompletionTokens])]) == "77")
        #expect(scanned.n == 3 && scanned.choices == 3 && scanned.promptCount == 1)
        #expect(scanned.sessionKey == "k")
        #expect(scanned.contentParts == .init(conversations: 1, messages: 3, images: 1))
        #expect(text(bytes[scanned.promptSpan]).hasPrefix("[{\"role\"") && bytes[scanned.promptSpan].last == 0x5D)
        #expect(text(bytes[try #require(scanned.toolsSpan)]) == #"[{"a":1}]"#)
        #expect(scanned.bodyBytes == bytes.count && scanned.insertionOffset == 1)
        #expect(scanned.steering.isEmpty)
    }

    @Test func silenceAndNullMeanTheSame() throws {
        let silent = try scan(chat())
        let nulls = try scan(
            chat(#""stream":null,"max_tokens":null,"n":null,"best_of":null,"user":null,"stream_options":null"#))
        for scanned in [silent, nulls] {
            #expect(!scanned.stream && !scanned.includeUsage && scanned.maxTokens == nil && scanned.choices == 1)
            #expect(scanned.sessionKey == nil)
        }
        #expect(silent.limitSpans[.maxTokens] == nil && nulls.limitSpans[.maxTokens] != nil)
    }

    @Test(arguments: [
        ("", "byte 0", "too early"),
        ("{\"model\":\"m\"", "byte 12", "too early"),
        ("{\"model\":\"m\",}", "byte 13", "a key"),
        ("{\"model\":\"m\" \"messages\":[]}", "byte 13", "',' or '}'"),
        ("{\"model\":\"m\",\"messages\":[{\"content\":[{\"type\":\"te\txt\"}]}]}", "byte 48", "control"),
        ("{\"model\":\"m\",\"stream_options\":{\"include_usage\":tru}}", "byte 47", "true, false or null"),
        ("{\"model\":\"m\"}x", "byte 13", "nothing after"),
        ("{'model':'m'}", "byte 1", "a key"),
    ])
    func malformedBodiesNameTheByte(body: String, place: String, expected: String) throws {
        let failure = try #require(scanFailure(body))
        #expect(failure.code == .invalidJSON && failure.parameter == nil)
        #expect(failure.message.contains(place) && failure.message.contains(expected), "\(failure.message)")
    }

    @Test(arguments: [
        ("[]", nil), ("\"x\"", nil), ("null", nil),
        ("{}", "model"),
        (#"{"messages":[{"role":"user","content":"x"}]}"#, "model"),
        (#"{"model":"m"}"#, "messages"),
        (#"{"model":"m","messages":[]}"#, "messages"),
        (#"{"model":"m","messages":null}"#, "messages"),
        (#"{"model":"m","messages":"hi"}"#, "messages"),
        (#"{"model":"m","messages":{}}"#, "messages"),
        (#"{"model":"m","messages":["hi"]}"#, "messages[0]"),
        (#"{"model":"m","messages":[{"content":"a"},{"content":3}]}"#, "messages[1].content"),
        (#"{"model":"m","messages":[{"content":{"type":"text"}}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[3]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[{"type":"video_url","video_url":{}}]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[{"type":"input_audio"}]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[{"video_url":"u"}]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[{"type":null}]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"content":[{"t\u0079pe":"text"}]}]}"#, "messages[0].content"),
        (#"{"model":"m","messages":[{"c\u006fntent":"x"}]}"#, "messages[0]"),
        (#"{"model":3,"messages":[{}]}"#, "model"),
        (#"{"model":null,"messages":[{}]}"#, "model"),
        (#"{"model":"","messages":[{}]}"#, "model"),
    ])
    func missingFieldsAndWrongShapesNameTheParameter(body: String, parameter: String?) throws {
        let failure = try #require(scanFailure(body))
        #expect(failure.code == .invalidRequest && failure.parameter == parameter, "\(failure)")
    }

    @Test(arguments: [
        (#""stream":1"#, "stream"), (#""stream":"true""#, "stream"),
        (#""max_tokens":0"#, "max_tokens"), (#""max_tokens":-1"#, "max_tokens"), (#""max_tokens":"5""#, "max_tokens"),
        (#""max_tokens":10.0"#, "max_tokens"), (#""max_tokens":1e2"#, "max_tokens"),
        (#""max_tokens":true"#, "max_tokens"), (#""max_tokens":2147483648"#, "max_tokens"),
        (#""max_tokens":99999999999999999999999"#, "max_tokens"),
        (#""max_completion_tokens":0"#, "max_completion_tokens"),
        (#""max_tokens":5,"max_completion_tokens":6"#, "max_tokens"),
        (#""n":0"#, "n"), (#""n":129"#, "n"), (#""n":"2""#, "n"), (#""n":2.0"#, "n"), (#""n":true"#, "n"),
        (#""best_of":0"#, "best_of"), (#""n":3,"best_of":2"#, "best_of"),
        (#""user":5"#, "user"), (#""prompt_cache_key":[]"#, "prompt_cache_key"),
        (#""stream_options":true"#, "stream_options"), (#""stream_options":[]"#, "stream_options"),
        (#""stream_options":{"include_usage":1}"#, "stream_options.include_usage"),
        (#""stream_options":{"include_usage":true,"include_usage":false}"#, "stream_options.include_usage"),
        (#""stream_options":{"include\u005fusage":false}"#, "stream_options"),
        (#""model":"other""#, "model"), (#""x":1,"x":1"#, "x"), (#""x":1,"y":2,"x":3"#, "x"),
        (#""max\u005ftokens":5"#, "max_tokens"), (#""\u0078":5"#, "x"), (#""mod\u0065l":"m""#, "model"),
    ])
    func wrongFieldsNameTheParameter(members: String, parameter: String) throws {
        let failure = try #require(scanFailure(chat(members)))
        #expect(failure.code == .invalidRequest && failure.parameter == parameter, "\(failure)")
        #expect(failure.source == .downstream && failure.message.contains(parameter), "\(failure.message)")
    }

    @Test func equalLimitsUnderBothNamesAreOne() throws {
        #expect(try scan(chat(#""max_tokens":9,"max_completion_tokens":9"#)).maxTokens == 9)
        #expect(try scan(chat(#""max_tokens":null,"max_completion_tokens":9"#)).maxTokens == 9)
    }

    @Test func malformedWinsOverEveryOtherFault() {
        #expect(scanFailure(#"{"model":3,"x":1,"x":2,"messages":"hi","n":0"#)?.code == .invalidJSON)
        #expect(scanFailure(#"{"model":3,"messages":[tru]}"#)?.code == .invalidJSON)
        #expect(scanFailure(#"[1,2"#)?.code == .invalidJSON)
        // Among the others the first in the body, whatever its kind; what is missing comes last.
        #expect(scanFailure(#"{"n":0,"stream":3}"#)?.parameter == "n")
        #expect(scanFailure(#"{"stream":3,"n":0}"#)?.parameter == "stream")
    }

    @Test func boundsTopLevelKeys() throws {
        func body(_ extra: Int) -> String { chat((0..<extra).map { "\"k\($0)\":\($0)" }.joined(separator: ",")) }
        #expect(scanFailure(body(RequestLimits.topLevelKeysMax - 2)) == nil)
        #expect(scanFailure(body(RequestLimits.topLevelKeysMax - 1))?.code == .invalidRequest)
    }

    @Test func boundsDepthAndLengths() {
        let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        #expect(scanFailure(chat("\"x\":\(deep)"))?.code == .invalidJSON)
        #expect(scanFailure(#"{"model":"\#(String(repeating: "m", count: 257))"}"#)?.parameter == "model")
    }

    @Test func longSessionKeysAreCut() throws {
        let scanned = try scan(chat("\"user\":\"\(String(repeating: "u", count: 1_000))\""))
        #expect(scanned.sessionKey?.utf8.count == RequestLimits.sessionKeyBytesMax)
    }

    @Test func escapedValuesAreDecoded() throws {
        #expect(try scan(#"{"model":"a\u002fb","messages":[{}],"user":"\"q\""}"#).model == "a/b")
        #expect(try scan(chat(#""user":"\"q\"""#)).sessionKey == "\"q\"")
    }

    @Test(arguments: [
        (#"{"model":"m","messages":[{"content":[{"type":"image_url"},{"type":"image_url"}]}]}"#, 2),
        (#"{"model":"m","messages":[{"content":[{"image_url":"u"}]}]}"#, 1),
        (#"{"model":"m","messages":[{"content":[{"type":"text","type":"image_url"}]}]}"#, 1),
        (#"{"model":"m","messages":[{"content":[{"type":"im\u0061ge_url"}]}]}"#, 1),
        (#"{"model":"m","messages":[{"content":[{"type":"image_url"}],"content":"x"}]}"#, 1),
        (#"{"model":"m","messages":[{"content":[{"type":"text","image_url":null}]}]}"#, 0),
        (#"{"model":"m","messages":[{"content":"image_url"}]}"#, 0),
    ])
    func countsEveryImage(body: String, images: Int) throws {
        #expect(try scan(body).contentParts.images == images)
    }

    @Test(arguments: [
        (#""x""#, 1), (#"["a","b","c"]"#, 3), ("[1,2,3]", 1), ("[[1,2],[3]]", 2), (#"[""]"#, 1),
    ])
    func promptListsMultiplyChoices(prompt: String, count: Int) throws {
        let scanned = try scan(#"{"model":"m","prompt":\#(prompt),"n":2,"best_of":3}"#, .completions)
        #expect(scanned.promptCount == count && scanned.choices == count * 3)
        let embedded = try scan(#"{"model":"m","input":\#(prompt),"n":2}"#, .embeddings)
        #expect(embedded.choices == count)
    }

    @Test(arguments: [
        "null", "3", "{}", "[]", "[[]]", #"["a",1]"#, #"[1,"a"]"#, "[[1],2]", #"[["a"]]"#, "[null]", "[{}]", "[1.5]",
        "[-1]", "[true]", "[[1,[2]]]", "[99999999999]",
    ])
    func otherPromptsAreRefused(prompt: String) throws {
        for (endpoint, name) in [(Endpoint.completions, "prompt"), (.embeddings, "input")] {
            let failure = try #require(scanFailure(#"{"model":"m","\#(name)":\#(prompt)}"#, endpoint))
            #expect(failure.code == .invalidRequest && failure.parameter == name)
        }
    }

    @Test func boundsPrompts() {
        func list(_ count: Int) -> String { "[" + Array(repeating: "\"a\"", count: count).joined(separator: ",") + "]" }
        #expect(scanFailure(#"{"model":"m","input":\#(list(RequestLimits.promptsMax))}"#, .embeddings) == nil)
        #expect(
            scanFailure(#"{"model":"m","input":\#(list(RequestLimits.promptsMax + 1))}"#, .embeddings)?.parameter
                == "input")
    }

    @Test func embeddingsDoNotStream() {
        #expect(scanFailure(#"{"model":"m","input":"a","stream":true}"#, .embeddings)?.parameter == "stream")
    }

    /// Whatever is cut off or flipped, the scanner answers or fails; a body that it accepts is JSON.
    @Test(arguments: [5, 6, 7] as [UInt64])
    func hostileBytesNeverDisagreeWithTheGrammar(seed: UInt64) {
        var numbers = SplitMix64(seed: seed)
        let body = Array(
            chat(#""stream":true,"stream_options":{"include_usage":null},"n":2,"x":[{"y":"\u00e9\n"}],"max_tokens":5"#)
                .utf8)
        var accepted = 0
        for _ in 0..<4_000 {
            var bytes = body
            for _ in 0...numbers.below(2) {
                bytes[numbers.below(bytes.count)] = numbers.pick(Array("\"{}[]:,\\0 x1tn".utf8))
            }
            if numbers.chance(20) { bytes.removeSubrange(numbers.below(bytes.count)...) }
            let isJSON = bytes.withUnsafeBytes { (try? validateJSON($0)) != nil }
            let failure = scanFailure(text(bytes))
            if failure == nil { accepted += 1 }
            #expect((failure?.code == .invalidJSON) == !isJSON, "seed \(seed): \(text(bytes))")
        }
        #expect(accepted > 100)
    }
}

struct SteeringTests {
    private func refusal(_ body: String, _ engines: Set<Engine>, _ endpoint: Endpoint = .chatCompletions) throws
        -> String?
    {
        let scanned = try scan(body, endpoint)
        do throws(Failure) {
            try Steering.check(scanned, engines: engines)
            return nil
        } catch {
            #expect(error.code == .invalidRequest)
            return error.parameter
        }
    }

    @Test(arguments: [
        (#""n_predict":100"#, "n_predict"), (#""use_beam_search":true"#, "use_beam_search"),
        (#""cache_salt":"mine""#, "cache_salt"), (#""priority":-1"#, "priority"),
        (#""kv_transfer_params":{}"#, "kv_transfer_params"), (#""chat_template":"{{x}}""#, "chat_template"),
        (#""prompt_logprobs":1"#, "prompt_logprobs"), (#""custom_logit_processor":"x""#, "custom_logit_processor"),
        (#""bootstrap_host":"h""#, "bootstrap_host"), (#""bootstrap_port":1"#, "bootstrap_port"),
        (#""bootstrap_room":1"#, "bootstrap_room"), (#""max_new_tokens":1"#, "max_new_tokens"),
        (#""num_predict":1"#, "num_predict"), (#""mm_processor_kwargs":{}"#, "mm_processor_kwargs"),
        (#""session_params":{"id":"x"}"#, "session_params"), (#""lora_path":"x""#, "lora_path"),
        (#""chat_template_kwargs":{"chat_template":"x"}"#, "chat_template_kwargs.chat_template"),
        (#""chat_template_kwargs":{"thinking":"{{x}}"}"#, "chat_template_kwargs.thinking"),
        (#""chat_template_kwargs":{"max_length":100000}"#, "chat_template_kwargs.max_length"),
        (#""chat_template_kwargs":[]"#, "chat_template_kwargs"), (#""image_data":["x"]"#, "image_data"),
    ])
    func everyEngineRefuses(members: String, parameter: String) throws {
        for engine in Engine.allCases { #expect(try refusal(chat(members), [engine]) == parameter) }
    }

    @Test(arguments: [
        #""use_beam_search":false"#, #""priority":0"#, #""cache_salt":null"#, #""n_predict":null"#, #""lora":[ ]"#,
        #""chat_template_kwargs":{"enable_thinking":false,"reasoning_effort":"high"}"#, #""chat_template_kwargs":null"#,
        #""min_tokens":5"#, #""ignore_eos":true"#, #""echo":true"#, #""service_tier":"auto""#, #""unknown":{"n":9}"#,
        #""temperature":0.5,"tools":[],"response_format":{"type":"text"},"logit_bias":{},"seed":1,"stop":["x"]"#,
    ])
    func harmlessAndUnknownFieldsPass(members: String) throws {
        #expect(try refusal(chat(members), Set(Engine.allCases)) == nil)
    }

    @Test func whatOneEngineReadsIsRefusedWhereItMayServe() throws {
        #expect(try refusal(chat(#""id_slot":0"#), [.vllm]) == nil)
        #expect(try refusal(chat(#""id_slot":0"#), [.vllm, .llamacpp]) == "id_slot")
        #expect(try refusal(chat(#""id_slot":-1"#), [.llamacpp]) == nil)
        #expect(try refusal(chat(#""rid":"x""#), [.vllm]) == nil)
        #expect(try refusal(chat(#""rid":"x""#), [.sglang]) == "rid")
        #expect(try refusal(chat(#""service_tier":"priority""#), [.vllm]) == nil)
    }

    @Test func aServerThatWeDoNotKnowGetsNothingThatAnyEngineIsRefused() {
        for key in SteeringKey.allCases {
            let refusedSomewhere = Engine.allCases.contains { refuses(key, $0) }
            #expect(refuses(key, .openai) == refusedSomewhere, "\(key)")
        }
    }

    private func refuses(_ key: SteeringKey, _ engine: Engine) -> Bool {
        guard ![.n, .bestOf, .messages, .cacheSalt].contains(key) else { return false }
        return (try? refusal(chat("\"\(key.rawValue)\":\"something\""), [engine])) != .some(nil)
    }

    @Test func severalChoicesAndPromptsAreCountedOnEveryEngine() throws {
        for engine in Engine.allCases {
            #expect(try refusal(chat(#""n":2"#), [engine]) == nil)
            #expect(try refusal(#"{"model":"m","prompt":["a","b"]}"#, [engine], .completions) == nil)
        }
        #expect(try scan(#"{"model":"m","prompt":["a","b"],"n":2,"best_of":3}"#, .completions).choices == 6)
    }

    @Test func conversationsAreNotEmbedded() throws {
        #expect(
            try refusal(
                #"{"model":"m","input":"a","messages":[{"content":[{"type":"image_url"}]}]}"#, [.vllm], .embeddings)
                == "messages")
    }
}

struct PromptEstimateTests {
    @Test(arguments: [(0, 0), (1, 1), (4, 1), (5, 2), (1_024, 256), (-3, 0)])
    func estimatesAQuarterOfTheBytes(bytes: Int, tokens: Int) {
        #expect(estimatePromptTokens(bodyBytes: bytes) == tokens)
    }

    @Test func boundCountsBytesTemplateAndImages() {
        let parts = ScannedRequest.ContentParts(conversations: 1, messages: 9, images: 3)
        #expect(
            PromptEstimate.promptTokensMax(bodyBytes: 1_000, parts: parts, templateTokensMax: 64, imageTokensMax: 1_500)
                == 1_000 + 64 + 4_500)
        #expect(
            PromptEstimate.promptTokensMax(bodyBytes: 1, parts: parts, templateTokensMax: 0, imageTokensMax: .max)
                == .max)
    }

    /// What is sent for a silent client: output and context, then the body's bytes, then the limit.
    @Test func aCountedPromptLeavesTheRestOfTheContextToTheAnswer() {
        func tokens(_ bound: Int, _ likely: Int, context: Int? = 8_192) -> Int {
            PromptEstimate.completionTokensDefault(
                maxOutputTokens: 4_096, contextTokens: context, promptTokensMax: bound, likelyTokens: likely)
        }
        #expect(tokens(100, 90) == 4_096)
        // Below a quarter of the context, and all of it certain to fit.
        #expect(tokens(6_664, 6_550) == 1_528)
        #expect(tokens(9_000, 8_000) == 192)
        #expect(tokens(9_000, 8_500) == 1)
        #expect(tokens(9_000, 8_500, context: nil) == 4_096)
    }

    @Test(arguments: [
        (8_192, nil, 1_000_000, 8_192),
        (8_192, 131_072, 1_000, 8_192),
        // The context is no larger than the output limit: room is left for the bound of the prompt.
        (4_096, 4_096, 1_000, 3_032),
        // The bound leaves less than a quarter of the context: half the bytes count as the prompt.
        (4_096, 4_096, 3_500, 2_346),
        (8_192, 8_192, 12_000, 2_192),
        // A prompt that cannot fit: the node says so.
        (4_096, 4_096, 9_000, 1),
        (100, 4_096, 4_500, 100),
        (100, 4_096, 3_900, 100),
    ])
    func aSilentClientLeavesRoomForItsPrompt(output: Int, context: Int?, bytes: Int, expected: Int) {
        #expect(
            PromptEstimate.completionTokensDefault(
                maxOutputTokens: output, contextTokens: context, bodyBytes: bytes, promptTokensMax: bytes + 64)
                == expected)
    }
}

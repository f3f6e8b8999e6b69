import Domain
import OpenAIProtocol
import Testing

/// Replies, events and errors of the protocols that name their events.
struct NamedEventTests {
    @Test func aResponseIsReadWherePlain() throws {
        let json = #"""
            {"id":"r","object":"response","model":"up","status":"completed","error":null,"output":[
             {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"abc"}]},
             {"type":"message","content":[{"type":"output_text","text":"hello","annotations":[]}]},
             {"type":"function_call","name":"f","arguments":"{}"}],
             "usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,
             "output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}}
            """#
        let reply = try withBytes(json) { try #require(scanReply($0, dialect: .responses)) }
        #expect(reply.usage == .value(TokenUsage(promptTokens: 9, cachedTokens: 4, completionTokens: 5)))
        #expect(reply.contentBytes == 3 + 5 + 2 && !reply.isError)
        #expect(text(Array(json.utf8)[try #require(reply.modelSpan)]) == #""up""#)
    }

    @Test func aMessageIsReadWherePlain() throws {
        let json = #"""
            {"id":"m","type":"message","model":"up","content":[{"type":"text","text":"hello"},
             {"type":"tool_use","name":"f","input":{"a":"bc"}}],"stop_reason":"end_turn",
             "usage":{"input_tokens":9,"cache_read_input_tokens":4,"cache_creation_input_tokens":1,"output_tokens":5}}
            """#
        let reply = try withBytes(json) { try #require(scanReply($0, dialect: .anthropic)) }
        // Anthropic counts what came from a cache beside the input.
        #expect(reply.usage == .value(TokenUsage(promptTokens: 14, cachedTokens: 4, completionTokens: 5)))
        #expect(reply.contentBytes == 5)
    }

    @Test(arguments: [
        (
            #"{"usage":{"total_tokens":12}}"#,
            ReportedUsage.value(.init(promptTokens: 12, cachedTokens: 0, completionTokens: 0))
        ),
        (
            #"{"usage":{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":2}}}"#,
            .value(.init(promptTokens: 3, cachedTokens: 0, completionTokens: 2))
        ),
        // Reasoning beside the output: which of the two is to be paid cannot be told.
        (
            #"{"usage":{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":9}}}"#,
            .malformed
        ),
        (#"{"usage":{"output_tokens":1}}"#, .malformed),
        // Only Anthropic counts what came from a cache beside the input.
        (
            #"{"usage":{"prompt_tokens":9,"completion_tokens":1,"cache_read_input_tokens":4,"cache_creation_input_tokens":2}}"#,
            .value(.init(promptTokens: 9, cachedTokens: 4, completionTokens: 1))
        ),
    ])
    func usageIsReadUnderEveryName(json: String, usage: ReportedUsage) {
        #expect(withBytes(json) { scanReply($0)?.usage } == usage)
    }

    @Test func aSumThatOverflowsIsNoUsage() {
        let json = #"{"usage":{"input_tokens":9223372036854775807,"cache_read_input_tokens":1,"output_tokens":1}}"#
        #expect(withBytes(json) { scanReply($0, dialect: .anthropic)?.usage } == .malformed)
    }

    @Test(arguments: [
        (#"{"type":"response.output_text.delta","delta":"hi"}"#, Dialect.responses, 1),
        (#"{"type":"response.function_call_arguments.delta","delta":"{"}"#, .responses, 0),
        (#"{"type":"response.custom_tool_call_input.delta","delta":"x"}"#, .responses, 0),
        (#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}"#, .anthropic, 1),
        (#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#, .anthropic, 0),
    ])
    func piecesOfACallAreNoWholeTokens(json: String, dialect: Dialect, texts: Int) {
        let chunk = withBytes(json) { scanStreamChunk($0, dialect: dialect) }
        #expect(chunk?.choicesWithText == texts && chunk?.choicesWithContent == 1)
    }

    @Test func anArrayIsAReplyWithoutUsage() throws {
        let reply = try withBytes(#"[{"score":0.5,"index":0},{"score":0.1,"index":1}]"#) { try #require(scanReply($0)) }
        #expect(reply.usage == .absent && reply.embeddings == 2)
        #expect(withBytes(#"[{"score":0.5]"#) { scanReply($0) } == nil)
    }

    @Test(arguments: [
        (
            #"{"type":"response.output_text.delta","delta":"hi","sequence_number":4}"#, Dialect.responses, 1, false,
            false
        ),
        (#"{"type":"response.output_text.delta","delta":""}"#, .responses, 0, false, false),
        (#"{"type":"response.function_call_arguments.delta","delta":"{\"a\""}"#, .responses, 1, false, false),
        (#"{"type":"response.output_text.done","text":"hi"}"#, .responses, 0, false, false),
        (
            #"{"type":"response.completed","response":{"output":[{"content":[{"text":"hi"}]}]}}"#, .responses, 0, true,
            false
        ),
        (#"{"type":"response.incomplete","response":{}}"#, .responses, 0, true, false),
        (#"{"type":"response.failed","response":{"error":{"message":"x"}}}"#, .responses, 0, false, true),
        (#"{"type":"error","message":"x"}"#, .responses, 0, false, true),
        (
            #"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}"#, .anthropic, 1,
            false, false
        ),
        (
            #"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hi"}}"#, .anthropic, 1, false,
            false
        ),
        (
            #"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#, .anthropic, 1,
            false, false
        ),
        (
            #"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"s"}}"#, .anthropic, 0, false,
            false
        ),
        (#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#, .anthropic, 0, false, false),
        (#"{"type":"ping"}"#, .anthropic, 0, false, false),
        (#"{"type":"message_stop"}"#, .anthropic, 0, true, false),
        (#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#, .anthropic, 0, false, true),
    ])
    func eventsAreJudgedByTheirNames(
        json: String, dialect: Dialect, content: Int, isLast: Bool, isError: Bool
    ) throws {
        try withBytes(json) { bytes in
            let chunk = try #require(scanStreamChunk(bytes, dialect: dialect))
            #expect(chunk.choicesWithContent == content && chunk.isLast == isLast && chunk.isError == isError)
            let name = text(bytes[try #require(chunk.eventName)])
            #expect(json.hasPrefix(#"{"type":"\#(name)""#))
        }
    }

    @Test func namesThatCouldEndTheirLineGoNowhere() {
        let json = #"{"type":"x\ndata: [DONE]","delta":"a"}"#
        #expect(withBytes(json) { scanStreamChunk($0, dialect: .responses)?.eventName } == .some(nil))
        #expect(withBytes(#"{"type":7}"#) { scanStreamChunk($0, dialect: .responses)?.eventName } == .some(nil))
    }

    // MARK: Errors

    @Test(arguments: [
        (Failure.Code.invalidKey, "authentication_error"), (.orgSuspended, "permission_error"),
        (.modelNotFound, "not_found_error"), (.bodyTooLarge, "request_too_large"),
        (.invalidRequest, "invalid_request_error"),
        (.rateLimitTokens, "rate_limit_error"), (.insufficientQuota, "billing_error"),
        (.saturated, "rate_limit_error"), (.noCapacity, "overloaded_error"),
        (.upstreamInvalid, "api_error"), (.upstreamTimeout, "timeout_error"), (.internalError, "api_error"),
    ])
    func anthropicsErrorsHaveItsWords(code: Failure.Code, type: String) {
        let failure = Failure(code, "What to change.")
        let json = #"{"type":"error","error":{"type":"\#(type)","message":"What to change."},"request_id":"req_1"}"#
        #expect(text(ErrorEnvelope.render(failure, dialect: .anthropic, requestID: "req_1")) == json)
        #expect(
            text(ErrorEnvelope.renderStreamEvent(failure, dialect: .anthropic, requestID: "req_1"))
                == "event: error\ndata: \(json)\n\n")
    }

    @Test func aResponsesErrorEventIsBothWhatIsDocumentedAndWhatClientsRaise() {
        let event = text(
            ErrorEnvelope.renderStreamEvent(Failure(.upstreamInvalid, "Broke."), dialect: .responses, requestID: nil))
        #expect(
            event == "event: error\ndata: "
                + #"{"type":"error","code":"upstream_invalid_response","message":"Broke.","param":null,"#
                + #""error":{"message":"Broke.","type":"server_error","param":null,"code":"upstream_invalid_response"}}"#
                + "\n\n")
    }

    @Test(arguments: [
        #"{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (4 tokens)","type":"exceed_context_size_error","n_ctx":4}}"#,
        #"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000.","code":400}"#,
        #"{"error":{"message":"The prompt is longer than the model's context length (4096 tokens)","code":400}}"#,
    ])
    func everyEnginesWordsForTooLongAPromptBecomeOneCode(body: String) {
        let error = withBytes(body) { text(rebuildNodeError(status: 400, body: $0)) }
        #expect(error.hasSuffix(#""code":"context_length_exceeded"}}"#), "\(error)")
    }
}

struct UsageVerdictTests {
    private static let ownUsage = TokenUsage(promptTokens: 20, cachedTokens: 0, completionTokens: 6)

    private func judge(
        _ reported: ReportedUsage, textEvents: Int = 0, engine: Engine = .vllm, choices: Int = 1, prompts: Int = 1,
        generates: Bool = true, hasContent: Bool = true
    ) -> UsageVerdict {
        UsageVerdict.judge(
            reported, own: UsageVerdict.OwnCount(hasContent: hasContent, textEvents: textEvents), promptTokensMax: 100,
            completionTokensMax: 50, generates: generates, engine: engine,
            choices: choices, prompts: prompts, ownUsage: { Self.ownUsage })
    }

    private static func value(_ prompt: Int, _ completion: Int) -> ReportedUsage {
        .value(TokenUsage(promptTokens: prompt, cachedTokens: 0, completionTokens: completion))
    }

    @Test func whatCanBeTrueIsBelieved() {
        let usage = TokenUsage(promptTokens: 10, cachedTokens: 0, completionTokens: 5)
        #expect(
            judge(.value(usage), textEvents: 5) == UsageVerdict(usage: usage, isEstimated: false, isDistrusted: false))
        #expect(judge(Self.value(10, 0), hasContent: false).isEstimated == false)
        #expect(judge(Self.value(10, 0), generates: false).isEstimated == false)
    }

    @Test(arguments: [
        value(101, 5), value(-1, 5), value(10, 51), value(10, -1), .malformed,
        // It says that it generated nothing, and it did.
        value(10, 0),
    ])
    func whatCannotBeTrueIsReplacedAndCounted(reported: ReportedUsage) {
        #expect(
            judge(reported) == UsageVerdict(usage: Self.ownUsage, isEstimated: true, isDistrusted: true))
    }

    @Test(arguments: [ReportedUsage.absent, .null])
    func silenceIsNoLie(reported: ReportedUsage) {
        #expect(judge(reported) == UsageVerdict(usage: Self.ownUsage, isEstimated: true, isDistrusted: false))
    }

    @Test func moreTextsThanTokensAreAContradiction() {
        #expect(!judge(Self.value(10, 5), textEvents: 6).isDistrusted)
        #expect(judge(Self.value(10, 5), textEvents: 7).isDistrusted)
        #expect(!judge(Self.value(10, 5), textEvents: 7, choices: 2).isDistrusted)
    }

    @Test func ofSeveralChoicesLlamaReportsOne() {
        let two = judge(Self.value(10, 4), engine: .llamacpp, choices: 2)
        #expect(two.usage == TokenUsage(promptTokens: 10, cachedTokens: 0, completionTokens: 6))
        #expect(two.isEstimated && !two.isDistrusted)
        #expect(judge(Self.value(10, 4), engine: .llamacpp, choices: 2, prompts: 2).usage == Self.ownUsage)
        #expect(judge(Self.value(10, 4), engine: .llamacpp).isEstimated == false)
        #expect(judge(Self.value(10, 4), engine: .vllm, choices: 2).isEstimated == false)
    }
}

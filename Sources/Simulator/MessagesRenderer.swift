import Domain
import JSON
import NIOCore

/// `/v1/messages` in Anthropic's shapes, with vLLM's usage: `input_tokens` is the whole prompt, cached or not.
struct MessagesRenderer: AnswerRenderer {
    private let identity: AnswerIdentity

    var opensAtOnce: Bool { false }

    init(identity: AnswerIdentity) {
        self.identity = identity
    }

    private func event(_ name: String, into sink: inout EventSink, _ rest: String) {
        sink.event(name) { $0.writeString("{\"type\":\"\(name)\"\(rest)}") }
    }

    // MARK: Streams

    mutating func opened(usage: TokenUsage?, into sink: inout EventSink) {
        let usage = usage.map { ",\"usage\":{\"input_tokens\":\($0.promptTokens),\"output_tokens\":0}" } ?? ""
        event(
            "message_start", into: &sink,
            ",\"message\":{\(head),\"content\":[],\"stop_reason\":null,\"stop_sequence\":null\(usage)}")
    }

    mutating func choiceOpened(
        _ choice: GenerationRequest.Choice, _ index: Int, _ token: AnswerToken, _ sink: inout EventSink
    ) {
        event(
            "content_block_start", into: &sink,
            ",\"index\":0,\"content_block\":\(block(choice, content: choice.toolName == nil ? "\"\"" : "{}"))")
        event("ping", into: &sink, "")
    }

    mutating func token(
        _ token: AnswerToken, of choice: GenerationRequest.Choice, _ index: Int, _ sink: inout EventSink
    ) {
        sink.event("content_block_delta") { event in
            event.writeStaticString("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":")
            event.writeStaticString(
                choice.toolName == nil ? "\"text_delta\",\"text\":" : "\"input_json_delta\",\"partial_json\":")
            event.writeQuoted(token.text)
            event.writeStaticString("}}")
        }
    }

    mutating func brokenToken(into sink: inout EventSink) {
        sink.event("content_block_delta") {
            $0.writeStaticString("{\"type\":\"content_block_delta\",\"index\":0,\"del")
        }
    }

    mutating func choiceFinished(
        _ choice: GenerationRequest.Choice, _ index: Int, usage: TokenUsage?, _ sink: inout EventSink
    ) {
        event("content_block_stop", into: &sink, ",\"index\":0")
    }

    mutating func ended(
        _ choices: [GenerationRequest.Choice], usage: TokenUsage?, isComplete: Bool, into sink: inout EventSink
    ) {
        guard let choice = choices.first else { return }
        let usage = usage.map { ",\"usage\":\(Self.usage($0))" } ?? ""
        event("message_delta", into: &sink, ",\"delta\":{\(ending(choice))}\(usage)")
        if isComplete { event("message_stop", into: &sink, "") }
    }

    // MARK: Objects

    func answer(_ choices: [GenerationRequest.Choice], usage: TokenUsage?, into body: inout ByteBuffer) {
        guard let choice = choices.first else { return }
        var content = choice.visibleText
        if choice.toolName == nil {
            content = JSONValue.quoted(content)
        } else if (try? JSONValue(parsing: content)) == nil {
            // Cut off at the limit: what vLLM makes of that is no object either way.
            content = "{}"
        }
        body.writeString("{\(head),\"content\":[\(block(choice, content: content))],\(ending(choice))")
        if let usage { body.writeString(",\"usage\":\(Self.usage(usage))") }
        body.writeStaticString("}")
    }

    private var head: String {
        "\"id\":\"msg_\(identity.id)\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\(identity.model)"
    }

    private func block(_ choice: GenerationRequest.Choice, content: String) -> String {
        guard let name = choice.toolName else { return "{\"type\":\"text\",\"text\":\(content)}" }
        return "{\"type\":\"tool_use\",\"id\":\"toolu_\(identity.id)\",\"name\":\(JSONValue.quoted(name)),"
            + "\"input\":\(content)}"
    }

    private func ending(_ choice: GenerationRequest.Choice) -> String {
        let reason =
            if choice.finishReason == "length" { "max_tokens" } else if choice.toolName != nil {
                "tool_use"
            } else if choice.stopText != nil { "stop_sequence" } else { "end_turn" }
        return "\"stop_reason\":\"\(reason)\",\"stop_sequence\":\(choice.stopText.map(JSONValue.quoted) ?? "null")"
    }

    static func usage(_ usage: TokenUsage) -> String {
        "{\"input_tokens\":\(usage.promptTokens),\"output_tokens\":\(usage.completionTokens)}"
    }
}

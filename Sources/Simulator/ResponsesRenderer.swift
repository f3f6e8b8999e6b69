import Domain
import JSON
import NIOCore

/// `/v1/responses` in vLLM's shapes: one item of output, a message or a call, and events numbered in order.
struct ResponsesRenderer: AnswerRenderer {
    private let form: ResponseForm?
    private let identity: AnswerIdentity
    private let logprobs: TokenLogprobs?
    private var sequence = 0

    /// vLLM tells that it has begun before it has a token.
    var opensAtOnce: Bool { true }

    init(request: GenerationRequest, identity: AnswerIdentity) {
        form = request.responseForm
        self.identity = identity
        logprobs = request.logprobs
    }

    private var itemID: String { "msg_\(identity.id)" }
    private var callItemID: String { "fc_\(identity.id)" }

    private mutating func event(_ name: String, into sink: inout EventSink, _ write: (inout ByteBuffer) -> Void) {
        sink.event(name) { event in
            event.writeString("{\"type\":\"\(name)\",\"sequence_number\":\(sequence),")
            write(&event)
            event.writeStaticString("}")
        }
        sequence += 1
    }

    // MARK: Streams

    mutating func opened(usage: TokenUsage?, into sink: inout EventSink) {
        let response = response(status: "in_progress", reason: nil, output: "", usage: nil)
        for name in ["response.created", "response.in_progress"] {
            event(name, into: &sink) { $0.writeString("\"response\":\(response)") }
        }
    }

    mutating func choiceOpened(
        _ choice: GenerationRequest.Choice, _ index: Int, _ token: AnswerToken, _ sink: inout EventSink
    ) {
        let item = item(choice, text: "", status: "in_progress", isOpening: true)
        event("response.output_item.added", into: &sink) { $0.writeString("\"output_index\":0,\"item\":\(item)") }
        guard choice.toolName == nil else { return }
        let part = part(text: "", logprobs: "[]")
        event("response.content_part.added", into: &sink) { [place] in $0.writeString("\(place),\"part\":\(part)") }
    }

    /// Where in the output a text event belongs.
    private var place: String { "\"item_id\":\"\(itemID)\",\"output_index\":0,\"content_index\":0" }
    private var callPlace: String { "\"item_id\":\"\(callItemID)\",\"output_index\":0" }

    mutating func token(
        _ token: AnswerToken, of choice: GenerationRequest.Choice, _ index: Int, _ sink: inout EventSink
    ) {
        guard choice.toolName == nil else {
            return event("response.function_call_arguments.delta", into: &sink) { [callPlace] event in
                event.writeString("\(callPlace),\"delta\":")
                event.writeQuoted(token.text)
            }
        }
        event("response.output_text.delta", into: &sink) { [place, logprobs] event in
            event.writeString("\(place),\"delta\":")
            event.writeQuoted(token.text)
            event.writeStaticString(",\"logprobs\":")
            if let logprobs {
                logprobs.writeList([token], of: choice, into: &event)
            } else {
                event.writeStaticString("[]")
            }
        }
    }

    mutating func brokenToken(into sink: inout EventSink) {
        sink.event("response.output_text.delta") {
            $0.writeString("{\"type\":\"response.output_text.delta\",\"sequence_number\":\(sequence),\"item")
        }
        sequence += 1
    }

    mutating func choiceFinished(
        _ choice: GenerationRequest.Choice, _ index: Int, usage: TokenUsage?, _ sink: inout EventSink
    ) {
        let text = choice.visibleText
        let quoted = JSONValue.quoted(text)
        if let name = choice.toolName {
            event("response.function_call_arguments.done", into: &sink) { [callPlace] in
                $0.writeString("\(callPlace),\"name\":\(JSONValue.quoted(name)),\"arguments\":\(quoted)")
            }
        } else {
            let list = logprobs(of: choice)
            event("response.output_text.done", into: &sink) { [place] in
                $0.writeString("\(place),\"text\":\(quoted),\"logprobs\":\(list)")
            }
            let part = part(text: text, logprobs: list)
            event("response.content_part.done", into: &sink) { [place] in $0.writeString("\(place),\"part\":\(part)") }
        }
        let item = item(choice, text: text, status: Self.status(choice), isOpening: false)
        event("response.output_item.done", into: &sink) { $0.writeString("\"output_index\":0,\"item\":\(item)") }
    }

    mutating func ended(
        _ choices: [GenerationRequest.Choice], usage: TokenUsage?, isComplete: Bool, into sink: inout EventSink
    ) {
        guard isComplete, let choice = choices.first else { return }
        let response = whole(choice, usage: usage)
        event("response.\(Self.status(choice))", into: &sink) { $0.writeString("\"response\":\(response)") }
    }

    // MARK: Objects

    func answer(_ choices: [GenerationRequest.Choice], usage: TokenUsage?, into body: inout ByteBuffer) {
        if let choice = choices.first { body.writeString(whole(choice, usage: usage)) }
    }

    private static func status(_ choice: GenerationRequest.Choice) -> String {
        choice.finishReason == "length" ? "incomplete" : "completed"
    }

    private func whole(_ choice: GenerationRequest.Choice, usage: TokenUsage?) -> String {
        let status = Self.status(choice)
        return response(
            status: status, reason: status == "incomplete" ? "max_output_tokens" : nil,
            output: item(choice, text: choice.visibleText, status: status, isOpening: false), usage: usage)
    }

    private func logprobs(of choice: GenerationRequest.Choice) -> String {
        guard let logprobs else { return "[]" }
        var list = ByteBuffer()
        logprobs.writeList(choice.visibleTokens, of: choice, into: &list)
        return String(buffer: list)
    }

    private func part(text: String, logprobs: String) -> String {
        "{\"type\":\"output_text\",\"text\":\(JSONValue.quoted(text)),\"annotations\":[],\"logprobs\":\(logprobs)}"
    }

    private func item(
        _ choice: GenerationRequest.Choice, text: String, status: String, isOpening: Bool
    ) -> String {
        if let name = choice.toolName {
            return "{\"type\":\"function_call\",\"id\":\"\(callItemID)\",\"call_id\":\"call_\(identity.id)\","
                + "\"name\":\(JSONValue.quoted(name)),\"arguments\":\(JSONValue.quoted(text)),\"status\":\"\(status)\"}"
        }
        let content = isOpening ? "" : part(text: text, logprobs: logprobs(of: choice))
        return "{\"type\":\"message\",\"id\":\"\(itemID)\",\"role\":\"assistant\",\"status\":\"\(status)\","
            + "\"content\":[\(content)]}"
    }

    private func response(status: String, reason: String?, output: String, usage: TokenUsage?) -> String {
        let details = reason.map { "{\"reason\":\"\($0)\"}" } ?? "null"
        let usage = usage.map(Self.usage) ?? "null"
        let ended = status == "in_progress" ? "null" : String(WallTime.now().milliseconds / 1_000)
        return "{\"id\":\"resp_\(identity.id)\",\"object\":\"response\",\"created_at\":\(identity.created),"
            + "\"completed_at\":\(ended),\"status\":\"\(status)\",\"error\":null,\"incomplete_details\":\(details),"
            + "\"model\":\(identity.model),\"output\":[\(output)],\(form?.echoes ?? ""),\"usage\":\(usage)}"
    }

    static func usage(_ usage: TokenUsage) -> String {
        "{\"input_tokens\":\(usage.promptTokens),"
            + "\"input_tokens_details\":{\"cached_tokens\":\(usage.cachedTokens),\"cache_write_tokens\":0},"
            + "\"output_tokens\":\(usage.completionTokens),\"output_tokens_details\":{\"reasoning_tokens\":0},"
            + "\"total_tokens\":\(usage.totalTokens)}"
    }
}

/// What a response repeats of its request.
struct ResponseForm {
    /// Members of the response object, without braces.
    let echoes: String

    private static let names: [(name: String, absent: String)] = [
        ("instructions", "null"), ("metadata", "{}"), ("parallel_tool_calls", "true"), ("temperature", "1.0"),
        ("top_p", "1.0"), ("tool_choice", "\"auto\""), ("tools", "[]"), ("background", "false"),
        ("max_output_tokens", "null"), ("max_tool_calls", "null"), ("previous_response_id", "null"),
        ("prompt", "null"), ("prompt_cache_key", "null"), ("reasoning", "null"),
        ("service_tier", "\"auto\""), ("text", "{\"format\":{\"type\":\"text\"}}"), ("top_logprobs", "0"),
        ("truncation", "\"disabled\""), ("user", "null"), ("store", "false"),
    ]

    init(body: JSONValue) {
        echoes = Self.names.map { name, absent in
            "\"\(name)\":\(body.field(name)?.text ?? absent)"
        }.joined(separator: ",")
    }
}

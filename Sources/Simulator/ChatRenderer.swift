import Domain
import JSON
import NIOCore

/// Chat and text completions in vLLM's shapes.
struct ChatRenderer: AnswerRenderer {
    private let isChat: Bool
    private let includeUsage: Bool
    private let logprobs: TokenLogprobs?
    /// The prompts' texts where `echo` asks for them, and how many choices each has.
    private let echoes: [String]
    private let choicesPerEcho: Int
    private let id: String
    private let head: String
    private let chunkHead: String

    var opensAtOnce: Bool { false }

    init(request: GenerationRequest, identity: AnswerIdentity) {
        isChat = request.kind == .chat
        includeUsage = request.includeUsage
        logprobs = request.logprobs
        echoes = request.echoes
        choicesPerEcho = max(1, request.choices.first?.count { !$0.isHidden } ?? 1)
        id = identity.id
        let object = isChat ? "chat.completion" : "text_completion"
        let prefix = isChat ? "chatcmpl-" : "cmpl-"
        let rest = "\"created\":\(identity.created),\"model\":\(identity.model),\"choices\":["
        head = "{\"id\":\"\(prefix)\(id)\",\"object\":\"\(object)\",\(rest)"
        chunkHead = "{\"id\":\"\(prefix)\(id)\",\"object\":\"\(object)\(isChat ? ".chunk" : "")\",\(rest)"
    }

    private func echo(of index: Int) -> String? {
        let prompt = index / choicesPerEcho
        return echoes.indices.contains(prompt) ? echoes[prompt] : nil
    }

    private func callID(_ index: Int) -> String { "chatcmpl-tool-\(id.dropLast(2))\(index % 100 + 100)" }

    // MARK: Streams

    mutating func opened(usage: TokenUsage?, into sink: inout EventSink) {}

    mutating func choiceOpened(
        _ choice: GenerationRequest.Choice, _ index: Int, _ token: AnswerToken, _ sink: inout EventSink
    ) {
        guard isChat else {
            guard let echo = echo(of: index) else { return }
            return sink.event { event in
                event.writeString(chunkHead)
                event.writeString("{\"index\":\(index),\"text\":")
                event.writeQuoted(echo)
                event.writeStaticString(",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}")
                end(&event, usage: token.usage)
            }
        }
        sink.event { event in
            event.writeString(chunkHead)
            event.writeString("{\"index\":\(index),\"delta\":{\"role\":\"assistant\",\"content\":\"\"},")
            event.writeStaticString("\"logprobs\":null,\"finish_reason\":null}")
            end(&event, usage: token.usage)
        }
        guard let name = choice.toolName else { return }
        sink.event { event in
            event.writeString(chunkHead)
            event.writeString("{\"index\":\(index),\"delta\":{\"tool_calls\":[{\"id\":\"\(callID(index))\",")
            event.writeStaticString("\"type\":\"function\",\"index\":0,\"function\":{\"name\":")
            event.writeQuoted(name)
            event.writeStaticString(",\"arguments\":\"\"}}]},\"logprobs\":null,\"finish_reason\":null}")
            end(&event, usage: token.usage)
        }
    }

    mutating func token(
        _ token: AnswerToken, of choice: GenerationRequest.Choice, _ index: Int, _ sink: inout EventSink
    ) {
        sink.event { event in
            event.writeString(chunkHead)
            event.writeStaticString("{\"index\":")
            event.writeString(String(index))
            let isCall = isChat && choice.toolName != nil
            if isCall {
                event.writeStaticString(",\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"")
            } else {
                event.writeStaticString(isChat ? ",\"delta\":{\"content\":\"" : ",\"text\":\"")
            }
            event.writeEscaped(token.text)
            event.writeStaticString(isCall ? "\"}}]},\"logprobs\":" : isChat ? "\"},\"logprobs\":" : "\",\"logprobs\":")
            if let logprobs {
                if isChat {
                    logprobs.writeChat([token], of: choice, into: &event)
                } else {
                    logprobs.writeLegacy([token], of: choice, echo: nil, into: &event)
                }
            } else {
                event.writeStaticString("null")
            }
            event.writeStaticString(
                isChat ? ",\"finish_reason\":null}" : ",\"finish_reason\":null,\"stop_reason\":null}")
            end(&event, usage: token.usage)
        }
    }

    mutating func brokenToken(into sink: inout EventSink) {
        sink.event { event in
            event.writeString(chunkHead)
            event.writeStaticString("{\"index\":0,\"del")
        }
    }

    mutating func choiceFinished(
        _ choice: GenerationRequest.Choice, _ index: Int, usage: TokenUsage?, _ sink: inout EventSink
    ) {
        sink.event { event in
            event.writeString(chunkHead)
            event.writeString("{\"index\":\(index),\(isChat ? "\"delta\":{}" : "\"text\":\"\""),\"logprobs\":null")
            event.writeString(ending(choice))
            event.writeStaticString("}")
            end(&event, usage: usage)
        }
    }

    mutating func ended(
        _ choices: [GenerationRequest.Choice], usage: TokenUsage?, isComplete: Bool, into sink: inout EventSink
    ) {
        if includeUsage, let usage {
            sink.event { event in
                event.writeString(chunkHead)
                event.writeString("],\"usage\":\(Self.usage(usage))}")
            }
        }
        if isComplete { sink.event { $0.writeStaticString("[DONE]") } }
    }

    /// Ends an event after its one choice.
    private func end(_ event: inout ByteBuffer, usage: TokenUsage?) {
        if let usage {
            event.writeString("],\"usage\":\(Self.usage(usage))}")
        } else {
            event.writeStaticString(isChat ? "]}" : "],\"usage\":null}")
        }
    }

    // MARK: Plain answers

    func answer(_ choices: [GenerationRequest.Choice], usage: TokenUsage?, into body: inout ByteBuffer) {
        body.writeString(head)
        for (index, choice) in choices.enumerated() {
            if index > 0 { body.writeStaticString(",") }
            body.writeString("{\"index\":\(index),")
            let echo = isChat ? nil : echo(of: index)
            if isChat, let name = choice.toolName {
                body.writeString(
                    "\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":")
                body.writeString("[{\"id\":\"\(callID(index))\",\"type\":\"function\",\"function\":{\"name\":")
                body.writeQuoted(name)
                body.writeStaticString(",\"arguments\":\"")
                choice.writeText(into: &body)
                body.writeStaticString("\"}}]}")
            } else {
                body.writeStaticString(isChat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"")
                if let echo { body.writeEscaped(echo) }
                choice.writeText(into: &body)
                body.writeStaticString(isChat ? "\",\"refusal\":null,\"tool_calls\":[]}" : "\"")
            }
            body.writeStaticString(",\"logprobs\":")
            if let logprobs {
                if isChat {
                    logprobs.writeChat(choice.visibleTokens, of: choice, into: &body)
                } else {
                    logprobs.writeLegacy(choice.visibleTokens, of: choice, echo: echo, into: &body)
                }
            } else {
                body.writeStaticString("null")
            }
            body.writeString(ending(choice))
            body.writeStaticString("}")
        }
        body.writeStaticString("]")
        if let usage { body.writeString(",\"usage\":\(Self.usage(usage))") }
        body.writeStaticString("}")
    }

    static func usage(_ usage: TokenUsage) -> String {
        "{\"prompt_tokens\":\(usage.promptTokens),\"total_tokens\":\(usage.totalTokens),"
            + "\"completion_tokens\":\(usage.completionTokens),"
            + "\"prompt_tokens_details\":{\"cached_tokens\":\(usage.cachedTokens)}}"
    }

    private func ending(_ choice: GenerationRequest.Choice) -> String {
        let stop = choice.stopText.map(JSONValue.quoted) ?? "null"
        let reason =
            isChat && choice.toolName != nil && choice.finishReason == "stop" ? "tool_calls" : choice.finishReason
        return ",\"finish_reason\":\"\(reason)\",\"stop_reason\":\(stop)"
    }
}

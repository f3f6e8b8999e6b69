import Domain
import JSON
import NIOCore

/// The JSON of one generation's answer in vLLM's shapes. Holds only constants of the request; what it writes comes as
/// arguments. The filler text needs no escaping.
struct AnswerRenderer {
    let kind: GenerationRequest.Kind
    private let head: String
    private let chunkHead: String

    /// - Parameters:
    ///   - id: Without the `chatcmpl-` or `cmpl-` in front.
    ///   - created: Seconds since 1970.
    ///   - model: The name as JSON, quoted.
    init(kind: GenerationRequest.Kind, id: String, created: Int64, model: String) {
        self.kind = kind
        let object = kind == .chat ? "chat.completion" : "text_completion"
        let prefix = kind == .chat ? "chatcmpl-" : "cmpl-"
        let rest = "\"created\":\(created),\"model\":\(model),\"choices\":["
        head = "{\"id\":\"\(prefix)\(id)\",\"object\":\"\(object)\",\(rest)"
        chunkHead = "{\"id\":\"\(prefix)\(id)\",\"object\":\"\(object)\(kind == .chat ? ".chunk" : "")\",\(rest)"
    }

    // MARK: Streams

    /// The first event of a chat's choice.
    func role(_ index: Int, into event: inout ByteBuffer) {
        event.writeString(chunkHead)
        event.writeString("{\"index\":\(index),\"delta\":{\"role\":\"assistant\",\"content\":\"\"},")
        event.writeStaticString("\"logprobs\":null,\"finish_reason\":null}]}")
    }

    func token(_ text: Substring, _ index: Int, into event: inout ByteBuffer) {
        event.writeString(chunkHead)
        event.writeStaticString("{\"index\":")
        event.writeString(String(index))
        event.writeStaticString(kind == .chat ? ",\"delta\":{\"content\":\"" : ",\"text\":\"")
        event.writeSubstring(text)
        event.writeStaticString(
            kind == .chat
                ? "\"},\"logprobs\":null,\"finish_reason\":null}]}"
                : "\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}],\"usage\":null}")
    }

    func finish(_ choice: GenerationRequest.Choice, _ index: Int, into event: inout ByteBuffer) {
        event.writeString(chunkHead)
        event.writeString("{\"index\":\(index),\(kind == .chat ? "\"delta\":{}" : "\"text\":\"\"")")
        event.writeString(ending(choice))
        event.writeStaticString(kind == .chat ? "}]}" : "}],\"usage\":null}")
    }

    func usage(_ usage: TokenUsage, into event: inout ByteBuffer) {
        event.writeString(chunkHead)
        event.writeString("],\"usage\":\(Self.usage(usage))}")
    }

    /// An event that stops in the middle of a name.
    func brokenEvent(into event: inout ByteBuffer) {
        event.writeString(chunkHead)
        event.writeStaticString("{\"index\":0,\"del")
    }

    // MARK: Plain answers

    /// - Parameter usage: Nil leaves it out.
    func answer(_ choices: [GenerationRequest.Choice], usage: TokenUsage?, into body: inout ByteBuffer) {
        body.writeString(head)
        var index = 0
        for choice in choices where !choice.isHidden {
            if index > 0 { body.writeStaticString(",") }
            body.writeString("{\"index\":\(index),")
            body.writeStaticString(
                kind == .chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"")
            let text = FillerText(seed: choice.seed)
            var room = choice.visibleBytes
            for token in 0..<choice.tokens where room > 0 {
                let word = text.token(token).prefix(room)
                room -= word.utf8.count
                body.writeSubstring(word)
            }
            body.writeStaticString(kind == .chat ? "\",\"refusal\":null,\"tool_calls\":[]}" : "\"")
            body.writeString(ending(choice))
            body.writeStaticString("}")
            index += 1
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
        return ",\"logprobs\":null,\"finish_reason\":\"\(choice.finishReason)\",\"stop_reason\":\(stop)"
    }
}

/// The bytes of HTTP/1.1 around an answer.
enum HTTPText {
    /// - Parameters:
    ///   - length: Of the body; nil for a stream, which is chunked, or (`isChunked` false, for HTTP/1.0) ends with the
    ///     connection.
    ///   - saysClose: Adds `Connection: close`.
    static func head(
        status: Int, contentType: String, length: Int?, isChunked: Bool, saysClose: Bool, into buffer: inout ByteBuffer
    ) {
        buffer.writeString("HTTP/1.1 \(status) \(reason(status))\r\nserver: uvicorn\r\n")
        buffer.writeString("content-type: \(contentType)\r\n")
        if let length {
            buffer.writeString("content-length: \(length)\r\n")
        } else if isChunked {
            buffer.writeStaticString("transfer-encoding: chunked\r\n")
        }
        if saysClose { buffer.writeStaticString("connection: close\r\n") }
        buffer.writeStaticString("\r\n")
    }

    /// A server-sent event in a chunk of its own.
    static func event(_ data: ByteBuffer, isChunked: Bool, into buffer: inout ByteBuffer) {
        // "data: " and the blank line after it.
        if isChunked { buffer.writeString("\(String(data.readableBytes + 8, radix: 16))\r\n") }
        buffer.writeStaticString("data: ")
        buffer.writeImmutableBuffer(data)
        buffer.writeStaticString("\n\n")
        if isChunked { buffer.writeStaticString("\r\n") }
    }

    private static func reason(_ status: Int) -> String {
        switch status {
        case 200: "OK"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 413: "Content Too Large"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        default: "Simulated"
        }
    }
}

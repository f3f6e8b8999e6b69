import JSON

/// Why the node refuses a request: an HTTP status and vLLM's error object.
struct NodeRefusal: Error, Equatable {
    let status: Int
    let type: String
    let message: String
    var parameter: String?

    init(_ status: Int, _ type: String, _ message: String, parameter: String? = nil) {
        self.status = status
        self.type = type
        self.message = message
        self.parameter = parameter
    }

    static func badRequest(_ message: String, parameter: String? = nil) -> NodeRefusal {
        NodeRefusal(400, "BadRequestError", message, parameter: parameter)
    }

    /// vLLM's words for a request that the context cannot hold, its odd "at least" included: it counts the prompt only as
    /// far as it must.
    static func contextOverflow(contextTokensMax: Int, promptTokens: Int, completionTokens: Int) -> NodeRefusal {
        let least = max(1, min(promptTokens, contextTokensMax - completionTokens + 1))
        let total = least.addingReportingOverflow(completionTokens)
        return .badRequest(
            "This model's maximum context length is \(contextTokensMax) tokens. However, you requested "
                + "\(completionTokens) output tokens and your prompt contains at least \(least) input tokens, for a "
                + "total of at least \(total.overflow ? .max : total.partialValue) tokens. Please reduce the length of the input prompt "
                + "or the number of requested output tokens. (parameter=input_tokens, value=\(least))",
            parameter: "input_tokens")
    }

    /// `code` is an integer, as vLLM sends it and OpenAI does not.
    var body: String {
        let parameter = parameter.map(JSONValue.quoted) ?? "null"
        return "{\"error\":{\"message\":\(JSONValue.quoted(message)),\"type\":\"\(type)\",\"param\":\(parameter),"
            + "\"code\":\(status)}}"
    }

    /// In Anthropic's envelope, the type still vLLM's.
    var messagesBody: String {
        "{\"type\":\"error\",\"error\":{\"type\":\"\(type)\",\"message\":\(JSONValue.quoted(message))}}"
    }
}

/// What a node is and serves, as far as reading a request needs it.
struct NodeModel {
    let name: String
    /// Prompt and completion together: vLLM's `max_model_len`.
    let contextTokensMax: Int

    func check(_ body: JSONValue) throws(NodeRefusal) {
        guard case .object = body else { throw .badRequest("The body must be a JSON object.") }
        guard let model = body.field("model") else { return }
        guard case .string(let asked) = model else {
            throw .badRequest("'model' must be a string.", parameter: "model")
        }
        guard asked == name else {
            throw NodeRefusal(404, "NotFoundError", "The model `\(asked)` does not exist.", parameter: "model")
        }
    }
}

/// What a path asks of the node, whether or not its engine has work with it.
enum NodeEndpoint {
    case generation(GenerationRequest.Kind)
    case embedding, rerank, score, tokenize, detokenize

    init?(path: String) {
        switch path {
        case "/v1/chat/completions": self = .generation(.chat)
        case "/v1/completions": self = .generation(.completion)
        case "/v1/responses": self = .generation(.responses)
        case "/v1/messages": self = .generation(.messages)
        case "/v1/embeddings": self = .embedding
        case "/rerank", "/v1/rerank", "/v2/rerank": self = .rerank
        case "/score", "/v1/score": self = .score
        case "/tokenize": self = .tokenize
        case "/detokenize": self = .detokenize
        default: return nil
        }
    }

    var speaksAnthropic: Bool { if case .generation(.messages) = self { true } else { false } }
}

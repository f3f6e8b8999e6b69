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

    /// `code` is an integer, as vLLM sends it and OpenAI does not.
    var body: String {
        let parameter = parameter.map(JSONValue.quoted) ?? "null"
        return "{\"error\":{\"message\":\(JSONValue.quoted(message)),\"type\":\"\(type)\",\"param\":\(parameter),"
            + "\"code\":\(status)}}"
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

/// A chat or text completion as the engine needs it: prompts, lengths, and what the answer looks like.
struct GenerationRequest {
    enum Kind: Equatable {
        case chat, completion
    }

    /// One of the answer's choices, its length and text decided beforehand: the engine only says when.
    struct Choice: Equatable {
        var seed: UInt64
        var tokens: Int
        /// Bytes of the text that are shown; less than all where a stop string ends it.
        var visibleBytes: Int
        var finishReason: String
        var stopText: String?
        /// One of `best_of` that is generated, charged and thrown away.
        var isHidden: Bool
    }

    static let choicesMax = 128
    static let promptsMax = 1_024
    static let stopsMax = 32
    static let stopBytesMax = 512
    /// Over all choices of a request.
    static let generatedTokensMax = 1 << 20

    var kind: Kind
    var prompts: [PromptTokens]
    var salt: String
    /// For each prompt its choices.
    var choices: [[Choice]]
    var stream: Bool
    var includeUsage: Bool

    var promptTokens: Int { prompts.reduce(0) { $0 + $1.count } }

    /// - Parameters:
    ///   - generator: Draws lengths and texts where the request names no seed.
    ///   - overrunTokens: Makes every answer this much longer than the request allows.
    init(
        kind: Kind, body: JSONValue, model: NodeModel, generator: inout SplitMix64, overrunTokens: Int?
    ) throws(NodeRefusal) {
        try model.check(body)
        let fields = RequestFields(body)
        self.kind = kind
        prompts = try kind == .chat ? [fields.conversation()] : fields.prompts("prompt")
        salt = try fields.string("cache_salt") ?? ""
        stream = try fields.bool("stream") ?? false
        let options = try fields.object("stream_options")
        if options != nil, !stream {
            throw .badRequest("Stream options can only be defined when `stream=True`.", parameter: "stream_options")
        }
        includeUsage = try options?.bool("include_usage") ?? false
        let rules = try ChoiceRules(kind: kind, fields: fields, overrunTokens: overrunTokens)
        choices = []
        var generated = 0
        for prompt in prompts {
            let room = model.contextTokensMax - prompt.count
            let (least, limit) = (rules.tokensMin, rules.tokensMax)
            guard room >= max(1, limit ?? 1), least <= room else {
                throw .badRequest(
                    "This model's maximum context length is \(model.contextTokensMax) tokens. However, the prompt has "
                        + "\(prompt.count) tokens and the completion asks for \(limit ?? max(1, least)). Please reduce "
                        + "the length of the prompt or the completion.",
                    parameter: kind == .chat ? "messages" : "prompt")
            }
            let row = rules.choices(prompt: prompt, room: room, generator: &generator)
            generated += row.reduce(0) { $0 + $1.tokens }
            guard generated <= Self.generatedTokensMax else {
                throw .badRequest(
                    "A request may generate at most \(Self.generatedTokensMax) tokens over all of its choices.")
            }
            choices.append(row)
        }
    }
}

/// How many choices a request gets for each prompt, and when each ends.
private struct ChoiceRules {
    let count: Int
    /// Generated for each prompt; the first ``count`` of them are shown.
    let best: Int
    let tokensMin: Int
    /// Nil where only the context bounds it.
    let tokensMax: Int?
    let ignoresEnd: Bool
    let stops: [String]
    let seed: Int?
    let overrunTokens: Int?

    init(kind: GenerationRequest.Kind, fields: RequestFields, overrunTokens: Int?) throws(NodeRefusal) {
        let choices = 1...GenerationRequest.choicesMax
        count = try fields.integer("n", choices) ?? 1
        best = kind == .chat ? count : try fields.integer("best_of", choices) ?? count
        guard best >= count else {
            throw .badRequest("best_of must be at least n, got best_of=\(best), n=\(count).", parameter: "best_of")
        }
        let older = try fields.integer("max_tokens", 1...Int.max)
        switch kind {
        case .chat: tokensMax = try fields.integer("max_completion_tokens", 1...Int.max) ?? older
        // OpenAI's default for text completions, which vLLM keeps.
        case .completion: tokensMax = older ?? 16
        }
        tokensMin = try fields.integer("min_tokens", 0...Int.max) ?? 0
        if let tokensMax, tokensMin > tokensMax {
            throw .badRequest(
                "min_tokens must be less than or equal to max_tokens=\(tokensMax), got \(tokensMin).",
                parameter: "min_tokens")
        }
        ignoresEnd = try fields.bool("ignore_eos") ?? false
        stops = try fields.stops()
        seed = try fields.integer("seed", Int.min...Int.max)
        self.overrunTokens = overrunTokens
    }

    /// - Parameter room: Tokens that the context has left after the prompt; at least one.
    func choices(
        prompt: PromptTokens, room: Int, generator: inout SplitMix64
    ) -> [GenerationRequest.Choice] {
        let limit = tokensMax ?? room
        // A seed makes the answer a function of the request alone.
        var seeded = seed.map { SplitMix64(seed: UInt64(bitPattern: Int64($0)) ^ prompt.seed) }
        return (0..<best).map { index in
            let text = FillerText(seed: seeded?.next() ?? generator.next())
            var lengths = SplitMix64(seed: text.seed)
            let drawn = ignoresEnd ? limit : max(tokensMin, AnswerLength.draw(using: &lengths))
            var choice = GenerationRequest.Choice(
                seed: text.seed, tokens: min(drawn, limit), visibleBytes: .max,
                finishReason: drawn >= limit ? "length" : "stop", isHidden: index >= count)
            if let overrunTokens {
                choice.tokens = (tokensMax ?? choice.tokens) + overrunTokens
                choice.finishReason = "length"
            } else if let stop = text.stop(at: stops, tokens: choice.tokens, tokensMin: tokensMin) {
                choice.tokens = stop.tokens
                choice.visibleBytes = stop.visibleBytes
                choice.finishReason = "stop"
                choice.stopText = stop.text
            }
            return choice
        }
    }
}

/// What `/v1/embeddings` asks.
struct EmbeddingRequest {
    static let dimensionsMax = 4_096

    var inputs: [PromptTokens]
    var isBase64: Bool
    var dimensions: Int?

    init(body: JSONValue, model: NodeModel) throws(NodeRefusal) {
        try model.check(body)
        let fields = RequestFields(body)
        inputs = try fields.prompts("input")
        let format = try fields.string("encoding_format") ?? "float"
        guard format == "float" || format == "base64" else {
            throw .badRequest("'encoding_format' must be 'float' or 'base64'.", parameter: "encoding_format")
        }
        isBase64 = format == "base64"
        dimensions = try fields.integer("dimensions", 1...Self.dimensionsMax)
        for input in inputs where input.count > model.contextTokensMax {
            throw .badRequest(
                "This model's maximum context length is \(model.contextTokensMax) tokens. However, you requested "
                    + "\(input.count) tokens. Please reduce the length of the input.", parameter: "input")
        }
    }
}

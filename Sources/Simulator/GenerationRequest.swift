import Domain
import JSON
import NIOCore

/// What is to be generated, in whichever protocol it was asked: prompts, lengths, and what the answer looks like.
struct GenerationRequest {
    enum Kind: Equatable {
        case chat, completion, responses, messages
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
        /// The text where it is prescribed, a token each.
        var fixed: [String] = []
        /// The tool that is called with the text as its arguments.
        var toolName: String?

        var text: FillerText { FillerText(seed: seed, fixed: fixed) }

        /// What is shown of a token.
        /// - Parameter bytes: Shown of the text before it.
        func shown(of token: String, after bytes: Int) -> String {
            let room = visibleBytes - bytes
            return token.utf8.count <= room ? token : String(decoding: token.utf8.prefix(max(0, room)), as: UTF8.self)
        }

        var visibleTokens: [AnswerToken] {
            var shownTokens: [AnswerToken] = []
            var offset = 0
            let text = text
            for index in 0..<tokens {
                let shown = shown(of: text.token(index), after: offset)
                guard !shown.isEmpty else { break }
                shownTokens.append(AnswerToken(text: shown, index: index, offset: offset))
                offset += shown.utf8.count
            }
            return shownTokens
        }

        var visibleText: String { visibleTokens.map(\.text).joined() }

        /// The visible text as the content of a JSON string.
        func writeText(into body: inout ByteBuffer) {
            for token in visibleTokens { body.writeEscaped(token.text) }
        }
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
    var choices: [[Choice]] = []
    var stream: Bool
    var includeUsage = false
    var continuousUsage = false
    var logprobs: TokenLogprobs?
    /// The prompts' texts, where the answer is to begin with them.
    var echoes: [String] = []
    var responseForm: ResponseForm?

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
        salt = try fields.string("cache_salt") ?? ""
        stream = try fields.bool("stream") ?? false
        try fields.checkSampling()
        switch kind {
        case .chat: prompts = [try fields.conversation()]
        case .completion: prompts = try fields.prompts("prompt")
        case .responses:
            prompts = [try fields.responsesConversation()]
            responseForm = ResponseForm(body: body)
        case .messages: prompts = [try fields.messagesConversation()]
        }
        if kind == .chat || kind == .completion {
            let options = try fields.object("stream_options")
            if options != nil, !stream {
                throw .badRequest("Stream options can only be defined when `stream=True`.", parameter: "stream_options")
            }
            includeUsage = try options?.bool("include_usage") ?? false
            let continuous = try options?.bool("continuous_usage_stats") ?? false
            continuousUsage = includeUsage && continuous
        }
        logprobs = try fields.logprobs(kind)
        let echo = try fields.bool("echo") ?? false
        if kind == .completion, echo { echoes = prompts.map(\.text) }
        let rules = try ChoiceRules(kind: kind, fields: fields, echoes: !echoes.isEmpty, overrunTokens: overrunTokens)
        var generated = 0
        for prompt in prompts {
            let room = model.contextTokensMax - prompt.count
            let (least, limit) = (rules.tokensMin, rules.tokensMax)
            guard room >= max(echoes.isEmpty ? 1 : 0, limit ?? 1), least <= room else {
                throw .contextOverflow(
                    contextTokensMax: model.contextTokensMax, promptTokens: prompt.count,
                    completionTokens: limit ?? least)
            }
            let row = try rules.choices(prompt: prompt, room: room, generator: &generator)
            generated += row.reduce(0) { $0 + $1.tokens }
            guard generated <= Self.generatedTokensMax else {
                throw .badRequest(
                    "A request may generate at most \(Self.generatedTokensMax) tokens over all of its choices.")
            }
            choices.append(row)
        }
    }

    func renderer(_ identity: AnswerIdentity) -> any AnswerRenderer {
        switch kind {
        case .chat, .completion: ChatRenderer(request: self, identity: identity)
        case .responses: ResponsesRenderer(request: self, identity: identity)
        case .messages: MessagesRenderer(identity: identity)
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
    let form: AnswerForm
    let overrunTokens: Int?

    init(
        kind: GenerationRequest.Kind, fields: RequestFields, echoes: Bool, overrunTokens: Int?
    ) throws(NodeRefusal) {
        let isOne = kind == .responses || kind == .messages
        let choices = 1...GenerationRequest.choicesMax
        count = try isOne ? 1 : fields.integer("n", choices) ?? 1
        best = kind == .completion ? try fields.integer("best_of", choices) ?? count : count
        guard best >= count else {
            throw .badRequest("best_of must be at least n, got best_of=\(best), n=\(count).", parameter: "best_of")
        }
        switch kind {
        case .chat:
            let older = try fields.integer("max_tokens", 1...Int.max)
            tokensMax = try fields.integer("max_completion_tokens", 1...Int.max) ?? older
        // OpenAI's default for text completions, which vLLM keeps.
        case .completion: tokensMax = try fields.integer("max_tokens", (echoes ? 0 : 1)...Int.max) ?? 16
        case .responses: tokensMax = try fields.integer("max_output_tokens", 1...Int.max)
        case .messages:
            guard let limit = try fields.integer("max_tokens", 1...Int.max) else {
                throw .badRequest("'max_tokens' is required.", parameter: "max_tokens")
            }
            tokensMax = limit
        }
        tokensMin = try fields.integer("min_tokens", 0...Int.max) ?? 0
        if let tokensMax, tokensMin > tokensMax {
            throw .badRequest(
                "min_tokens must be less than or equal to max_tokens=\(tokensMax), got \(tokensMin).",
                parameter: "min_tokens")
        }
        ignoresEnd = try fields.bool("ignore_eos") ?? false
        stops = try fields.stops(kind == .messages ? "stop_sequences" : "stop")
        let asked = try fields.integer("seed", Int.min...Int.max)
        // Without chance there is one answer.
        let isGreedy = try fields.number("temperature", 0...2) == 0
        seed = asked ?? (isGreedy ? 0 : nil)
        form = try fields.answerForm(kind)
        self.overrunTokens = overrunTokens
    }

    /// - Parameter room: Tokens that the context has left after the prompt.
    func choices(
        prompt: PromptTokens, room: Int, generator: inout SplitMix64
    ) throws(NodeRefusal) -> [GenerationRequest.Choice] {
        let limit = tokensMax ?? room
        // A seed makes the answer a function of the request alone.
        var seeded = seed.map { SplitMix64(seed: UInt64(bitPattern: Int64($0)) ^ prompt.seed) }
        var row: [GenerationRequest.Choice] = []
        for index in 0..<best {
            row.append(
                try choice(seed: seeded?.next() ?? generator.next(), limit: limit, isHidden: index >= count))
        }
        return row
    }

    private func choice(
        seed: UInt64, limit: Int, isHidden: Bool
    ) throws(NodeRefusal) -> GenerationRequest.Choice {
        var choice = GenerationRequest.Choice(
            seed: seed, tokens: 0, visibleBytes: .max, finishReason: "stop", isHidden: isHidden)
        let drawn: Int
        if let prescribed = try form.text(seed: seed) {
            // A grammar ends where its value ends, whatever the request says of lengths.
            choice.fixed = FillerText.pieces(of: prescribed)
            choice.toolName = form.toolName
            drawn = choice.fixed.count
            choice.finishReason = drawn > limit ? "length" : "stop"
        } else {
            var lengths = SplitMix64(seed: seed)
            drawn = ignoresEnd ? limit : max(tokensMin, AnswerLength.draw(using: &lengths))
            choice.finishReason = drawn >= limit ? "length" : "stop"
        }
        choice.tokens = min(drawn, limit)
        if let overrunTokens {
            choice.tokens = (tokensMax ?? choice.tokens) + overrunTokens
            choice.finishReason = "length"
        } else if choice.fixed.isEmpty,
            let stop = choice.text.stop(at: stops, tokens: choice.tokens, tokensMin: tokensMin)
        {
            choice.tokens = stop.tokens
            choice.visibleBytes = stop.visibleBytes
            choice.finishReason = "stop"
            choice.stopText = stop.text
        }
        return choice
    }
}

import Domain
import JSON
import NIOCore

/// A request whose answer is there at once when its prompts are computed: no tokens are generated.
enum PooledRequest {
    case embedding(EmbeddingRequest)
    case rerank(RerankRequest)
    case score(ScoreRequest)
    case tokenize(TokenizeRequest)
    case detokenize(text: String)

    init(_ endpoint: NodeEndpoint, body: JSONValue, model: NodeModel) throws(NodeRefusal) {
        try model.check(body)
        let fields = RequestFields(body)
        switch endpoint {
        case .rerank: self = .rerank(try RerankRequest(fields, model))
        case .score: self = .score(try ScoreRequest(fields, model))
        case .tokenize: self = .tokenize(try TokenizeRequest(fields))
        case .detokenize: self = .detokenize(text: try fields.detokenized())
        case .embedding, .generation: self = .embedding(try EmbeddingRequest(fields, model))
        }
    }

    /// What the engine has to compute; nothing for tokenizers, which run beside it.
    var inputs: [PromptTokens] {
        switch self {
        case .embedding(let request): request.inputs
        case .rerank(let request): request.pairs.map(\.prompt)
        case .score(let request): request.pairs.map(\.prompt)
        case .tokenize, .detokenize: []
        }
    }

    /// - Parameter usage: Nil leaves it out.
    func answer(
        _ identity: AnswerIdentity, configuration: SimulatedNode.Configuration, usage: TokenUsage?,
        into body: inout ByteBuffer
    ) {
        switch self {
        case .embedding(let request):
            EmbeddingVector.answer(
                request, id: identity.id, created: identity.created, model: identity.model,
                dimensions: configuration.embeddingDimensions, usage: usage, into: &body)
        case .rerank(let request): request.answer(identity, usage, into: &body)
        case .score(let request): request.answer(identity, usage, into: &body)
        case .tokenize(let request): request.answer(configuration.contextTokensMax, into: &body)
        case .detokenize(let text): body.writeString("{\"prompt\":\(JSONValue.quoted(text))}")
        }
    }
}

/// What `/v1/embeddings` asks.
struct EmbeddingRequest {
    static let dimensionsMax = 4_096

    var inputs: [PromptTokens]
    var isBase64: Bool
    var dimensions: Int?

    init(_ fields: RequestFields, _ model: NodeModel) throws(NodeRefusal) {
        inputs = try fields.prompts("input")
        let format = try fields.string("encoding_format") ?? "float"
        guard format == "float" || format == "base64" else {
            throw .badRequest("'encoding_format' must be 'float' or 'base64'.", parameter: "encoding_format")
        }
        isBase64 = format == "base64"
        dimensions = try fields.integer("dimensions", 1...Self.dimensionsMax)
        try fields.check(inputs, fit: model)
    }
}

/// A query and a document as a cross-encoder reads them, one after the other.
struct ScoredPair {
    var prompt = PromptTokens()
    /// Above 0 and below 1.
    var score: Double

    /// The share of the query's words that the document has, moved a little by a hash of both so that ties are rare.
    init(_ query: String, _ document: String) {
        prompt.append(text: query)
        prompt.append(text: document)
        let words = Set(Self.words(query))
        let common = words.intersection(Self.words(document)).count
        let share = words.isEmpty ? 0 : Double(common) / Double(words.count)
        score = 0.05 + 0.8 * share + 0.1 * Double(prompt.seed >> 40) * 0x1p-24
    }

    private static func words(_ text: String) -> [String] {
        text.lowercased().split { !$0.isLetter && !$0.isNumber }.map(String.init)
    }
}

/// What `/rerank` asks, in the form of Jina and Cohere.
struct RerankRequest {
    var documents: [String]
    var pairs: [ScoredPair]
    /// How many results; all where the request says nothing or 0.
    var count: Int

    init(_ fields: RequestFields, _ model: NodeModel) throws(NodeRefusal) {
        guard let query = try fields.string("query") else {
            throw .badRequest("'query' must be a string.", parameter: "query")
        }
        documents = try fields.texts("documents")
        let top = try fields.integer("top_n", 0...Int.max) ?? 0
        count = top == 0 ? documents.count : min(top, documents.count)
        pairs = documents.map { ScoredPair(query, $0) }
        try fields.check(pairs.map(\.prompt), fit: model)
    }

    func answer(_ identity: AnswerIdentity, _ usage: TokenUsage?, into body: inout ByteBuffer) {
        body.writeString("{\"id\":\"rerank-\(identity.id)\",\"model\":\(identity.model),")
        if let usage { body.writeString("\"usage\":\(PooledUsage.text(usage)),") }
        body.writeStaticString("\"results\":[")
        // The best first; of equals the earlier.
        let order = pairs.indices.sorted { (pairs[$1].score, $0) < (pairs[$0].score, $1) }
        for (rank, index) in order.prefix(count).enumerated() {
            if rank > 0 { body.writeStaticString(",") }
            body.writeString("{\"index\":\(index),\"document\":{\"text\":")
            body.writeQuoted(documents[index])
            body.writeString("},\"relevance_score\":\(pairs[index].score)}")
        }
        body.writeStaticString("]}")
    }
}

/// What `/score` asks: one text with each of several, or two lists in step.
struct ScoreRequest {
    var pairs: [ScoredPair]

    init(_ fields: RequestFields, _ model: NodeModel) throws(NodeRefusal) {
        let first = try fields.texts("text_1")
        let second = try fields.texts("text_2")
        guard first.count == second.count || first.count == 1 else {
            throw .badRequest("Input lengths must be either 1:1, 1:N or N:N", parameter: "text_2")
        }
        pairs = second.enumerated().map { ScoredPair(first[first.count == 1 ? 0 : $0], $1) }
        try fields.check(pairs.map(\.prompt), fit: model)
    }

    func answer(_ identity: AnswerIdentity, _ usage: TokenUsage?, into body: inout ByteBuffer) {
        body.writeString("{\"id\":\"score-\(identity.id)\",\"object\":\"list\",\"created\":\(identity.created),")
        body.writeString("\"model\":\(identity.model),\"data\":[")
        for (index, pair) in pairs.enumerated() {
            if index > 0 { body.writeStaticString(",") }
            body.writeString("{\"index\":\(index),\"object\":\"score\",\"score\":\(pair.score)}")
        }
        body.writeStaticString("]")
        if let usage {
            body.writeString(",\"usage\":\(ChatRenderer.usage(usage))")
        }
        body.writeStaticString("}")
    }
}

/// What `/tokenize` asks. This tokenizer has no special tokens, so `add_special_tokens` changes nothing, and a prompt
/// counts the same here as in a completion.
struct TokenizeRequest {
    var prompt: PromptTokens
    var wantsTexts: Bool

    init(_ fields: RequestFields) throws(NodeRefusal) {
        _ = try fields.bool("add_special_tokens")
        wantsTexts = try fields.bool("return_token_strs") ?? false
        if fields.body.field("messages") != nil {
            prompt = try fields.conversation()
        } else {
            prompt = PromptTokens()
            guard let text = try fields.string("prompt") else {
                throw .badRequest("'prompt' must be a string.", parameter: "prompt")
            }
            prompt.append(text: text)
        }
    }

    func answer(_ contextTokensMax: Int, into body: inout ByteBuffer) {
        body.writeString("{\"count\":\(prompt.count),\"max_model_len\":\(contextTokensMax),\"tokens\":[")
        body.writeString(prompt.tokenIDs.map(String.init).joined(separator: ","))
        body.writeStaticString("],\"token_strs\":")
        if wantsTexts {
            // A token may end within a character, which then shows as U+FFFD, as with any byte-level tokenizer.
            let texts = (0..<prompt.count).map {
                JSONValue.quoted(String(decoding: prompt.content(ofToken: $0), as: UTF8.self))
            }
            body.writeString("[\(texts.joined(separator: ","))]}")
        } else {
            body.writeStaticString("null}")
        }
    }
}

enum PooledUsage {
    static func text(_ usage: TokenUsage) -> String {
        "{\"prompt_tokens\":\(usage.promptTokens),\"total_tokens\":\(usage.totalTokens)}"
    }
}

extension RequestFields {
    /// A text or a list of texts, each as such or in an object.
    fileprivate func texts(_ name: String) throws(NodeRefusal) -> [String] {
        let values: [JSONValue]
        switch body.field(name) {
        case .string(let text)?: values = [.string(text)]
        case .array(let list)?: values = list
        default: throw .badRequest("'\(name)' must be a string or a list of strings.", parameter: name)
        }
        guard !values.isEmpty, values.count <= GenerationRequest.promptsMax else {
            throw .badRequest("'\(name)' must have 1 to \(GenerationRequest.promptsMax) entries.", parameter: name)
        }
        var texts: [String] = []
        for value in values {
            guard let text = value.string ?? value.field("text")?.string else {
                throw .badRequest("'\(name)' must hold strings.", parameter: name)
            }
            texts.append(text)
        }
        return texts
    }

    fileprivate func check(_ inputs: [PromptTokens], fit model: NodeModel) throws(NodeRefusal) {
        for input in inputs where input.count > model.contextTokensMax {
            throw .contextOverflow(
                contextTokensMax: model.contextTokensMax, promptTokens: input.count, completionTokens: 0)
        }
    }

    fileprivate func detokenized() throws(NodeRefusal) -> String {
        guard case .array(let list)? = body.field("tokens") else {
            throw .badRequest("'tokens' must be a list of token ids.", parameter: "tokens")
        }
        var identifiers: [Int64] = []
        identifiers.reserveCapacity(list.count)
        for value in list {
            guard case .integer(let identifier) = value, identifier >= 0 else {
                throw .badRequest("Token ids in 'tokens' must be integers from 0.", parameter: "tokens")
            }
            identifiers.append(identifier)
        }
        var prompt = PromptTokens()
        prompt.append(tokenIDs: identifiers)
        return prompt.text
    }
}

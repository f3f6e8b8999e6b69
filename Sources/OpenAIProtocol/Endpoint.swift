import Domain
import JSON

/// What the data plane serves, a row of ``descriptor`` each.
///
/// To add one: a case and a row; and where its body has fields that no other has, what ``scanRequest(_:endpoint:)`` must
/// look for. Nothing is translated: an endpoint goes to nodes whose engine serves it under the same path.
package enum Endpoint: Int, Hashable, Sendable, CaseIterable {
    case chatCompletions, completions, responses, messages, embeddings, rerank, score, tokenize, detokenize
    case models, model, description

    package struct Descriptor: Hashable, Sendable {
        /// The one method it takes.
        package var method = "POST"
        /// The whole path, or what stands before `/{id}`. On the node it is the same.
        package var path: String
        /// Whether one more segment follows, which may hold slashes itself (`meta-llama/Llama-3.1-8B`).
        package var takesArgument = false
        /// A closed set: metric labels and access-log lines say this.
        package var label: String
        /// The engines that serve it; none where the gateway answers itself.
        package var engines: EngineSet = []
        /// How its errors, events and usage are written.
        package var dialect = Dialect.openAI
        /// The fields that can hold the prompt, the one that errors name first; none where no body is read.
        package var prompt: [PromptField] = []
        /// The fields that limit what is generated, the one that is written for a silent client first; none where
        /// nothing is generated.
        package var limits: [LimitField] = []
        /// Whether tokens are charged; what is not charged counts as a request all the same.
        package var isCharged = true
        /// Whether it is answered without a key.
        package var isPublic = false
    }

    package enum PromptField: String, Hashable, Sendable, CaseIterable {
        case messages, prompt, input, content, tokens
        /// The sides of a comparison: each of the left is paired with each of the right.
        case query, queries, documents, items
        case leftText = "text_1"
        case rightText = "text_2"

        /// Whether it is the side of a pair that is read again for each element of the other.
        var isLeft: Bool { self == .query || self == .queries || self == .leftText }
        var isRight: Bool { self == .documents || self == .items || self == .rightText }
    }

    package enum LimitField: String, Hashable, Sendable, CaseIterable {
        case maxTokens = "max_tokens"
        case maxCompletionTokens = "max_completion_tokens"
        case maxOutputTokens = "max_output_tokens"
    }

    package var descriptor: Descriptor { Self.rows[rawValue] }

    /// By raw value.
    private static let rows: [Descriptor] = allCases.map(\.row)

    private var row: Descriptor {
        switch self {
        case .chatCompletions:
            Descriptor(
                path: "/v1/chat/completions", label: "chat_completions", engines: .all, prompt: [.messages],
                limits: [.maxTokens, .maxCompletionTokens])
        case .completions:
            Descriptor(
                path: "/v1/completions", label: "completions", engines: .all, prompt: [.prompt],
                limits: [.maxTokens, .maxCompletionTokens])
        case .responses:
            Descriptor(
                path: "/v1/responses", label: "responses", engines: .all, dialect: .responses, prompt: [.input],
                limits: [.maxOutputTokens])
        case .messages:
            Descriptor(
                path: "/v1/messages", label: "messages", engines: [.vllm, .sglang, .llamacpp], dialect: .anthropic,
                prompt: [.messages], limits: [.maxTokens])
        case .embeddings:
            Descriptor(path: "/v1/embeddings", label: "embeddings", engines: .all, prompt: [.input])
        case .rerank:
            Descriptor(
                path: "/v1/rerank", label: "rerank", engines: [.vllm, .sglang, .llamacpp],
                prompt: [.query, .documents])
        case .score:
            Descriptor(
                path: "/v1/score", label: "score", engines: [.vllm, .sglang],
                prompt: [.leftText, .rightText, .queries, .query, .documents, .items])
        case .tokenize:
            Descriptor(
                path: "/tokenize", label: "tokenize", engines: [.vllm, .sglang, .llamacpp],
                prompt: [.prompt, .messages, .content], isCharged: false)
        case .detokenize:
            Descriptor(
                path: "/detokenize", label: "detokenize", engines: [.vllm, .sglang, .llamacpp], prompt: [.tokens],
                isCharged: false)
        case .models: Descriptor(method: "GET", path: "/v1/models", label: "models")
        case .model: Descriptor(method: "GET", path: "/v1/models", takesArgument: true, label: "model")
        case .description: Descriptor(method: "GET", path: "/openapi.yaml", label: "openapi", isPublic: true)
        }
    }

    /// The path on the node: the same as ours.
    package var path: String { Self.rows[rawValue].path }
    package var label: String { Self.rows[rawValue].label }
    package var dialect: Dialect { Self.rows[rawValue].dialect }
    package var engines: EngineSet { Self.rows[rawValue].engines }
    package var isCharged: Bool { Self.rows[rawValue].isCharged }
    package var isPublic: Bool { Self.rows[rawValue].isPublic }
    /// Whether completion tokens are generated, so that a max-token field belongs upstream.
    package var generates: Bool { !Self.rows[rawValue].limits.isEmpty }
    /// Whether requests of this kind go to a node.
    package var isInference: Bool { !Self.rows[rawValue].prompt.isEmpty }

    /// Finds the endpoint of a request line.
    ///
    /// - Parameters:
    ///   - method: As on the wire; methods are case-sensitive.
    ///   - path: The request target. What follows `?` is ignored. Paths match byte for byte: a trailing slash, a doubled
    ///     one and percent-encoded letters are other paths, so that no proxy in front can be led to another decision.
    package static func match(method: String, path: Substring) -> RouteMatch {
        let target = path.utf8
        let end = target.firstIndex(of: UInt8(ascii: "?")) ?? target.endIndex
        let path = path[..<end]
        var other: (endpoint: Endpoint, allow: String)?
        for endpoint in allCases {
            // Row by row in place: a copy of one would retain all that it holds.
            let row = endpoint.rawValue
            var argument: String?
            if rows[row].takesArgument {
                guard let found = Self.argument(of: path, after: rows[row].path) else { continue }
                argument = found
            } else if path != rows[row].path {
                continue
            }
            if method == rows[row].method { return .found(endpoint, argument: argument) }
            other = other.map { ($0.endpoint, "\($0.allow), \(rows[row].method)") } ?? (endpoint, rows[row].method)
        }
        return other.map { .methodNotAllowed($0.endpoint, allow: $0.allow) } ?? .notFound
    }

    package static func match(method: String, path: String) -> RouteMatch { match(method: method, path: path[...]) }

    /// What follows `prefix` and a slash, percent-decoded; nil where nothing does or the encoding is broken.
    private static func argument(of path: Substring, after prefix: String) -> String? {
        let bytes = Array(path.utf8)
        let prefix = Array(prefix.utf8)
        guard bytes.count > prefix.count + 1, bytes.starts(with: prefix), bytes[prefix.count] == UInt8(ascii: "/"),
            bytes.last != UInt8(ascii: "/")
        else { return nil }
        var decoded: [UInt8] = []
        var at = prefix.count + 1
        while at < bytes.count {
            guard bytes[at] == UInt8(ascii: "%") else {
                decoded.append(bytes[at])
                at += 1
                continue
            }
            guard at + 2 < bytes.count, let high = HexDigit.value(bytes[at + 1]),
                let low = HexDigit.value(bytes[at + 2])
            else { return nil }
            decoded.append(high << 4 | low)
            at += 3
        }
        return String(validating: decoded, as: UTF8.self)
    }
}

package enum RouteMatch: Hashable, Sendable {
    /// `argument` is the `{id}` of the path, decoded, where the endpoint has one.
    case found(Endpoint, argument: String?)
    case notFound
    /// The endpoint of the path, and the value of the `Allow` header.
    case methodNotAllowed(Endpoint, allow: String)
}

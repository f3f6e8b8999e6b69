/// Bounds on what a request may say, whatever the model.
package enum RequestLimits {
    /// Members of the top-level object. Each is compared with those before it.
    package static let topLevelKeysMax = 256
    /// `n` and `best_of`, as OpenAI bounds `n`.
    package static let choicesPerPromptMax = 128
    /// Prompts in a list, and inputs to embed, as OpenAI bounds `input`.
    package static let promptsMax = 2_048
    /// A node that keeps the number in 32 bits must not wrap it into "no limit".
    package static let maxTokensMax = Int(Int32.max)
    package static let modelBytesMax = 256
    /// What is kept of `prompt_cache_key` or `user`; longer ones are cut.
    package static let sessionKeyBytesMax = 256
}

/// What one pass over a request's body found: all that the gateway decides by, and where to patch.
///
/// Spans are byte offsets into the body that was scanned.
package struct ScannedRequest: Hashable, Sendable {
    package var endpoint: Endpoint
    package var bodyBytes: Int
    /// Right after the opening brace: where new members go.
    package var insertionOffset: Int

    package var model: String
    /// The value, quotes included.
    package var modelSpan: Range<Int>

    package var stream: Bool
    package var streamOptions: StreamOptions
    /// Whether the client asked for `stream_options.include_usage`.
    package var includeUsage: Bool

    /// What one of the endpoint's limit fields says; nil where the client is silent or says null.
    package var maxTokens: Int?
    /// The values of the limit fields, null included.
    package var limitSpans: LimitSpans

    package var n: Int
    /// The value of `n`, null included; for clamps.
    package var nSpan: Range<Int>?
    package var bestOf: Int?
    /// The value of `best_of`, null included; for clamps.
    package var bestOfSpan: Range<Int>?
    /// Prompts of a completion, inputs of an embedding, pairs of a comparison, 1 for a chat.
    package var promptCount: Int
    /// How often max tokens can be generated: completion tokens never pass `choices` x max tokens. For embeddings, the
    /// number of inputs.
    package var choices: Int

    package var contentParts: ContentParts
    /// Bytes of the body that a node reads more than once, beyond the first time: a query, for each document.
    package var repeatedBytes: Int
    /// Tokens that the longest prompt has whatever the vocabulary: those given as numbers.
    package var promptTokensMin: Int
    /// Fields met that steer an engine, in order of the body; what they may say is ``Steering``'s.
    package var steering: [SteeringField]
    /// The value of `cache_salt` where the client says null, so that ours takes its place.
    package var cacheSaltSpan: Range<Int>?

    /// `prompt_cache_key`, else `user`: requests that share one should meet the same node's cache.
    package var sessionKey: String?
    /// The value of the field that holds the prompt.
    package var promptSpan: Range<Int>
    /// What is said to the model outside of the conversation: Anthropic's `system`, a response's `instructions`.
    package var systemSpan: Range<Int>?
    /// The value of `tools`, which templates put before the messages.
    package var toolsSpan: Range<Int>?
    /// Hashes of the top-level keys, so that a default goes only where the client is silent.
    package var keyHashes: [UInt64]

    /// Where a body says how much may be generated: the value of each field.
    package struct LimitSpans: Hashable, Sendable {
        private var maxTokens: Range<Int>?
        private var maxCompletionTokens: Range<Int>?
        private var maxOutputTokens: Range<Int>?

        package init() {}

        package subscript(_ field: Endpoint.LimitField) -> Range<Int>? {
            get {
                switch field {
                case .maxTokens: maxTokens
                case .maxCompletionTokens: maxCompletionTokens
                case .maxOutputTokens: maxOutputTokens
                }
            }
            set {
                switch field {
                case .maxTokens: maxTokens = newValue
                case .maxCompletionTokens: maxCompletionTokens = newValue
                case .maxOutputTokens: maxOutputTokens = newValue
                }
            }
        }
    }

    package struct ContentParts: Hashable, Sendable {
        /// Templates that will be applied: 1 for a chat, one for each pair of a comparison, 0 otherwise.
        package var conversations: Int
        package var messages: Int
        package var images: Int

        package init(conversations: Int = 0, messages: Int = 0, images: Int = 0) {
            self.conversations = conversations
            self.messages = messages
            self.images = images
        }
    }

    /// Where `include_usage` is, or would go.
    package enum StreamOptions: Hashable, Sendable {
        case absent
        /// The member's value is null.
        case null(Range<Int>)
        /// An object without `include_usage`; a member goes in at `insertion`.
        case object(insertion: Int, isEmpty: Bool)
        /// An object with it: its value.
        case includeUsage(Range<Int>)
    }
}

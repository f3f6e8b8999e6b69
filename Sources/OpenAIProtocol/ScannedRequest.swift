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

    /// `max_tokens` or `max_completion_tokens`; nil where the client is silent or says null.
    package var maxTokens: Int?
    /// The value of `max_tokens`, null included.
    package var maxTokensSpan: Range<Int>?
    /// The value of `max_completion_tokens`, null included.
    package var maxCompletionTokensSpan: Range<Int>?

    package var n: Int
    /// The value of `n`, null included; for clamps.
    package var nSpan: Range<Int>?
    package var bestOf: Int?
    /// The value of `best_of`, null included; for clamps.
    package var bestOfSpan: Range<Int>?
    /// Prompts of a completion, inputs of an embedding, 1 for a chat.
    package var promptCount: Int
    /// How often max tokens can be generated: completion tokens never pass `choices` x max tokens. For embeddings, the
    /// number of inputs.
    package var choices: Int

    package var contentParts: ContentParts
    /// Fields met that steer an engine, in order of the body; what they may say is ``Steering``'s.
    package var steering: [SteeringField]
    /// The value of `cache_salt` where the client says null, so that ours takes its place.
    package var cacheSaltSpan: Range<Int>?

    /// `prompt_cache_key`, else `user`: requests that share one should meet the same node's cache.
    package var sessionKey: String?
    /// The value of `messages`, `prompt` or `input`.
    package var promptSpan: Range<Int>
    /// The value of `tools`, which templates put before the messages.
    package var toolsSpan: Range<Int>?
    /// Hashes of the top-level keys, so that a default goes only where the client is silent.
    package var keyHashes: [UInt64]

    package struct ContentParts: Hashable, Sendable {
        /// Chat templates that will be applied: 1 for a chat, 0 otherwise.
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

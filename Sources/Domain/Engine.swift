/// What a node runs: decides which fields it obeys and what its metrics are called.
package enum Engine: String, Hashable, Sendable, CaseIterable {
    case vllm, sglang, llamacpp, openai
}

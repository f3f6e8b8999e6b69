/// What a request used, in tokens of its model. `cachedTokens` is a part of `promptTokens`.
package struct TokenUsage: Hashable, Sendable {
    package static let zero = TokenUsage(promptTokens: 0, cachedTokens: 0, completionTokens: 0)

    package var promptTokens: Int
    package var cachedTokens: Int
    package var completionTokens: Int

    package init(promptTokens: Int, cachedTokens: Int, completionTokens: Int) {
        self.promptTokens = promptTokens
        self.cachedTokens = cachedTokens
        self.completionTokens = completionTokens
    }

    package var totalTokens: Int { promptTokens + completionTokens }

    /// Whether a node's claim is possible at all: `0 <= cached <= prompt <= bound` and `0 <= completion <= bound`.
    /// What is not is replaced by the gateway's own count, and the node is distrusted.
    package func isPlausible(promptTokensMax: Int, completionTokensMax: Int) -> Bool {
        0 <= cachedTokens && cachedTokens <= promptTokens && promptTokens <= promptTokensMax
            && 0 <= completionTokens && completionTokens <= completionTokensMax
    }
}

/// The most that a model gives, whatever the client asks: what is above is lowered, and the answer says so.
package struct RequestClamps: Hashable, Sendable {
    package static let none = RequestClamps()
    /// What a configuration may name.
    package static let names = ["max_tokens", "n"]

    /// Of `max_tokens`, `max_completion_tokens` and `max_output_tokens`, whichever the client used.
    package var maxTokens: Int?
    /// Of `n`, and of `best_of`, which generates as much.
    package var n: Int?

    package init(maxTokens: Int? = nil, n: Int? = nil) {
        self.maxTokens = maxTokens
        self.n = n
    }
}

extension ScannedRequest {
    /// What the request asks for once it is lowered to the clamps; the spans still name the client's own values.
    ///
    /// - Returns: The request, and what was lowered to what, in the order `max_tokens`, `n`.
    package func lowered(to clamps: RequestClamps) -> (request: ScannedRequest, lowered: [(name: String, value: Int)]) {
        guard endpoint.generates, clamps != .none else { return (self, []) }
        var request = self
        var lowered: [(name: String, value: Int)] = []
        if let clamp = clamps.maxTokens, let asked = maxTokens, asked > clamp {
            request.maxTokens = clamp
            lowered.append(("max_tokens", clamp))
        }
        if let clamp = clamps.n, max(n, bestOf ?? 1) > clamp {
            request.n = min(n, clamp)
            request.bestOf = bestOf.map { min($0, clamp) }
            request.choices = max(request.n, request.bestOf ?? 1) * promptCount
            lowered.append(("n", clamp))
        }
        return (request, lowered)
    }
}

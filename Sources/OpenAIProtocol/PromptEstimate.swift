/// How many tokens a prompt has, without a tokenizer.
package enum PromptEstimate {
    /// Bytes a token has on average; for rates and routing, never for money that is held.
    package static let bytesPerToken = 4

    /// ceil(bytes / 4).
    package static func estimatePromptTokens(bodyBytes: Int) -> Int {
        max(0, bodyBytes) / bytesPerToken + (max(0, bodyBytes) % bytesPerToken == 0 ? 0 : 1)
    }

    /// The most prompt tokens that a node can make of a body: one for each byte, the chat template's own, and the images'.
    ///
    /// A byte is the least that any vocabulary spends on a token. What a body could name beyond its bytes (audio, another
    /// template) is refused by ``scanRequest(_:endpoint:)`` and ``Steering``, except images.
    /// - Parameters:
    ///   - repeatedBytes: Bytes that the node reads again: ``ScannedRequest/repeatedBytes``.
    ///   - templateTokensMax: The model's `template_tokens_max`, for each conversation.
    ///   - imageTokensMax: The model's `image_tokens_max`, for each image part.
    /// - Returns: Saturates at Int.max rather than wrap.
    package static func promptTokensMax(
        bodyBytes: Int, parts: ScannedRequest.ContentParts, repeatedBytes: Int = 0, templateTokensMax: Int,
        imageTokensMax: Int
    ) -> Int {
        func times(_ left: Int, _ right: Int) -> Int {
            let (product, overflow) = left.multipliedReportingOverflow(by: right)
            return overflow ? .max : product
        }
        func plus(_ left: Int, _ right: Int) -> Int {
            let (sum, overflow) = left.addingReportingOverflow(right)
            return overflow ? .max : sum
        }
        let template = times(parts.conversations, templateTokensMax)
        return plus(plus(plus(bodyBytes, repeatedBytes), template), times(parts.images, imageTokensMax))
    }

    /// The completion limit sent for a client that names none: `max_output_tokens`, less what the prompt needs of the
    /// context, because a node refuses what does not fit together although the client asked for nothing impossible.
    ///
    /// The room left is the prompt's bound while the answer keeps a quarter of the context; past that a prompt of half
    /// its bytes, which hardly any text exceeds. A prompt that fills the context gets 1, and the node judges it.
    package static func completionTokensDefault(
        maxOutputTokens: Int, contextTokens: Int?, bodyBytes: Int, promptTokensMax: Int
    ) -> Int {
        guard let contextTokens else { return maxOutputTokens }
        let (besideBound, overflow) = contextTokens.subtractingReportingOverflow(promptTokensMax)
        if !overflow, besideBound >= min(maxOutputTokens, contextTokens / 4) {
            return min(maxOutputTokens, besideBound)
        }
        let prompt = min(promptTokensMax, bodyBytes / 2)
        return max(1, min(maxOutputTokens, contextTokens - min(contextTokens, prompt)))
    }
    /// The same where the prompt was counted: its bound is near the truth, so what it leaves of the context is the answer's.
    ///
    /// - Parameter likelyTokens: The prompt with all that a template may add; what is gone by where the bound leaves no room.
    package static func completionTokensDefault(
        maxOutputTokens: Int, contextTokens: Int?, promptTokensMax: Int, likelyTokens: Int
    ) -> Int {
        guard let contextTokens else { return maxOutputTokens }
        let room = contextTokens - min(contextTokens, promptTokensMax)
        guard room < 1 else { return min(maxOutputTokens, room) }
        return max(1, min(maxOutputTokens, contextTokens - min(contextTokens, likelyTokens)))
    }
}

/// ``PromptEstimate/estimatePromptTokens(bodyBytes:)``.
package func estimatePromptTokens(bodyBytes: Int) -> Int { PromptEstimate.estimatePromptTokens(bodyBytes: bodyBytes) }

import Domain

/// What to bill: the node's word where it can be true, else the gateway's own count.
package struct UsageVerdict: Hashable, Sendable {
    package var usage: TokenUsage
    /// The ledger says so of the entry.
    package var isEstimated: Bool
    /// The node said what cannot be.
    package var isDistrusted: Bool

    package init(usage: TokenUsage, isEstimated: Bool, isDistrusted: Bool) {
        self.usage = usage
        self.isEstimated = isEstimated
        self.isDistrusted = isDistrusted
    }

    /// What the gateway knows of an answer by itself.
    package struct OwnCount: Hashable, Sendable {
        /// Whether anything was generated.
        package var hasContent: Bool
        /// Pieces of text that came one by one; each is a token at least. 0 where the answer came whole.
        package var textEvents: Int

        package init(hasContent: Bool, textEvents: Int) {
            self.hasContent = hasContent
            self.textEvents = textEvents
        }
    }

    /// How many pieces of text so many tokens can come in: a server may split the last token of a choice, when text that
    /// it held back turns out not to be a stop.
    package static func textEventsMax(completionTokens: Int, choices: Int) -> Int {
        let (sum, overflow) = completionTokens.addingReportingOverflow(choices)
        return overflow ? .max : sum
    }

    /// The longest text of one token, as JSON writes it: vocabularies have runs of 128 spaces and lines of 256 dashes,
    /// and escapes make up to six bytes of one.
    static let tokenBytesMax = 1_024
    /// What a plain answer takes for a token beside its text: twenty alternatives with their bytes, where
    /// `top_logprobs` asks for them.
    static let tokenDetailBytesMax = 15 << 10

    /// How much text so many tokens can come to, the prompt included where the node repeats it (`echo`). A node that
    /// sends more has generated past its limit, however few events it came in.
    package static func contentBytesMax(completionTokens: Int, choices: Int, bodyBytes: Int) -> Int {
        bytesMax(completionTokens, choices, bodyBytes, bytesPerToken: tokenBytesMax)
    }

    /// The same for a plain answer as a whole.
    ///
    /// - Parameter echoedTokens: Of the prompt, where the answer may tell about them, too.
    package static func answerBytesMax(
        completionTokens: Int, choices: Int, bodyBytes: Int, echoedTokens: Int = 0
    ) -> Int {
        let (echoed, overflow) = echoedTokens.multipliedReportingOverflow(by: choices)
        let (tokens, carry) = completionTokens.addingReportingOverflow(echoed)
        guard !overflow, !carry else { return .max }
        return bytesMax(tokens, choices, bodyBytes, bytesPerToken: tokenBytesMax + tokenDetailBytesMax)
    }

    private static func bytesMax(_ tokens: Int, _ choices: Int, _ bodyBytes: Int, bytesPerToken: Int) -> Int {
        let echoed = bodyBytes.multipliedReportingOverflow(by: 6)
        let pieces = textEventsMax(completionTokens: tokens, choices: choices)
        let text = pieces.multipliedReportingOverflow(by: bytesPerToken)
        let echoes = echoed.partialValue.multipliedReportingOverflow(by: choices)
        let (sum, overflow) = text.partialValue.addingReportingOverflow(echoes.partialValue)
        return echoed.overflow || text.overflow || echoes.overflow || overflow ? .max : sum
    }

    /// - Parameters:
    ///   - own: What the node's word is compared with.
    ///   - ownUsage: Billed where the node says nothing, or contradicts the bounds, its own answer or what is known of its
    ///     engine. Never above the bounds. Costs time, so it is asked for only then.
    ///   - choices: How many answers the request asked for, all prompts together.
    package static func judge(
        _ reported: ReportedUsage, own: OwnCount, promptTokensMax: Int, completionTokensMax: Int, generates: Bool,
        engine: Engine, choices: Int, prompts: Int, ownUsage: () -> TokenUsage
    ) -> UsageVerdict {
        var distrusted: UsageVerdict { UsageVerdict(usage: ownUsage(), isEstimated: true, isDistrusted: true) }
        switch reported {
        case .absent, .null: return UsageVerdict(usage: ownUsage(), isEstimated: true, isDistrusted: false)
        case .malformed: return distrusted
        case .value(let usage):
            guard usage.isPlausible(promptTokensMax: promptTokensMax, completionTokensMax: completionTokensMax) else {
                return distrusted
            }
            guard generates else { return UsageVerdict(usage: usage, isEstimated: false, isDistrusted: false) }
            // llama.cpp reports the tokens of one choice, whatever their number (measured).
            if engine == .llamacpp, choices > 1 {
                let own = ownUsage()
                var counted = prompts > 1 ? own : usage
                counted.completionTokens = max(usage.completionTokens, own.completionTokens)
                return UsageVerdict(usage: counted, isEstimated: true, isDistrusted: false)
            }
            let contradictsItself =
                own.hasContent && usage.completionTokens == 0
                || own.textEvents > textEventsMax(completionTokens: usage.completionTokens, choices: choices)
            guard !contradictsItself else { return distrusted }
            return UsageVerdict(usage: usage, isEstimated: false, isDistrusted: false)
        }
    }
}

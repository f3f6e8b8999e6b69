import Domain
import NIOCore
import OpenAIProtocol
import Tokenization

// How many tokens the prompt and the answer have, by the model's own vocabulary where the configuration names it.
extension Exchange {
    // MARK: Before

    /// Counts the prompt by the model's vocabulary.
    ///
    /// - Returns: nil where the model names none, and for comparisons, whose texts a node reads in pairs.
    func countPrompt(_ scanned: ScannedRequest, _ model: ModelEntry) -> PromptCount? {
        guard let tokenizer = model.tokenizer, scanned.endpoint.isCharged else { return nil }
        let counter = loop.promptCounter
        return body.withUnsafeReadableBytes { body in
            func part(_ span: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: body[span]) }
            var count: PromptCount
            switch scanned.endpoint {
            case .chatCompletions, .messages, .responses:
                count = counter.countConversation(part(scanned.promptSpan), by: tokenizer, newBytes: &newTextBytes)
            case .completions, .embeddings:
                count = counter.countPrompts(part(scanned.promptSpan), by: tokenizer, newBytes: &newTextBytes)
            default: return nil
            }
            for span in [scanned.systemSpan, scanned.toolsSpan].compactMap(\.self) {
                count.add(counter.countStructure(part(span), by: tokenizer, newBytes: &newTextBytes))
            }
            return count
        }
    }

    /// The likeliest number of tokens: for rates, for routing, and for what is charged where a node says nothing.
    func promptEstimate(_ scanned: ScannedRequest, _ model: ModelEntry, _ count: PromptCount?) -> Int {
        if let count {
            return count.textTokens + count.structuredTokens
                + model.promptLearning.overhead(of: count)
        }
        let features = promptFeatures(scanned)
        self.promptFeatures = features
        let (sum, overflow) = model.promptLearning.tokens(of: features)
            .addingReportingOverflow(estimatePromptTokens(bodyBytes: scanned.repeatedBytes))
        return overflow ? .max : sum
    }

    /// Tokens that the prompt is sure to have. None where the client, or the server of an embedding, has it cut to fit.
    func certainTokens(_ scanned: ScannedRequest, _ count: PromptCount?) -> Int {
        guard let count, scanned.endpoint.generates,
            !scanned.keyHashes.contains(where: Self.truncationKeys.contains)
        else { return 0 }
        return count.certainTokens
    }

    private static let truncationKeys = Set(["truncate_prompt_tokens", "truncation"].map { KeyHash.of($0) })
    /// Fields by which some templates put more into a prompt than its messages.
    private static let furtherPromptKeys = Set(["documents", "functions"].map { KeyHash.of($0) })

    /// What tells how many tokens the prompt has, whatever the vocabulary.
    private func promptFeatures(_ scanned: ScannedRequest) -> TextFeatures {
        body.withUnsafeReadableBytes { body in
            var features = TextFeatures()
            for span in [scanned.promptSpan, scanned.systemSpan, scanned.toolsSpan].compactMap(\.self) {
                features += TextFeatures(UnsafeRawBufferPointer(rebasing: body[span]))
            }
            features.messages = scanned.contentParts.messages
            return features
        }
    }

    // MARK: After

    /// What the gateway counted of the answer itself. Never above the bound.
    var ownCompletionTokens: Int {
        min(exactCompletionTokens ?? max(ownCount, deliveredTokens), completionTokensMax)
    }

    /// By the model's vocabulary; nil where there is none, or the answer is not at hand.
    private var exactCompletionTokens: Int? {
        guard let tokenizer = model?.tokenizer, scanned?.endpoint.generates == true else { return nil }
        if let relay {
            guard relay.keptEvents > 0 else { return nil }
            let text = relay.keptText.withUnsafeBytes { loop.promptCounter.countEscaped($0, by: tokenizer) }
            return text + relay.contentEvents - relay.keptEvents
        }
        guard largeAnswer == nil, heldAnswer.readableBytes > 0 else { return nil }
        return heldAnswer.withUnsafeReadableBytes { json in
            guard let scan = scanReply(json, dialect: dialect, collectsTexts: true), !scan.texts.isEmpty else {
                return nil
            }
            let texts = scan.texts.reduce(0) { sum, text in
                sum + loop.promptCounter.countEscaped(UnsafeRawBufferPointer(rebasing: json[text]), by: tokenizer)
            }
            // Calls of tools are no text; they count by their bytes.
            let rest = scan.contentBytes - scan.texts.reduce(0) { $0 + $1.count }
            return texts + estimatePromptTokens(bodyBytes: rest)
        }
    }

    /// A node's word on the prompt, believed: the template's own tokens are what it says beyond the texts.
    func learnPrompt(_ usage: TokenUsage) {
        guard let model, let scanned, scanned.contentParts.images == 0, scanned.repeatedBytes == 0,
            !scanned.keyHashes.contains(where: Self.furtherPromptKeys.contains)
        else { return }
        if let promptCount {
            model.promptLearning.reported(usage.promptTokens, for: promptCount)
        } else if let promptFeatures {
            model.promptLearning.reported(usage.promptTokens, for: promptFeatures)
        }
    }
}

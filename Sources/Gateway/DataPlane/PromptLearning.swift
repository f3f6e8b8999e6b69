import Domain
import Synchronization
import Tokenization

/// What is learned of prompts from the usage that nodes report, by model: what templates add to texts that were counted,
/// and how many tokens texts have where no vocabulary is known. Survives reloads.
package final class PromptLearning: Sendable {
    private struct Model {
        // ChatML and its like: three or four tokens around a message, three that open the answer.
        var conversations = TemplateOverhead(conversation: 4, message: 4)
        var prompts = TemplateOverhead(conversation: 1, message: 0)
        var estimator = TokenEstimator()
        var reports = 0
    }

    /// Once it has learned from as many as it remembers, the estimator is told of every eighth report only: it has nothing
    /// to catch up with, and each costs a request two microseconds.
    private static let learnedFully = TokenEstimator.requestsRemembered
    private static let reportsPerLesson = 8

    /// Models are those of the configuration, so their number is bounded by it.
    private let models = Mutex<[ModelID: Model]>([:])

    package init() {}

    /// Tokens beyond the texts of a prompt.
    func overhead(of model: ModelID, _ count: PromptCount) -> Int {
        let known = models.withLock { $0[model] } ?? Model()
        return count.messages > 0
            ? known.conversations.tokens(messages: count.messages)
            : known.prompts.tokens(messages: 0) * max(1, count.prompts)
    }

    /// The likeliest number of tokens, where no vocabulary is known.
    func tokens(of features: TextFeatures, _ model: ModelID) -> Int {
        models.withLock { $0[model, default: Model()].estimator.tokens(features) }
    }

    /// A node reported so many tokens for a prompt of these features.
    func reported(_ tokens: Int, for features: TextFeatures, of model: ModelID) {
        models.withLock { models in
            models[model, default: Model()].reports += 1
            let reports = models[model]?.reports ?? 0
            guard reports <= Self.learnedFully || reports.isMultiple(of: Self.reportsPerLesson) else { return }
            models[model]?.estimator.learn(features, tokens: tokens)
        }
    }

    /// A node reported so many tokens for a prompt that was counted.
    func reported(_ tokens: Int, for count: PromptCount, of model: ModelID) {
        guard count.isWhole, tokens >= count.textTokens else { return }
        let overhead = tokens - count.textTokens
        models.withLock { models in
            if count.messages > 0 {
                models[model, default: Model()].conversations.learn(overhead: overhead, messages: count.messages)
            } else {
                models[model, default: Model()].prompts.learn(overhead: overhead / max(1, count.prompts), messages: 0)
            }
        }
    }
}

import Domain
import Synchronization
import Tokenization

/// What is learned of prompts by model; survives reloads.
package final class PromptLearning: Sendable {
    /// All that this process was ever configured with: some 6 kB each.
    private let models = Mutex<[ModelID: ModelPromptLearning]>([:])

    package init() {}

    /// What is learned of one model, the same object each time.
    func model(_ id: ModelID) -> ModelPromptLearning {
        models.withLock { models in
            if let known = models[id] { return known }
            let new = ModelPromptLearning()
            models[id] = new
            return new
        }
    }
}

/// What is learned of one model's prompts from the usage that its nodes report: what templates add to texts that were
/// counted, and how many tokens texts have where no vocabulary is known.
final class ModelPromptLearning: Sendable {
    private struct Learned {
        // ChatML and its like: three or four tokens around a message, three that open the answer.
        var conversations = TemplateOverhead(conversation: 4, message: 4)
        var prompts = TemplateOverhead(conversation: 1, message: 0)
        var estimator = TokenEstimator()
        var reports = 0
    }

    /// Once it has learned from as many as it remembers, the estimator is told of every eighth report only: it has nothing
    /// to catch up with, and each costs a request most of a microsecond.
    private static let learnedFully = TokenEstimator.requestsRemembered
    private static let reportsPerLesson = 8

    private let learned = Mutex(Learned())

    init() {}

    /// Tokens beyond the texts of a prompt.
    func overhead(of count: PromptCount) -> Int {
        learned.withLock { learned in
            count.messages > 0
                ? learned.conversations.tokens(messages: count.messages)
                : learned.prompts.tokens(messages: 0) * max(1, count.prompts)
        }
    }

    /// The likeliest number of tokens, where no vocabulary is known.
    func tokens(of features: TextFeatures) -> Int {
        learned.withLock { $0.estimator.tokens(features) }
    }

    /// A node reported so many tokens for a prompt of these features.
    func reported(_ tokens: Int, for features: TextFeatures) {
        learned.withLock { learned in
            learned.reports += 1
            guard learned.reports <= Self.learnedFully || learned.reports.isMultiple(of: Self.reportsPerLesson) else {
                return
            }
            learned.estimator.learn(features, tokens: tokens)
        }
    }

    /// A node reported so many tokens for a prompt that was counted.
    func reported(_ tokens: Int, for count: PromptCount) {
        guard count.isWhole, tokens >= count.textTokens else { return }
        let overhead = tokens - count.textTokens
        learned.withLock { learned in
            if count.messages > 0 {
                learned.conversations.learn(overhead: overhead, messages: count.messages)
            } else {
                learned.prompts.learn(overhead: overhead / max(1, count.prompts), messages: 0)
            }
        }
    }
}

/// What a chat template adds to the texts of a conversation, learned from what nodes report.
///
/// Templates put a little before and after each message, and something around the whole: a + b x messages. Both are
/// fitted by least squares over the reports of late, each counting a little less than the one after it, with a weak
/// belief to begin with. No template is run, and none is known.
///
/// A model's own, one for conversations and one for bare prompts (where the first token is all that is added).
package struct TemplateOverhead: Hashable, Sendable {
    /// How much a report counts after the next one came: some 200 reports are remembered.
    private static let memory = 0.995
    /// How much the belief weighs, in reports.
    private static let beliefWeight = 0.05
    /// A report of more than this is not the template's doing.
    package static let tokensMax = 2_048
    /// Longer conversations would outweigh all others.
    private static let messagesMax = 256

    /// Sums over reports: weights, messages, overheads, and their products.
    private var weight, messages, overheads, messagesSquared, products: Double

    /// - Parameters:
    ///   - conversation: Tokens around the whole, to begin with.
    ///   - message: Tokens for each message, to begin with.
    package init(conversation: Double, message: Double) {
        let belief = Self.beliefWeight
        // Two points that lie on the line: one message and three.
        weight = 2 * belief
        messages = belief * 4
        messagesSquared = belief * 10
        overheads = belief * (2 * conversation + 4 * message)
        products = belief * (4 * conversation + 10 * message)
    }

    /// A node reported `overhead` tokens beyond the texts of a conversation of so many messages.
    package mutating func learn(overhead: Int, messages count: Int) {
        guard (0...Self.tokensMax).contains(overhead), count <= Self.messagesMax else { return }
        let m = Double(count)
        let o = Double(overhead)
        weight = weight * Self.memory + 1
        messages = messages * Self.memory + m
        messagesSquared = messagesSquared * Self.memory + m * m
        overheads = overheads * Self.memory + o
        products = products * Self.memory + m * o
    }

    /// The likeliest overhead of so many messages.
    package func tokens(messages count: Int) -> Int {
        let spread = weight * messagesSquared - messages * messages
        var slope = 0.0
        if spread > 1e-9 * weight * messagesSquared { slope = (weight * products - messages * overheads) / spread }
        let base = (overheads - slope * messages) / weight
        let tokens = base + slope * Double(count)
        return Int(min(Double(Self.tokensMax), max(0, tokens.rounded())))
    }
}

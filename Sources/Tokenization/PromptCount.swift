/// What is known of a prompt's tokens before a node has read it.
///
/// Three numbers, because three questions are asked of it. Limits and routing want the likeliest; a hold wants what
/// cannot be passed; and only what cannot be undercut may be refused as too long.
package struct PromptCount: Hashable, Sendable {
    /// Tokens of the texts, each by itself: exact by the vocabulary. What a template puts between them is not in it.
    package var textTokens = 0
    /// The bytes that those texts take in the body, escapes included. A bound that counts a token for each byte may count
    /// `textTokens` in their place.
    package var textBytes = 0
    /// Tokens of what stands in the prompt as JSON (tool calls, tools, schemas), counted as it was sent: templates print
    /// it with other blanks, so this is near and not exact. And of texts that were too long to count, by their bytes.
    package var structuredTokens = 0
    /// Of `textTokens`, those that no template leaves out: whole prompts, and what users and operators say, less what
    /// trimming and joining may save.
    package var certainTokens = 0
    /// Messages of a conversation; 0 where there is no template.
    package var messages = 0
    /// Prompts that are counted: more than one where a list was sent.
    package var prompts = 0
    /// Nothing but texts and token ids was met, so that with the template's own tokens the count is exact.
    package var isWhole = true

    package init() {}

    /// Of another part of the same prompt.
    package mutating func add(_ other: PromptCount) {
        textTokens += other.textTokens
        textBytes += other.textBytes
        structuredTokens += other.structuredTokens
        certainTokens += other.certainTokens
        messages += other.messages
        prompts += other.prompts
        isWhole = isWhole && other.isWhole
    }
}

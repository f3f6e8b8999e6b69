/// The closed set of pre-tokenizers: how text is cut into pieces before byte pairs are merged inside each.
///
/// The raw value is what `tokenizer: { file: F, pattern: NAME }` and `tokenize --pattern NAME` say.
package enum PretokenizerPattern: String, Sendable, CaseIterable {
    /// GPT-2's, also of r50k and p50k: letters, digits and the rest, each with a space before it.
    case gpt2
    /// cl100k's as tiktoken has it today: white space at the end of the text is one piece.
    case cl100k
    /// The one of GPT-4o, with upper and lower case and marks told apart.
    case o200k
    /// Llama 3's, in the order and wording of its `tokenizer.json`.
    case llama3
    /// Qwen 2 and 3: Llama 3's with single digits.
    case qwen2
    /// Mistral's tekken.
    case tekken
}

/// Which regular expression engine a file means: where their dialects differ, the same text cuts otherwise.
package enum RegexEngine: String, Sendable, CaseIterable {
    /// Rust's `fancy-regex`, of tiktoken, and so of tekken.
    case fancyRegex
    /// Oniguruma with its Ruby syntax, of Hugging Face's `tokenizers`.
    case oniguruma
}

extension PretokenizerPattern {
    /// The pattern that a regular expression means, if its text is one of those known, byte by byte.
    ///
    /// An expression that is equivalent but spelled otherwise is not recognized: equivalence is not to be guessed.
    /// - Parameters:
    ///   - regex: The expression as the file has it, escapes of JSON resolved.
    ///   - engine: The engine of the library that defines what the file means.
    package init?(regex: String, engine: RegexEngine) {
        guard let known = Self.spellings.first(where: { $0.text == regex && $0.engines.contains(engine) }) else {
            return nil
        }
        self = known.pattern
    }

    /// A regular expression that is known, and the engines in which it means `pattern`.
    package struct Spelling: Sendable {
        package var pattern: PretokenizerPattern
        package var engines: [RegexEngine] = RegexEngine.allCases
        package var text: String
    }

    // Parts, put together by interpolation: chains of `+` cost the type checker seconds.
    private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    private static let prefix = #"[^\r\n\p{L}\p{N}]?"#
    private static let head = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    private static let tail = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    private static let whitespace = #"\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Every text known. Tests/Tokens holds each against its engine.
    package static let spellings: [Spelling] = [
        // Of the GPT-2 release, and what `ByteLevel` of tokenizers uses by itself.
        Spelling(
            pattern: .gpt2, text: #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
        Spelling(
            pattern: .gpt2,
            text: #"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
        // tiktoken's, the older and the newer.
        Spelling(
            pattern: .gpt2, text: #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
        Spelling(
            pattern: .gpt2,
            text: #"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"#),
        // Oniguruma takes `{1,3}+` for `(?:{1,3})+`, digits without end.
        Spelling(
            pattern: .cl100k, engines: [.fancyRegex],
            text: #"""
                '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\#
                \s*[\r\n]|\s+(?!\S)|\s
                """#),
        // cl100k as it was before `\s++$` came in, which is what Llama 3 took over.
        Spelling(
            pattern: .llama3,
            text: #"""
                '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\#
                \s+(?!\S)|\s+
                """#),
        Spelling(
            pattern: .llama3,
            text: #"\#(contractions)|\#(prefix)\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\#(whitespace)"#),
        Spelling(
            pattern: .qwen2,
            text: #"\#(contractions)|\#(prefix)\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\#(whitespace)"#),
        Spelling(
            pattern: .o200k,
            text: #"""
                \#(prefix)\#(head)*\#(tail)+\#(contractions)?|\#(prefix)\#(head)+\#(tail)*\#(contractions)?|\#
                \p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\#(whitespace)
                """#),
        Spelling(
            pattern: .tekken,
            text: #"""
                \#(prefix)\#(head)*\#(tail)+|\#(prefix)\#(head)+\#(tail)*|\#
                \p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\#(whitespace)
                """#),
    ]
}

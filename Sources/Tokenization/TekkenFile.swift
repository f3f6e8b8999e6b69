import JSON

/// Reads Mistral's `tekken.json`: ranked tokens in base64, the pattern, and how many special tokens come before them.
enum TekkenFile {
    static func read(_ members: [String: JSONSection], _ file: JSONSection) throws(TokenizerError) -> Tokenizer {
        guard let configuration = members["config"], let vocabulary = members["vocab"] else {
            throw file.error(.malformed, "no config or no vocab")
        }
        let config = try configuration.value()
        guard let regex = config["pattern"]?.string else {
            throw configuration.error(.malformed, "no pattern")
        }
        guard let pattern = PretokenizerPattern(regex: regex, engine: .fancyRegex) else {
            throw configuration.error(.unsupported, "a pattern other than \(PretokenizerPattern.names): \(regex)")
        }
        guard let size = config["default_vocab_size"]?.integer,
            let specials = config["default_num_special_tokens"]?.integer,
            specials >= 0, size > specials, size < TokenizerLimits.idMax
        else {
            throw configuration.error(
                .malformed, "default_vocab_size and default_num_special_tokens must be 0 <= specials < size")
        }
        var builder = VocabularyBuilder(file: file.file)
        var token: [UInt8] = []
        var count = 0
        try vocabulary.forEachElement { (text, index, scanner) throws(SectionError) in
            let entry = try element(text, &scanner, into: &token)
            guard entry == index else { throw .said(.malformed, "element \(index) has rank \(entry)") }
            // A file has more tokens than its models use; the first ones are meant.
            guard index < size - specials else { return }
            do throws(TokenizerError) {
                try builder.add(Int64(index + specials), token, at: "vocab[\(index)]")
            } catch { throw .tokenizer(error) }
            count += 1
        }
        guard count == size - specials else {
            throw vocabulary.error(.malformed, "\(count) tokens, but default_vocab_size needs \(size - specials)")
        }
        let tables = try builder.ranked(firstID: UInt32(specials))
        return Tokenizer(
            tables, rules: TextRules(splitter: .pattern(Pretokenizer(pattern))), vocabularySize: builder.vocabularySize)
    }

    /// - Returns: The rank; the bytes are in `token`.
    private static func element(
        _ text: UnsafeRawBufferPointer, _ scanner: inout JSONScanner, into token: inout [UInt8]
    ) throws(SectionError) -> Int {
        guard try json({ () throws(JSONError) in try scanner.peek() }) == UInt8(ascii: "{") else {
            throw .said(.malformed, "an element is not an object")
        }
        try json { () throws(JSONError) in try scanner.enter() }
        var rank: Int64?
        var hasBytes = false
        var isFirst = true
        while let key = try json({ () throws(JSONError) in try scanner.nextMember(&isFirst) }) {
            let start = scanner.offset
            let span = try json { () throws(JSONError) in try scanner.value() }
            switch JSONDecoding.text(key, in: text) {
            case "rank": rank = JSONDecoding.integer(span, in: text)
            case "token_bytes":
                guard text[start] == UInt8(ascii: "\""), span.count >= 2 else { break }
                token.removeAll(keepingCapacity: true)
                hasBytes = Base64.decode(
                    UnsafeRawBufferPointer(rebasing: text[(span.lowerBound + 1)..<(span.upperBound - 1)]), into: &token)
            default: break
            }
        }
        guard let rank, let rank = Int(exactly: rank), hasBytes else {
            throw .said(.malformed, "an element has no rank, or no token_bytes in base64")
        }
        return rank
    }
}

import Synchronization

/// A vocabulary and the rules of its use: text in, token ids or their number out.
///
/// Loaded once, off the event loops, and shared by all of them: nothing in it changes after ``load(_:named:pattern:)``.
/// Ids are those of the library that defines the format: `tiktoken` for its own files, `mistral-common` for
/// `tekken.json`, Hugging Face `tokenizers` for `tokenizer.json`.
// SAFETY: unchecked because of the tables' pointers. They are written before `init` returns and only read after, and
// freed in `deinit`, when no one can call any more.
package final class Tokenizer: @unchecked Sendable {
    let vocabulary: Vocabulary
    let rules: TextRules
    /// Distinguishes this tokenizer in a ``TextCountCache``: a number of its own. Numbers are used again after 2^31
    /// loads.
    let cacheOwner: UInt32
    /// Ids that there are, gaps and special tokens included.
    package let vocabularySize: Int
    /// Ids that Hugging Face's `add_special_tokens=True` puts around one text; not among those that are counted here.
    package let specialsAdded: Int

    private static let loads = Atomic<UInt32>(0)

    init(_ vocabulary: Vocabulary, rules: TextRules, vocabularySize: Int, specialsAdded: Int = 0) {
        self.specialsAdded = specialsAdded
        self.vocabulary = vocabulary
        self.rules = rules
        self.vocabularySize = vocabularySize
        cacheOwner = Self.loads.wrappingAdd(1, ordering: .relaxed).newValue
    }

    deinit { vocabulary.deallocate() }

    /// Bytes of the tables, shared by all threads; each event loop's ``TokenizerScratch`` comes to that.
    package var memoryBytes: Int {
        vocabulary.memoryBytes + (rules.addedRaw?.memoryBytes ?? 0) + (rules.addedNormalized?.memoryBytes ?? 0)
    }

    /// The number of ids that ``encode(_:into:scratch:)`` would append.
    package func count(_ text: UnsafeRawBufferPointer, scratch: TokenizerScratch) -> Int {
        var encoder = PieceEncoder(vocabulary, scratch: scratch, sink: CountingSink())
        rules.encode(text, &encoder)
        scratch.giveBack()
        return encoder.sink.count
    }

    /// Appends the ids of `text`, which may be any bytes.
    ///
    /// Bytes that are not UTF-8 are taken as the format's library takes them: see ``TextRules``.
    package func encode(_ text: UnsafeRawBufferPointer, into ids: inout [UInt32], scratch: TokenizerScratch) {
        withUnsafeMutablePointer(to: &ids) { ids in
            let sink = WritingSink(output: scratch.output, ids: ids)
            var encoder = PieceEncoder(vocabulary, scratch: scratch, sink: sink)
            rules.encode(text, &encoder)
            encoder.sink.flush()
        }
        scratch.giveBack()
    }
}

extension Tokenizer {
    /// Reads a tokenizer file; its content says which of the formats it has.
    ///
    /// - Parameters:
    ///   - bytes: At most ``TokenizerLimits/fileBytesMax``.
    ///   - named: For messages.
    ///   - pattern: How text is cut into pieces. tiktoken files need it, the others say it themselves and refuse it.
    ///   - specialsAreText: For `tokenizer.json`: whether tokens that the file marks special are ordinary text where they
    ///     stand, as Hugging Face's `encode_special_tokens` has it. The other formats never look for special tokens.
    package static func load(
        _ bytes: UnsafeRawBufferPointer, named: String, pattern: PretokenizerPattern?, specialsAreText: Bool = false
    ) throws(TokenizerError) -> Tokenizer {
        guard bytes.count <= TokenizerLimits.fileBytesMax else {
            throw TokenizerError(
                .tooLarge, in: named, "\(bytes.count) bytes; at most \(TokenizerLimits.fileBytesMax)")
        }
        if TiktokenFile.recognises(bytes) { return try tiktoken(bytes, named, pattern) }
        let first = bytes.first { $0 != 0x20 && $0 != 0x0A && $0 != 0x0D && $0 != 0x09 }
        guard first == UInt8(ascii: "{") else {
            throw TokenizerError(.unsupported, in: named, "neither a tokenizer.json, a tekken.json nor a tiktoken file")
        }
        if let pattern {
            throw TokenizerError(.ambiguous, in: named, "the file has its own pattern; \(pattern.rawValue) was given")
        }
        let file = JSONSection(named, bytes)
        let members = try file.members()
        if members["model"] != nil {
            return try HuggingFaceFile.read(members, file, specialsAreText: specialsAreText)
        }
        if members["config"] != nil { return try TekkenFile.read(members, file) }
        throw TokenizerError(
            .unsupported, in: named, "neither a tokenizer.json (no model) nor a tekken.json (no config)")
    }

    private static func tiktoken(
        _ bytes: UnsafeRawBufferPointer, _ named: String, _ pattern: PretokenizerPattern?
    ) throws(TokenizerError) -> Tokenizer {
        guard let pattern else {
            throw TokenizerError(
                .ambiguous, in: named, "a tiktoken file needs a pattern, one of \(PretokenizerPattern.names)")
        }
        let builder = try TiktokenFile.read(bytes, named: named)
        let rules = TextRules(splitter: .pattern(Pretokenizer(pattern)), isTiktoken: true)
        return Tokenizer(try builder.ranked(firstID: 0), rules: rules, vocabularySize: builder.vocabularySize)
    }
}

extension PretokenizerPattern {
    /// All of them, for messages.
    static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }
}

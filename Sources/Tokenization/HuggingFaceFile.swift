import JSON

/// Reads a `tokenizer.json` of Hugging Face tokenizers.
///
/// Every member is either done, or without effect on the ids (`decoder`), or the file is refused: so is a member that is
/// not known.
enum HuggingFaceFile {
    static func read(
        _ members: [String: JSONSection], _ file: JSONSection, specialsAreText: Bool
    ) throws(TokenizerError) -> Tokenizer {
        let known: Set = [
            "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
            "decoder", "model",
        ]
        for name in members.keys.sorted() where !known.contains(name) {
            throw file.error(.unsupported, "the member \(name) is not known")
        }
        for name in ["truncation", "padding"] {
            if let section = members[name], !section.isNull { throw section.error(.unsupported, "must be null") }
        }
        guard let model = members["model"] else { throw file.error(.malformed, "no model") }
        var text = HuggingFaceText()
        if let section = members["normalizer"] { try text.normalize(section) }
        if let section = members["pre_tokenizer"] { try text.pretokenize(section) }
        let specialsAdded = try members["post_processor"].map(HuggingFaceText.specialsAdded) ?? 0
        let parsed = try HuggingFaceModel(model, bytes: text.isByteLevel, marksSpaces: text.marksSpaces)
        if parsed.ignoresMerges, case .pattern = text.splitter {
        } else if parsed.ignoresMerges {
            throw model.error(.unsupported, "ignore_merges without a pre-tokenizer that cuts text into words")
        }
        var rules = text.rules
        let added = try HuggingFaceAdded(members["added_tokens"], parsed)
        let raw = added.tokens.filter { !$0.isNormalized }
        // Contents are normalized as text is, since they are looked for in normalized text.
        let normalized = added.tokens.filter(\.isNormalized).compactMap { token -> AddedTokens.Token? in
            var token = token
            token.content = token.content.withUnsafeBytes { rules.normalized($0, isFirst: false) }
            return token.content.isEmpty ? nil : token
        }
        if !raw.isEmpty { rules.addedRaw = AddedTokens(raw, specialsAreText: specialsAreText) }
        if !normalized.isEmpty { rules.addedNormalized = AddedTokens(normalized, specialsAreText: specialsAreText) }
        let vocabulary = try parsed.vocabulary()
        return Tokenizer(
            vocabulary, rules: rules, vocabularySize: max(parsed.builder.vocabularySize, added.idEnd),
            specialsAdded: specialsAdded)
    }
}

/// What `normalizer` and `pre_tokenizer` ask for.
struct HuggingFaceText {
    private(set) var splitter = TextRules.Splitter.whole
    private(set) var isByteLevel = false
    private(set) var marksSpaces = false
    private var composes = false
    private var prefix = TextRules.Prefix.none
    private var steps = 0

    var rules: TextRules {
        TextRules(splitter: splitter, composes: composes, marksSpaces: marksSpaces, prefix: prefix)
    }

    // MARK: normalizer

    mutating func normalize(_ section: JSONSection) throws(TokenizerError) {
        try normalize(try section.value(), section)
    }

    private mutating func normalize(_ step: JSONValue, _ section: JSONSection) throws(TokenizerError) {
        if step.isNull { return }
        try count(section)
        switch step["type"]?.string {
        case "Sequence":
            guard let steps = step["normalizers"]?.array else { throw section.error(.malformed, "no normalizers") }
            try onlyMembers(["type", "normalizers"], of: step, section)
            for step in steps { try normalize(step, section) }
        case "NFC":
            try onlyMembers(["type"], of: step, section)
            // Nothing composes with a space or with U+2581, so it does not matter whether they were exchanged before.
            composes = true
        case "Replace":
            try onlyMembers(["type", "pattern", "content"], of: step, section)
            guard step["pattern"] == ["String": " "], step["content"]?.string == "\u{2581}" else {
                throw section.error(
                    .unsupported,
                    "Replace of \(described(step["pattern"])) by \(described(step["content"])); "
                        + "only that of a space by U+2581")
            }
            marksSpaces = true
        case "Prepend":
            try onlyMembers(["type", "prepend"], of: step, section)
            guard step["prepend"]?.string == "\u{2581}" else {
                throw section.error(.unsupported, "Prepend of \(described(step["prepend"])); only that of U+2581")
            }
            guard case .none = prefix else { throw section.error(.unsupported, "Prepend twice") }
            prefix = .always
        case let other:
            throw section.error(.unsupported, "the normalizer \(other ?? described(step))")
        }
    }

    // MARK: pre_tokenizer

    mutating func pretokenize(_ section: JSONSection) throws(TokenizerError) {
        let step = try section.value()
        if step.isNull { return }
        try count(section)
        guard step["type"]?.string == "Sequence" else { return try pretokenize([step], section) }
        try onlyMembers(["type", "pretokenizers"], of: step, section)
        guard let steps = step["pretokenizers"]?.array else { throw section.error(.malformed, "no pretokenizers") }
        for _ in steps { try count(section) }
        try pretokenize(steps, section)
    }

    private mutating func pretokenize(_ steps: [JSONValue], _ section: JSONSection) throws(TokenizerError) {
        var isCut = false
        for (index, step) in steps.enumerated() {
            switch step["type"]?.string {
            case "Split":
                // A space that the normalizer has replaced is never found.
                if step["pattern"] == ["String": " "], marksSpaces { continue }
                guard !isCut else { throw section.error(.unsupported, "a Split of what is already split") }
                splitter = .pattern(Pretokenizer(try split(step, section)))
                isCut = true
            case "ByteLevel":
                guard index == steps.count - 1 else { throw section.error(.unsupported, "a step after ByteLevel") }
                try byteLevel(step, isCut: isCut, section)
            case "Metaspace":
                guard !isCut, steps.count == 1 else { throw section.error(.unsupported, "Metaspace with other steps") }
                try metaspace(step, section)
            case let other:
                throw section.error(.unsupported, "the pre-tokenizer \(other ?? described(step))")
            }
        }
        if isCut, !isByteLevel { throw section.error(.unsupported, "Split without ByteLevel") }
    }

    private func split(_ step: JSONValue, _ section: JSONSection) throws(TokenizerError) -> PretokenizerPattern {
        try onlyMembers(["type", "pattern", "behavior", "invert"], of: step, section)
        // The expressions of the table match every character, so keeping only what is between matches, inverted, is the
        // same as keeping all.
        let behavior = step["behavior"]?.string
        guard (behavior == "Isolated" && step["invert"] == false) || (behavior == "Removed" && step["invert"] == true)
        else {
            throw section.error(
                .unsupported,
                "Split with the behavior \(described(step["behavior"])), invert \(described(step["invert"]))")
        }
        guard let regex = step["pattern"]?["Regex"]?.string,
            let pattern = PretokenizerPattern(regex: regex, engine: .oniguruma)
        else {
            throw section.error(
                .unsupported,
                "Split by a pattern other than \(PretokenizerPattern.names): \(described(step["pattern"]))")
        }
        return pattern
    }

    private mutating func byteLevel(_ step: JSONValue, isCut: Bool, _ section: JSONSection) throws(TokenizerError) {
        try onlyMembers(["type", "add_prefix_space", "trim_offsets", "use_regex"], of: step, section)
        guard !marksSpaces else { throw section.error(.unsupported, "ByteLevel where spaces are U+2581") }
        isByteLevel = true
        // Files older than the member have the regular expression.
        let usesRegex = step["use_regex"]?.bool ?? true
        let addsPrefix = step["add_prefix_space"]?.bool ?? false
        if isCut, usesRegex { throw section.error(.unsupported, "ByteLevel with use_regex after a Split") }
        if isCut, addsPrefix { throw section.error(.unsupported, "ByteLevel with add_prefix_space after a Split") }
        if usesRegex { splitter = .pattern(Pretokenizer(.gpt2)) }
        if addsPrefix { prefix = .unlessSpace }
    }

    private mutating func metaspace(_ step: JSONValue, _ section: JSONSection) throws(TokenizerError) {
        try onlyMembers(
            ["type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"], of: step, section)
        guard step["replacement"]?.string == "\u{2581}" else {
            throw section.error(.unsupported, "Metaspace with \(described(step["replacement"])); only with U+2581")
        }
        guard case .none = prefix else { throw section.error(.unsupported, "Metaspace after Prepend") }
        marksSpaces = true
        switch step["prepend_scheme"]?.string ?? (step["add_prefix_space"]?.bool == false ? "never" : "always") {
        case "always": prefix = .unlessSpace
        case "first": prefix = .unlessSpaceAtStart
        case "never": prefix = .none
        case let other: throw section.error(.malformed, "the prepend_scheme \(other)")
        }
        splitter = step["split"]?.bool ?? true ? .spaces : .whole
    }

    // MARK: post_processor

    /// How many ids the post-processor puts around one text.
    static func specialsAdded(_ section: JSONSection) throws(TokenizerError) -> Int {
        try specialsAdded(try section.value(), section)
    }

    private static func specialsAdded(_ step: JSONValue, _ section: JSONSection) throws(TokenizerError) -> Int {
        if step.isNull { return 0 }
        switch step["type"]?.string {
        case "ByteLevel": return 0
        case "BertProcessing", "RobertaProcessing": return 2
        case "Sequence":
            var sum = 0
            for step in step["processors"]?.array ?? [] { sum += try specialsAdded(step, section) }
            return sum
        case "TemplateProcessing":
            var sum = 0
            for piece in step["single"]?.array ?? [] {
                guard let name = piece["SpecialToken"]?["id"]?.string else { continue }
                guard let ids = step["special_tokens"]?[name]?["ids"]?.array else {
                    throw section.error(.malformed, "special_tokens lacks \(name)")
                }
                sum += ids.count
            }
            return sum
        case let other:
            throw section.error(.unsupported, "the post-processor \(other ?? "that has no type")")
        }
    }

    // MARK: Helpers

    private mutating func count(_ section: JSONSection) throws(TokenizerError) {
        steps += 1
        guard steps <= TokenizerLimits.stepsMax else {
            throw section.error(.tooLarge, "more than \(TokenizerLimits.stepsMax) steps")
        }
    }

    private func onlyMembers(
        _ known: [String], of step: JSONValue, _ section: JSONSection
    ) throws(TokenizerError) {
        for member in step.object ?? [] where !known.contains(member.key) {
            throw section.error(.unsupported, "\(step["type"]?.string ?? "a step") with \(member.key)")
        }
    }

    /// At most 300 bytes of a value, for a message.
    private func described(_ value: JSONValue?) -> String {
        guard let value else { return "nothing" }
        let text = value.string ?? value["Regex"]?.string ?? String(decoding: value.bytes, as: UTF8.self)
        return text.utf8.count <= 300 ? text : String(decoding: text.utf8.prefix(300), as: UTF8.self) + "..."
    }
}

/// `added_tokens`, with the ids that the library gives them: the one that the model has for the content, else the next
/// after the largest, whatever the file says.
struct HuggingFaceAdded {
    private(set) var tokens: [AddedTokens.Token] = []
    private(set) var idEnd = 0

    init(_ section: JSONSection?, _ model: HuggingFaceModel) throws(TokenizerError) {
        guard let section, !section.isNull else { return }
        var seen: Set<[UInt8]> = []
        var largest: Int?
        guard let elements = try section.value().array else { throw section.error(.malformed, "expected an array") }
        guard elements.count <= TokenizerLimits.addedTokensMax else {
            throw section.error(.tooLarge, "more than \(TokenizerLimits.addedTokensMax) tokens")
        }
        for (index, element) in elements.enumerated() {
            let known = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"]
            for member in element.object ?? [] where !known.contains(member.key) {
                throw section.error(.unsupported, "element \(index) with \(member.key)")
            }
            guard let content = element["content"]?.string else {
                throw section.error(.malformed, "element \(index) has no content")
            }
            let bytes = Array(content.utf8)
            guard bytes.count <= TokenizerLimits.addedTokenBytesMax else {
                throw section.error(
                    .tooLarge, "element \(index) has more than \(TokenizerLimits.addedTokenBytesMax) bytes")
            }
            guard !bytes.isEmpty, seen.insert(bytes).inserted else { continue }
            let size = model.tokenCount
            let next = largest.map { $0 >= size || size == 0 ? $0 + 1 : size } ?? size
            let id = model.id(ofAdded: bytes) ?? next
            largest = max(largest ?? 0, id)
            idEnd = max(idEnd, id + 1)
            let isSpecial = element["special"]?.bool ?? false
            tokens.append(
                AddedTokens.Token(
                    id: UInt32(id), content: bytes, stripsLeft: element["lstrip"]?.bool ?? false,
                    stripsRight: element["rstrip"]?.bool ?? false, isWord: element["single_word"]?.bool ?? false,
                    isNormalized: element["normalized"]?.bool ?? !isSpecial, isSpecial: isSpecial))
        }
    }
}

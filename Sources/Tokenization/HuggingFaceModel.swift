import JSON

/// `model` of a `tokenizer.json`: byte-pair encoding by a list of merges.
struct HuggingFaceModel {
    private(set) var builder: VocabularyBuilder
    /// Tokens of the vocabulary; ids may have gaps.
    private(set) var tokenCount = 0
    private(set) var ignoresMerges = false
    private let section: JSONSection
    private let isByteLevel: Bool
    private let marksSpaces: Bool
    private var mergesSection: JSONSection?
    private var fallsBackToBytes = false
    private var fusesUnknown = false
    private var unknownToken: [UInt8]?
    private var unknownID: UInt32?
    private var fallbackIDs = [UInt32](repeating: TokenTable.none, count: 256)
    /// Ids of tokens by their text in the file, as far as added tokens or `unk_token` may ask for them.
    private var named: [[UInt8]: UInt32] = [:]

    init(_ section: JSONSection, bytes isByteLevel: Bool, marksSpaces: Bool) throws(TokenizerError) {
        self.section = section
        self.isByteLevel = isByteLevel
        self.marksSpaces = marksSpaces
        builder = VocabularyBuilder(file: section.file)
        let members = try section.members()
        try readOptions(members)
        guard let vocabulary = members["vocab"], members["merges"] != nil else {
            throw section.error(.malformed, "no vocab or no merges")
        }
        mergesSection = members["merges"]
        try readTokens(vocabulary)
        if let unknownToken {
            unknownID = named[unknownToken]
            if unknownID == nil { throw section.error(.malformed, "unk_token is not in vocab") }
        }
    }

    func id(ofAdded content: [UInt8]) -> Int? { named[content].map { Int($0) } }

    private mutating func readOptions(_ members: [String: JSONSection]) throws(TokenizerError) {
        for (name, member) in members.sorted(by: { $0.key < $1.key }) where name != "vocab" && name != "merges" {
            let value = try member.value()
            switch name {
            case "type":
                guard value == "BPE" else { throw member.error(.unsupported, "\(value.string ?? "?"); only BPE") }
            case "dropout":
                guard value.isNull else { throw member.error(.unsupported, "must be null") }
            case "continuing_subword_prefix", "end_of_word_suffix":
                guard value.isNull || value == "" else { throw member.error(.unsupported, "must be empty") }
            case "unk_token":
                guard value.isNull || value.string != nil else { throw member.error(.malformed, "expected a string") }
                unknownToken = value.string.map { Array($0.utf8) }
            case "fuse_unk", "byte_fallback", "ignore_merges":
                guard let flag = value.bool else { throw member.error(.malformed, "expected true or false") }
                if name == "fuse_unk" { fusesUnknown = flag }
                if name == "byte_fallback" { fallsBackToBytes = flag }
                if name == "ignore_merges" { ignoresMerges = flag }
            default: throw member.error(.unsupported, "is not known")
            }
        }
        if members["type"] == nil { throw section.error(.malformed, "no type") }
    }

    // MARK: vocab

    private mutating func readTokens(_ section: JSONSection) throws(TokenizerError) {
        var builder = self.builder
        var named = self.named
        var count = 0
        try section.forEachMember { (text, key, scanner) throws(SectionError) in
            let content = UnsafeRawBufferPointer(rebasing: text[key.content])
            let bytes = key.isEscaped ? JSONDecoding.unescaped(content) : Array(content)
            let span = try json { () throws(JSONError) in try scanner.value() }
            guard let id = JSONDecoding.integer(span, in: text) else {
                throw .said(.malformed, "the id of token \(count) is not an integer")
            }
            count += 1
            do throws(TokenizerError) {
                let place = "the token with id \(id)"
                if let symbols = symbols(bytes) {
                    try builder.add(id, symbols, at: place)
                } else {
                    try builder.reserve(id, at: place)
                }
            } catch { throw .tokenizer(error) }
            named[bytes] = UInt32(id)
        }
        self.builder = builder
        self.named = named
        tokenCount = count
        guard named.count == count else { throw section.error(.malformed, "a token occurs twice") }
        if fallsBackToBytes, !isByteLevel { try readFallback(section) }
    }

    private mutating func readFallback(_ section: JSONSection) throws(TokenizerError) {
        for byte in 0..<256 {
            let hex = String(byte, radix: 16, uppercase: true)
            let name = "<0x\(byte < 16 ? "0" : "")\(hex)>"
            guard let id = named[Array(name.utf8)] else {
                throw section.error(.malformed, "byte_fallback without the token \(name)")
            }
            fallbackIDs[byte] = id
        }
    }

    /// The bytes of text that a token of the file stands for; nil where no text is ever turned into it by merging.
    private func symbols(_ token: [UInt8]) -> [UInt8]? {
        if isByteLevel { return ByteAlphabet.decode(token) }
        guard marksSpaces else { return token }
        // All spaces are U+2581 before tokens are looked for.
        if token.contains(UInt8(ascii: " ")) { return nil }
        var text = token
        let left = text.withUnsafeMutableBytes { SpaceMark.replace(in: $0) }
        text.removeLast(left)
        return text
    }

    // MARK: merges

    func vocabulary() throws(TokenizerError) -> Vocabulary {
        let kind: SymbolTable.Kind =
            if isByteLevel {
                .bytes
            } else if fallsBackToBytes {
                .charactersOrBytes
            } else {
                .characters(unknown: unknownID, fused: fusesUnknown)
            }
        var parts = try Parts(builder, kind)
        do throws(TokenizerError) {
            if isByteLevel { try parts.requireAllBytes(section.file) }
            if marksSpaces, parts.all.find([UInt8(ascii: " ")]) == TokenTable.none {
                throw section.error(.malformed, "spaces are U+2581, which is not in vocab")
            }
            for byte in 0..<256 { parts.symbols.fallback[byte] = fallbackIDs[byte] }
            parts.pairs = try readMerges(parts)
            let scratch = TokenizerScratch()
            var vocabulary = parts.vocabulary(scratch)
            if !ignoresMerges { parts.keepMadePieces(&vocabulary, scratch) }
            return vocabulary
        } catch {
            parts.deallocate()
            throw error
        }
    }

    private func readMerges(_ parts: Parts) throws(TokenizerError) -> PairTable {
        guard let mergesSection else { throw section.error(.malformed, "no merges") }
        var merges: [(left: UInt32, right: UInt32, rank: Int, result: UInt32)] = []
        var count = 0
        try mergesSection.forEachElement { (text, index, scanner) throws(SectionError) in
            guard index < TokenizerLimits.mergesMax else {
                throw .said(.tooLarge, "more than \(TokenizerLimits.mergesMax) merges")
            }
            count = index + 1
            let (left, right) = try Self.pair(text, index, &scanner)
            guard named[left] != nil, named[right] != nil, named[left + right] != nil else {
                throw .said(.malformed, "merge \(index) is of tokens, or makes one, that vocab does not have")
            }
            // A merge of what no text turns into never applies.
            guard let left = symbols(left), let right = symbols(right) else { return }
            let ids = (parts.all.find(left), parts.all.find(right), parts.all.find(left + right))
            guard ids.0 != TokenTable.none, ids.1 != TokenTable.none, ids.2 != TokenTable.none else { return }
            if fallsBackToBytes, !isByteLevel {
                for id in [ids.0, ids.1] where fallbackIDs.contains(id) {
                    throw .said(.unsupported, "merge \(index) is of a byte's token")
                }
            }
            if ids.0 == unknownID || ids.1 == unknownID {
                throw .said(.unsupported, "merge \(index) is of the unknown token")
            }
            merges.append((ids.0, ids.1, index, ids.2))
        }
        let pairs = PairTable(pairsMax: merges.count, rankCount: count, factor: .random(in: .min ... .max))
        for merge in merges { pairs.insert(merge.left, merge.right, rank: UInt32(merge.rank), result: merge.result) }
        return pairs
    }

    /// One merge, `"a b"` or `["a", "b"]`.
    private static func pair(
        _ text: UnsafeRawBufferPointer, _ index: Int, _ scanner: inout JSONScanner
    ) throws(SectionError) -> ([UInt8], [UInt8]) {
        func bytes(_ string: JSONString) -> [UInt8] {
            let content = UnsafeRawBufferPointer(rebasing: text[string.content])
            return string.isEscaped ? JSONDecoding.unescaped(content) : Array(content)
        }
        func next() throws(SectionError) -> JSONString {
            guard try json({ () throws(JSONError) in try scanner.peek() }) == UInt8(ascii: "\"") else {
                throw .said(.malformed, "merge \(index) is neither \"a b\" nor [\"a\", \"b\"]")
            }
            return try json { () throws(JSONError) in try scanner.string() }
        }
        guard try json({ () throws(JSONError) in try scanner.peek() }) == UInt8(ascii: "[") else {
            let both = bytes(try next())
            guard let space = both.firstIndex(of: UInt8(ascii: " ")), both.lastIndex(of: UInt8(ascii: " ")) == space
            else {
                throw .said(.malformed, "merge \(index) is not two tokens with a space between")
            }
            return (Array(both[..<space]), Array(both[(space + 1)...]))
        }
        try json { () throws(JSONError) in try scanner.enter() }
        var strings: [[UInt8]] = []
        var isFirst = true
        while try json({ () throws(JSONError) in try scanner.nextElement(&isFirst) }) {
            strings.append(bytes(try next()))
        }
        guard strings.count == 2 else { throw .said(.malformed, "merge \(index) is not of two tokens") }
        return (strings[0], strings[1])
    }
}

@testable import Tokenization

/// Vocabularies made up for tests, the files that say them, and the slow and plain judge of merging.
struct MadeUpVocabulary {
    /// By rank; the first 256 are the bytes.
    var tokens: [[UInt8]]
    /// The pair that each token after the bytes was made of.
    var merges: [([UInt8], [UInt8])] = []

    /// - Parameters:
    ///   - words: Bytes that tokens are made of.
    ///   - isShuffled: Whether a token may come before its parts.
    init(
        _ count: Int, of words: [UInt8], isShuffled: Bool = false, using generator: inout some RandomNumberGenerator
    ) {
        var made: [[UInt8]] = []
        var seen: Set<[UInt8]> = []
        var attempts = 0
        while made.count < count, attempts < count * 20 {
            attempts += 1
            let parts = (0..<2).map { _ in
                Bool.random(using: &generator) ? made.randomElement(using: &generator) : nil
            }.map { $0 ?? [words.randomElement(using: &generator) ?? 0] }
            guard parts[0].count + parts[1].count <= 24, seen.insert(parts[0] + parts[1]).inserted else { continue }
            made.append(parts[0] + parts[1])
            merges.append((parts[0], parts[1]))
        }
        if isShuffled { made.shuffle(using: &generator) }
        tokens = (0..<256).map { [UInt8($0)] } + made
    }

    /// The bytes, and these tokens after them.
    init(further: [String]) {
        tokens = (0..<256).map { [UInt8($0)] } + further.map { Array($0.utf8) }
    }

    var tiktoken: [UInt8] {
        Array(tokens.enumerated().map { "\(Self.base64($1)) \($0)\n" }.joined().utf8)
    }

    /// The same as a `tokenizer.json` of byte-level merges, in one of the two syntaxes.
    func huggingFace(asArrays: Bool, ignoresMerges: Bool = false, added: String = "[]") -> [UInt8] {
        let vocabulary = tokens.enumerated().map { "\(Self.quoted($1)):\($0)" }.joined(separator: ",")
        let merges = merges.map { left, right in
            asArrays
                ? "[\(Self.quoted(left)),\(Self.quoted(right))]"
                : "\"\(Self.characters(left)) \(Self.characters(right))\""
        }.joined(separator: ",")
        return Array(
            """
            {"version":"1.0","added_tokens":\(added),"normalizer":null,
            "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
            "model":{"type":"BPE","dropout":null,"ignore_merges":\(ignoresMerges),
            "vocab":{\(vocabulary)},"merges":[\(merges)]}}
            """.utf8)
    }

    /// What `tiktoken` does to one piece, by looking at every pair again after every merge.
    func encodedByRank(_ piece: [UInt8]) -> [UInt32] {
        var ranks: [[UInt8]: UInt32] = [:]
        for (rank, token) in tokens.enumerated() { ranks[token] = UInt32(rank) }
        if let whole = ranks[piece] { return [whole] }
        var parts = piece.map { [$0] }
        while let best = parts.indices.dropLast().compactMap({ place in
            ranks[parts[place] + parts[place + 1]].map { (rank: $0, place: place) }
        }).min(by: { ($0.rank, $0.place) < ($1.rank, $1.place) }) {
            parts.replaceSubrange(best.place...(best.place + 1), with: [parts[best.place] + parts[best.place + 1]])
        }
        return parts.compactMap { ranks[$0] }
    }

    /// What `tokenizers` does to one piece: merges in the order of their list.
    func encodedByMerges(_ piece: [UInt8]) -> [UInt32] {
        var parts = piece.map { [$0] }
        for (left, right) in merges {
            var place = 0
            while place + 1 < parts.count {
                if parts[place] == left, parts[place + 1] == right {
                    parts.replaceSubrange(place...(place + 1), with: [left + right])
                }
                place += 1
            }
        }
        return parts.compactMap { part in tokens.firstIndex(of: part).map { UInt32($0) } }
    }

    static func base64(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        var text = ""
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var word: UInt32 = 0
            for index in 0..<3 { word = word << 8 | UInt32(group.dropFirst(index).first ?? 0) }
            for digit in 0..<4 {
                text.append(digit <= group.count ? alphabet[Int(word >> UInt32(18 - 6 * digit) & 63)] : "=")
            }
        }
        return text
    }

    /// GPT-2's characters for bytes.
    static func characters(_ bytes: [UInt8]) -> String {
        var others: [UInt8] = []
        for byte in UInt8.min...UInt8.max {
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: break
            default: others.append(byte)
            }
        }
        var text = String.UnicodeScalarView()
        for byte in bytes {
            let scalar = others.firstIndex(of: byte).map { 0x100 + UInt32($0) } ?? UInt32(byte)
            text.append(Unicode.Scalar(scalar) ?? "?")
        }
        return String(text)
    }

    private static func quoted(_ bytes: [UInt8]) -> String {
        "\"" + characters(bytes).map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() + "\""
    }
}

func load(
    _ file: [UInt8], pattern: PretokenizerPattern? = nil, specialsAreText: Bool = false
) throws(TokenizerError) -> Tokenizer {
    let loaded = file.withUnsafeBytes { bytes in
        Result { () throws(TokenizerError) in
            try Tokenizer.load(bytes, named: "file", pattern: pattern, specialsAreText: specialsAreText)
        }
    }
    return try loaded.get()
}

extension Tokenizer {
    func ids(_ text: [UInt8], _ scratch: TokenizerScratch = TokenizerScratch()) -> [UInt32] {
        var ids: [UInt32] = []
        text.withUnsafeBytes { encode($0, into: &ids, scratch: scratch) }
        return ids
    }

    func ids(_ text: String) -> [UInt32] { ids(Array(text.utf8)) }

    func number(_ text: [UInt8], _ scratch: TokenizerScratch = TokenizerScratch()) -> Int {
        text.withUnsafeBytes { count($0, scratch: scratch) }
    }
}

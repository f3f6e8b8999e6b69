import Domain
import Tokenization

/// Any bytes as a tokenizer file: refused with words, or a tokenizer that counts as it encodes.
enum TokenizerFileTarget {
    private static let samples = ["Hello, world", "  12345\r\n\n", "日本語 nai\u{308}ve 🏳️‍🌈", "<|a|><s>", "\u{0}\u{FFFD}"]

    static func finding(in bytes: UnsafeRawBufferPointer) -> String? {
        for pattern in [PretokenizerPattern.cl100k, nil] {
            let tokenizer: Tokenizer
            do throws(TokenizerError) {
                tokenizer = try Tokenizer.load(bytes, named: "file", pattern: pattern)
            } catch {
                if error.message.isEmpty { return "refused without a word" }
                continue
            }
            let scratch = TokenizerScratch()
            for sample in samples {
                let text = Array(sample.utf8)
                var ids: [UInt32] = []
                let count = text.withUnsafeBytes { text in
                    tokenizer.encode(text, into: &ids, scratch: scratch)
                    return tokenizer.count(text, scratch: scratch)
                }
                if count != ids.count { return "\(sample) has \(ids.count) ids and counts \(count)" }
                if let id = ids.first(where: { Int($0) >= tokenizer.vocabularySize }) {
                    return "\(sample) has the id \(id) of \(tokenizer.vocabularySize)"
                }
            }
        }
        return nil
    }
}

/// Any bytes as text, through a vocabulary made up here: against merging as slowly and plainly as it can be done.
enum TokenizerTextTarget {
    private struct Subject: Sendable {
        let pattern: PretokenizerPattern
        let tokenizer: Tokenizer?
    }

    /// Longer pieces are not judged: the judge looks at every pair again after every merge.
    private static let judgedBytesMax = 256

    /// By rank; the first 256 are the bytes. Most are joined of two before them, some of nothing that is there.
    private static let tokens: [[UInt8]] = {
        var tokens = (UInt8.min...UInt8.max).map { [$0] }
        var seen = Set(tokens)
        let alphabet = ["a", "e", "th", "in", " ", "  ", "1", "é", "日", "\n", "\r\n", "'s", "A", "\u{301}", "🏳"]
        var random = SplitMix64(seed: 2_026)
        while tokens.count < 800 {
            let parts = (0..<2).map { _ in
                random.below(3) == 0
                    ? Array(alphabet[random.below(alphabet.count)].utf8) : tokens[random.below(tokens.count)]
            }
            let token = parts[0] + parts[1]
            if token.count <= 24, seen.insert(token).inserted { tokens.append(token) }
        }
        return tokens
    }()

    private static let ranks: [[UInt8]: UInt32] = Dictionary(
        uniqueKeysWithValues: tokens.enumerated().map { ($1, UInt32($0)) })

    private static let subjects: [Subject] = PretokenizerPattern.allCases.map { pattern in
        let file = Array(tokens.enumerated().map { "\(base64($1)) \($0)\n" }.joined().utf8)
        let tokenizer = file.withUnsafeBytes { try? Tokenizer.load($0, named: "made up", pattern: pattern) }
        return Subject(pattern: pattern, tokenizer: tokenizer)
    }

    static func finding(in bytes: UnsafeRawBufferPointer) -> String? {
        // One for all: its caches take longer to clear than most inputs to judge, and what they learned changes nothing.
        let scratch = TokenizerScratch()
        for subject in subjects {
            guard let tokenizer = subject.tokenizer else { return "the vocabulary was refused" }
            var ids: [UInt32] = []
            tokenizer.encode(bytes, into: &ids, scratch: scratch)
            for _ in 0..<2 where tokenizer.count(bytes, scratch: scratch) != ids.count {
                return "\(subject.pattern): \(ids.count) ids, counted otherwise"
            }
            guard Array(ids.map { tokens[Int($0)] }.joined()).elementsEqual(bytes) else {
                return "\(subject.pattern): the ids do not say the text"
            }
            guard String(validating: bytes, as: UTF8.self) != nil else { continue }
            if let place = difference(ids, bytes, subject, scratch) {
                return "\(subject.pattern): at byte \(place)"
            }
        }
        return nil
    }

    /// Where the first piece begins whose ids are not the judge's.
    private static func difference(
        _ ids: [UInt32], _ text: UnsafeRawBufferPointer, _ subject: Subject, _ scratch: TokenizerScratch
    ) -> Int? {
        let pretokenizer = Pretokenizer(subject.pattern)
        var rest = ids[...]
        var start = 0
        while start < text.count {
            let end = pretokenizer.end(in: text, from: start)
            guard end > start, end <= text.count else { return start }
            let piece = Array(text[start..<end])
            guard piece.count <= judgedBytesMax else {
                rest = rest.dropFirst(
                    subject.tokenizer?.count(UnsafeRawBufferPointer(rebasing: text[start..<end]), scratch: scratch) ?? 0
                )
                start = end
                continue
            }
            let expected = merged(piece)
            guard rest.starts(with: expected) else { return start }
            rest = rest.dropFirst(expected.count)
            start = end
        }
        return rest.isEmpty ? nil : start
    }

    private static func merged(_ piece: [UInt8]) -> [UInt32] {
        if let whole = ranks[piece] { return [whole] }
        var parts = piece.map { [$0] }
        while true {
            var best: (rank: UInt32, place: Int)?
            for place in parts.indices.dropLast() {
                guard let rank = ranks[parts[place] + parts[place + 1]], best.map({ rank < $0.rank }) ?? true else {
                    continue
                }
                best = (rank, place)
            }
            guard let best else { break }
            parts[best.place] += parts.remove(at: best.place + 1)
        }
        return parts.compactMap { ranks[$0] }
    }

    private static func base64(_ bytes: [UInt8]) -> String {
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
}

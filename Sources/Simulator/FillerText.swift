import Domain

/// The text that a simulated node answers with: a word a token, a pure function of a seed and the token's index, so that
/// nothing generated needs keeping until it can be written.
struct FillerText {
    /// Sixty-four words, each with its leading space, none with a character that JSON escapes.
    private static let words = """
        the power of a node and its load in one site that runs at night when wind is cheap so each request finds some \
        free memory near by while others wait for their turn then tokens flow out step after as batch grows slower but \
        still fair to all who ask with care until it ends here or there on time every day again
        """.split(separator: " ").map { " " + $0 }

    let seed: UInt64
    /// What stands in front of the words, a token each: an answer whose text is prescribed.
    var fixed: [String] = []

    /// The text of one token.
    func token(_ index: Int) -> String {
        if index < fixed.count { return fixed[index] }
        return Self.words[Int(SplitMix64.mix(seed &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15) & 63)]
    }

    /// A prescribed text as tokens of at most four bytes, each whole characters.
    static func pieces(of text: String) -> [String] {
        var pieces: [String] = []
        var piece = ""
        for scalar in text.unicodeScalars {
            if piece.utf8.count + UTF8.width(scalar) > PromptTokens.bytesPerToken {
                pieces.append(piece)
                piece = ""
            }
            piece.unicodeScalars.append(scalar)
        }
        if !piece.isEmpty { pieces.append(piece) }
        return pieces
    }

    /// Where a stop string ends the text.
    struct Stop: Equatable {
        /// Tokens generated, the one that completes the stop string included.
        var tokens: Int
        /// Bytes of text before the stop string.
        var visibleBytes: Int
        var text: String
    }

    /// The first stop string that a text of so many tokens contains.
    /// - Parameter tokensMin: A stop string that is complete earlier is passed over, as vLLM does for `min_tokens`.
    func stop(at stops: [String], tokens: Int, tokensMin: Int) -> Stop? {
        let patterns = stops.map { Array($0.utf8) }.filter { !$0.isEmpty }
        guard let longest = patterns.map(\.count).max() else { return nil }
        var text: [UInt8] = []
        for index in 0..<tokens {
            let before = text.count
            text.append(contentsOf: token(index).utf8)
            guard index + 1 >= tokensMin else { continue }
            for start in max(0, before - longest + 1)..<text.count {
                // Only what this token completes: the rest was looked at before.
                let match = patterns.first { pattern in
                    start + pattern.count > before && text[start...].starts(with: pattern)
                }
                guard let match else { continue }
                return Stop(tokens: index + 1, visibleBytes: start, text: String(decoding: match, as: UTF8.self))
            }
        }
        return nil
    }
}

/// How long answers are where the request does not say: log-normal, as measured lengths are.
///
/// The median of 128 tokens and the mean of 192 (sigma 0.9) lie near those of the Azure 2023 conversation trace (129 and
/// 211 there); the tail is heavier (p99 about 1,040 against 601), so that long answers occur in short tests.
struct AnswerLength {
    static let medianTokens = 128.0
    /// Of the logarithm.
    static let sigma = 0.9
    static let tokensMax = 8_192

    static func draw(using generator: inout SplitMix64) -> Int {
        // The sum of twelve uniform draws less six is close enough to normal, and the same on every machine.
        var normal = -6.0
        for _ in 0..<12 { normal += generator.unit() }
        return max(1, min(tokensMax, Int(medianTokens * exponential(sigma * normal))))
    }

    /// e^x for |x| < 6, without a maths library: (1 + x/2^k + ...)^(2^k) by Taylor's series on x/64.
    private static func exponential(_ value: Double) -> Double {
        let small = value / 64
        var result = 1 + small * (1 + small / 2 * (1 + small / 3 * (1 + small / 4 * (1 + small / 5))))
        for _ in 0..<6 { result *= result }
        return result
    }
}

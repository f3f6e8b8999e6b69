import Domain

/// Random texts from a seed: the same seed, the same texts.
struct TextGenerator: RandomNumberGenerator {
    private var random: SplitMix64

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    mutating func next() -> UInt64 { random.next() }

    /// Alphabets that tell classes apart where expressions do, and look alike where they do not.
    static let alphabets: [[Unicode.Scalar]] = [
        " \n\r\t'", "  \n\r\t\u{A0}\u{85}\u{2028}\u{3000}\u{1680}\u{200B}a1!", "'sStTrReEvVmMlLdDx\u{17F}\u{212A} ",
        "aAbB\u{1C5}\u{2B0}\u{4E2D}\u{301}\u{903} '!",
        "aZ\u{DF}\u{130}\u{131}\u{1C5}\u{2B0}\u{E01}\u{4E2D}\u{301}\u{20DD} \n'",
        "\u{FE0F}\u{200D}\u{200C}1\u{661}\u{BD}\u{2167}a \n.'/-", "0123456789\u{660}\u{9E6}\u{B2}\u{2460} a.,",
        "!?./\\-_=+*\r\n/ a\u{301}\u{A0}", "\u{1F600}\u{1F469}\u{200D}\u{1F4BB}\u{1F3FD}\u{20E3}\u{E0020}\u{E0100} 1a#",
        "\u{180E}\u{FEFF}\u{200B}\u{2060}\u{AD}\u{0}\u{1F}\u{7F} a1\n",
        "\u{E000}\u{F0000}\u{10FFFF}\u{FFFE}\u{FFFD} aA1'\n",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ '", "\u{410}\u{430}\u{451}\u{391}\u{3B1}\u{301} 'sS",
    ].map { (text: String) in Array(text.unicodeScalars) }

    /// Up to fourteen characters of one alphabet or all, each up to nine times.
    mutating func text() -> String {
        let all = Self.alphabets.flatMap { $0 }
        let alphabet =
            UInt8.random(in: 0..<4, using: &self) == 0 ? all : Self.alphabets.randomElement(using: &self) ?? all
        var text = String.UnicodeScalarView()
        for _ in 0..<Int.random(in: 1...14, using: &self) {
            let count = [1, 1, 1, 1, 2, 3, 9].randomElement(using: &self) ?? 1
            text.append(contentsOf: repeatElement(alphabet.randomElement(using: &self) ?? "a", count: count))
        }
        return String(text)
    }

    /// Bytes of which many begin, continue or break UTF-8 sequences.
    mutating func bytes() -> [UInt8] {
        let edges: [UInt8] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ]
        let mayBeAny = Bool.random(using: &self)
        return (0..<Int.random(in: 0...40, using: &self)).map { _ in
            if mayBeAny, Bool.random(using: &self) { return UInt8.random(in: 0...255, using: &self) }
            return edges.randomElement(using: &self) ?? 0
        }
    }
}

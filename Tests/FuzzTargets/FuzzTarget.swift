import Domain

/// What is fuzzed. Each target takes any bytes and says what is wrong with what our code made of them; a crash is a
/// finding by itself.
package enum FuzzTarget: String, CaseIterable, Sendable {
    /// The JSON scanner and the request scanner against Foundation's `JSONSerialization`.
    case json
    /// Server-sent events: the scanner and the relay.
    case stream
    /// The parser of nodes' answers.
    case response
    /// A client's bytes: the decoder, the head that we read of it, and the framing of bodies.
    case front
    /// A tokenizer's file, of any of the formats.
    case vocabulary
    /// A text, through a vocabulary.
    case text

    /// - Returns: nil where all is as it should be.
    package func finding(in bytes: UnsafeRawBufferPointer) -> String? {
        switch self {
        case .json: JSONTarget.finding(in: bytes)
        case .stream: StreamTarget.finding(in: Array(bytes))
        case .response: ResponseTarget.finding(in: Array(bytes))
        case .front: FrontTarget.finding(in: Array(bytes))
        case .vocabulary: TokenizerFileTarget.finding(in: bytes)
        case .text: TokenizerTextTarget.finding(in: bytes)
        }
    }
}

/// Ways to cut an input into pieces: whole, byte by byte where it is not too long for that, between CR and LF, and one by
/// chance, which the input alone decides so that a finding repeats.
enum Cuts {
    static let bytewiseMax = 2_048

    static func of(_ bytes: [UInt8]) -> [[[UInt8]]] {
        guard bytes.count > 1 else { return [[bytes]] }
        var cuts = [[bytes]]
        if bytes.count <= bytewiseMax { cuts.append(bytes.map { [$0] }) }
        var random = SplitMix64(seed: bytes.reduce(UInt64(bytes.count)) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 })
        var pieces: [[UInt8]] = []
        var start = 0
        while start < bytes.count {
            let end = min(bytes.count, start + 1 + random.below(max(2, bytes.count / 3)))
            pieces.append(Array(bytes[start..<end]))
            start = end
        }
        cuts.append(pieces)
        // Between CR and LF, where parsers that look ahead go wrong.
        pieces = []
        start = 0
        for index in bytes.indices where bytes[index] == 0x0D {
            pieces.append(Array(bytes[start...index]))
            start = index + 1
        }
        if start < bytes.count { pieces.append(Array(bytes[start...])) }
        cuts.append(pieces)
        return cuts
    }

    /// The first cut whose outcome differs from that of the whole.
    static func difference<Outcome: Equatable>(_ bytes: [UInt8], _ outcome: ([[UInt8]]) -> Outcome) -> String? {
        let whole = outcome([bytes])
        for pieces in of(bytes).dropFirst() {
            let other = outcome(pieces)
            guard other != whole else { continue }
            return "cut into \(pieces.prefix(16).map(\.count)) it is \(other), whole it is \(whole)"
        }
        return nil
    }
}

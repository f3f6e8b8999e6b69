/// Finds added tokens in text, as the `AddedVocabulary` of Hugging Face tokenizers does: from left to right, at each
/// place the longest, never two over the same bytes.
///
/// A trie in three arrays. Most text holds no such token, so each place is first tried in a table of the pairs of bytes
/// that some token starts with. A place costs at most as many steps as the longest token has bytes.
final class AddedTokens {
    struct Token: Hashable, Sendable {
        var id: UInt32
        var content: [UInt8]
        /// Takes the whitespace before it, or after it.
        var stripsLeft = false
        var stripsRight = false
        /// Only where no letter, digit or underscore stands beside it.
        var isWord = false
        /// Found in the text after normalization.
        var isNormalized = false
        var isSpecial = false
    }

    struct Match {
        /// The token's bytes with the whitespace that it takes.
        var span: Range<Int>
        var id: UInt32
    }

    private struct Node {
        var firstChild: UInt32
        var childCount: UInt32
        /// An index into `tokens`, or `none`.
        var token: UInt32
        var byte: UInt8
    }

    private static let none = UInt32.max
    private let tokens: [Token]
    /// Level by level, the children of a node side by side.
    private let nodes: [Node]
    // SAFETY: 1024 words, a bit for each pair of bytes; freed in `deinit`, never changed after `init`.
    private let starts: UnsafeMutablePointer<UInt64>
    private let shortest: Int
    /// Whether tokens marked special are taken as ordinary text where they stand.
    private let specialsAreText: Bool

    /// - Parameter tokens: None is empty. Where two have the same content, the first is meant.
    init(_ tokens: [Token], specialsAreText: Bool) {
        self.tokens = tokens
        self.specialsAreText = specialsAreText
        shortest = tokens.reduce(Int.max) { min($0, $1.content.count) }
        starts = .allocate(capacity: 1024)
        starts.initialize(repeating: 0, count: 1024)
        for token in tokens {
            let first = Int(token.content[0]) << 8
            let seconds = token.content.count > 1 ? Int(token.content[1])...Int(token.content[1]) : 0...255
            for second in seconds { starts[(first | second) >> 6] |= 1 << UInt64((first | second) & 63) }
        }
        nodes = Self.trie(tokens)
    }

    deinit { starts.deallocate() }

    var memoryBytes: Int {
        8192 + nodes.count * MemoryLayout<Node>.stride + tokens.reduce(0) { $0 + $1.content.count + 48 }
    }

    /// The children of a node are a range of tokens, sorted, that have its bytes in common.
    private static func trie(_ tokens: [Token]) -> [Node] {
        let order = tokens.indices.sorted { left, right in
            tokens[left].content == tokens[right].content
                ? left < right : tokens[left].content.lexicographicallyPrecedes(tokens[right].content)
        }
        var nodes = [Node(firstChild: 0, childCount: 0, token: none, byte: 0)]
        var pending = [(node: 0, depth: 0, range: 0..<order.count)]
        var next = 0
        while next < pending.count {
            let (node, depth, range) = pending[next]
            next += 1
            var at = range.lowerBound
            while at < range.upperBound, tokens[order[at]].content.count == depth {
                if nodes[node].token == none { nodes[node].token = UInt32(order[at]) }
                at += 1
            }
            nodes[node].firstChild = UInt32(nodes.count)
            while at < range.upperBound {
                let byte = tokens[order[at]].content[depth]
                let start = at
                while at < range.upperBound, tokens[order[at]].content[depth] == byte { at += 1 }
                pending.append((nodes.count, depth + 1, start..<at))
                nodes.append(Node(firstChild: 0, childCount: 0, token: none, byte: byte))
                nodes[node].childCount += 1
            }
        }
        return nodes
    }

    /// The first token at or after `start`.
    ///
    /// - Parameters:
    ///   - text: Valid UTF-8.
    ///   - start: Where to look from; moved past the match found, without the whitespace it takes.
    ///   - taken: Up to where the match before this one reaches.
    func next(in text: UnsafeRawBufferPointer, from start: inout Int, taken: Int) -> Match? {
        guard let base = text.baseAddress, !tokens.isEmpty else { return nil }
        let last = text.count - shortest
        while start <= last {
            let first = Int(base.load(fromByteOffset: start, as: UInt8.self)) &<< 8
            let second = start &+ 1 < text.count ? Int(base.load(fromByteOffset: start &+ 1, as: UInt8.self)) : 0
            let pair = first | second
            guard starts[pair &>> 6] &>> UInt64(truncatingIfNeeded: pair & 63) & 1 != 0,
                let token = longest(in: text, at: start)
            else {
                start &+= 1
                continue
            }
            let found = start..<(start + token.content.count)
            start = found.upperBound
            if specialsAreText, token.isSpecial { continue }
            if token.isWord,
                WordBoundary.isWord(before: found.lowerBound, in: text)
                    || WordBoundary.isWord(after: found.upperBound, in: text)
            {
                continue
            }
            var span = found
            if token.stripsLeft {
                let low = WordBoundary.whitespaceStart(before: found.lowerBound, in: text)
                span = min(max(low, taken), found.upperBound)..<found.upperBound
            }
            if token.stripsRight {
                span = span.lowerBound..<WordBoundary.whitespaceEnd(after: found.upperBound, in: text)
            }
            return Match(span: span, id: token.id)
        }
        start = text.count
        return nil
    }

    private func longest(in text: UnsafeRawBufferPointer, at start: Int) -> Token? {
        var node = 0
        var at = start
        var found = Self.none
        descent: while true {
            if nodes[node].token != Self.none { found = nodes[node].token }
            guard at < text.count else { break }
            let byte = text[at]
            let first = Int(nodes[node].firstChild)
            for child in first..<(first + Int(nodes[node].childCount)) where nodes[child].byte == byte {
                node = child
                at += 1
                continue descent
            }
            break
        }
        return found == Self.none ? nil : tokens[Int(found)]
    }
}

/// What stands beside an added token, as the regular expressions `\w` and `\s` see it.
///
/// Rare enough that the standard library's Unicode tables are asked; their version may be another than the reference's,
/// which matters only to characters that Unicode added in between.
enum WordBoundary {
    static func isWord(before end: Int, in text: UnsafeRawBufferPointer) -> Bool {
        guard let scalar = scalar(before: end, in: text) else { return false }
        return isWord(scalar)
    }

    static func isWord(after start: Int, in text: UnsafeRawBufferPointer) -> Bool {
        guard let scalar = scalar(after: start, in: text) else { return false }
        return isWord(scalar)
    }

    /// Where the whitespace that ends at `end` starts.
    static func whitespaceStart(before end: Int, in text: UnsafeRawBufferPointer) -> Int {
        var at = end
        while let scalar = scalar(before: at, in: text), scalar.properties.isWhitespace { at -= UTF8.width(scalar) }
        return at
    }

    static func whitespaceEnd(after start: Int, in text: UnsafeRawBufferPointer) -> Int {
        var at = start
        while let scalar = scalar(after: at, in: text), scalar.properties.isWhitespace { at += UTF8.width(scalar) }
        return at
    }

    /// Unicode Technical Standard 18, annex C.
    private static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.properties.isAlphabetic || scalar.properties.isJoinControl { return true }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: return true
        default: return false
        }
    }

    private static func scalar(before end: Int, in text: UnsafeRawBufferPointer) -> Unicode.Scalar? {
        guard end > 0 else { return nil }
        var start = end - 1
        while start > 0, end - start < 4, text[start] & 0xC0 == 0x80 { start -= 1 }
        return scalar(after: start, in: text)
    }

    private static func scalar(after start: Int, in text: UnsafeRawBufferPointer) -> Unicode.Scalar? {
        guard start < text.count else { return nil }
        var iterator = text[start..<min(start + 4, text.count)].makeIterator()
        var decoder = UTF8()
        guard case .scalarValue(let scalar) = decoder.decode(&iterator) else { return nil }
        return scalar
    }
}

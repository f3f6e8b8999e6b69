/// A backtracking matcher of the regular expressions that pre-tokenizers use: slow, and as plainly right as can be.
///
/// Alternatives are tried in order, greedy repetitions longest first; a possessive one keeps its first match.
struct SlowRegex {
    private indirect enum Node {
        case scalar((Unicode.Scalar) -> Bool)
        case sequence([Node])
        case choice([Node])
        case repetition(Node, atLeast: Int, atMost: Int, isPossessive: Bool)
        case notAhead(Node)
        case textEnd
    }

    private let root: Node

    init(_ text: String) {
        var parser = Parser(rest: Array(text.unicodeScalars)[...])
        root = parser.choice(folding: false)
        precondition(parser.rest.isEmpty, "not understood: \(String(String.UnicodeScalarView(parser.rest)))")
    }

    /// The ends of the pieces, in UTF-8 bytes; nil if some part of the text does not match.
    func pieceEnds(_ text: String) -> [Int]? {
        let scalars = Array(text.unicodeScalars)
        var (ends, position, bytes) = ([Int](), 0, 0)
        while position < scalars.count {
            guard let end = match(root, scalars, position, { $0 }), end > position else { return nil }
            bytes += scalars[position..<end].reduce(0) { $0 + UTF8.width($1) }
            ends.append(bytes)
            position = end
        }
        return ends
    }

    private func match(
        _ node: Node, _ text: [Unicode.Scalar], _ position: Int, _ then: (Int) -> Int?
    ) -> Int? {
        switch node {
        case .scalar(let accepts):
            return position < text.count && accepts(text[position]) ? then(position + 1) : nil
        case .sequence(let nodes):
            guard let first = nodes.first else { return then(position) }
            return match(first, text, position) { match(.sequence(Array(nodes.dropFirst())), text, $0, then) }
        case .choice(let nodes):
            for node in nodes {
                if let end = match(node, text, position, then) { return end }
            }
            return nil
        case .repetition(let node, let atLeast, let atMost, true):
            let greedy = Node.repetition(node, atLeast: atLeast, atMost: atMost, isPossessive: false)
            return match(greedy, text, position, { $0 }).flatMap(then)
        case .repetition(let node, let atLeast, let atMost, false):
            if atMost > 0 {
                let longer = match(node, text, position) { next in
                    next == position
                        ? nil
                        : match(
                            .repetition(
                                node, atLeast: max(0, atLeast - 1), atMost: atMost - 1, isPossessive: false),
                            text, next, then)
                }
                if let longer { return longer }
            }
            return atLeast == 0 ? then(position) : nil
        case .notAhead(let node): return match(node, text, position, { $0 }) == nil ? then(position) : nil
        case .textEnd: return position == text.count ? then(position) : nil
        }
    }

    private struct Parser {
        var rest: ArraySlice<Unicode.Scalar>

        mutating func skip(_ text: String) -> Bool {
            guard rest.starts(with: text.unicodeScalars) else { return false }
            rest = rest.dropFirst(text.unicodeScalars.count)
            return true
        }

        mutating func choice(folding: Bool) -> Node {
            var nodes = [sequence(folding: folding)]
            while skip("|") { nodes.append(sequence(folding: folding)) }
            return .choice(nodes)
        }

        private mutating func sequence(folding: Bool) -> Node {
            var nodes: [Node] = []
            while let next = rest.first, next != "|", next != ")" { nodes.append(quantified(atom(folding: folding))) }
            return .sequence(nodes)
        }

        private mutating func quantified(_ node: Node) -> Node {
            let bounds: (Int, Int)
            if skip("{1,3}") {
                bounds = (1, 3)
            } else if skip("+") {
                bounds = (1, .max)
            } else if skip("*") {
                bounds = (0, .max)
            } else if skip("?") {
                bounds = (0, 1)
            } else {
                return node
            }
            return .repetition(node, atLeast: bounds.0, atMost: bounds.1, isPossessive: skip("+"))
        }

        private mutating func atom(folding: Bool) -> Node {
            for (opening, folds) in [("(?i:", true), ("(?:", folding), ("(?!", folding)] where skip(opening) {
                let inner = choice(folding: folds)
                precondition(skip(")"))
                return opening == "(?!" ? .notAhead(inner) : inner
            }
            if skip("$") { return .textEnd }
            if skip("[") {
                let isNegated = skip("^")
                var members: [(Unicode.Scalar) -> Bool] = []
                while !skip("]") { members.append(member(folding: folding)) }
                let accepted = members
                return .scalar { scalar in accepted.contains { $0(scalar) } != isNegated }
            }
            return .scalar(member(folding: folding))
        }

        private mutating func member(folding: Bool) -> (Unicode.Scalar) -> Bool {
            if skip(#"\s"#) { return \.properties.isWhitespace }
            if skip(#"\S"#) { return { !$0.properties.isWhitespace } }
            if skip(#"\r"#) { return { $0 == "\r" } }
            if skip(#"\n"#) { return { $0 == "\n" } }
            if skip(#"\p{"#) {
                let name = String(String.UnicodeScalarView(rest.prefix { $0 != "}" }))
                rest = rest.dropFirst(name.unicodeScalars.count + 1)
                return { Self.abbreviation(of: $0).hasPrefix(name) }
            }
            let literal = rest.removeFirst()
            precondition(literal != "\\" && literal != "(")
            return folding ? { Self.folded($0) == Self.folded(literal) } : { $0 == literal }
        }

        private static func folded(_ scalar: Unicode.Scalar) -> String {
            scalar.properties.uppercaseMapping.lowercased()
        }

        /// The short name of the general category, as far as the expressions ask.
        private static func abbreviation(of scalar: Unicode.Scalar) -> String {
            switch scalar.properties.generalCategory {
            case .uppercaseLetter: "Lu"
            case .lowercaseLetter: "Ll"
            case .titlecaseLetter: "Lt"
            case .modifierLetter: "Lm"
            case .otherLetter: "Lo"
            case .nonspacingMark, .spacingMark, .enclosingMark: "M"
            case .decimalNumber, .letterNumber, .otherNumber: "N"
            default: "-"
            }
        }
    }
}

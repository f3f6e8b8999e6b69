import Domain
import Support

/// Random JSON texts: every construct of the grammar, with odd whitespace, escapes and characters.
struct RandomJSON {
    var numbers: SplitMix64

    init(seed: UInt64) { numbers = SplitMix64(seed: seed) }

    mutating func document(depth: Int = 5) -> String { space() + value(depth) + space() }

    mutating func value(_ depth: Int) -> String {
        switch numbers.below(depth > 0 ? 9 : 6) {
        case 0: return numbers.pick(["true", "false", "null"])
        case 1, 2: return number()
        case 3, 4, 5: return string()
        case 6:
            let elements = (0..<numbers.below(5)).map { _ in space() + value(depth - 1) + space() }
            return "[" + (elements.isEmpty ? space() : elements.joined(separator: ",")) + "]"
        default:
            // Keys differ, since what a parser does with equal ones is not the grammar's.
            let members = (0..<numbers.below(5)).map { index in
                "\(space())\"k\(index)\(numbers.pick(["", "é", "\\n", "\\u0041"]))\"\(space()):\(space())\(value(depth - 1))"
            }
            return "{" + (members.isEmpty ? space() : members.joined(separator: ",")) + "}"
        }
    }

    mutating func string() -> String {
        let pieces = [
            "a", "hello world ", "x", "é", "漢字", "🙂", "\\n", "\\\"", "\\\\", "\\/", "\\u00e9", "\\uD83D\\uDE42",
            "\u{7F}",
            "plain text that is longer than a word of eight bytes", "\\t", "'", "{", "]", ":", ",", "\u{10FFFF}",
            "\\u0000",
        ]
        return "\"" + (0..<numbers.below(6)).map { _ in numbers.pick(pieces) }.joined() + "\""
    }

    mutating func number() -> String {
        let whole = numbers.pick(["0", "-0", "1", "-12", "123456", "9007199254740993", "-1"])
        return whole + numbers.pick(["", "", "", ".5", ".0", ".125"]) + numbers.pick(["", "", "", "e1", "E-2", "e+3"])
    }

    mutating func space() -> String { numbers.pick(["", "", "", " ", "\n", "\t \r\n", "          "]) }

    /// One to three small harms.
    mutating func mutated(_ text: String) -> [UInt8] {
        var bytes = Array(text.utf8)
        let poison: [UInt8] =
            Array("\"\\{}[]:,-+.eE019tfnu \n\t/x".utf8) + [0, 0x1F, 0x7F, 0x80, 0xBF, 0xC0, 0xED, 0xF5]
        for _ in 0...numbers.below(3) {
            let at = numbers.below(bytes.count + 1)
            switch numbers.below(5) {
            case 0: bytes.insert(numbers.pick(poison), at: at)
            case 1 where at < bytes.count: bytes.remove(at: at)
            case 2 where at < bytes.count: bytes[at] = numbers.pick(poison)
            case 3: bytes.removeSubrange(at...)
            default:
                let end = min(bytes.count, at + numbers.below(8))
                bytes.insert(contentsOf: bytes[at..<end], at: numbers.below(bytes.count + 1))
            }
        }
        return bytes
    }
}

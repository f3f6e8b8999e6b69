import JSON
import Yams

/// A YAML value as JSON, for fields that go to nodes as they are.
///
/// Quoted scalars are strings. Plain ones are `null`, `true`, `false`, or a number where they are one as JSON writes it,
/// whose digits are kept; whatever readers of YAML disagree about (`.5`, `0x10`, `yes`, a date) has to be quoted.
struct ConfigurationJSON {
    private(set) var bytes: [UInt8] = []
    private let bytesMax: Int
    private let depthMax: Int

    init(bytesMax: Int, depthMax: Int) {
        self.bytesMax = bytesMax
        self.depthMax = depthMax
    }

    /// - Parameter interpolate: Puts variables in; nil where that is a problem, which is noted then.
    /// - Throws: What is wrong; an empty message where `interpolate` has noted it.
    mutating func write(
        _ node: Node, depth: Int = 0, interpolate: (String) -> String?
    ) throws(UnitFailure) {
        guard depth < depthMax else { throw UnitFailure("is nested deeper than \(depthMax) levels") }
        switch node {
        case .scalar(let scalar):
            guard let text = interpolate(scalar.string) else { throw UnitFailure("") }
            try write(scalar: text, as: scalar.string, isPlain: scalar.style == .plain || scalar.style == .any)
        case .sequence(let sequence):
            bytes.append(UInt8(ascii: "["))
            for (index, element) in sequence.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                try write(element, depth: depth + 1, interpolate: interpolate)
            }
            bytes.append(UInt8(ascii: "]"))
        case .mapping(let mapping):
            bytes.append(UInt8(ascii: "{"))
            for (index, (key, value)) in mapping.enumerated() {
                guard case .scalar(let name) = key else { throw UnitFailure("has a key that is not a word") }
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                JSONWriter.append(escaping: name.string, to: &bytes)
                bytes.append(UInt8(ascii: ":"))
                try write(value, depth: depth + 1, interpolate: interpolate)
            }
            bytes.append(UInt8(ascii: "}"))
        case .alias:
            throw UnitFailure("refers to another value by an alias: write the value")
        }
        guard bytes.count <= bytesMax else { throw UnitFailure("is longer than \(bytesMax) bytes as JSON") }
    }

    /// - Parameter written: As the file has it, for problems: what a variable holds is not shown.
    private mutating func write(scalar text: String, as written: String, isPlain: Bool) throws(UnitFailure) {
        guard isPlain else { return JSONWriter.append(escaping: text, to: &bytes) }
        switch text {
        case "", "~", "null", "Null", "NULL": bytes += Array("null".utf8)
        case "true", "false": bytes += Array(text.utf8)
        case _ where Self.isNumber(text): bytes += Array(text.utf8)
        case _ where Self.isAmbiguous(text):
            throw UnitFailure(
                "\"\(written.prefix(64))\" is read differently by different readers: write a number as JSON does, "
                    + "true or false, or quote it to send text")
        default: JSONWriter.append(escaping: text, to: &bytes)
        }
    }

    private static func isNumber(_ text: String) -> Bool {
        text.wholeMatch(of: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/) != nil
    }

    private static func isAmbiguous(_ text: String) -> Bool {
        let words: Set<String> = ["yes", "no", "on", "off", "y", "n", "true", "false", ".inf", ".nan"]
        return words.contains(text.lowercased()) || text.firstMatch(of: /^[-+.]*[0-9]/) != nil
    }
}

/// One reply of a Redis server in RESP2.
///
/// Bytes stay bytes: whether they are text is the caller's knowledge. 17 bytes wide, so an array of integers is compact.
package enum RESPValue: Hashable, Sendable {
    /// `+OK`: a line without CR or LF.
    case simpleString([UInt8])
    case bulkString([UInt8])
    case integer(Int64)
    case array([RESPValue])
    /// Both the null bulk string and the null array.
    case null
    /// An error inside an array (a failed command of a transaction). An error that is the whole reply reaches callers as
    /// ``RedisError/server(code:message:)``.
    case error(RedisServerError)

    package static let ok = RESPValue.simpleString(Array("OK".utf8))

    /// The bytes of a simple or bulk string; nil for every other kind.
    package var bytes: [UInt8]? {
        switch self {
        case .simpleString(let bytes), .bulkString(let bytes): bytes
        case .integer, .array, .null, .error: nil
        }
    }

    /// A simple or bulk string as text, ill-formed UTF-8 repaired; nil for every other kind.
    package var string: String? {
        bytes.map { String(decoding: $0, as: UTF8.self) }
    }

    /// An integer reply, or a string of decimal digits as hashes and scripts return them; nil for everything else,
    /// numbers past 64 bits included.
    package var int64: Int64? {
        switch self {
        case .integer(let value):
            return value
        case .simpleString(let bytes), .bulkString(let bytes):
            guard bytes.first != UInt8(ascii: "+"), bytes.count <= 20 else { return nil }
            return Int64(String(decoding: bytes, as: UTF8.self))
        case .array, .null, .error:
            return nil
        }
    }

    package var array: [RESPValue]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    package var isNull: Bool { self == .null }
}

/// What a Redis server says when it refuses a command: `WRONGTYPE Operation against a key ...`.
package struct RedisServerError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What stands before the arguments that Redis repeats when it does not know a command (a renamed `AUTH`, say).
    private static let echoMark = ", with args"

    /// The whole line, code included, but without the arguments that it may repeat: they can be secrets.
    package let text: String

    package init(_ text: String) {
        var kept = text[...]
        while !kept.isEmpty {
            if kept.hasPrefix(Self.echoMark) { break }
            kept.removeFirst()
        }
        self.text = kept.isEmpty ? text : String(text[..<kept.startIndex])
    }

    /// The first word where it is written in capitals (`ERR`, `NOSCRIPT`, `READONLY`), as Redis's convention has it;
    /// `ERR` where a script invented a line without one.
    package var code: String {
        let word = text.utf8.prefix { $0 != UInt8(ascii: " ") }
        let isCode =
            !word.isEmpty
            && word.allSatisfy {
                switch $0 {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "_"):
                    true
                default: false
                }
            }
        return isCode ? String(Substring(word)) : "ERR"
    }

    /// What follows the code.
    package var message: String {
        let code = code
        guard text.utf8.starts(with: code.utf8) else { return text }
        return String(text.dropFirst(code.count).drop { $0 == " " })
    }

    package var description: String { text }
}

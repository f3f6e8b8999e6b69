/// Bounds on what the scanner and the document parser accept.
package enum JSONLimits {
    /// Containers inside each other. A node's recursive parser must not be driven deeper by what passed here; it is
    /// also the width of the scanner's bit stack, so it cannot grow past 64.
    package static let depthMax = 64
    /// Bytes of a document that ``JSONValue`` parses, unless the caller says less.
    package static let documentBytesMax = 8 << 20
    /// Bytes of a number. Longer ones are refused by some parsers and turned into infinity by others.
    package static let numberBytesMax = 512
}

/// Where a text stops being JSON, and what should have stood there.
package struct JSONError: Error, Hashable, Sendable {
    package enum Reason: Hashable, Sendable {
        case expectedValue
        case expectedKey
        case expectedColon
        case expectedCommaOrBrace
        case expectedCommaOrBracket
        case unexpectedEnd
        case controlByte
        case badEscape
        case loneSurrogate
        case invalidUTF8
        case badNumber
        case badLiteral
        case tooDeep
        case trailingBytes
        case duplicateKey
        case tooLong
    }

    package let reason: Reason
    /// Bytes from the start of the text to the first byte that does not fit.
    package let offset: Int

    package init(_ reason: Reason, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    /// For people: what is wrong, in words that fit after "at byte N: ".
    package var explanation: String {
        switch reason {
        case .expectedValue: "expected a value"
        case .expectedKey: "expected a key in double quotes"
        case .expectedColon: "expected ':' after the key"
        case .expectedCommaOrBrace: "expected ',' or '}'"
        case .expectedCommaOrBracket: "expected ',' or ']'"
        case .unexpectedEnd: "the text ends too early"
        case .controlByte: "control characters in a string must be escaped"
        case .badEscape: "expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX"
        case .loneSurrogate: "a \\u surrogate must be one of a pair"
        case .invalidUTF8: "the text must be valid UTF-8"
        case .badNumber: "expected a number such as 1, -0.5 or 1e3"
        case .badLiteral: "expected true, false or null"
        case .tooDeep: "more than \(JSONLimits.depthMax) objects and arrays inside each other"
        case .trailingBytes: "expected nothing after the value"
        case .duplicateKey: "the key occurs twice"
        case .tooLong: "the text is too long"
        }
    }
}

/// A cursor over the bytes of a JSON text that checks the whole grammar of RFC 8259 as it moves.
///
/// The gateway and the node behind it must never read one body differently, so nothing is skipped unchecked: UTF-8,
/// escapes, surrogate pairs, numbers, literals and depth are all validated. Stricter than the RFC demands in three
/// points, each a place where parsers differ: lone surrogates, more than ``JSONLimits/depthMax`` levels, and numbers
/// of more than ``JSONLimits/numberBytesMax`` bytes.
///
/// Strings are most of a body. They are searched 8 bytes at a time for the first byte that is a quote, a backslash, a
/// control character or not ASCII (see ``firstSpecial(in:)``); everything else goes byte by byte.
///
/// Duplicate keys are the caller's business: it sees each key through ``nextMember(_:)``.
package struct JSONScanner {
    // SAFETY: the pointer is borrowed from the buffer given to `init` and is valid as long as that buffer; a scanner
    // never outlives the closure or call that lent the buffer. Every load is preceded by a check against `count`.
    @usableFromInline let base: UnsafeRawPointer
    @usableFromInline let count: Int
    /// Where the cursor stands.
    package internal(set) var offset: Int
    /// Containers that the cursor is inside of.
    package private(set) var depth = 0

    package init(_ text: UnsafeRawBufferPointer) {
        // An empty buffer may have no address; it is never loaded from, since count is 0.
        base = text.baseAddress ?? UnsafeRawPointer(bitPattern: 8).unsafelyUnwrapped
        count = text.count
        offset = 0
    }

    // MARK: Moving through containers

    /// The next byte that is not whitespace, without taking it.
    @inlinable
    package mutating func peek() throws(JSONError) -> UInt8 {
        // Mostly there is no whitespace at all.
        if offset < count {
            let next = byte(offset)
            if next > UInt8(ascii: " ") { return next }
        }
        return try peekPastWhitespace()
    }

    @usableFromInline
    mutating func peekPastWhitespace() throws(JSONError) -> UInt8 {
        skipWhitespace()
        guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
        return byte(offset)
    }

    /// Takes `{` or `[`, which ``peek()`` has just seen.
    package mutating func enter() throws(JSONError) {
        guard depth < JSONLimits.depthMax else { throw JSONError(.tooDeep, at: offset) }
        depth += 1
        offset += 1
    }

    /// Moves to the next member of the object entered: its key and colon are taken, the cursor stands at the value.
    ///
    /// - Parameter isFirst: True for the first call after ``enter()``; set to false here.
    /// - Returns: The key, or nil at `}`, which is then taken.
    package mutating func nextMember(_ isFirst: inout Bool) throws(JSONError) -> JSONString? {
        var next = try peek()
        if next == UInt8(ascii: "}") {
            depth -= 1
            offset += 1
            isFirst = false
            return nil
        }
        if isFirst {
            isFirst = false
        } else {
            guard next == UInt8(ascii: ",") else { throw JSONError(.expectedCommaOrBrace, at: offset) }
            offset += 1
            next = try peek()
        }
        guard next == UInt8(ascii: "\"") else { throw JSONError(.expectedKey, at: offset) }
        let key = try string()
        guard try peek() == UInt8(ascii: ":") else { throw JSONError(.expectedColon, at: offset) }
        offset += 1
        _ = try peek()
        return key
    }

    /// Moves to the next element of the array entered.
    ///
    /// - Parameter isFirst: True for the first call after ``enter()``; set to false here.
    /// - Returns: False at `]`, which is then taken.
    package mutating func nextElement(_ isFirst: inout Bool) throws(JSONError) -> Bool {
        let next = try peek()
        if next == UInt8(ascii: "]") {
            depth -= 1
            offset += 1
            isFirst = false
            return false
        }
        if isFirst {
            isFirst = false
        } else {
            guard next == UInt8(ascii: ",") else { throw JSONError(.expectedCommaOrBracket, at: offset) }
            offset += 1
            if try peek() == UInt8(ascii: "]") { throw JSONError(.expectedValue, at: offset) }
        }
        return true
    }

    /// Takes one value of any kind, with the whitespace before it.
    ///
    /// - Returns: The bytes of the value, without whitespace around it.
    @discardableResult
    package mutating func value() throws(JSONError) -> Range<Int> {
        _ = try peek()
        let start = offset
        try skipNested()
        return start..<offset
    }

    /// Takes the string that ``peek()`` has just seen the quote of.
    package mutating func string() throws(JSONError) -> JSONString {
        let start = offset + 1
        let escaped = try skipString()
        return JSONString(content: start..<(offset - 1), isEscaped: escaped)
    }

    /// Checks that nothing but whitespace is left.
    package mutating func finish() throws(JSONError) {
        skipWhitespace()
        guard offset == count else { throw JSONError(.trailingBytes, at: offset) }
    }

    // MARK: The grammar

    /// Takes one value, iteratively: a stack of 64 bits says which of the open containers are objects.
    private mutating func skipNested() throws(JSONError) {
        let allowed = JSONLimits.depthMax - depth
        var kinds: UInt64 = 0
        var level = 0
        while true {
            // Here the cursor stands at the first byte of a value.
            guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
            switch byte(offset) {
            case UInt8(ascii: "\""):
                _ = try skipString()
            case UInt8(ascii: "{"):
                guard level < allowed else { throw JSONError(.tooDeep, at: offset) }
                offset += 1
                skipWhitespace()
                guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
                if byte(offset) == UInt8(ascii: "}") {
                    offset += 1
                } else {
                    kinds = kinds << 1 | 1
                    level += 1
                    try skipKey()
                    continue
                }
            case UInt8(ascii: "["):
                guard level < allowed else { throw JSONError(.tooDeep, at: offset) }
                offset += 1
                skipWhitespace()
                guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
                if byte(offset) == UInt8(ascii: "]") {
                    offset += 1
                } else {
                    kinds = kinds << 1
                    level += 1
                    continue
                }
            case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                try skipNumber()
            case UInt8(ascii: "t"):
                try skipLiteral("true")
            case UInt8(ascii: "f"):
                try skipLiteral("false")
            case UInt8(ascii: "n"):
                try skipLiteral("null")
            default:
                throw JSONError(.expectedValue, at: offset)
            }
            // A value ends here: close what closes, then go to the next value or stop.
            while true {
                if level == 0 { return }
                skipWhitespace()
                guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
                let next = byte(offset)
                let isObject = kinds & 1 == 1
                if next == UInt8(ascii: ",") {
                    offset += 1
                    skipWhitespace()
                    if isObject { try skipKey() }
                    break
                }
                guard next == (isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) else {
                    throw JSONError(isObject ? .expectedCommaOrBrace : .expectedCommaOrBracket, at: offset)
                }
                offset += 1
                kinds >>= 1
                level -= 1
            }
        }
    }

    /// Takes a key, its colon and the whitespace around it.
    @inline(__always)
    private mutating func skipKey() throws(JSONError) {
        guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
        guard byte(offset) == UInt8(ascii: "\"") else { throw JSONError(.expectedKey, at: offset) }
        _ = try skipString()
        skipWhitespace()
        guard offset < count else { throw JSONError(.unexpectedEnd, at: offset) }
        guard byte(offset) == UInt8(ascii: ":") else { throw JSONError(.expectedColon, at: offset) }
        offset += 1
        skipWhitespace()
    }

    /// Takes a string from its opening quote on.
    ///
    /// - Returns: Whether it holds an escape.
    @inline(__always)
    private mutating func skipString() throws(JSONError) -> Bool {
        var at = offset + 1
        var escaped = false
        while true {
            while at &+ 8 <= count {
                let special = Self.firstSpecial(in: word(at))
                if special != 0 {
                    at &+= special.trailingZeroBitCount >> 3
                    break
                }
                at &+= 8
            }
            guard at < count else { throw JSONError(.unexpectedEnd, at: count) }
            let next = byte(at)
            if next == UInt8(ascii: "\"") {
                offset = at &+ 1
                return escaped
            }
            if next == UInt8(ascii: "\\") {
                escaped = true
                at = try skipEscape(at)
            } else if next >= 0x80 {
                at = try skipNonASCII(at)
            } else if next < 0x20 {
                throw JSONError(.controlByte, at: at)
            } else {
                at &+= 1
            }
        }
    }

    /// The bytes of `word` that end a run of plain ASCII: the high bit of each is set. The lowest bit set is exact; bits
    /// above it may be wrong, because the subtractions borrow from a byte that matched.
    @inline(__always)
    private static func firstSpecial(in word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ (ones &* 0x22)
        let backslash = word ^ (ones &* 0x5C)
        let control = (word &- (ones &* 0x20)) & ~word
        let found = control | ((quote &- ones) & ~quote) | ((backslash &- ones) & ~backslash) | word
        return found & (ones &* 0x80)
    }

    /// - Returns: The offset after the escape whose backslash is at `start`.
    private func skipEscape(_ start: Int) throws(JSONError) -> Int {
        guard start + 1 < count else { throw JSONError(.unexpectedEnd, at: count) }
        switch byte(start + 1) {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            return start + 2
        case UInt8(ascii: "u"):
            let unit = try hexadecimal(start + 2)
            if unit & 0xF800 != 0xD800 { return start + 6 }
            guard unit < 0xDC00, start + 7 < count, byte(start + 6) == UInt8(ascii: "\\"),
                byte(start + 7) == UInt8(ascii: "u"), try hexadecimal(start + 8) & 0xFC00 == 0xDC00
            else { throw JSONError(.loneSurrogate, at: start) }
            return start + 12
        default:
            throw JSONError(.badEscape, at: start)
        }
    }

    private func hexadecimal(_ start: Int) throws(JSONError) -> UInt32 {
        guard start + 4 <= count else { throw JSONError(.unexpectedEnd, at: count) }
        var value: UInt32 = 0
        for index in start..<(start + 4) {
            guard let digit = HexDigit.value(byte(index)) else { throw JSONError(.badEscape, at: index) }
            value = value << 4 | UInt32(digit)
        }
        return value
    }

    /// Takes a run of characters that are not ASCII.
    ///
    /// - Returns: The offset of the first ASCII byte after it.
    private func skipNonASCII(_ start: Int) throws(JSONError) -> Int {
        var at = start
        while at < count {
            let lead = byte(at)
            if lead < 0x80 { return at }
            // Table 3-7 of the Unicode Standard: the second byte's range depends on the first, the others' do not.
            let length: Int
            var second: ClosedRange<UInt8> = 0x80...0xBF
            switch lead {
            case 0xC2...0xDF: length = 2
            case 0xE0: (length, second) = (3, 0xA0...0xBF)
            case 0xED: (length, second) = (3, 0x80...0x9F)
            case 0xE1...0xEF: length = 3
            case 0xF0: (length, second) = (4, 0x90...0xBF)
            case 0xF4: (length, second) = (4, 0x80...0x8F)
            case 0xF1...0xF3: length = 4
            default: throw JSONError(.invalidUTF8, at: at)
            }
            guard at + length <= count, second.contains(byte(at + 1)),
                length < 3 || byte(at + 2) & 0xC0 == 0x80, length < 4 || byte(at + 3) & 0xC0 == 0x80
            else { throw JSONError(.invalidUTF8, at: at) }
            at += length
        }
        return at
    }

    private mutating func skipNumber() throws(JSONError) {
        let start = offset
        if byte(offset) == UInt8(ascii: "-") { offset += 1 }
        if offset < count, byte(offset) == UInt8(ascii: "0") {
            offset += 1
        } else {
            try skipDigits()
        }
        if offset < count, byte(offset) == UInt8(ascii: ".") {
            offset += 1
            try skipDigits()
        }
        if offset < count, byte(offset) | 0x20 == UInt8(ascii: "e") {
            offset += 1
            if offset < count, byte(offset) == UInt8(ascii: "+") || byte(offset) == UInt8(ascii: "-") { offset += 1 }
            try skipDigits()
        }
        guard offset - start <= JSONLimits.numberBytesMax else { throw JSONError(.badNumber, at: start) }
    }

    /// Takes one or more digits.
    @inline(__always)
    private mutating func skipDigits() throws(JSONError) {
        let start = offset
        while offset < count, byte(offset) &- UInt8(ascii: "0") < 10 { offset += 1 }
        guard offset > start else { throw JSONError(.badNumber, at: offset) }
    }

    private mutating func skipLiteral(_ literal: StaticString) throws(JSONError) {
        let length = literal.utf8CodeUnitCount
        guard offset + length <= count else { throw JSONError(.badLiteral, at: offset) }
        for index in 0..<length where byte(offset + index) != literal.utf8Start[index] {
            throw JSONError(.badLiteral, at: offset)
        }
        offset += length
    }

    @inline(__always)
    private mutating func skipWhitespace() {
        while offset < count {
            switch byte(offset) {
            case UInt8(ascii: " "):
                offset &+= 1
                while offset &+ 8 <= count, word(offset) == 0x2020_2020_2020_2020 { offset &+= 8 }
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"):
                offset &+= 1
            default:
                return
            }
        }
    }

    // SAFETY: callers have checked `index < count`.
    @inlinable @inline(__always)
    func byte(_ index: Int) -> UInt8 {
        assert(index >= 0 && index < count)
        return base.load(fromByteOffset: index, as: UInt8.self)
    }

    // SAFETY: callers have checked `index + 8 <= count`.
    @inline(__always)
    private func word(_ index: Int) -> UInt64 {
        assert(index >= 0 && index + 8 <= count)
        return UInt64(littleEndian: base.loadUnaligned(fromByteOffset: index, as: UInt64.self))
    }
}

/// A string as it stands in the text.
package struct JSONString: Hashable, Sendable {
    /// The bytes between the quotes.
    package let content: Range<Int>
    /// Whether they hold a backslash, so that they are not the string's own bytes.
    package let isEscaped: Bool

    package init(content: Range<Int>, isEscaped: Bool) {
        self.content = content
        self.isEscaped = isEscaped
    }

    /// Whether it is written exactly so.
    @inlinable
    package func matches(_ name: StaticString, in json: UnsafeRawBufferPointer) -> Bool {
        guard content.count == name.utf8CodeUnitCount else { return false }
        for index in 0..<content.count where json[content.lowerBound + index] != name.utf8Start[index] {
            return false
        }
        return true
    }

    /// The bytes with the quotes.
    package var span: Range<Int> { (content.lowerBound - 1)..<(content.upperBound + 1) }
}

/// Checks a whole text and looks at nothing in it.
package func validateJSON(_ text: UnsafeRawBufferPointer) throws(JSONError) {
    var scanner = JSONScanner(text)
    try scanner.value()
    try scanner.finish()
}

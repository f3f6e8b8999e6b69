/// Where bytes stop being UTF-8, and what Python's `bytes.decode("utf-8", errors="replace")` makes of them.
package enum UTF8Repair {
    /// How many bytes of `bytes`, from the first, are valid UTF-8: all of them, or up to the first malformed sequence.
    package static func validPrefixLength(of bytes: UnsafeRawBufferPointer) -> Int {
        let text = UTF8Text(bytes)
        var position = 0
        while position < text.count {
            while position + 8 <= text.count, ASCIIBytes.areASCII(text.word(at: position)) { position += 8 }
            guard position < text.count else { break }
            let sequence = sequence(in: text, at: position)
            guard sequence.isValid else { return position }
            position += sequence.length
        }
        return position
    }

    /// Replaces every maximal subpart of an ill-formed sequence by U+FFFD, as the Unicode Standard recommends (3.9,
    /// "U+FFFD Substitution of Maximal Subparts") and Python does.
    ///
    /// - Parameters:
    ///   - bytes: Any bytes.
    ///   - output: Receives the repaired text instead of what it held; at most three times as many bytes.
    /// - Returns: False if `bytes` are valid: then nothing is copied, and `output` is as it was.
    package static func repaired(_ bytes: UnsafeRawBufferPointer, into output: inout [UInt8]) -> Bool {
        let valid = validPrefixLength(of: bytes)
        guard valid < bytes.count else { return false }
        output.removeAll(keepingCapacity: true)
        output.reserveCapacity(bytes.count + 2)
        output.append(contentsOf: bytes[..<valid])
        var position = valid
        while position < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[position...])
            let valid = validPrefixLength(of: rest)
            output.append(contentsOf: rest[..<valid])
            position += valid
            guard position < bytes.count else { break }
            position += sequence(in: UTF8Text(bytes), at: position).length
            // U+FFFD
            output.append(0xEF)
            output.append(0xBF)
            output.append(0xBD)
        }
        return true
    }

    /// The well-formed sequence at `position`, or the longest beginning of one (at least a byte) that is not.
    @inline(__always)
    private static func sequence(in text: UTF8Text, at position: Int) -> (length: Int, isValid: Bool) {
        let first = text.byte(at: position)
        let needed: Int
        // Table 3-7 of the standard: only the second byte is restricted further, against overlong forms, surrogates and
        // what is beyond U+10FFFF.
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch first {
        case 0x00...0x7F: return (1, true)
        case 0xC2...0xDF: needed = 2
        case 0xE0...0xEF:
            needed = 3
            if first == 0xE0 { second = 0xA0...0xBF }
            if first == 0xED { second = 0x80...0x9F }
        case 0xF0...0xF4:
            needed = 4
            if first == 0xF0 { second = 0x90...0xBF }
            if first == 0xF4 { second = 0x80...0x8F }
        default: return (1, false)
        }
        guard position + 1 < text.count, second.contains(text.byte(at: position + 1)) else { return (1, false) }
        var length = 2
        while length < needed {
            guard position + length < text.count, text.byte(at: position + length) & 0xC0 == 0x80 else {
                return (length, false)
            }
            length += 1
        }
        return (length, true)
    }
}

/// Where bytes stop being UTF-8, and what Python's `bytes.decode("utf-8", errors="replace")` makes of them.
package enum UTF8Repair {
    /// How many bytes of `bytes`, from the first, are valid UTF-8: all of them, or up to the first malformed sequence.
    package static func validPrefixLength(of bytes: UnsafeRawBufferPointer) -> Int {
        let text = UTF8Text(bytes)
        var position = 0
        while position < text.count {
            var end = UTF8Blocks.bytesBefore
            if position >= end {
                let isPlausible = UTF8Blocks.skipValid(bytes, from: &position)
                // What no block showed to be valid: the end of the text, or what is around an error.
                end = isPlausible ? text.count : min(text.count, position + 2 * UTF8Blocks.width)
            }
            end = min(end, text.count)
            while position < end {
                let sequence = sequence(in: text, at: position)
                guard sequence.isValid else { return position }
                position += sequence.length
            }
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

/// Sixteen bytes at a time, each seen with the three before it: table 3-7 of the standard as comparisons of vectors.
private enum UTF8Blocks {
    static let width = 16
    static let bytesBefore = 3
    private typealias Block = SIMD2<UInt64>
    private static let tops: UInt64 = 0x8080_8080_8080_8080

    /// Moves `position` on, from the start of a character to that of another, over nothing but valid UTF-8.
    ///
    /// - Parameter position: At least ``bytesBefore``, and all before it is valid.
    /// - Returns: False where it stopped because of bytes that are not valid, within ``width`` bytes of where.
    @inline(__always)
    static func skipValid(_ bytes: UnsafeRawBufferPointer, from position: inout Int) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        // SAFETY: blocks begin at `at`, at least 3, and end inside the text.
        var at = position
        var isAfterASCII = true
        while at + width <= bytes.count {
            let words = (base + at).loadUnaligned(as: SIMD2<UInt64>.self)
            let isASCII = (words.x | words.y) & tops == 0
            if !(isASCII && isAfterASCII), !isValid(base + at) { break }
            isAfterASCII = isASCII
            at += width
        }
        let isPlausible = at + width > bytes.count
        // Back to the start of the character that the last block ends inside of.
        var end = at
        for back in 1...bytesBefore where end == at {
            if base.load(fromByteOffset: at - back, as: UInt8.self) >= 0xC0 { end = at - back }
        }
        position = max(position, end)
        return isPlausible
    }

    /// Whether the bytes of a block go on as the three before it and they themselves demand.
    ///
    /// What is asked of a byte is computed in its top bit, to where shifts bring the other bits: comparisons of bytes
    /// are not among the vector instructions of every processor.
    @inline(__always)
    private static func isValid(_ start: UnsafeRawPointer) -> Bool {
        let block = start.loadUnaligned(as: Block.self)
        let before = (start - 1).loadUnaligned(as: Block.self)
        let beforeThat = (start - 2).loadUnaligned(as: Block.self)
        let third = (start - 3).loadUnaligned(as: Block.self)
        let leads = block & block &<< 1
        let leadsBefore = before & before &<< 1
        let threeBefore = leadsBefore & before &<< 2
        let fourBefore = threeBefore & before &<< 3
        let isDue =
            leadsBefore | (beforeThat & beforeThat &<< 1 & beforeThat &<< 2)
            | (third & third &<< 1 & third &<< 2 & third &<< 3)
        // 0x80...0xBF where they are due and nowhere else.
        var isWrong = (block & ~(block &<< 1)) ^ isDue
        // 0xC0, 0xC1
        isWrong |= leads & ~(block &<< 2 | block &<< 3 | block &<< 4 | block &<< 5 | block &<< 6)
        // 0xF5...0xFF
        isWrong |= leads & block &<< 2 & block &<< 3 & (block &<< 4 | (block &<< 5 & (block &<< 6 | block &<< 7)))
        // After 0xE0 less than 0xA0, after 0xED not.
        let low = before &<< 6 | before &<< 4
        let isE0 = threeBefore & ~(low | before &<< 3 | before &<< 5 | before &<< 7)
        let isED = threeBefore & ~(before &<< 3 | before &<< 6) & before &<< 4 & before &<< 5 & before &<< 7
        isWrong |= (isE0 & ~(block &<< 2)) | (isED & block &<< 2)
        // After 0xF0 less than 0x90, after 0xF4 not.
        let tail = block &<< 2 | block &<< 3
        let four = fourBefore & ~(low | before &<< 7)
        isWrong |= four & ((before &<< 5 & tail) | ~(before &<< 5 | tail))
        isWrong &= Block(repeating: tops)
        return isWrong.x | isWrong.y == 0
    }
}

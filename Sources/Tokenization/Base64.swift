/// Base64 with padding (RFC 4648, section 4), as in tiktoken and tekken files.
enum Base64 {
    /// - Returns: nil unless the whole text is canonical base64: length a multiple of 4, padding at its end only.
    static func decode(_ text: UnsafeRawBufferPointer, into bytes: inout [UInt8]) -> Bool {
        guard text.count % 4 == 0 else { return false }
        var padding = 0
        while padding < 2, padding < text.count, text[text.count - 1 - padding] == UInt8(ascii: "=") { padding += 1 }
        var word: UInt32 = 0
        for index in 0..<text.count {
            let digit: UInt32
            if index >= text.count - padding {
                digit = 0
            } else {
                guard let value = value(text[index]) else { return false }
                digit = value
            }
            word = word << 6 | digit
            guard index % 4 == 3 else { continue }
            let isLast = index == text.count - 1
            bytes.append(UInt8(truncatingIfNeeded: word >> 16))
            if !isLast || padding < 2 { bytes.append(UInt8(truncatingIfNeeded: word >> 8)) }
            if !isLast || padding < 1 { bytes.append(UInt8(truncatingIfNeeded: word)) }
        }
        return true
    }

    private static func value(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(byte - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(byte - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}

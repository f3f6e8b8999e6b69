/// Reads a tiktoken file: a line for each token, its bytes in base64, a space, its rank, which is its id.
enum TiktokenFile {
    /// Whether a file looks like one: its first line is base64, a space and digits.
    static func recognises(_ file: UnsafeRawBufferPointer) -> Bool {
        let line = file.prefix(TokenizerLimits.tokenBytesMax * 2).prefix { $0 != UInt8(ascii: "\n") }
        guard let space = line.firstIndex(of: UInt8(ascii: " ")), space > line.startIndex else { return false }
        let digits = line[(space + 1)...].filter { $0 != UInt8(ascii: "\r") }
        return !digits.isEmpty && digits.allSatisfy { $0 &- UInt8(ascii: "0") < 10 }
    }

    static func read(_ file: UnsafeRawBufferPointer, named name: String) throws(TokenizerError) -> VocabularyBuilder {
        var builder = VocabularyBuilder(file: name)
        var at = 0
        var line = 0
        var token: [UInt8] = []
        while at < file.count {
            line += 1
            var end = at
            while end < file.count, file[end] != UInt8(ascii: "\n") { end += 1 }
            let next = end + 1
            if end > at, file[end - 1] == UInt8(ascii: "\r") { end -= 1 }
            if end > at {
                let text = UnsafeRawBufferPointer(rebasing: file[at..<end])
                token.removeAll(keepingCapacity: true)
                guard let space = text.firstIndex(of: UInt8(ascii: " ")) else {
                    throw TokenizerError(.malformed, in: name, "line \(line): expected base64, a space and a rank")
                }
                guard Base64.decode(UnsafeRawBufferPointer(rebasing: text[..<space]), into: &token) else {
                    throw TokenizerError(.malformed, in: name, "line \(line): the token is not base64")
                }
                guard let rank = integer(text[(space + 1)...]) else {
                    throw TokenizerError(.malformed, in: name, "line \(line): the rank is not a number")
                }
                try builder.add(rank, token, at: "line \(line)")
            }
            at = next
        }
        return builder
    }

    private static func integer(_ digits: Slice<UnsafeRawBufferPointer>) -> Int64? {
        guard !digits.isEmpty, digits.count <= 18 else { return nil }
        var value: Int64 = 0
        for digit in digits {
            guard digit &- UInt8(ascii: "0") < 10 else { return nil }
            value = value * 10 + Int64(digit - UInt8(ascii: "0"))
        }
        return value
    }
}

import Domain

/// A prompt as the simulated node's tokenizer sees it: a row of bytes, four to a token.
///
/// Every message and every text is padded to whole tokens, so the count is a sum over the parts and equal prefixes of
/// messages are equal prefixes of tokens. That is all that honest, repeatable usage and a prefix cache need.
struct PromptTokens {
    static let bytesPerToken = 4
    private static let partialMark = 0x10
    /// What a chat template adds around each message, and after the last.
    static let tokensPerMessage = 4
    static let tokensPerConversation = 3
    /// What an image or another part that is no text counts for.
    static let tokensPerMediaPart = 256

    private(set) var bytes: [UInt8] = []
    /// Tokens that end a text and hold less than four of its bytes: how many.
    private var partial: [Int: Int] = [:]

    var count: Int { bytes.count / Self.bytesPerToken }

    /// ceil(UTF-8 bytes / 4) tokens.
    mutating func append(text: String) {
        bytes.append(contentsOf: text.utf8)
        pad()
    }

    /// One token each. An identifier is the token's bytes as a little-endian word; of a token shorter than four the last
    /// byte is ``partialMark`` and its length, control characters that hardly any text holds.
    mutating func append(tokenIDs: [Int64]) {
        bytes.reserveCapacity(bytes.count + tokenIDs.count * Self.bytesPerToken)
        for identifier in tokenIDs {
            var word = UInt32(truncatingIfNeeded: identifier)
            let length = Int(word >> 24) - Self.partialMark
            if (1..<Self.bytesPerToken).contains(length) {
                partial[count] = length
                word &= 0xFF_FFFF
            }
            for shift in [0, 8, 16, 24] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
    }

    /// The template's start of a message: ``tokensPerMessage`` tokens that name the role.
    mutating func appendMessageStart(role: String) {
        let width = Self.tokensPerMessage * Self.bytesPerToken
        let name = Array(role.utf8.prefix(width))
        bytes.append(contentsOf: name)
        bytes.append(contentsOf: repeatElement(0, count: width - name.count))
    }

    mutating func appendConversationEnd() {
        bytes.append(contentsOf: repeatElement(1, count: Self.tokensPerConversation * Self.bytesPerToken))
    }

    mutating func append(mediaPart: String) {
        let width = Self.tokensPerMediaPart * Self.bytesPerToken
        // The hash stands for the content, so that another image is another prefix.
        var hash = SplitMix64(seed: Self.hash(Array(mediaPart.utf8)[...], from: 0))
        let end = bytes.count + width
        while bytes.count < end {
            let word = hash.next()
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
    }

    /// The hash chain of the whole blocks: each covers all before it.
    /// - Parameter salt: `cache_salt`: prompts of different salts share nothing.
    func blocks(salt: String) -> [UInt64] {
        var hash = Self.hash(Array(salt.utf8)[...], from: 0x746F_6C6C)
        let width = NodeEngine.blockTokens * Self.bytesPerToken
        return stride(from: 0, to: bytes.count - bytes.count % width, by: width).map { start in
            hash = Self.hash(bytes[start..<start + width], from: hash)
            return hash
        }
    }

    /// Token identifiers, for `/tokenize`; ``append(tokenIDs:)`` of them is this prompt again.
    var tokenIDs: [Int64] {
        (0..<count).map { index in
            let word = bytes[index * Self.bytesPerToken..<(index + 1) * Self.bytesPerToken].reversed()
                .reduce(Int64(0)) { $0 << 8 | Int64($1) }
            return word | (partial[index].map { Int64(Self.partialMark + $0) << 24 } ?? 0)
        }
    }

    /// The bytes that a token stands for.
    func content(ofToken index: Int) -> ArraySlice<UInt8> {
        let start = index * Self.bytesPerToken
        return bytes[start..<start + (partial[index] ?? Self.bytesPerToken)]
    }

    /// What the tokens say.
    var text: String {
        String(decoding: (0..<count).flatMap { content(ofToken: $0) }, as: UTF8.self)
    }

    /// A seed that equal prompts share.
    var seed: UInt64 { Self.hash(bytes[...], from: 0x7365_6564) }

    private mutating func pad() {
        let rest = bytes.count % Self.bytesPerToken
        guard rest > 0 else { return }
        bytes.append(contentsOf: repeatElement(0, count: Self.bytesPerToken - rest))
        partial[count - 1] = rest
    }

    /// FNV-1a with a final mix.
    private static func hash(_ bytes: ArraySlice<UInt8>, from start: UInt64) -> UInt64 {
        var hash = start ^ 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return SplitMix64.mix(hash)
    }
}

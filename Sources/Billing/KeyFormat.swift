import Domain

/// What an API key looks like: `sk-tg-<12 base62 public id>-<43 base62 secret><6 base62 CRC>`, 68 bytes.
///
/// The checksum (CRC-32C of everything before it) refuses a mistyped or cut key without a look-up, and lets secret
/// scanners tell a key from a lookalike. 43 base62 digits carry the 256 random bits of the secret.
package enum KeyFormat {
    package static let prefix = "sk-tg-"
    package static let idBytes = 12
    package static let secretBytes = 43
    package static let checksumBytes = 6
    package static let bytes = 68

    private static let prefixBytes = 6
    private static let separatorIndex = prefixBytes + idBytes
    private static let checksumIndex = bytes - checksumBytes
    private static let alphabet = Array("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)

    /// Takes a key apart. Allocates nothing: the id fits a small string.
    ///
    /// - Returns: nil where the form or the checksum is wrong.
    package static func parse(_ key: UnsafeRawBufferPointer) -> ParsedKey? {
        guard key.count == bytes, key.starts(with: prefix.utf8), key[separatorIndex] == UInt8(ascii: "-") else {
            return nil
        }
        var claimed: UInt64 = 0
        for index in prefixBytes..<bytes where index != separatorIndex {
            guard let digit = digit(key[index]) else { return nil }
            if index >= checksumIndex { claimed = claimed * 62 + UInt64(digit) }
        }
        guard claimed == UInt64(CRC32C.checksum(of: key[..<checksumIndex])) else { return nil }
        let id = String(decoding: key[prefixBytes..<separatorIndex], as: UTF8.self)
        return ParsedKey(id: KeyID(unchecked: id), secret: KeySecret(key[(separatorIndex + 1)..<checksumIndex]))
    }

    /// Parses a key held as text, for tools and tests.
    package static func parse(_ key: String) -> ParsedKey? {
        var key = key
        return key.withUTF8 { parse(UnsafeRawBufferPointer($0)) }
    }

    /// A new key. The caller shows it once and stores only its hash.
    ///
    /// - Parameter generator: Must be cryptographically secure outside of tests.
    package static func generate(using generator: inout some RandomNumberGenerator) -> String {
        var text = Array(prefix.utf8)
        for _ in 0..<idBytes { text.append(alphabet[Int.random(in: 0..<62, using: &generator)]) }
        text.append(UInt8(ascii: "-"))
        text += base62((0..<4).map { _ in generator.next() as UInt64 }, digits: secretBytes)
        text += base62([UInt64(CRC32C.checksum(of: text))], digits: checksumBytes)
        return String(decoding: text, as: UTF8.self)
    }

    /// Last four characters, by which people tell keys apart. They belong to the checksum, so they say nothing of
    /// the secret that its checksum does not.
    package static func lastFour(of key: String) -> String { String(key.suffix(4)) }

    /// The number whose most significant word comes first, in base 62 with leading zeros.
    private static func base62(_ number: [UInt64], digits: Int) -> [UInt8] {
        var number = number
        var text = [UInt8](repeating: 0, count: digits)
        for index in stride(from: digits - 1, through: 0, by: -1) {
            var remainder: UInt64 = 0
            for word in number.indices {
                (number[word], remainder) = UInt64(62).dividingFullWidth((remainder, number[word]))
            }
            text[index] = alphabet[Int(remainder)]
        }
        return text
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte - UInt8(ascii: "A") + 10
        case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - UInt8(ascii: "a") + 36
        default: nil
        }
    }
}

/// A well-formed key that nobody has vouched for yet.
package struct ParsedKey: Sendable {
    package let id: KeyID
    package let secret: KeySecret

    package init(id: KeyID, secret: KeySecret) {
        self.id = id
        self.secret = secret
    }
}

/// The 43 secret bytes of a key, held inline. Prints as nothing that helps.
package struct KeySecret: Sendable, CustomStringConvertible, CustomReflectable {
    private var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)

    /// SAFETY: the 48 bytes of `words` hold the at most 43 that are written.
    ///
    /// - Parameter bytes: As many as are there, at most 43.
    package init(_ bytes: some Collection<UInt8>) {
        withUnsafeMutableBytes(of: &words) { storage in
            for (index, byte) in bytes.prefix(KeyFormat.secretBytes).enumerated() { storage[index] = byte }
        }
    }

    /// SAFETY: 43 of the 48 bytes of `words`, for as long as the copy lives.
    ///
    /// - Parameter body: The pointer is valid only inside.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: words) { body(UnsafeRawBufferPointer(rebasing: $0[..<KeyFormat.secretBytes])) }
    }

    package var description: String { "<secret>" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

/// What the directory knows of a key. What the key may do lives with its org and is checked again by every SYNC.
///
/// By reference, since every request looks at it all along its way.
package final class KeyRecord: Sendable {
    /// Models that one key can be restricted to.
    package static let modelsMax = 64

    /// What the records of the key and of its org say, in the org's own slot.
    package struct Rights: Hashable, Sendable {
        /// As of the look-up, so that a suspended org hears of it before its request is read any further; a SYNC has the
        /// last word.
        package var isOrgSuspended = false
        /// What the key may use, by id; nil for every model.
        package var models: Set<ModelID>?
        /// Where its requests must stay, by its own record and by its org's; nil is anywhere.
        package var keyRegion: String?
        package var orgRegion: String?

        package init() {}
    }

    package let id: KeyID
    package let org: OrgID
    /// HMAC-SHA256(pepper, secret): 32 bytes.
    package let digest: [UInt8]
    /// Which pepper the digest was made with.
    package let pepperID: String
    package let lastFour: String
    package let isActive: Bool
    package let rights: Rights
    /// Where its requests must stay; nil is anywhere. Where key and org both name one they must agree.
    package var region: String? { rights.keyRegion ?? rights.orgRegion }

    package init(
        id: KeyID, org: OrgID, digest: [UInt8], pepperID: String, lastFour: String, isActive: Bool,
        rights: Rights = Rights()
    ) {
        self.id = id
        self.org = org
        self.digest = digest
        self.pepperID = pepperID
        self.lastFour = lastFour
        self.isActive = isActive
        self.rights = rights
    }

    /// The same key with what is known of its rights.
    package func granted(_ rights: Rights) -> KeyRecord {
        KeyRecord(
            id: id, org: org, digest: digest, pepperID: pepperID, lastFour: lastFour, isActive: isActive, rights: rights
        )
    }

    package func mayUse(_ model: ModelID) -> Bool { rights.models?.contains(model) ?? true }
}

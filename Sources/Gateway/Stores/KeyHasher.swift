import Billing
import COpenSSL
import Domain

/// HMAC-SHA256 of keys' secrets under the peppers, and random bytes for new keys.
///
/// One for each event loop: it reuses libcrypto's contexts, keyed once for each pepper, because fetching the algorithm
/// and keying for every request would cost more than the hash.
package final class KeyHasher {
    package static let digestBytes = 32

    private let contexts: [(id: String, context: OpaquePointer)]

    /// - Throws: Where libcrypto has no HMAC-SHA256.
    package init(peppers: Peppers) throws(KeyHasherFailure) {
        guard let mac = EVP_MAC_fetch(nil, "HMAC", nil) else { throw .unavailable }
        defer { EVP_MAC_free(mac) }
        var contexts: [(id: String, context: OpaquePointer)] = []
        for pepper in peppers.all {
            guard let context = EVP_MAC_CTX_new(mac) else {
                for known in contexts { EVP_MAC_CTX_free(known.context) }
                throw .unavailable
            }
            contexts.append((pepper.id, context))
            guard Self.key(context, with: pepper.secret) else {
                for known in contexts { EVP_MAC_CTX_free(known.context) }
                throw .unavailable
            }
        }
        self.contexts = contexts
    }

    deinit {
        for known in contexts { EVP_MAC_CTX_free(known.context) }
    }

    package var currentPepperID: String { contexts[0].id }

    /// The hash of a secret under the current pepper: what is stored.
    ///
    /// - Returns: nil where libcrypto fails.
    package func digest(_ secret: KeySecret) -> [UInt8]? {
        var digest = [UInt8](repeating: 0, count: Self.digestBytes)
        let isDone = digest.withUnsafeMutableBytes { output in
            secret.withBytes { Self.digest($0, contexts[0].context, into: output) }
        }
        return isDone ? digest : nil
    }

    /// HMAC of any text under the current pepper: names that replicas agree on and customers cannot compute. No text can
    /// stand in for a key's secret: the prefix holds a byte that secrets cannot.
    ///
    /// - Returns: nil where libcrypto fails.
    package func tag(_ text: String) -> [UInt8]? {
        var digest = [UInt8](repeating: 0, count: Self.digestBytes)
        let input = Array("tag:\(text)".utf8)
        let isDone = digest.withUnsafeMutableBytes { output in
            input.withUnsafeBytes { Self.digest($0, contexts[0].context, into: output) }
        }
        return isDone ? digest : nil
    }

    /// Whether the secret is the one that the record was made of, in time that does not depend on where they differ.
    /// False where the record's pepper is none of ours.
    package func matches(_ secret: KeySecret, _ record: KeyRecord) -> Bool {
        guard record.digest.count == Self.digestBytes,
            let (_, context) = contexts.first(where: { $0.id == record.pepperID })
        else { return false }
        return withUnsafeTemporaryAllocation(byteCount: Self.digestBytes, alignment: 8) { output in
            guard secret.withBytes({ Self.digest($0, context, into: output) }) else { return false }
            return CRYPTO_memcmp(output.baseAddress, record.digest, Self.digestBytes) == 0
        }
    }

    /// SAFETY: the pointers that libcrypto gets are to storage of this call, with their sizes; it keeps none of them.
    private static func key(_ context: OpaquePointer, with secret: [UInt8]) -> Bool {
        var algorithm = Array("SHA256".utf8CString)
        return algorithm.withUnsafeMutableBufferPointer { name in
            let parameters = [
                OSSL_PARAM_construct_utf8_string("digest", name.baseAddress, 0), OSSL_PARAM_construct_end(),
            ]
            return EVP_MAC_init(context, secret, secret.count, parameters) == 1
        }
    }

    /// SAFETY: `output` holds `digestBytes`, and libcrypto is told so; neither pointer outlives the call.
    private static func digest(
        _ input: UnsafeRawBufferPointer, _ context: OpaquePointer, into output: UnsafeMutableRawBufferPointer
    ) -> Bool {
        var written = 0
        return EVP_MAC_init(context, nil, 0, nil) == 1
            && EVP_MAC_update(context, input.bindMemory(to: UInt8.self).baseAddress, input.count) == 1
            && EVP_MAC_final(
                context, output.bindMemory(to: UInt8.self).baseAddress, &written, Self.digestBytes) == 1
            && written == Self.digestBytes
    }
}

package enum KeyHasherFailure: Error, Hashable, Sendable, CustomStringConvertible {
    case unavailable
    case noRandomness

    package var description: String {
        switch self {
        case .unavailable: "libcrypto does not offer HMAC-SHA256"
        case .noRandomness: "libcrypto has no random bytes to give"
        }
    }
}

/// libcrypto's random bytes, drawn in full before use: `next()` cannot fail.
///
/// A key takes 12 draws for its id (a few more where one is rejected) and 4 for its secret.
struct SecureRandom: RandomNumberGenerator {
    private var words: [UInt64]
    private var position = 0

    init() throws(KeyHasherFailure) {
        words = [UInt64](repeating: 0, count: 64)
        let isFilled = words.withUnsafeMutableBytes {
            RAND_bytes($0.bindMemory(to: UInt8.self).baseAddress, Int32($0.count)) == 1
        }
        guard isFilled else { throw .noRandomness }
    }

    mutating func next() -> UInt64 {
        // 62 divides so nearly into 2^64 that a rejection is a matter of 1e-18: 64 words never run out.
        precondition(position < words.count, "more random words were asked for than a key takes")
        defer { position += 1 }
        return words[position]
    }
}

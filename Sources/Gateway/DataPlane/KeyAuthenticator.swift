import Billing
import Domain
import NIOCore
import Redis

/// Who sends a request: the key cache of one loop, with the directory in the store behind it.
///
/// Failure mode: a key that is cached works while the store is away (its admission asks the store anyway); one that is
/// not is answered with 503, never with 401.
package final class KeyAuthenticator {
    /// Look-ups under way at once on one loop; more are refused with 503 rather than queued.
    static let lookupsMax = 1_024

    package enum Decision {
        case authenticated(KeyRecord)
        case lookup(PendingLookup)
        case invalid(Failure)
    }

    /// Ids of keys that were found once and are remembered past a flush of the cache; past it they are learned anew.
    static let vouchedMax = 20_000

    /// A key that is well-formed and not cached.
    package struct PendingLookup {
        let key: ParsedKey
        let generation: Int
    }

    private let cache: KeyCache
    private let hasher: KeyHasher
    private let directory: RedisKeyDirectory
    private var lookups = 0
    private var vouched: Set<KeyID> = []

    package init(client: RedisClient, peppers: Peppers) throws(KeyHasherFailure) {
        hasher = try KeyHasher(peppers: peppers)
        cache = KeyCache(hasher: hasher)
        directory = RedisKeyDirectory(client: client)
    }

    /// - Parameter authorization: The header's value; nil where there is none.
    func authenticate(authorization: String?) -> Decision {
        guard var authorization else { return .invalid(Self.missing) }
        let decision = authorization.withUTF8 {
            cache.authenticate(UnsafeRawBufferPointer($0), now: MonotonicTime.now())
        }
        switch decision {
        case .authenticated(let record): return .authenticated(record)
        case .missing: return .invalid(Self.missing)
        case .invalid: return .invalid(Self.wrong)
        case .lookup(_, let key):
            guard lookups < Self.lookupsMax else { return .invalid(Self.unavailable) }
            return .lookup(PendingLookup(key: key, generation: cache.generation))
        }
    }

    /// Whether the key of this id has been good on this loop before. Any change of any key empties the cache; an address
    /// whose neighbours' keys fail must not lose the good ones with it.
    func wasVouched(_ pending: PendingLookup) -> Bool { vouched.contains(pending.key.id) }

    private func vouch(_ id: KeyID) {
        if vouched.count >= Self.vouchedMax { vouched.removeAll(keepingCapacity: true) }
        vouched.insert(id)
    }

    /// Asks the store. The completion is called once, on this loop.
    func lookup(_ pending: PendingLookup, completion: @escaping (Result<KeyRecord, Failure>) -> Void) {
        lookups += 1
        directory.lookup(pending.key.id) { [self] result in
            lookups -= 1
            switch result {
            case .failure: completion(.failure(Self.unavailable))
            case .success(let record):
                let decision = cache.resolve(
                    pending.key, record: record, generation: pending.generation, now: MonotonicTime.now())
                if case .authenticated(let record) = decision {
                    vouch(pending.key.id)
                    completion(.success(record))
                } else {
                    completion(.failure(Self.wrong))
                }
            }
        }
    }

    /// The store refused a request of this key: what is cached of it is old.
    func forget(_ id: KeyID) { cache.forget(id) }

    /// Something about keys changed in the store.
    package func flush() { cache.flush() }

    /// Derived from the pepper, so that replicas agree and customers cannot compute one another's.
    ///
    /// - Returns: nil where libcrypto fails: better no answer than orgs that share a cache.
    func cacheSalt(of org: OrgID) -> String? {
        hasher.tag("cache_salt:\(org)")?.prefix(16).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    /// Under which the blocks of prompts are hashed: the same on every replica, since their hashes meet in gossip. Drawn
    /// at random where libcrypto fails: then hashes meet nobody's.
    var promptBlockKey: SipHash.Key {
        var random = SystemRandomNumberGenerator()
        guard let tag = hasher.tag("prompt_blocks"), tag.count >= 16 else {
            return SipHash.Key(low: random.next(), high: random.next())
        }
        func word(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        return SipHash.Key(low: word(tag[0..<8]), high: word(tag[8..<16]))
    }

    private static let missing = Failure(
        .missingKey,
        "You did not provide an API key. Send it in the Authorization header: Authorization: Bearer YOUR_KEY.",
        retry: .never)
    private static let wrong = Failure(
        .invalidKey, "Incorrect API key provided. Check that it is complete and was not revoked.", retry: .never)
    private static let unavailable = Failure(
        .keyStoreUnavailable, "API keys cannot be checked at the moment. Please retry.", source: .store,
        retry: .after(milliseconds: 1_000))
}

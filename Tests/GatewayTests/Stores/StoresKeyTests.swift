import Billing
import Domain
import Testing

@testable import Gateway

private func generatedKey(_ seed: UInt64) throws -> (text: String, parsed: ParsedKey) {
    var random = SplitMix64(seed: seed)
    let text = KeyFormat.generate(using: &random)
    return (text, try #require(KeyFormat.parse(text)))
}

private func hex(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

@Suite struct StoresPepperTests {
    @Test func firstPepperIsCurrent() throws {
        let peppers = try Peppers("new:\(String(repeating: "n", count: 16)),old:with:colons-0123456789")
        #expect(peppers.current.id == "new")
        #expect(peppers.all.map(\.id) == ["new", "old"])
        #expect(String(decoding: peppers.all[1].secret, as: UTF8.self) == "with:colons-0123456789")
    }

    @Test(arguments: [
        ("", PepperFailure.missingColon(position: 1)),
        ("secretwithoutcolon", .missingColon(position: 1)),
        ("a:0123456789abcdef,", .missingColon(position: 2)),
        (":0123456789abcdef", .badID(position: 1)),
        ("a b:0123456789abcdef", .badID(position: 1)),
        ("a:0123456789abcde", .shortSecret(id: "a", bytes: 15)),
        ("a:0123456789abcdef,a:fedcba9876543210", .repeatedID("a")),
    ])
    func badPeppersAreNamedAndNotRepeated(text: String, failure: PepperFailure) {
        #expect(throws: failure) { try Peppers(text) }
        #expect(!"\(failure)".contains("0123456789"))
    }

    @Test func peppersPrintNoSecret() throws {
        let peppers = try Peppers("p1:correct horse battery staple")
        var dumped = ""
        dump(peppers, to: &dumped)
        #expect(!"\(peppers) \(String(reflecting: peppers)) \(dumped)".contains("horse"))
    }
}

@Suite struct StoresKeyHasherTests {
    /// By Python's hmac.
    @Test func digestIsHMACSHA256() throws {
        let hasher = try KeyHasher(peppers: Peppers("p:0123456789abcdef"))
        let secret = KeySecret("The quick brown fox jumps over the lazy dog".utf8)
        let expected = "a3e7e77cecd85e7a46b1a1418702af9dfac4f480d5d489713f1a299c062711c3"
        #expect(hex(try #require(hasher.digest(secret))) == expected)
        // Contexts are reused: the second time must not differ.
        #expect(hex(try #require(hasher.digest(secret))) == expected)
    }

    @Test func recordsOfAnOlderPepperStillMatch() throws {
        let (_, key) = try generatedKey(1)
        let before = try KeyHasher(peppers: Peppers("old:0123456789abcdef"))
        let after = try KeyHasher(peppers: Peppers("new:fedcba9876543210,old:0123456789abcdef"))
        let gone = try KeyHasher(peppers: Peppers("new:fedcba9876543210"))
        let record = KeyRecord(
            id: key.id, org: OrgID(unchecked: "o"), digest: try #require(before.digest(key.secret)), pepperID: "old",
            lastFour: "abcd", isActive: true)
        #expect(after.matches(key.secret, record))
        #expect(!gone.matches(key.secret, record))
        #expect(!after.matches(try generatedKey(2).parsed.secret, record))
        #expect(after.digest(key.secret) != record.digest)
    }

    @Test func digestOfAnotherLengthMatchesNothing() throws {
        let (_, key) = try generatedKey(1)
        let hasher = try KeyHasher(peppers: Peppers("p:0123456789abcdef"))
        for count in [0, 31, 33] {
            let record = KeyRecord(
                id: key.id, org: OrgID(unchecked: "o"), digest: [UInt8](repeating: 0, count: count), pepperID: "p",
                lastFour: "abcd", isActive: true)
            #expect(!hasher.matches(key.secret, record))
        }
    }

    @Test func tagsOfLongNamesDiffer() throws {
        let hasher = try KeyHasher(peppers: Peppers("p:0123456789abcdef"))
        let prefix = String(repeating: "x", count: 60)
        #expect(hasher.tag(prefix + "1") != hasher.tag(prefix + "2"))
    }
}

@Suite struct StoresKeyCacheTests {
    private let hasher: KeyHasher
    private let cache: KeyCache
    private let now = MonotonicTime(nanoseconds: 1_000_000_000)

    init() throws {
        hasher = try KeyHasher(peppers: Peppers("p:0123456789abcdef"))
        cache = KeyCache(hasher: hasher)
    }

    private func record(_ key: ParsedKey, as id: KeyID? = nil, isActive: Bool = true) throws -> KeyRecord {
        KeyRecord(
            id: id ?? key.id, org: OrgID(unchecked: "o"), digest: try #require(hasher.digest(key.secret)),
            pepperID: "p", lastFour: "abcd", isActive: isActive)
    }

    /// What was decided, by name.
    private func decide(_ header: String, at time: MonotonicTime? = nil) -> String {
        var header = header
        return name(
            header.withUTF8 { cache.authenticate(UnsafeRawBufferPointer($0), now: time ?? now) })
    }

    private func name(_ decision: KeyCache.Decision) -> String {
        switch decision {
        case .authenticated(let record): "authenticated \(record.id)"
        case .lookup: "lookup"
        case .missing: "missing"
        case .invalid: "invalid"
        }
    }

    @Test func headersAreReadAsSDKsAndPeopleWriteThem() throws {
        let (key, parsed) = try generatedKey(1)
        _ = cache.resolve(parsed, record: try record(parsed), generation: cache.generation, now: now)
        for header in ["Bearer \(key)", "bearer \(key)", "BEARER   \(key) \t"] {
            #expect(decide(header) == "authenticated \(parsed.id)", "\(header.prefix(10))")
        }
        for header in ["", "Bearer", "Bearer ", "Bearer    ", "Basic \(key)", key, "Bearer\(key)"] {
            #expect(decide(header) == "missing", "\(header.prefix(10))")
        }
        for header in ["Bearer x", "Bearer \(key)x", "Bearer sk-proj-abc", "Bearer \(key.dropLast())"] {
            #expect(decide(header) == "invalid", "\(header.prefix(10))")
        }
    }

    @Test func cachedKeyWithAnotherSecretIsInvalidWithoutALookUp() throws {
        let (_, parsed) = try generatedKey(1)
        let other = try generatedKey(2)
        let stored = try record(parsed, as: other.parsed.id)
        #expect(name(cache.resolve(other.parsed, record: stored, generation: 0, now: now)) == "invalid")
        #expect(decide("Bearer \(other.text)") == "invalid")
    }

    @Test func unknownKeyIsAskedForOnceALifetime() throws {
        let (key, parsed) = try generatedKey(1)
        #expect(decide("Bearer \(key)") == "lookup")
        #expect(name(cache.resolve(parsed, record: nil, generation: 0, now: now)) == "invalid")
        #expect(decide("Bearer \(key)") == "invalid")
        #expect(decide("Bearer \(key)", at: now.advanced(by: KeyCache.negativeLifetime)) == "lookup")
    }

    @Test func revokedKeyIsInvalid() throws {
        let (key, parsed) = try generatedKey(1)
        let revoked = try record(parsed, isActive: false)
        #expect(name(cache.resolve(parsed, record: revoked, generation: 0, now: now)) == "invalid")
        #expect(decide("Bearer \(key)") == "invalid")
    }

    @Test func answerOlderThanAFlushIsNotKept() throws {
        let (key, parsed) = try generatedKey(1)
        let generation = cache.generation
        cache.flush()
        let decision = cache.resolve(parsed, record: try record(parsed), generation: generation, now: now)
        #expect(name(decision) == "authenticated \(parsed.id)")
        #expect(decide("Bearer \(key)") == "lookup")
    }

    @Test func forgottenKeyIsAskedForAgain() throws {
        let (key, parsed) = try generatedKey(1)
        _ = cache.resolve(parsed, record: try record(parsed), generation: 0, now: now)
        #expect(decide("Bearer \(key)") == "authenticated \(parsed.id)")
        cache.forget(parsed.id)
        #expect(decide("Bearer \(key)") == "lookup")
    }

    @Test func cacheStaysWithinItsBoundAndKeepsWhatIsUsed() throws {
        let (key, parsed) = try generatedKey(1)
        _ = cache.resolve(parsed, record: try record(parsed), generation: 0, now: now)
        for index in 0..<(2 * KeyCache.recordsMax) {
            let other = try record(parsed, as: KeyID(unchecked: "other\(index)"))
            _ = cache.resolve(
                ParsedKey(id: other.id, secret: parsed.secret), record: other, generation: 0, now: now)
            if index % 1_000 == 0 { #expect(decide("Bearer \(key)") == "authenticated \(parsed.id)") }
            guard cache.count <= KeyCache.recordsMax + 1 else {
                Issue.record("\(cache.count) records")
                return
            }
        }
    }
}

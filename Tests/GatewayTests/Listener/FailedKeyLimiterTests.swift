import Domain
import Testing

@testable import Gateway

@Suite struct FailedKeyLimiterTests {
    private let limit = FailedKeyLimit(count: 3, window: .seconds(60))
    private let start = MonotonicTime(nanoseconds: 1_000_000_000)

    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    @Test func theFailuresOfAWindowAreCountedAndItsEndForgivesThem() throws {
        var limiter = FailedKeyLimiter()
        let one = try address("203.0.113.9")
        for second in 0..<3 {
            let now = start.advanced(by: .seconds(second))
            #expect(limiter.wait(for: one, limit: limit, now: now) == nil)
            limiter.failed(one, limit: limit, now: now)
        }
        // From the first of them, whatever came since.
        #expect(limiter.wait(for: one, limit: limit, now: start.advanced(by: .seconds(2))) == 58_000)
        #expect(limiter.wait(for: one, limit: limit, now: start.advanced(by: .milliseconds(59_999))) == 1)
        #expect(limiter.wait(for: one, limit: limit, now: start.advanced(by: .seconds(60))) == nil)
        limiter.failed(one, limit: limit, now: start.advanced(by: .seconds(60)))
        #expect(limiter.wait(for: one, limit: limit, now: start.advanced(by: .seconds(60))) == nil)
    }

    @Test func addressesAreApartAndIPv6CountsByItsSite() throws {
        var limiter = FailedKeyLimiter()
        for tail in 1...3 { limiter.failed(try address("2001:db8:1:2::\(tail)"), limit: limit, now: start) }
        #expect(limiter.wait(for: try address("2001:db8:1:2:ffff::9"), limit: limit, now: start) == 60_000)
        #expect(limiter.wait(for: try address("2001:db8:1:3::1"), limit: limit, now: start) == nil)
        for _ in 1...3 { limiter.failed(try address("10.0.0.1"), limit: limit, now: start) }
        #expect(limiter.wait(for: try address("10.0.0.1"), limit: limit, now: start) != nil)
        #expect(limiter.wait(for: try address("10.0.0.2"), limit: limit, now: start) == nil)
    }

    @Test func aFullTableForgetsTheOldestWindow() throws {
        var limiter = FailedKeyLimiter(addressesMax: 4)
        for last in 1...9 {
            let one = try address("10.0.0.\(last)")
            for _ in 1...3 { limiter.failed(one, limit: limit, now: start.advanced(by: .seconds(last))) }
            #expect(limiter.count <= 4)
        }
        let now = start.advanced(by: .seconds(10))
        for last in 1...9 {
            let wait = limiter.wait(for: try address("10.0.0.\(last)"), limit: limit, now: now)
            #expect((wait != nil) == (last > 5), "10.0.0.\(last)")
        }
    }
}

@Suite struct CORSPolicyTests {
    @Test func onlyTheOriginsNamedMayRead() {
        let policy = CORSPolicy(origins: ["https://a.example", "http://localhost:3000"])
        let allowed = policy.headers(origin: "https://a.example")
        #expect(allowed.contains { $0 == ("access-control-allow-origin", "https://a.example") })
        #expect(allowed.contains { $0 == ("vary", "origin") })
        #expect(allowed.contains { $0.name == "access-control-expose-headers" && $0.value.contains("x-request-id") })
        for origin in ["https://b.example", "https://a.example.evil", "null", "", "HTTPS://a.example", "*"] {
            #expect(policy.headers(origin: origin).map(\.name) == ["vary"], "\(origin)")
            #expect(policy.preflightHeaders(origin: origin, methods: "POST", requested: "x").isEmpty)
        }
    }

    @Test func anyOriginIsSaidAsSuch() {
        let policy = CORSPolicy(origins: ["*"])
        #expect(policy.headers(origin: "https://x").contains { $0 == ("access-control-allow-origin", "*") })
        #expect(!policy.headers(origin: "https://x").contains { $0.name == "vary" })
    }

    @Test func whatAPageWantsToSendIsGivenBackOnlyAsAListOfNames() {
        let policy = CORSPolicy(origins: ["*"])
        func allowed(_ requested: String?) -> String? {
            policy.preflightHeaders(origin: "https://x", methods: "POST", requested: requested)
                .first { $0.name == "access-control-allow-headers" }?.value
        }
        #expect(allowed("authorization, content-type,x-stainless-os") == "authorization, content-type,x-stainless-os")
        for requested in [nil, "", "a\r\nset-cookie: x", "a;b", String(repeating: "a", count: 3_000)] {
            #expect(allowed(requested) == nil)
        }
    }
}

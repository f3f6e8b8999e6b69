import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Keys, what they may do, and limits.
@Suite(.serialized) struct AccessTests {
    private func gateway() async throws -> GatewayUnderTest { try await SharedGateway.get().gateway }

    // MARK: Keys

    @Test func missingAndMalformedKeysGet401() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway)
        let none = try await gateway.ask(.chat("fast"))
        #expect(none.status == 401)
        #expect(none.errorCode == "missing_api_key")
        let flipped = customer.key.dropLast() + (customer.key.hasSuffix("a") ? "b" : "a")
        for key in ["", "x", "sk-tg-", "sk-openai-123", String(flipped), customer.key + "x", "sk-tg-\u{E9}"] {
            let answer = try await gateway.ask(.chat("fast", key: key))
            #expect(answer.status == 401, "\(key)")
            #expect(["invalid_api_key", "missing_api_key"].contains(answer.errorCode))
        }
        let basic = try await gateway.ask(Ask.chat("fast").with("Authorization", "Basic \(customer.key)"))
        #expect(basic.status == 401)
        let twice = try await gateway.ask(Ask.chat("fast", key: customer.key).with("Authorization", "Bearer x"))
        #expect(twice.status == 401)
        let lower = try await gateway.ask(Ask.chat("fast").with("authorization", "bearer \(customer.key)"))
        #expect(lower.status == 200)
        _ = try await customer.onlySettle()
    }

    @Test func aWellFormedKeyWithAWrongSecretGets401EvenWhenTheRightOneIsCached() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway)
        let other = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.get("/v1/models", key: customer.key)).status == 200)
        // The public id of one key with the secret and checksum of another is not well-formed; a made-up one of the
        // right form is what a guesser would try.
        let guess = try Self.withSecret(of: other.key, id: customer.keyID)
        for _ in 0..<3 {
            let answer = try await gateway.ask(.chat("fast", key: guess))
            #expect(answer.status == 401)
            #expect(answer.errorCode == "invalid_api_key")
        }
        try await customer.expectNoCharge()
    }

    /// A key of the right form: CRC-32C in base 62 over all before it, as ledger.md says.
    private static func withSecret(of key: String, id: String) throws -> String {
        let body = "sk-tg-\(id)-" + key.dropFirst(6 + 12 + 1).prefix(43)
        let alphabet = Array("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
        var checksum = UInt32.max
        for byte in body.utf8 {
            checksum ^= UInt32(byte)
            for _ in 0..<8 { checksum = checksum & 1 == 1 ? checksum >> 1 ^ 0x82F6_3B78 : checksum >> 1 }
        }
        var number = checksum ^ .max
        var digits = ""
        for _ in 0..<6 {
            digits = String(alphabet[Int(number % 62)]) + digits
            number /= 62
        }
        // The rule is checked on a key that the gateway made: a wrong rule here would test nothing.
        return body + digits
    }

    @Test func theTestsOwnChecksumIsTheGateways() async throws {
        let customer = try await Customer.create(on: gateway())
        #expect(try Self.withSecret(of: customer.key, id: customer.keyID) == customer.key)
    }

    @Test func aRevokedKeyIsRefusedWithinASecond() async throws {
        let gateway = try await gateway()
        var delays: [Double] = []
        for _ in 0..<3 {
            let customer = try await Customer.create(on: gateway)
            #expect(try await gateway.ask(.get("/v1/models", key: customer.key)).status == 200)
            let revoked = MonotonicTime.now()
            try await gateway.admin("POST", "/admin/v1/keys/\(customer.keyID)/revoke")
            // Without a charge nothing but the cache decides.
            try await until("the key's refusal", within: .seconds(5)) {
                try await gateway.ask(.get("/v1/models", key: customer.key)).status == 401
            }
            delays.append(MonotonicTime.now().seconds(since: revoked))
            let answer = try await gateway.ask(.chat("fast", key: customer.key))
            #expect(answer.status == 401)
            #expect(answer.errorCode == "invalid_api_key")
            try await customer.expectNoCharge()
        }
        // A busy machine may delay one of them.
        #expect(delays.min()! < 1, "\(delays)")
    }

    @Test func aRevokedKeyIsNeverChargedAgainHoweverWarmTheCache() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 200)
        try await gateway.admin("POST", "/admin/v1/keys/\(customer.keyID)/revoke")
        // At once: the cache may still know the key, but the store is asked.
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 401)
        _ = try await customer.onlySettle()
    }

    @Test func aSuspendedOrgGets403UntilItIsResumed() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway)
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 200)
        try await gateway.admin("POST", "/admin/v1/orgs/\(customer.org)/suspend")
        let answer = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(answer.status == 403)
        #expect(answer.errorCode == "org_suspended")
        #expect(answer.header("x-should-retry") == "false")
        // Before anything is said of the body.
        try await until("the cached key's suspension", within: .seconds(1)) {
            try await gateway.ask(.post("/v1/chat/completions", "{", key: customer.key)).status == 403
        }
        try await until("the same of the models", within: .seconds(1)) {
            try await gateway.ask(.get("/v1/models", key: customer.key)).status == 403
        }
        try await gateway.admin("POST", "/admin/v1/orgs/\(customer.org)/resume")
        try await until("the org's return", within: .seconds(1)) {
            try await gateway.ask(.chat("fast", key: customer.key)).status == 200
        }
        _ = try await customer.books(settles: 2)
    }

    @Test func limitsAndMoneyComeAfterTheModelAndRatesBeforeMoney() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"rpm\":1")
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 200)
        #expect(try await gateway.ask(.chat("nobody", key: customer.key)).errorCode == "model_not_found")
        #expect(
            try await gateway.ask(.post("/v1/chat/completions", "{", key: customer.key)).errorCode == "invalid_json")
        let tooLong = try await gateway.ask(.chat("fast", key: customer.key, tokens: 1_000_000))
        #expect(tooLong.status == 400)
        #expect(tooLong.errorCode == "context_length_exceeded")
        let broke = try await Customer.create(on: gateway, credit: "0", limits: ",\"rpm\":1")
        #expect(try await gateway.ask(.chat("fast", key: broke.key)).errorCode == "insufficient_quota")
        let limited = try await gateway.ask(.chat("fast", key: customer.key, tokens: 100_000))
        #expect(limited.errorCode == "rate_limit_exceeded")
        #expect(limited.header("x-should-retry") == nil)
    }

    @Test func anUnknownModelGets404() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway)
        let answer = try await gateway.ask(.chat("gpt-99", key: customer.key))
        #expect(answer.status == 404)
        #expect(answer.errorCode == "model_not_found")
        #expect(try answer.json()["error"]?["param"]?.string == "model")
        #expect(answer.text.contains("gpt-99"))
        try await customer.expectNoCharge()
    }

    // MARK: Limits

    @Test func requestsAMinuteAreLimitedTo429WithBothRetryHeaders() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"rpm\":3")
        for _ in 0..<3 { #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 200) }
        let answer = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(answer.status == 429)
        #expect(answer.errorCode == "rate_limit_exceeded")
        let milliseconds = try #require(Int(answer.header("retry-after-ms") ?? ""))
        #expect((1...60_000).contains(milliseconds))
        #expect(Int(answer.header("retry-after") ?? "") == (milliseconds + 999) / 1_000)
        #expect(answer.header("x-ratelimit-remaining-requests") == "0")
        #expect(answer.header("x-should-retry") == nil)
        _ = try await customer.books(settles: 3)
    }

    @Test func aKeysOwnLimitHoldsBesideTheOrgs() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"rpm\":100", keyLimits: ",\"rpm\":1")
        let first = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(first.header("x-ratelimit-limit-requests") == "1")
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 429)
        let other = try await gateway.admin("POST", "/admin/v1/keys", "{\"org\":\"\(customer.org)\"}")
        #expect(try await gateway.ask(.chat("fast", key: other["key"]?.string)).status == 200)
    }

    @Test func tokensAMinuteAreLimitedAndUnusedOnesComeBack() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"tpm\":1000")
        // 900 asked for, 10 or so used.
        let wide = "{\"model\":\"fast\",\"max_tokens\":900,\"seed\":5,\"stop\":[\" \"],\(Self.messages)}"
        let first = try await gateway.ask(.post("/v1/chat/completions", wide, key: customer.key))
        #expect(first.status == 200)
        _ = try await customer.books(settles: 1)
        let second = try await gateway.ask(.post("/v1/chat/completions", wide, key: customer.key))
        #expect(second.status == 200, "\(second.text)")
        _ = try await customer.books(settles: 2)
        let full = "{\"model\":\"fast\",\"max_tokens\":900,\"ignore_eos\":true,\(Self.messages)}"
        #expect(try await gateway.ask(.post("/v1/chat/completions", full, key: customer.key)).status == 200)
        let refused = try await gateway.ask(.post("/v1/chat/completions", full, key: customer.key))
        #expect(refused.status == 429)
        #expect(try refused.json()["error"]?["type"]?.string == "tokens")
        #expect(Int(refused.header("retry-after-ms") ?? "") != nil)
    }

    private static let messages = #""messages":[{"role":"user","content":"x"}]"#

    @Test func aRequestLargerThanTheLimitIsRefusedForGood() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"tpm\":100")
        let answer = try await gateway.ask(.chat("fast", key: customer.key, tokens: 500))
        #expect(answer.status == 429)
        #expect(answer.header("x-should-retry") == "false")
        #expect(answer.header("retry-after-ms") == nil)
        try await customer.expectNoCharge()
    }

    @Test func concurrencyIsLimitedAndASlotComesBackWithItsAnswer() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"concurrency\":2")
        let running = try [gateway.connect(), gateway.connect()]
        for wire in running {
            try wire.send(Ask.chat("slow", key: customer.key, stream: true, tokens: 10))
            _ = try await blocking { try wire.head() }
        }
        let refused = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(refused.status == 429)
        #expect(refused.errorCode == "rate_limit_exceeded")
        #expect(Int(refused.header("retry-after-ms") ?? "") != nil)
        try await blocking { for wire in running { while try wire.nextEvent() != nil {} } }
        try await until("a free slot") { try await gateway.ask(.chat("fast", key: customer.key)).status == 200 }
    }

    @Test func anExhaustedBalanceGets429WithoutRetry() async throws {
        let gateway = try await gateway()
        // 20 tokens of output and a little prompt fit once.
        let customer = try await Customer.create(on: gateway, credit: "0.0003")
        #expect(try await gateway.ask(.chat("fast", key: customer.key, tokens: 20)).status == 200)
        _ = try await customer.books(settles: 1)
        let answer = try await gateway.ask(.chat("fast", key: customer.key, tokens: 200))
        #expect(answer.status == 429)
        #expect(answer.errorCode == "insufficient_quota")
        #expect(try answer.json()["error"]?["type"]?.string == "insufficient_quota")
        #expect(answer.header("x-should-retry") == "false")
        let books = try await customer.books(settles: 1)
        #expect(books.balance >= 0)
        try await gateway.admin(
            "POST", "/admin/v1/orgs/\(customer.org)/credit", #"{"amount_usd":"1","reference":"top-up"}"#)
        #expect(try await gateway.ask(.chat("fast", key: customer.key, tokens: 200)).status == 200)
    }

    @Test func anOrgWithoutCreditIsRefusedUnlessItMayOwe() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, credit: "0")
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).errorCode == "insufficient_quota")
        try await gateway.admin("PATCH", "/admin/v1/orgs/\(customer.org)", #"{"credit_limit_usd":"1"}"#)
        #expect(try await gateway.ask(.chat("fast", key: customer.key)).status == 200)
        let books = try await customer.books(settles: 1)
        #expect(books.balance < 0)
    }

    @Test func moneyThatRunningRequestsHoldIsSaidToComeBack() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, credit: "0.001")
        let wire = try gateway.connect()
        try wire.send(Ask.chat("slow", key: customer.key, stream: true, tokens: 300))
        _ = try await blocking { try wire.head() }
        let answer = try await gateway.ask(.chat("fast", key: customer.key, tokens: 300))
        #expect(answer.status == 429)
        #expect(answer.errorCode == "insufficient_quota")
        #expect(answer.header("retry-after-ms") == "1000")
        #expect(answer.header("x-should-retry") == nil)
        wire.close()
        try await until("the hold's end") {
            try await gateway.ask(.chat("fast", key: customer.key, tokens: 300)).status == 200
        }
        _ = try await customer.books(settles: 2)
    }

    @Test func refusalsHoldNothing() async throws {
        let gateway = try await gateway()
        let customer = try await Customer.create(on: gateway, limits: ",\"rpm\":2")
        for model in ["status-500", "bad-json", "fast", "fast"] {
            _ = try await gateway.ask(.chat(model, key: customer.key))
        }
        try await until("all holds to be gone") {
            try await customer.show()["reserved_nanousd"]?.integer == 0
        }
        let metrics = try await Metrics(gateway.metrics())
        #expect(metrics.value("tollgate_reservations_open") != nil)
    }
}

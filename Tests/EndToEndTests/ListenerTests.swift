import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Who asks: proxies in between, web pages, and addresses whose keys fail.
@Suite(.serialized) struct ListenerTests {
    private static let proxied = Task { () async throws -> (GatewayUnderTest, SimulatedNode) in
        try await start([
            "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]", "failed_keys: { per_address: 3/m }",
            "cors: { origins: [\"https://app.example\"] }",
        ])
    }

    private static func start(_ sections: [String]) async throws -> (GatewayUnderTest, SimulatedNode) {
        let node = try await SimulatedNode.serving("fast")
        var plan = GatewayPlan()
        plan.sections = sections
        // One key cache, so that what it knows is certain.
        plan.loops = 1
        plan.serve("fast", port: node.port)
        return (try await GatewayUnderTest.start(plan), node)
    }

    private func client(of answer: Answer, _ gateway: GatewayUnderTest) async throws -> String? {
        try await gateway.accessLine(of: answer.requestID)["client"]?.string
    }

    // MARK: Proxies

    @Test func aTrustedProxyNamesTheClientAndNobodyElseDoes() async throws {
        let (gateway, _) = try await Self.proxied.value
        let key = try await Customer.create(on: gateway).key
        let ask = Ask.get("/v1/models", key: key)
        let named = try await gateway.ask(ask.with("X-Forwarded-For", "6.6.6.6, 198.51.100.7, 10.0.0.2"))
        #expect(try await client(of: named, gateway) == "198.51.100.7")
        let standard = try await gateway.ask(ask.with("Forwarded", "for=\"[2001:db8::7]:99\""))
        #expect(try await client(of: standard, gateway) == "2001:db8::7")

        let (open, _) = try await Self.start([])
        let other = try await Customer.create(on: open).key
        let spoofed = try await open.ask(
            Ask.get("/v1/models", key: other).with("X-Forwarded-For", "198.51.100.7").with("Forwarded", "for=1.1.1.1"))
        #expect(try await client(of: spoofed, open) == "127.0.0.1")
    }

    @Test(arguments: [false, true])
    func aProxyHeaderNamesTheClientInBothVersionsAndAtEverySplit(isEncrypted: Bool) async throws {
        let certificate = try await Certificate()
        let (gateway, _) = try await Self.start(
            ["trusted_proxies: [127.0.0.1]", "proxy_protocol: true"] + (isEncrypted ? [certificate.section] : []))
        let key = try await Customer.create(on: gateway).key
        let line = Array("PROXY TCP4 198.51.100.7 10.0.0.1 5000 443\r\n".utf8)
        let binary: [UInt8] =
            [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, 0x21, 0x21, 0, 36, 0x20, 1, 0x0D, 0xB8]
            + [UInt8](repeating: 0, count: 11) + [7] + [UInt8](repeating: 0, count: 20)
        let local: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, 0x20, 0, 0, 0]
        let port = gateway.port
        for (header, expected) in [(line, "198.51.100.7"), (binary, "2001:db8::7"), (local, "127.0.0.1")] {
            let answers = try await blocking {
                if isEncrypted {
                    let wire = try H2Wire(port: port, prefix: header)
                    try wire.send(1, .get("/v1/models", key: key))
                    return [try wire.response(1)]
                }
                let ask = Ask.get("/v1/models", key: key).bytes
                return try [0, 1, header.count / 2, header.count - 1, header.count].map { split in
                    let wire = try Wire(port: port)
                    try wire.send(Array(header[..<split]))
                    try wire.send(Array(header[split...]) + ask)
                    return try wire.response()
                }
            }
            for answer in answers {
                #expect(answer.status == 200)
                #expect(try await client(of: answer, gateway) == expected)
            }
        }
    }

    @Test func aTrustedProxyWithoutItsHeaderIsClosedAndOthersNeedNone() async throws {
        let (strict, _) = try await Self.start([
            "trusted_proxies: [127.0.0.1]", "proxy_protocol: true", "timeouts: { header: 600ms }",
        ])
        let silent = try strict.connect()
        let bare = try await strict.wire { wire in
            try wire.send(Ask.get("/v1/models").bytes)
            return try? wire.rest()
        }
        #expect(bare == nil || bare == "")
        #expect(try await blocking { try silent.rest() } == "")
        try await until("no connection to be left") { try await strict.gauge("tollgate_connections_open") == 0 }

        let (others, _) = try await Self.start(["trusted_proxies: [10.0.0.0/8]", "proxy_protocol: true"])
        let key = try await Customer.create(on: others).key
        #expect(try await others.ask(.get("/v1/models", key: key)).status == 200)
        let unread = try await others.wire { wire in
            try wire.send(Array("PROXY TCP4 198.51.100.7 10.0.0.1 5000 443\r\n".utf8) + Ask.get("/v1/models").bytes)
            return try wire.response().status
        }
        #expect(unread == 400)
    }

    // MARK: CORS

    @Test func aPreflightNeedsNoKeyAndAnswersSayWhoMayRead() async throws {
        let (gateway, _) = try await Self.proxied.value
        let customer = try await Customer.create(on: gateway)
        func preflight(_ path: String, origin: String) async throws -> Answer {
            try await gateway.ask(
                Ask(method: "OPTIONS", path: path).with("Origin", origin)
                    .with("Access-Control-Request-Method", "POST")
                    .with("Access-Control-Request-Headers", "authorization,content-type"))
        }
        let leave = try await gateway.wire { wire in
            let ask = Ask(method: "OPTIONS", path: "/v1/chat/completions").with("Origin", "https://app.example")
                .with("Access-Control-Request-Method", "POST")
                .with("Access-Control-Request-Headers", "authorization,content-type")
            try wire.send(ask.bytes + Ask.get("/v1/models", key: customer.key).bytes)
            // No body and no length: what follows the blank line is the next answer.
            return (try wire.response(), try wire.response().status)
        }
        #expect(leave.0.status == 204)
        #expect(leave.0.header("access-control-allow-origin") == "https://app.example")
        #expect(leave.0.header("access-control-allow-methods") == "POST")
        #expect(leave.0.header("access-control-allow-headers") == "authorization,content-type")
        #expect(leave.0.header("content-length") == nil)
        #expect(leave.0.header("content-type") == nil)
        #expect(leave.1 == 200)

        let stranger = try await preflight("/v1/chat/completions", origin: "https://evil.example")
        #expect(stranger.header("access-control-allow-origin") == nil)
        #expect(try await preflight("/v1/nothing", origin: "https://app.example").status == 404)

        for (ask, status) in [
            (Ask.chat("fast", key: customer.key), 200), (.chat("fast", key: customer.key, stream: true), 200),
            (.get("/v1/nothing"), 404),
        ] {
            let answer = try await gateway.ask(ask.with("Origin", "https://app.example"))
            #expect(answer.status == status)
            #expect(answer.header("access-control-allow-origin") == "https://app.example")
            #expect(answer.header("vary") == "origin")
            #expect(answer.header("access-control-expose-headers")?.contains("x-request-id") == true)
        }
        let plain = try await gateway.ask(.get("/v1/models", key: customer.key))
        #expect(!plain.headers.contains { $0.name.hasPrefix("access-control") })
        // A cache must not give this one to a page.
        #expect(plain.header("vary") == "origin")
    }

    /// As `openapi.yaml` says in its description.
    @Test func everyDescribedPathAnswersPreflights() async throws {
        let (gateway, _) = try await Self.proxied.value
        let contract = try await gateway.contract()
        #expect(contract.paths.count == 12)
        for path in contract.paths {
            let target = path.replacingOccurrences(of: "{id}", with: "fast")
            let ask = Ask(method: "OPTIONS", path: target).with("Origin", "https://app.example")
            let answer = try await gateway.ask(
                ask.with("Access-Control-Request-Method", "POST")
                    .with("Access-Control-Request-Headers", "authorization"))
            #expect(answer.status == 204, "\(path)")
            #expect(answer.body.isEmpty)
            #expect(answer.header("access-control-allow-origin") == "https://app.example")
            #expect(answer.header("access-control-allow-methods") == contract.methods(of: path).joined(separator: ", "))
            #expect(answer.header("access-control-allow-headers") == "authorization")
            #expect(Int(answer.header("access-control-max-age") ?? "") ?? 0 > 0)
            // Without the method that it is about it is no preflight.
            #expect(try await gateway.ask(ask).status == 405, "\(path)")
        }
    }

    @Test func withoutCORSOptionsStays405() async throws {
        let gateway = try await SharedGateway.get().gateway
        let answer = try await gateway.ask(
            Ask(method: "OPTIONS", path: "/v1/models").with("Origin", "https://app.example")
                .with("Access-Control-Request-Method", "GET"))
        #expect(answer.status == 405)
        #expect(!answer.headers.contains { $0.name.hasPrefix("access-control") })
    }

    // MARK: Failed keys

    @Test func tooManyFailedKeysOfAnAddressGet429AndGoodOnesAreServed() async throws {
        let (gateway, _) = try await Self.proxied.value
        let customer = try await Customer.create(on: gateway)
        let fresh = try await Customer.create(on: gateway)
        func ask(_ key: String?, from address: String) async throws -> Answer {
            try await gateway.ask(Ask.get("/v1/models", key: key).with("X-Forwarded-For", address))
        }
        let bad = "203.0.113.66"
        // Known before anything fails.
        #expect(try await ask(customer.key, from: bad).status == 200)
        for key in [nil, "sk-tg-nonsense", "x"] { #expect(try await ask(key, from: bad).status == 401) }
        for key in [nil, "sk-tg-nonsense", fresh.key] {
            let answer = try await ask(key, from: bad)
            #expect(answer.status == 429)
            #expect(answer.errorCode == "rate_limit_exceeded")
            let wait = try #require(answer.header("retry-after-ms").flatMap { Int($0) })
            #expect((1...60_000).contains(wait))
            #expect(answer.header("retry-after").flatMap { Int($0) } == (wait + 999) / 1_000)
            #expect(answer.header("x-ratelimit-limit-requests") == nil)
        }
        #expect(try await ask(customer.key, from: bad).status == 200)
        // A key that is revoked meanwhile empties the caches; those that were good before stay so.
        let revoked = try await Customer.create(on: gateway)
        #expect(try await ask(revoked.key, from: "203.0.113.67").status == 200)
        try await gateway.admin("POST", "/admin/v1/keys/\(revoked.keyID)/revoke")
        try await until("the word on the revoked key") {
            try await ask(revoked.key, from: "203.0.113.67").status == 401
        }
        #expect(try await ask(customer.key, from: bad).status == 200)
        #expect(try await ask(nil, from: "203.0.113.67").status == 401)
        let metrics = try await gateway.metrics()
        #expect(metrics.contains("tollgate_refusals_total{reason=\"failed_key_limit\"} 3"))
    }
}

import Billing
import Domain
import Foundation
import Logging
import Synchronization
import Testing

@testable import ControlPlane

@Suite struct AdminAuthentication {
    @Test func everythingUnderAdminNeedsTheToken() async throws {
        try await Harness.run { server in
            for route in AdminRoute.all where !AdminRoute.openPaths.contains(route.path) {
                let path = route.path.replacing("{org}", with: "acme").replacing("{", with: "").replacing("}", with: "")
                for token in [nil, "wrong", "", Harness.token + "x", String(Harness.token.dropLast())] {
                    let reply = try await server.send(route.methodName, path, token: token)
                    #expect(reply.status == 401, "\(route.methodName) \(path) with \(token ?? "none")")
                    #expect(try reply.errorCode() == "unauthorized")
                    #expect(reply.headers["www-authenticate"] == "Bearer")
                }
            }
        }
    }

    @Test func unknownPathsUnderAdminNeedTheTokenToo() async throws {
        try await Harness.run { server in
            #expect(try await server.send("GET", "/admin/v1/secrets", token: nil).status == 401)
            let known = try await server.send("GET", "/admin/v1/secrets")
            #expect(known.status == 404)
            #expect(try known.errorCode() == "not_found")
        }
    }

    @Test func healthAndMetricsNeedNoToken() async throws {
        try await Harness.run { server in
            #expect(try await server.send("GET", "/livez", token: nil).json() == .object(["status": .string("live")]))
            #expect(try await server.send("GET", "/readyz", token: nil).json() == .object(["status": .string("ready")]))
            let metrics = try await server.send("GET", "/metrics", token: nil)
            #expect(metrics.text == "tollgate_up 1\n")
            #expect(metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
            server.gateway.reason.withLock { $0 = "Redis is away." }
            let unready = try await server.send("GET", "/readyz", token: nil)
            #expect(unready.status == 503)
            #expect(try unready.errorCode() == "not_ready")
            #expect(unready.text.contains("Redis is away."))
        }
    }

    @Test func theSchemeIsCaseInsensitiveAndOnlyBearer() async throws {
        try await Harness.run { (server) async throws in
            let lower = ["Authorization": "bearer \(Harness.token)"]
            #expect(try await server.send("GET", "/admin/v1/orgs", token: nil, headers: lower).status == 200)
            let basic = ["Authorization": "Basic \(Harness.token)"]
            #expect(try await server.send("GET", "/admin/v1/orgs", token: nil, headers: basic).status == 401)
        }
    }

    @Test func tokensMatchOnlyThemselves() {
        let token = AdminToken("abc")!
        #expect(token.matches(AdminToken("abc")!))
        for other in ["abd", "ab", "abcd", "ABC", "abc\0"] { #expect(!token.matches(AdminToken(other)!)) }
        #expect(AdminToken("") == nil)
        #expect(AdminToken(String(repeating: "a", count: AdminToken.bytesMax + 1)) == nil)
        #expect("\(token)" == "<redacted>")
        var dumped = ""
        dump(token, to: &dumped)
        #expect(!dumped.contains("97"))
    }
}

@Suite struct AdminRoutes {
    @Test func anOrgIsMadeWithDefaultsForWhatIsNotNamed() async throws {
        try await Harness.run { server in
            let made = try await server.send(
                "POST", "/admin/v1/orgs",
                #"{"id":"acme","name":"Acme Ltd","opening_credit_usd":"12.50","rpm":7,"tpm":null}"#)
            #expect(made.status == 201)
            let org = try made.json()
            #expect(org["balance_nanousd"] == .integer(12_500_000_000))
            #expect(org["rpm"] == .integer(7))
            #expect(org["tpm"] == .null)
            #expect(org["concurrency"] == .integer(64))
            #expect(org["status"] == .string("active"))
            #expect(try await server.send("GET", "/admin/v1/orgs/acme").json() == org)
            #expect(try await server.send("GET", "/admin/v1/orgs").json() == .array([org]))
            let again = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            #expect(again.status == 409)
            #expect(try again.errorCode() == "already_exists")
        }
    }

    @Test func anUpdateChangesOnlyWhatItNames() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"a/b:c","name":"Before"}"#)
            let updated = try await server.send(
                "PATCH", "/admin/v1/orgs/a%2Fb%3Ac", #"{"credit_limit_usd":"0.000000001","rpm":null}"#)
            #expect(updated.status == 200)
            let org = try updated.json()
            #expect(org["id"] == .string("a/b:c"))
            #expect(org["name"] == .string("Before"))
            #expect(org["credit_limit_nanousd"] == .integer(1))
            #expect(org["rpm"] == .null)
            #expect(org["tpm"] == .integer(200_000))
        }
    }

    @Test func suspendAndResumeSetTheStatus() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let suspended = try await server.send("POST", "/admin/v1/orgs/acme/suspend")
            #expect(try suspended.json()["status"] == .string("suspended"))
            let resumed = try await server.send("POST", "/admin/v1/orgs/acme/resume", "{}")
            #expect(try resumed.json()["status"] == .string("active"))
            #expect(try await server.send("POST", "/admin/v1/orgs/none/suspend").status == 404)
        }
    }

    @Test func aReferenceIsCreditedOnce() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let path = "/admin/v1/orgs/acme/credit"
            let body = #"{"amount_usd":"5","reference":"inv-1"}"#
            let first = try await server.send("POST", path, body)
            #expect(first.status == 201)
            #expect(try first.json()["repeat"] == .bool(false))
            #expect(try first.json()["amount_nanousd"] == .integer(5_000_000_000))
            #expect(try first.json()["type"] == .string("credit"))
            let second = try await server.send("POST", path, body)
            #expect(second.status == 200)
            #expect(try second.json()["repeat"] == .bool(true))
            #expect(try second.json()["id"] == first.json()["id"])
            let other = try await server.send("POST", path, #"{"amount_usd":"6","reference":"inv-1"}"#)
            #expect(other.status == 409)
            #expect(try other.errorCode() == "reference_reused")
            #expect(server.log.lines.filter { $0.contains("action=org.credit") }.count == 1)
        }
    }

    @Test func aKeysSecretIsInItsFirstAnswerOnly() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let made = try await server.send("POST", "/admin/v1/keys", #"{"org":"acme","name":"batch","rpm":60}"#)
            #expect(made.status == 201)
            let key = try made.json()
            #expect(key["key"] == .string(FakeOperatorStore.secret))
            #expect(key["last4"] == .string("cret"))
            #expect(key["org"] == .string("acme"))
            guard case .string(let id)? = key["id"] else { throw Reply.Malformed() }
            let replies = [
                try await server.send("GET", "/admin/v1/keys?org=acme"),
                try await server.send("GET", "/admin/v1/keys/\(id)"),
                try await server.send("PATCH", "/admin/v1/keys/\(id)", #"{"name":"b","rpm":null,"tpm":9}"#),
                try await server.send("POST", "/admin/v1/keys/\(id)/revoke"),
            ]
            for reply in replies {
                #expect(reply.status == 200)
                #expect(!reply.text.contains(FakeOperatorStore.secret))
            }
            #expect(try replies[0].json()[0]?["rpm"] == .integer(60))
            #expect(try replies[2].json()["rpm"] == .null)
            #expect(try replies[2].json()["tpm"] == .integer(9))
            #expect(try replies[3].json()["status"] == .string("revoked"))
            #expect(try await server.send("GET", "/admin/v1/keys").status == 400)
            #expect(try await server.send("GET", "/admin/v1/keys/none").status == 404)
        }
    }

    @Test func aKeysModelsAreCheckedAgainstWhatIsConfigured() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let made = try await server.send(
                "POST", "/admin/v1/keys", #"{"org":"acme","models":["gpt-4o-mini","bge","llama-3.1-8b"]}"#)
            #expect(made.status == 201)
            #expect(try made.json()["models"] == .array([.string("bge"), .string("llama-3.1-8b")]))
            guard case .string(let id)? = try made.json()["id"] else { throw Reply.Malformed() }
            let path = "/admin/v1/keys/\(id)"
            let kept = try await server.send("PATCH", path, #"{"name":"b"}"#)
            #expect(try kept.json()["models"] == made.json()["models"])
            let fewer = try await server.send("PATCH", path, #"{"models":["bge"]}"#)
            #expect(try fewer.json()["models"] == .array([.string("bge")]))
            let all = try await server.send("PATCH", path, #"{"models":null}"#)
            #expect(try all.json()["models"] == .null)
            let unknown = try await server.send("PATCH", path, #"{"models":["bge","lama"]}"#)
            #expect(unknown.status == 400)
            #expect(unknown.text.contains("There is no model 'lama'; configured are bge, llama-3.1-8b."))
            let many = (0...64).map { _ in "\"bge\"" }.joined(separator: ",")
            for models in ["[]", "\"bge\"", "[1]", "[\(many)]"] {
                #expect(try await server.send("PATCH", path, "{\"models\":\(models)}").status == 400, "\(models)")
            }
            #expect(try await server.send("GET", path).json()["models"] == .null)
        }
    }

    @Test func modelsWithSlashesHavePrices() async throws {
        try await Harness.run { server in
            let body = #"{"input_usd":"0.05","cached_input_usd":"0","output_usd":"0.08"}"#
            let plain = try await server.send("PUT", "/admin/v1/prices/meta/llama-3.1", body)
            #expect(plain.status == 200)
            #expect(try plain.json()["model"] == .string("meta/llama-3.1"))
            #expect(try plain.json()["input_nanousd"] == .integer(50_000_000))
            let encoded = try await server.send("PUT", "/admin/v1/prices/meta%2Fllama-3.1", body)
            #expect(try encoded.json()["price_version"] == .integer(2))
            let shown = try await server.send("GET", "/admin/v1/prices/meta%2Fllama-3.1")
            #expect(try shown.json() == encoded.json())
            #expect(try await server.send("GET", "/admin/v1/prices").json().count == 1)
            #expect(try await server.send("GET", "/admin/v1/prices/other").status == 404)
            let partial = try await server.send("PUT", "/admin/v1/prices/m", #"{"input_usd":"1"}"#)
            #expect(partial.status == 400)
            #expect(partial.text.contains("'cached_input_usd' is missing"))
        }
    }

    @Test func theLedgerIsReadByPages() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            for index in 0..<5 {
                _ = try await server.send(
                    "POST", "/admin/v1/orgs/acme/credit", #"{"amount_usd":"1","reference":"r\#(index)"}"#)
            }
            let first = try await server.send("GET", "/admin/v1/orgs/acme/ledger?limit=2").json()
            #expect(first.count == 2)
            guard case .string(let last)? = first[1]?["id"] else { throw Reply.Malformed() }
            let rest = try await server.send("GET", "/admin/v1/orgs/acme/ledger?after=\(last)").json()
            #expect(rest.count == 3)
            #expect(rest[0]?["reference"] == .string("r2"))
            #expect(rest[0]?["request_id"] == .null)
            for after in ["x", "1", "1-", "-1", "1-+1", "(1-0", ""] {
                #expect(try await server.send("GET", "/admin/v1/orgs/acme/ledger?after=\(after)").status == 400)
            }
            for limit in ["0", "1001", "-1", "x", ""] {
                #expect(try await server.send("GET", "/admin/v1/orgs/acme/ledger?limit=\(limit)").status == 400)
            }
            let verified = try await server.send("GET", "/admin/v1/orgs/acme/ledger/verify").json()
            #expect(
                verified
                    == .object(["entries": .integer(5), "drift_nanousd": .integer(0), "open_reservations": .integer(2)])
            )
        }
    }

    @Test func usageIsNamedByItsGrouping() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            server.store.state.withLock {
                $0.usage = [
                    UsageRow(
                        group: "llama", requests: 2,
                        usage: TokenUsage(promptTokens: 10, cachedTokens: 4, completionTokens: 6),
                        cost: NanoUSD(unchecked: 99))
                ]
            }
            let rows = try await server.send(
                "GET", "/admin/v1/orgs/acme/usage?from=2026-11-01&to=2026-11-30&by=model"
            ).json()
            #expect(
                rows[0]
                    == .object([
                        "model": .string("llama"), "requests": .integer(2), "prompt_tokens": .integer(10),
                        "cached_tokens": .integer(4), "completion_tokens": .integer(6), "cost_nanousd": .integer(99),
                    ]))
            _ = try await server.send("GET", "/admin/v1/orgs/acme/usage?to=2026-03-05")
            let asked = server.store.state.withLock { $0.usageAsked }
            #expect(asked == ["2026-11-01 2026-11-30 model", "2026-03-01 2026-03-05 -"])
            for query in [
                "from=2026-02-30", "from=2026-11-02&to=2026-11-01", "from=2020-01-01&to=2026-01-01", "by=week",
                "from=today",
            ] {
                #expect(try await server.send("GET", "/admin/v1/orgs/acme/usage?\(query)").status == 400, "\(query)")
            }
        }
    }

    @Test func cordonIsHeldUntilUncordoned() async throws {
        try await Harness.run { server in
            let nodes = try await server.send("GET", "/admin/v1/nodes").json()
            #expect(nodes.count == 2)
            #expect(nodes[0]?["prefill_tokens_per_second"] == .number(8_000.5))
            #expect(nodes[0]?["ttft_seconds"] == .null)
            let cordoned = try await server.send("POST", "/admin/v1/nodes/berlin%2F01/cordon")
            #expect(try cordoned.json()["state"] == .string("cordoned"))
            #expect(
                try await server.send("GET", "/admin/v1/nodes/berlin%2F01").json()["state"] == .string("cordoned"))
            #expect(try await server.send("GET", "/admin/v1/nodes/austin-01").json()["state"] == .string("ready"))
            let free = try await server.send("POST", "/admin/v1/nodes/berlin%2F01/uncordon")
            #expect(try free.json()["state"] == .string("ready"))
            #expect(try await server.send("POST", "/admin/v1/nodes/none/cordon").status == 404)
            #expect(try await server.send("GET", "/admin/v1/nodes/none").status == 404)
        }
    }
}

@Suite struct AdminRefusals {
    @Test(arguments: [
        ("not json", "invalid_json"), (#"{"id":"acme""#, "invalid_json"), ("\u{0}", "invalid_json"),
        ("[]", "invalid_request"), ("7", "invalid_request"), ("null", "invalid_request"),
        (#"{"id":7}"#, "invalid_request"), (#"{"id":""}"#, "invalid_request"), (#"{"id":"a b"}"#, "invalid_request"),
        (#"{"id":"{a}"}"#, "invalid_request"), (#"{}"#, "invalid_request"), ("", "invalid_request"),
        (#"{"id":"a","rpn":1}"#, "invalid_request"), (#"{"id":"a","rpm":0}"#, "invalid_request"),
        (#"{"id":"a","rpm":-1}"#, "invalid_request"), (#"{"id":"a","rpm":1.5}"#, "invalid_request"),
        (#"{"id":"a","rpm":"7"}"#, "invalid_request"), (#"{"id":"a","tpm":1000000000001}"#, "invalid_request"),
        (#"{"id":"a","tpm":99999999999999999999}"#, "invalid_request"),
        (#"{"id":"a","opening_credit_usd":5}"#, "invalid_request"),
        (#"{"id":"a","opening_credit_usd":"-5"}"#, "invalid_request"),
        (#"{"id":"a","opening_credit_usd":"1e3"}"#, "invalid_request"),
        (#"{"id":"a","opening_credit_usd":"0.0000000001"}"#, "invalid_request"),
        (#"{"id":"a","opening_credit_usd":"9007200"}"#, "invalid_request"),
        (#"{"id":"a","name":"line\nbreak"}"#, "invalid_request"), (#"{"id":"a","name":null}"#, "invalid_request"),
    ])
    func aBadBodyChangesNothing(body: String, code: String) async throws {
        try await Harness.run { server in
            let reply = try await server.send("POST", "/admin/v1/orgs", body)
            #expect(reply.status == 400)
            #expect(try reply.errorCode() == code)
            #expect(server.store.state.withLock { $0.orgs.isEmpty })
        }
    }

    @Test func anUnknownMemberIsNamed() async throws {
        try await Harness.run { server in
            let reply = try await server.send("POST", "/admin/v1/keys", #"{"org":"acme","rpn":5}"#)
            #expect(reply.text.contains("Unknown member 'rpn'; known are org, name, rpm, tpm, concurrency, models, region."))
            let suspend = try await server.send("POST", "/admin/v1/orgs/acme/suspend", #"{"why":"x"}"#)
            #expect(suspend.status == 400)
            let query = try await server.send("GET", "/admin/v1/orgs?limit=3")
            #expect(query.status == 400)
            let twice = try await server.send("GET", "/admin/v1/keys?org=a&org=b")
            #expect(twice.text.contains("given twice"))
        }
    }

    @Test func anAmountOfZeroIsNoTopUp() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let path = "/admin/v1/orgs/acme/credit"
            #expect(try await server.send("POST", path, #"{"amount_usd":"0","reference":"r"}"#).status == 400)
            #expect(try await server.send("POST", path, #"{"amount_usd":"1"}"#).status == 400)
            #expect(try await server.send("POST", path, #"{"reference":"r"}"#).status == 400)
            #expect(try await server.send("GET", "/admin/v1/orgs/acme/ledger").json() == .array([]))
        }
    }

    @Test func aBodyPastTheLimitIsRefused() async throws {
        try await Harness.run { server in
            let filler = String(repeating: " ", count: RequestFields.bodyBytesMax - 13)
            let fits = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"# + filler)
            #expect(fits.status == 201)
            let over = try await server.send("POST", "/admin/v1/orgs", #"{"id":"beta"}"# + filler + " ")
            #expect(over.status == 413)
            #expect(try over.errorCode() == "body_too_large")
            #expect(server.store.state.withLock { $0.orgs.count } == 1)
        }
    }

    @Test func aWrongMethodIsToldTheRightOnes() async throws {
        try await Harness.run { server in
            let reply = try await server.send("DELETE", "/admin/v1/orgs/acme")
            #expect(reply.status == 405)
            #expect(try reply.errorCode() == "method_not_allowed")
            #expect(reply.headers["allow"] == "GET, PATCH")
            #expect(try await server.send("POST", "/livez", token: nil).status == 405)
        }
    }

    @Test(arguments: [
        (OperatorFailure.Code.notFound, 404, "not_found"), (.alreadyExists, 409, "already_exists"),
        (.referenceReused, 409, "reference_reused"), (.invalid, 400, "invalid_request"),
        (.limitReached, 409, "limit_reached"), (.storeUnavailable, 503, "store_unavailable"),
    ])
    func theStoresFailureIsTheAnswer(code: OperatorFailure.Code, status: Int, name: String) async throws {
        try await Harness.run { server in
            server.store.state.withLock { $0.failure = OperatorFailure(code, "What happened; what to do.") }
            let requests = [
                ("GET", "/admin/v1/orgs", nil), ("GET", "/admin/v1/orgs/a", nil),
                ("POST", "/admin/v1/orgs", #"{"id":"a"}"#), ("PATCH", "/admin/v1/keys/k", "{}"),
                ("POST", "/admin/v1/keys/k/revoke", nil), ("GET", "/admin/v1/prices", nil),
                ("GET", "/admin/v1/orgs/a/ledger/verify", nil), ("GET", "/admin/v1/orgs/a/usage", nil),
            ]
            for (method, path, body) in requests {
                let reply = try await server.send(method, path, body)
                #expect(reply.status == status, "\(method) \(path)")
                #expect(try reply.errorCode() == name)
                #expect(reply.text.contains("What happened; what to do."))
            }
            #expect(!server.log.lines.contains { $0.hasPrefix("audit") })
        }
    }

    @Test func brokenPercentEncodingIsRefused() async throws {
        try await Harness.run { (server) async throws in
            for path in ["/admin/v1/orgs/%", "/admin/v1/orgs/%zz", "/admin/v1/orgs/%ff"] {
                #expect(try await server.send("GET", path).status == 400, "\(path)")
            }
            #expect(try await server.send("GET", "/admin/v1/orgs/%7Ba%7D").status == 404)
        }
    }
}

@Suite struct AdminLog {
    @Test func eachMutationIsAuditedWithoutSecrets() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            _ = try await server.send("PATCH", "/admin/v1/orgs/acme", #"{"rpm":5}"#)
            _ = try await server.send("POST", "/admin/v1/orgs/acme/suspend")
            let made = try await server.send("POST", "/admin/v1/keys", #"{"org":"acme"}"#).json()
            guard case .string(let id)? = made["id"] else { throw Reply.Malformed() }
            _ = try await server.send("POST", "/admin/v1/keys/\(id)/revoke")
            _ = try await server.send(
                "PUT", "/admin/v1/prices/m", #"{"input_usd":"1","cached_input_usd":"1","output_usd":"1"}"#)
            _ = try await server.send("POST", "/admin/v1/nodes/austin-01/cordon")
            _ = try await server.send("GET", "/admin/v1/orgs", token: "wrong-token-99")
            let audit = server.log.lines.filter { $0.hasPrefix("audit ") }
            #expect(
                audit == [
                    "audit action=org.create org=acme who=owner", "audit action=org.update org=acme who=owner",
                    "audit action=org.suspend org=acme who=owner",
                    "audit action=key.create key=\(id) org=acme who=owner",
                    "audit action=key.revoke key=\(id) org=acme who=owner",
                    "audit action=price.set model=m price_version=1 who=owner",
                    "audit action=node.cordon node=austin-01 who=owner",
                ])
            for line in server.log.lines {
                #expect(!line.contains(FakeOperatorStore.secret))
                #expect(!line.contains(Harness.token))
                #expect(!line.contains("wrong-token-99"))
            }
        }
    }

    @Test func aTakenPortIsAnErrorRatherThanAHang() async throws {
        try await Harness.run { server in
            let second = AdminServer(
                host: "127.0.0.1", port: server.port, token: AdminToken("t")!, store: server.store,
                gateway: server.gateway, orgDefaults: OrgDefaults(limits: .unlimited, keysMax: 1),
                logger: Logger(label: "test") { _ in server.log })
            await #expect(throws: (any Error).self) { try await second.run() }
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct AdminConnections {
    @Test func aBodyThatNeverEndsLosesItsConnection() async throws {
        try await Harness.run(bodyTimeout: .milliseconds(50)) { server in
            let head = "POST /admin/v1/orgs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \(Harness.token)\r\n"
            let answer = try await server.exchange(head + "Content-Length: 100\r\n\r\n{")
            #expect(!answer.contains(" 20"))
            #expect(server.store.state.withLock { $0.orgs.isEmpty })
            #expect(try await server.send("GET", "/livez").status == 200)
        }
    }

    @Test func headersPastTheLimitAreRefused() async throws {
        try await Harness.run { server in
            let filler = String(repeating: "a", count: AdminServer.headerBytesMax)
            let answer = try await server.exchange("GET /livez HTTP/1.1\r\nHost: h\r\nX: \(filler)\r\n\r\n")
            #expect(!answer.contains(" 200 "))
        }
    }

    @Test func anIdleConnectionDoesNotHoldUpTheStop() async throws {
        let held = Mutex<Int32>(-1)
        defer { close(held.withLock { $0 }) }
        try await Harness.run { server in
            let port = server.port
            let descriptor = try await onThread { try Harness.connected(port: port) }
            held.withLock { $0 = descriptor }
            let answer = try await onThread {
                let request = Array("GET /livez HTTP/1.1\r\nHost: h\r\n\r\n".utf8)
                _ = request.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, 0) }
                var chunk = [UInt8](repeating: 0, count: 4_096)
                let count = recv(descriptor, &chunk, chunk.count, 0)
                return String(decoding: chunk[..<max(count, 0)], as: UTF8.self)
            }
            #expect(answer.contains(" 200 OK"))
        }
        // Harness.run has ended, so the server has, while this side kept the connection open.
        let descriptor = held.withLock { $0 }
        let end = try await onThread {
            var byte: UInt8 = 0
            return recv(descriptor, &byte, 1, 0)
        }
        #expect(end == 0)
    }
}

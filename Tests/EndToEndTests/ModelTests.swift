import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Aliases, defaults, clamps, what a key sees, and what serves where a model is down.
@Suite(.serialized) struct ModelTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let main: SimulatedNode
        let spare: SimulatedNode
        let broken: SimulatedNode
        let narrow: SimulatedNode
    }

    /// What the tokens of `spare` cost, in nano-dollars: thrice the others'.
    private static let spareInput = 3_000
    private static let spareOutput = 6_000

    private static let started = Task { () async throws -> Setup in
        let main = try await SimulatedNode.serving("m")
        let spare = try await SimulatedNode.serving("spare")
        let broken = try await SimulatedNode.serving("broken", fault: "status:500")
        let narrow = try await SimulatedNode.serving("narrow", fault: "first_token:1s")
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        plan.serve(
            "m", port: main.port,
            options: [
                "aliases: [gpt-4o-mini, vendor/m:latest]", "clamps: { max_tokens: 6, n: 2 }",
                "max_output_tokens: 5",
                #"defaults: { temperature: 0.25, logit_bias: { "7": 1 }, seed: 3, stop: ["\n\n"] }"#,
            ])
        let padding = String(repeating: "x", count: 8_000)
        plan.serve("padded", port: main.port, options: ["defaults: { tools_note: \(padding) }"])
        plan.serve("spare", port: spare.port)
        plan.models[2].price = ("3.0", "3.0", "6.0")
        // Its node is cordoned below.
        plan.serve("down", port: main.port, options: ["aliases: [was-down]", "fallbacks: [tiny, dead, spare]"])
        // Below `fallbacks` of "down": its rules refuse what the tests ask for.
        plan.serve("tiny", port: spare.port, options: ["context_tokens: 4", "max_output_tokens: 2"])
        plan.serve("dead", port: main.port)
        plan.serve("broken", port: broken.port, options: ["fallbacks: [spare]"])
        plan.serve("narrow", port: narrow.port, options: ["fallbacks: [spare]"])
        plan.models.append(GatewayPlan.Model(id: "nowhere"))
        for (index, node) in plan.nodes.enumerated() {
            switch node.id {
            case "node-padded": plan.nodes[index].models = ["padded": GatewayPlan.upstreamName("m")]
            case "node-tiny": plan.nodes[index].models = ["tiny": GatewayPlan.upstreamName("spare")]
            case "node-narrow": plan.nodes[index].concurrency = 1
            default: break
            }
        }
        let gateway = try await GatewayUnderTest.start(plan)
        for node in ["node-down", "node-dead"] { try await gateway.admin("POST", "/admin/v1/nodes/\(node)/cordon") }
        return Setup(gateway: gateway, main: main, spare: spare, broken: broken, narrow: narrow)
    }

    private func setup() async throws -> Setup { try await Self.started.value }

    private func listed(_ setup: Setup, _ customer: Customer) async throws -> [String] {
        let list = try await setup.gateway.ask(.get("/v1/models", key: customer.key)).json()
        return (list["data"]?.array ?? []).compactMap { $0["id"]?.string }
    }

    /// Checks that what `spare` served was charged at its price, and nothing else was.
    private func expectSparePrices(_ customer: Customer, settles: Int) async throws {
        try await customer.waitUntilNothingIsHeld()
        let entries = try await customer.entries()
        let settled = entries.filter { $0.type == "settle" }
        #expect(settled.count == settles, "\(settled)")
        for entry in settled {
            #expect(entry.model == "spare")
            #expect(entry.completion > 0)
            #expect(entry.amount == -(entry.prompt * Self.spareInput + entry.completion * Self.spareOutput))
        }
        let org = try await customer.show()
        #expect(org["balance_nanousd"]?.integer == entries.reduce(0) { $0 + $1.amount })
        let verified = try await customer.gateway.admin("GET", "/admin/v1/orgs/\(customer.org)/ledger/verify")
        #expect(verified["drift_nanousd"]?.integer == 0)
        #expect(verified["open_reservations"]?.integer == 0)
    }

    // MARK: Aliases

    @Test func anAliasIsServedUnderTheModelsOwnName() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        for alias in ["gpt-4o-mini", "vendor/m:latest"] {
            let plain = try await setup.gateway.ask(.chat(alias, key: customer.key, tokens: 3))
            #expect(plain.status == 200)
            #expect(try plain.json()["model"]?.string == "m")
            #expect(plain.header("x-tollgate-fallback") == nil)
            let stream = try await setup.gateway.ask(.chat(alias, key: customer.key, stream: true, tokens: 3))
            #expect(stream.events.last == "[DONE]")
            let chunks = try stream.events.dropLast().map { try JSONValue(parsing: $0) }
            #expect(chunks.allSatisfy { $0["model"]?.string == "m" })
            let card = try await setup.gateway.ask(.get("/v1/models/\(alias)", key: customer.key))
            #expect(try card.json()["id"]?.string == "m")
            #expect(try await setup.gateway.accessLine(of: plain.requestID)["model"]?.string == "m")
        }
        let books = try await customer.books(settles: 4)
        #expect(books.settles.allSatisfy { $0.model == "m" })
        let ids = try await listed(setup, customer)
        #expect(ids.contains("m") && !ids.contains("gpt-4o-mini"))
    }

    // MARK: Defaults and clamps

    @Test func defaultsGoWhereTheClientIsSilentAndOnlyThere() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        let fields = #""metadata":{"mark":"default-mark"},"temperature":0.9,"#
        #expect(try await setup.gateway.ask(.chat("m", key: customer.key, tokens: 2, fields: fields)).status == 200)
        let body = try JSONValue(parsing: await setup.main.recorded("default-mark").body)
        #expect(body["temperature"]?.double == 0.9)
        #expect(body["seed"]?.integer == 3)
        #expect(body["logit_bias"]?["7"]?.integer == 1)
        #expect(body["stop"]?.array?.map(\.string) == ["\n\n"])
        let embedding = Ask.post("/v1/embeddings", #"{"model":"m","input":"embed-mark","user":"embed-mark"}"#)
        var keyed = embedding
        keyed.key = customer.key
        #expect(try await setup.gateway.ask(keyed).status == 200)
        let embedded = try JSONValue(parsing: await setup.main.recorded("embed-mark").body)
        #expect(embedded["temperature"] == nil)
        #expect(embedded["seed"] == nil)
        _ = try await customer.books(settles: 2)
    }

    @Test func whatIsAboveTheClampsIsLoweredAndSaid() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        let fields = #""metadata":{"mark":"clamp-mark"},"n":5,"max_completion_tokens":100,"#
        for stream in [false, true] {
            let ask = Ask.chat("m", key: customer.key, stream: stream, tokens: 100, fields: fields)
            let answer = try await setup.gateway.ask(ask)
            #expect(answer.status == 200, "\(answer.text)")
            #expect(answer.header("x-tollgate-clamped") == "max_tokens=6, n=2")
        }
        let body = try JSONValue(parsing: await setup.main.recorded("clamp-mark").body)
        #expect(body["max_tokens"]?.integer == 6)
        #expect(body["max_completion_tokens"]?.integer == 6)
        #expect(body["n"]?.integer == 2)
        let books = try await customer.books(settles: 2)
        #expect(books.settles.allSatisfy { $0.completion == 12 }, "two choices of six tokens, and charged as such")
        let within = try await setup.gateway.ask(.chat("m", key: customer.key, tokens: 6))
        #expect(within.header("x-tollgate-clamped") == nil)
        let silent = try await setup.gateway.ask(.chat("m", key: customer.key, tokens: nil))
        #expect(silent.status == 200)
        #expect(silent.header("x-tollgate-clamped") == nil)
    }

    @Test(arguments: [
        ("/v1/responses", #""input":"Say it.","max_output_tokens":100"#, "max_output_tokens"),
        ("/v1/messages", #""messages":[{"role":"user","content":"Say it."}],"max_tokens":100"#, "max_tokens"),
        ("/v1/completions", #""prompt":"Say it.","max_tokens":100"#, "max_tokens"),
    ])
    func aliasesAndClampsHoldOnEveryEndpointThatGenerates(path: String, fields: String, limit: String) async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        let body = "{\"model\":\"gpt-4o-mini\",\"metadata\":{\"mark\":\"clamp\(path)\"},\(fields)}"
        let answer = try await setup.gateway.ask(.post(path, body, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try answer.json()["model"]?.string == "m")
        #expect(answer.header("x-tollgate-clamped") == "max_tokens=6")
        let upstream = try JSONValue(parsing: await setup.main.recorded("clamp\(path)").body)
        #expect(upstream[limit]?.integer == 6)
        #expect(upstream["model"]?.string == GatewayPlan.upstreamName("m"))
        let settled = try await customer.onlySettle()
        #expect(settled.model == "m")
        #expect((1...6).contains(settled.completion))
    }

    @Test func aHoldIsOfTheLoweredRequest() async throws {
        let setup = try await setup()
        // Carries 6 tokens of each choice and the prompt's bound, and not 100,000.
        let customer = try await Customer.create(on: setup.gateway, credit: "0.001")
        let lowered = try await setup.gateway.ask(.chat("m", key: customer.key, tokens: 100_000))
        #expect(lowered.status == 200, "\(lowered.text)")
        let refused = try await setup.gateway.ask(.chat("spare", key: customer.key, tokens: 100_000))
        #expect(refused.errorCode == "insufficient_quota")
        _ = try await customer.books(settles: 1)
    }

    @Test func aHoldCoversWhatDefaultsAddToThePrompt() async throws {
        let setup = try await setup()
        // 8,000 bytes may be 8,000 tokens at 1,000 nano-dollars.
        let poor = try await Customer.create(on: setup.gateway, credit: "0.007")
        let refused = try await setup.gateway.ask(.chat("padded", key: poor.key, tokens: 1))
        #expect(refused.errorCode == "insufficient_quota")
        let other = try await Customer.create(on: setup.gateway, credit: "0.009")
        #expect(try await setup.gateway.ask(.chat("padded", key: other.key, tokens: 1)).status == 200)
        _ = try await other.books(settles: 1)
    }

    // MARK: What a key sees

    @Test func toAKeyWhatItMayNotUseDoesNotExist() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(
            on: setup.gateway, keyLimits: #","models":["gpt-4o-mini","down"]"#)
        #expect(try await listed(setup, customer) == ["m"], "'down' is down, and its fallback is not for this key")
        #expect(try await setup.gateway.ask(.chat("gpt-4o-mini", key: customer.key, tokens: 2)).status == 200)
        let unknown = try await setup.gateway.ask(.chat("no-such-model", key: customer.key))
        for model in ["spare", "broken", "nowhere"] {
            let refused = try await setup.gateway.ask(.chat(model, key: customer.key))
            #expect(refused.status == 404)
            #expect(refused.errorCode == "model_not_found")
            #expect(refused.text == unknown.text.replacingOccurrences(of: "no-such-model", with: model))
            #expect(refused.headers.map(\.name) == unknown.headers.map(\.name))
            let card = try await setup.gateway.ask(.get("/v1/models/\(model)", key: customer.key))
            #expect(card.status == 404)
            #expect(card.text == refused.text)
        }
        let down = try await setup.gateway.ask(.chat("was-down", key: customer.key))
        #expect(down.status == 503)
        #expect(down.header("x-tollgate-fallback") == nil)
        _ = try await customer.books(settles: 1)
    }

    @Test func aKeysModelsChangeWithinASecond() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        /// The same answer from every loop, each of which keeps keys of its own.
        func everyLoopSays(_ status: Int) async throws -> Bool {
            for _ in 0..<12 {
                let answer = try await setup.gateway.ask(.get("/v1/models/spare", key: customer.key))
                if answer.status != status { return false }
            }
            return true
        }
        #expect(try await everyLoopSays(200))
        let path = "/admin/v1/keys/\(customer.keyID)"
        let changed = try await setup.gateway.admin("PATCH", path, #"{"models":["m"]}"#)
        #expect(changed["models"]?.array?.map(\.string) == ["m"])
        try await until("the key to be restricted", within: .seconds(1)) {
            try await everyLoopSays(404)
        }
        try await setup.gateway.admin("PATCH", path, #"{"models":null}"#)
        try await until("the key to be free again", within: .seconds(1)) {
            try await everyLoopSays(200)
        }
        let unknown = try await setup.gateway.adminAnswer("PATCH", path, #"{"models":["sapre"]}"#)
        #expect(unknown.status == 400)
        #expect(
            unknown.text.contains("There is no model 'sapre'; configured are broken, dead, down, m, narrow, nowhere"))
    }

    // MARK: Fallbacks

    @Test(arguments: [false, true]) func aModelThatIsDownIsServedByTheFirstThatCan(stream: Bool) async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        let fallbacks = try await setup.gateway.gauge("tollgate_fallbacks_total")
        let answer = try await setup.gateway.ask(.chat("was-down", key: customer.key, stream: stream, tokens: 7))
        #expect(try await setup.gateway.gauge("tollgate_fallbacks_total") == fallbacks + 1)
        #expect(answer.status == 200, "\(answer.text)")
        #expect(answer.header("x-tollgate-fallback") == "spare", "'tiny' has no room for it, 'dead' is down itself")
        let documents = stream ? Array(answer.events.dropLast()) : [answer.text]
        for document in documents { #expect(try JSONValue(parsing: document)["model"]?.string == "spare") }
        try await expectSparePrices(customer, settles: 1)
        let line = try await setup.gateway.accessLine(of: answer.requestID)
        #expect(line["model"]?.string == "spare")
        #expect(line["node"]?.string == "node-spare")
        #expect(line["attempts"]?.integer == 1)
        let ids = try await listed(setup, customer)
        #expect(ids.contains("down") && !ids.contains("dead") && !ids.contains("nowhere"), "\(ids)")
        #expect(try await setup.gateway.ask(.get("/v1/models/down", key: customer.key)).status == 200)
    }

    @Test(arguments: [false, true]) func whereEveryNodeFailsTheRequestGoesToTheFallback(stream: Bool) async throws {
        let setup = try await setup()
        try await until("the broken node ready") { try await setup.gateway.nodeStates()["node-broken"] == "ready" }
        let customer = try await Customer.create(on: setup.gateway)
        let before = setup.broken.stats.requests
        let answer = try await setup.gateway.ask(.chat("broken", key: customer.key, stream: stream, tokens: 4))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(answer.header("x-tollgate-fallback") == "spare")
        _ = try await setup.broken.stats { $0.requests == before + 1 }
        let line = try await setup.gateway.accessLine(of: answer.requestID)
        #expect(line["attempts"]?.integer == 2)
        #expect(line["failure"]?.isNull == true)
        try await expectSparePrices(customer, settles: 1)
    }

    @Test func aFallbackThatTheBalanceCannotCarryIsRefusedAndNothingIsCharged() async throws {
        let setup = try await setup()
        try await until("the broken node ready") { try await setup.gateway.nodeStates()["node-broken"] == "ready" }
        // Enough for 100 tokens of 'broken', not of 'spare'.
        let customer = try await Customer.create(on: setup.gateway, credit: "0.0006")
        let answer = try await setup.gateway.ask(.chat("broken", key: customer.key, tokens: 100))
        #expect(answer.status == 429, "\(answer.text)")
        #expect(answer.errorCode == "insufficient_quota")
        #expect(answer.header("x-tollgate-fallback") == nil)
        try await customer.expectNoCharge()
    }

    @Test func aModelThatIsBusyIsNotDown() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        let answers = try await withThrowingTaskGroup(of: Answer.self) { group in
            for _ in 0..<4 {
                group.addTask { try await setup.gateway.ask(.chat("narrow", key: customer.key, tokens: 1)) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        // They wait for their turn rather than go to a fallback.
        #expect(answers.allSatisfy { $0.status == 200 })
        #expect(answers.allSatisfy { $0.header("x-tollgate-fallback") == nil })
        #expect(try await listed(setup, customer).contains("narrow"))
    }

    @Test func aKnownModelThatNothingServesIs503AndNotListed() async throws {
        let setup = try await setup()
        let customer = try await Customer.create(on: setup.gateway)
        for model in ["nowhere", "dead"] {
            let answer = try await setup.gateway.ask(.chat(model, key: customer.key))
            #expect(answer.status == 503)
            #expect(answer.errorCode == "overloaded")
            #expect(Int(answer.header("retry-after-ms") ?? "") != nil)
            let card = try await setup.gateway.ask(.get("/v1/models/\(model)", key: customer.key))
            #expect(card.status == 503)
        }
        try await customer.expectNoCharge()
    }
}

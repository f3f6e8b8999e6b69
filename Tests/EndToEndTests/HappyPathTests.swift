import Domain
import Foundation
import JSON
import Simulator
import Testing

/// What works when nothing is wrong, through a real gateway process, and what it costs.
@Suite(.serialized) struct HappyPathTests {
    private func shared() async throws -> (GatewayUnderTest, SharedGateway, Customer) {
        let shared = try await SharedGateway.get()
        return (shared.gateway, shared, try await Customer.create(on: shared.gateway))
    }

    @Test func aPlainChatIsAnsweredAndChargedWhatItsUsageSays() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("fast", key: customer.key, tokens: 11))
        #expect(answer.status == 200)
        #expect(answer.header("content-type") == "application/json")
        let document = try answer.json()
        #expect(document["model"]?.string == "fast")
        #expect(document["object"]?.string == "chat.completion")
        #expect(document["usage"]?["completion_tokens"]?.integer == 11)
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == document["usage"]?["prompt_tokens"]?.integer)
        #expect(entry.cached == document["usage"]?["prompt_tokens_details"]?["cached_tokens"]?.integer ?? 0)
        #expect(entry.completion == 11)
        #expect(!entry.estimated)
        #expect(entry.requestID == answer.requestID)
        #expect(entry.key == customer.keyID)
        #expect(entry.model == "fast")
    }

    @Test func everyAnswerSaysItsRequestIdAndTime() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(answer.requestID.hasPrefix("req_") || answer.requestID.count >= 16)
        #expect(Int(answer.header("openai-processing-ms") ?? "") != nil)
        #expect(answer.header("date")?.hasSuffix(" GMT") == true)
        let other = try await gateway.ask(.chat("fast", key: customer.key))
        #expect(other.requestID != answer.requestID)
        let error = try await gateway.ask(.get("/nowhere"))
        #expect(error.requestID.count == answer.requestID.count)
        let charged = try await customer.books(settles: 2).settles.map(\.requestID)
        #expect(Set(charged) == [answer.requestID, other.requestID])
    }

    @Test func aStreamWithoutIncludeUsageTellsNoneAndIsChargedExactly() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("fast", key: customer.key, stream: true, tokens: 9))
        #expect(answer.status == 200)
        #expect(answer.header("content-type")?.hasPrefix("text/event-stream") == true)
        #expect(answer.events.last == "[DONE]")
        let chunks = try answer.events.dropLast().map { try JSONValue(parsing: $0) }
        #expect(chunks.allSatisfy { $0["usage"] == nil })
        #expect(chunks.allSatisfy { $0["model"]?.string == "fast" })
        #expect(chunks.allSatisfy { $0["choices"]?.array?.count == 1 })
        #expect(chunks.count { $0["choices"]?[0]?["delta"]?["content"]?.string?.isEmpty == false } == 9)
        let entry = try await customer.onlySettle()
        #expect(entry.completion == 9)
        #expect(!entry.estimated)
    }

    @Test func aStreamWithIncludeUsageEndsWithTheUsageThatIsCharged() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(
            .chat("fast", key: customer.key, stream: true, includeUsage: true, tokens: 7))
        #expect(answer.events.last == "[DONE]")
        let chunks = try answer.events.dropLast().map { try JSONValue(parsing: $0) }
        let last = try #require(chunks.last)
        #expect(last["choices"]?.array?.isEmpty == true)
        #expect(last["usage"]?["completion_tokens"]?.integer == 7)
        #expect(chunks.dropLast().allSatisfy { $0["usage"]?.isNull == true || $0["usage"] == nil })
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == last["usage"]?["prompt_tokens"]?.integer)
        #expect(entry.completion == 7)
    }

    @Test func includeUsageFalseIsLikeSilence() async throws {
        let (gateway, shared, customer) = try await shared()
        let answer = try await gateway.ask(
            .chat(
                "recorded", key: customer.key, stream: true, includeUsage: false, tokens: 3,
                fields: "\"user\":\"u-false\","))
        #expect(answer.events.last == "[DONE]")
        #expect(!answer.text.contains("\"usage\""))
        let upstream = try await sent(to: shared.node("recorded"), marked: "u-false")
        #expect(upstream.contains("\"include_usage\":true"))
        #expect(try await customer.onlySettle().completion == 3)
    }

    @Test(arguments: ["\"Once upon\"", "[\"one\",\"two\",\"three\"]", "[11,12,13,14]", "[[1,2],[3,4,5]]"])
    func completionsTakeEveryFormOfPrompt(prompt: String) async throws {
        let (gateway, _, customer) = try await shared()
        let body = "{\"model\":\"fast\",\"max_tokens\":4,\"ignore_eos\":true,\"prompt\":\(prompt)}"
        let answer = try await gateway.ask(.post("/v1/completions", body, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        let document = try answer.json()
        let entry = try await customer.onlySettle()
        #expect(document["object"]?.string == "text_completion")
        #expect(document["model"]?.string == "fast")
        #expect(entry.prompt == document["usage"]?["prompt_tokens"]?.integer)
        #expect(entry.completion == document["usage"]?["completion_tokens"]?.integer)
        #expect(entry.completion == 4 * (document["choices"]?.array?.count ?? 0))
    }

    @Test func aStreamedCompletionIsRelayedAndCharged() async throws {
        let (gateway, _, customer) = try await shared()
        let body = "{\"model\":\"fast\",\"max_tokens\":5,\"ignore_eos\":true,\"stream\":true,\"prompt\":\"x\"}"
        let answer = try await gateway.ask(.post("/v1/completions", body, key: customer.key))
        #expect(answer.events.last == "[DONE]")
        #expect(!answer.text.contains("\"usage\""))
        #expect(try await customer.onlySettle().completion == 5)
    }

    @Test(arguments: ["float", "base64"])
    func embeddingsAreAnsweredInBothFormatsAndChargedForThePrompt(format: String) async throws {
        let (gateway, _, customer) = try await shared()
        let body = "{\"model\":\"fast\",\"encoding_format\":\"\(format)\",\"input\":[\"a b c\",\"d e\"]}"
        let answer = try await gateway.ask(.post("/v1/embeddings", body, key: customer.key))
        #expect(answer.status == 200, "\(answer.text)")
        let document = try answer.json()
        #expect(document["model"]?.string == "fast")
        #expect(document["data"]?.array?.count == 2)
        let vector = document["data"]?[1]?["embedding"]
        #expect(format == "base64" ? vector?.string?.isEmpty == false : vector?.array?.count == 384)
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == document["usage"]?["prompt_tokens"]?.integer)
        #expect(entry.completion == 0)
        #expect(!entry.estimated)
    }

    @Test func severalChoicesAreChargedTogether() async throws {
        let (gateway, _, customer) = try await shared()
        let answer = try await gateway.ask(.chat("fast", key: customer.key, tokens: 6, fields: "\"n\":3,"))
        #expect(try answer.json()["choices"]?.array?.count == 3)
        #expect(try await customer.onlySettle().completion == 18)
    }

    @Test func modelsAreListedAndRetrieved() async throws {
        let (gateway, shared, customer) = try await shared()
        let list = try await gateway.ask(.get("/v1/models", key: customer.key))
        #expect(list.status == 200)
        let document = try list.json()
        #expect(document["object"]?.string == "list")
        let ids = document["data"]?.array?.compactMap { $0["id"]?.string } ?? []
        #expect(Set(ids) == Set(shared.nodes.keys))
        let one = try await gateway.ask(.get("/v1/models/fast", key: customer.key))
        #expect(try one.json()["id"]?.string == "fast")
        #expect(try one.json()["object"]?.string == "model")
        let none = try await gateway.ask(.get("/v1/models/gpt-99", key: customer.key))
        #expect(none.status == 404)
        #expect(none.errorCode == "model_not_found")
        #expect(try await gateway.ask(.get("/v1/models")).status == 401)
        try await customer.expectNoCharge()
    }

    @Test func unknownParametersReachTheNodeByteForByteAndOnlyListedFieldsArePatched() async throws {
        let (gateway, shared, customer) = try await shared()
        let odd =
            #"{ "x_unknown" :{"a":[1, 2.50,1e3,"\u00e9\/"],"b":null} ,"temperature":0.70,  "user":"u-bytes","#
            + #""stream":true,"model":"recorded","top_p":1.0E0,"messages":[{"role":"user","content":"h\u0069 \ud83d\ude00"}]}"#
        let answer = try await gateway.ask(.post("/v1/chat/completions", odd, key: customer.key))
        #expect(answer.events.last == "[DONE]", "\(answer.text)")
        let upstream = try await sent(to: shared.node("recorded"), marked: "u-bytes")
        // Undo what design.md lists, and nothing may be left of a difference.
        let salt = try #require(upstream.firstMatch(of: /"cache_salt":"([0-9a-f]+)",/))
        let undone =
            upstream.replacingOccurrences(of: String(salt.0), with: "")
            .replacingOccurrences(of: "\"stream_options\":{\"include_usage\":true},", with: "")
            .replacing(/"max_tokens":\d+,/, with: "")
            .replacingOccurrences(of: "\"upstream/recorded\"", with: "\"recorded\"")
        #expect(undone == odd)
    }

    @Test func cacheSaltIsTheOrgsOwn() async throws {
        let (gateway, shared, customer) = try await shared()
        let other = try await Customer.create(on: gateway)
        for (who, mark) in [(customer, "salt-1"), (customer, "salt-2"), (other, "salt-3")] {
            _ = try await gateway.ask(.chat("recorded", key: who.key, fields: "\"user\":\"\(mark)\","))
        }
        var salts: [Substring] = []
        for mark in ["salt-1", "salt-2", "salt-3"] {
            let body = try await sent(to: shared.node("recorded"), marked: mark)
            salts.append(try #require(body.firstMatch(of: /"cache_salt":"([0-9a-f]{16,})"/)).1)
        }
        #expect(salts[0] == salts[1])
        #expect(salts[0] != salts[2])
    }

    @Test func maxTokensIsAlwaysWrittenUpstream() async throws {
        let (gateway, shared, customer) = try await shared()
        let body = "{\"model\":\"recorded\",\"user\":\"u-max\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
        #expect(try await gateway.ask(.post("/v1/chat/completions", body, key: customer.key)).status == 200)
        let upstream = try JSONValue(parsing: await sent(to: shared.node("recorded"), marked: "u-max"))
        #expect((upstream["max_tokens"]?.integer ?? 0) > 0)
    }

    @Test func noClientHeaderReachesTheNode() async throws {
        let (gateway, shared, customer) = try await shared()
        let ask = Ask.chat("recorded", key: customer.key, fields: "\"user\":\"u-headers\",")
            .with("X-Priority", "0").with("OpenAI-Organization", "somebody").with("Cookie", "a=b")
            .with("Accept-Encoding", "gzip").with("X-Request-Id", "mine")
        let answer = try await gateway.ask(ask)
        #expect(answer.status == 200)
        #expect(answer.requestID != "mine")
        let record = try await shared.node("recorded").recorded("u-headers")
        let allowed: Set<String> = [
            "host", "content-type", "content-length", "user-agent", "x-request-id", "accept", "connection",
            "traceparent",
        ]
        #expect(Set(record.headers.map { $0.name.lowercased() }).subtracting(allowed).isEmpty, "\(record.headers)")
        #expect(record.values(of: "x-request-id") == [answer.requestID])
    }

    @Test func rateHeadersTellLimitsAndWhatRemains() async throws {
        let shared = try await SharedGateway.get()
        let customer = try await Customer.create(
            on: shared.gateway, limits: ",\"rpm\":100,\"tpm\":5000")
        let first = try await shared.gateway.ask(.chat("fast", key: customer.key, tokens: 4))
        #expect(first.header("x-ratelimit-limit-requests") == "100")
        #expect(first.header("x-ratelimit-remaining-requests") == "99")
        #expect(first.header("x-ratelimit-limit-tokens") == "5000")
        let left = try #require(Int(first.header("x-ratelimit-remaining-tokens") ?? ""))
        #expect((1..<5_000).contains(left))
        #expect(first.header("x-ratelimit-reset-requests")?.firstMatch(of: /^(\d+ms|[\d.]+s|\d+m\d+s)$/) != nil)
        let second = try await shared.gateway.ask(.chat("fast", key: customer.key, tokens: 4))
        #expect(second.header("x-ratelimit-remaining-requests") == "98")
        let unlimited = try await Customer.create(on: shared.gateway)
        let free = try await shared.gateway.ask(.chat("fast", key: unlimited.key))
        #expect(free.headers.allSatisfy { !$0.name.hasPrefix("x-ratelimit") })
        let stranger = try await shared.gateway.ask(.chat("fast"))
        #expect(stranger.headers.allSatisfy { !$0.name.hasPrefix("x-ratelimit") })
    }

    /// What the gateway refuses before it asks the ledger for money tells the rates all the same, and books nothing.
    @Test func refusalsTellTheKeysRatesAndBookNothing() async throws {
        let shared = try await SharedGateway.get()
        let customer = try await Customer.create(on: shared.gateway, limits: ",\"rpm\":100,\"tpm\":5000")
        let asks: [(status: Int, ask: Ask)] = [
            (400, .post("/v1/chat/completions", "{", key: customer.key)),
            (404, .chat("no-such-model", key: customer.key)),
            (400, .post("/v1/completions", #"{"model":"fast"}"#, key: customer.key)),
            (413, Ask(key: customer.key, headers: [("Content-Length", "\(9 << 20)")], body: [])),
        ]
        for (status, ask) in asks {
            let answer = try await shared.gateway.ask(ask)
            #expect(answer.status == status)
            #expect(answer.header("x-ratelimit-limit-requests") == "100")
            #expect(answer.header("x-ratelimit-remaining-requests") == "100")
            #expect(answer.header("x-ratelimit-remaining-tokens") == "5000")
            #expect(answer.header("x-ratelimit-reset-requests") == "0ms")
        }
        let served = try await shared.gateway.ask(.chat("fast", key: customer.key, tokens: 4))
        let left = served.header("x-ratelimit-remaining-tokens")
        let refused = try await shared.gateway.ask(.chat("no-such-model", key: customer.key))
        #expect(refused.header("x-ratelimit-remaining-requests") == "99")
        #expect(Int(refused.header("x-ratelimit-remaining-tokens") ?? "") ?? 0 >= Int(left ?? "") ?? .max)
        #expect(refused.header("x-ratelimit-reset-requests")?.hasSuffix("s") == true)
    }

    @Test func eachEventArrivesBeforeTheNextIsGenerated() async throws {
        let (gateway, shared, customer) = try await shared()
        let node = shared.node("slow-watched")
        let before = node.stats.generatedTokens
        let seen = try await gateway.wire { wire in
            try wire.send(Ask.chat("slow-watched", key: customer.key, stream: true, tokens: 12))
            _ = try wire.head()
            // For each token that arrives, how many more the node had already generated then.
            var ahead: [Int] = []
            while let event = try wire.nextEvent(), event != "[DONE]" {
                guard event.contains("\"content\":\""), !event.contains("\"content\":\"\"") else { continue }
                ahead.append(node.stats.generatedTokens - before - ahead.count - 1)
            }
            return ahead
        }
        #expect(seen.count == 12)
        // Held back to a next event, each would be at least one late. A busy machine may delay some of them.
        #expect(seen.count { $0 == 0 } >= 6, "\(seen)")
        #expect(try await customer.onlySettle().completion == 12)
    }

    @Test func aConnectionServesManyRequestsAndSplitWritesDoNotMatter() async throws {
        let (gateway, _, customer) = try await shared()
        let answers = try await gateway.wire { wire in
            var answers: [Answer] = []
            for size in [1, 7, 64, 100_000] {
                let bytes = Ask.chat("fast", key: customer.key, tokens: 2).bytes
                for start in stride(from: 0, to: bytes.count, by: size) {
                    try wire.send(Array(bytes[start..<min(start + size, bytes.count)]))
                }
                answers.append(try wire.response())
            }
            return answers
        }
        #expect(answers.map(\.status) == [200, 200, 200, 200])
        #expect(try await customer.books(settles: 4).settles.allSatisfy { $0.completion == 2 })
    }

    @Test func aLargeAnswerComesWholeWithThePublicModel() async throws {
        let (gateway, _, customer) = try await shared()
        // 600 vectors of 384 numbers are several megabytes: past what is held whole.
        let inputs = (0..<600).map { "\"text \($0)\"" }.joined(separator: ",")
        let body = "{\"model\":\"fast\",\"input\":[\(inputs)]}"
        let answer = try await gateway.ask(.post("/v1/embeddings", body, key: customer.key))
        #expect(answer.status == 200)
        #expect(answer.body.count > 1 << 20)
        let document = try JSONValue(parsing: answer.body, bytesMax: 64 << 20)
        #expect(document["data"]?.array?.count == 600)
        #expect(document["model"]?.string == "fast")
        let entry = try await customer.onlySettle()
        #expect(entry.prompt == document["usage"]?["prompt_tokens"]?.integer)
        #expect(!entry.estimated)
    }

    @Test func aNodeThatClosesAfterEachAnswerServesEveryRequest() async throws {
        let (gateway, _, customer) = try await shared()
        for stream in [false, true, false, true] {
            let answer = try await gateway.ask(.chat("closes", key: customer.key, stream: stream, tokens: 3))
            #expect(answer.status == 200)
            if stream { #expect(answer.events.last == "[DONE]") }
        }
        _ = try await customer.books(settles: 4)
    }

    private func sent(to node: SimulatedNode, marked mark: String) async throws -> String {
        String(decoding: try await node.recorded(mark).body, as: UTF8.self)
    }
}

import Domain
import Foundation
import JSON
import Simulator
import Testing

/// Whatever is wrong with a request: OpenAI's error object with the right status, no node sees it, nothing is charged, and
/// the gateway goes on.
@Suite(.serialized) struct BadInputTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let node: SimulatedNode
        let customer: Customer
        let requestsBefore: Int

        /// No node saw anything, nothing was charged, and the next request is served.
        func expectUntouched(sourceLocation: SourceLocation = #_sourceLocation) async throws {
            try await customer.expectNoCharge(sourceLocation: sourceLocation)
            #expect(node.stats.requests == requestsBefore, sourceLocation: sourceLocation)
            let answer = try await gateway.ask(.chat("quiet", key: customer.key))
            #expect(answer.status == 200, sourceLocation: sourceLocation)
            // The next test begins with this count.
            let after = requestsBefore + 1
            _ = try await node.stats { $0.requests == after }
        }
    }

    private func start() async throws -> Setup {
        let shared = try await SharedGateway.get()
        let node = shared.node("quiet")
        return Setup(
            gateway: shared.gateway, node: node, customer: try await Customer.create(on: shared.gateway),
            requestsBefore: node.stats.requests)
    }

    // MARK: Bodies

    private static let messages = #""messages":[{"role":"user","content":"x"}]"#

    /// A body, `error.code`, `error.param`.
    private static let bodies: [(String, String, String?)] = [
        ("", "invalid_json", nil),
        ("{", "invalid_json", nil),
        ("not json", "invalid_json", nil),
        (#"{"model":"quiet","# + messages + "}}", "invalid_json", nil),
        (#"{"model":"quiet",}"#, "invalid_json", nil),
        (#"{"model":"quiet" "messages":[]}"#, "invalid_json", nil),
        (#"{'model':'quiet'}"#, "invalid_json", nil),
        (#"{"model":"quiet","x":NaN,"# + messages + "}", "invalid_json", nil),
        (#"{"model":"quiet","x":01,"# + messages + "}", "invalid_json", nil),
        (#"{"model":"quiet","x":"\ud800\u0041\x","# + messages + "}", "invalid_json", nil),
        ("{\"model\":\"quiet\",\"x\":\"line\nbreak\",\(messages)}", "invalid_json", nil),
        (#"{"model":"quiet","x":\#(String(repeating: "[", count: 2_000)),"# + messages + "}", "invalid_json", nil),
        ("[]", "invalid_request", nil),
        ("\"text\"", "invalid_request", nil),
        ("null", "invalid_request", nil),
        ("{\(messages)}", "invalid_request", "model"),
        (#"{"model":5,"# + messages + "}", "invalid_request", "model"),
        (#"{"model":null,"# + messages + "}", "invalid_request", "model"),
        (#"{"model":"","# + messages + "}", "invalid_request", "model"),
        (#"{"model":"quiet"}"#, "invalid_request", "messages"),
        (#"{"model":"quiet","messages":"x"}"#, "invalid_request", "messages"),
        (#"{"model":"quiet","stream":"yes","# + messages + "}", "invalid_request", "stream"),
        (#"{"model":"quiet","stream_options":[],"# + messages + "}", "invalid_request", "stream_options"),
        (#"{"model":"quiet","max_tokens":"9","# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"model":"quiet","max_tokens":0,"# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"model":"quiet","max_tokens":-1,"# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"model":"quiet","max_tokens":1.5,"# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"model":"quiet","max_tokens":99999999999999999999,"# + messages + "}", "invalid_request", "max_tokens"),
        (
            #"{"model":"quiet","max_tokens":5,"max_completion_tokens":6,"# + messages + "}", "invalid_request",
            "max_tokens"
        ),
        (#"{"model":"quiet","n":0,"# + messages + "}", "invalid_request", "n"),
        (#"{"model":"quiet","n":100000,"# + messages + "}", "invalid_request", "n"),
        (#"{"model":"quiet","model":"quiet","# + messages + "}", "invalid_request", "model"),
        (#"{"model":"quiet","x":1,"x":2,"# + messages + "}", "invalid_request", "x"),
        (#"{"model":"quiet","max_tokens":1,"max_tokens":100000,"# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"mod\u0065l":"quiet","# + messages + "}", "invalid_request", "model"),
        (#"{"model":"quiet","max_t\u006fkens":9,"# + messages + "}", "invalid_request", "max_tokens"),
        (#"{"model":"quiet","n_predict":100000,"# + messages + "}", "invalid_request", "n_predict"),
        (#"{"model":"quiet","use_beam_search":true,"# + messages + "}", "invalid_request", "use_beam_search"),
        (#"{"model":"quiet","cache_salt":"mine","# + messages + "}", "invalid_request", "cache_salt"),
        (#"{"model":"quiet","priority":-100,"# + messages + "}", "invalid_request", "priority"),
        (#"{"model":"quiet","chat_template":"{{x}}","# + messages + "}", "invalid_request", "chat_template"),
        (#"{"model":"quiet","kv_transfer_params":{},"# + messages + "}", "invalid_request", "kv_transfer_params"),
        (#"{"model":"quiet","prompt_logprobs":5,"# + messages + "}", "invalid_request", "prompt_logprobs"),
    ]

    @Test func everyBadBodyGets400NamingWhatIsWrong() async throws {
        let setup = try await start()
        for (body, code, parameter) in Self.bodies {
            let answer = try await setup.gateway.ask(.post("/v1/chat/completions", body, key: setup.customer.key))
            #expect(answer.status == 400, "\(body.prefix(200))")
            #expect(answer.errorCode == code, "\(body.prefix(200)): \(answer.text)")
            #expect(try answer.json()["error"]?["param"]?.string == parameter, "\(body.prefix(200)): \(answer.text)")
            #expect(try answer.json()["error"]?["type"]?.string == "invalid_request_error")
            #expect(answer.header("connection") == nil, "a whole bad body is no reason to close")
        }
        try await setup.expectUntouched()
    }

    @Test func manyBadBodiesOnOneConnectionAreAnsweredOneByOne() async throws {
        let setup = try await start()
        let key = setup.customer.key
        let statuses = try await setup.gateway.wire { wire in
            try Self.bodies.map { body, _, _ in
                try wire.send(Ask.post("/v1/chat/completions", body, key: key))
                return try wire.response().status
            }
        }
        #expect(statuses == Self.bodies.map { _ in 400 })
        try await setup.expectUntouched()
    }

    @Test func completionsAndEmbeddingsRefuseWrongPrompts() async throws {
        let setup = try await start()
        let cases: [(String, String, String)] = [
            ("/v1/completions", #"{"model":"quiet"}"#, "prompt"),
            ("/v1/completions", #"{"model":"quiet","prompt":5}"#, "prompt"),
            ("/v1/completions", #"{"model":"quiet","prompt":{}}"#, "prompt"),
            ("/v1/completions", #"{"model":"quiet","prompt":"x","n":4,"best_of":2}"#, "best_of"),
            ("/v1/embeddings", #"{"model":"quiet"}"#, "input"),
            ("/v1/embeddings", #"{"model":"quiet","input":null}"#, "input"),
            ("/v1/embeddings", #"{"model":"quiet","input":"x","stream":true}"#, "stream"),
        ]
        for (path, body, parameter) in cases {
            let answer = try await setup.gateway.ask(.post(path, body, key: setup.customer.key))
            #expect(answer.status == 400, "\(body)")
            #expect(try answer.json()["error"]?["param"]?.string == parameter, "\(answer.text)")
        }
        try await setup.expectUntouched()
    }

    @Test func theClientsTextIsNotEchoed() async throws {
        let setup = try await start()
        let body = #"{"model":"quiet","messages":"canary-prompt-text"}"#
        let answer = try await setup.gateway.ask(.post("/v1/chat/completions", body, key: setup.customer.key))
        #expect(answer.status == 400)
        #expect(!answer.text.contains("canary"))
    }

    // MARK: Paths and methods

    @Test func unknownPathsGet404AndWrongMethods405() async throws {
        let setup = try await start()
        let key = setup.customer.key
        for path in [
            "/", "/v1", "/v1/chat", "/v1/chat/completions/", "//v1/chat/completions", "/V1/models", "/v2/models",
            "/v1/%63hat/completions", "/admin/v1/orgs", "/metrics", "/v1/files", "/../v1/models", "/v1/models/%zz",
        ] {
            let answer = try await setup.gateway.ask(.get(path, key: key))
            #expect(answer.status == 404, "\(path)")
            #expect(answer.errorCode == "unknown_url" || path == "/v1/models/%zz", "\(path): \(answer.text)")
        }
        let wrong: [(String, String, String)] = [
            ("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/embeddings", "POST"),
            ("POST", "/v1/models", "GET"),
            ("PUT", "/v1/completions", "POST"), ("DELETE", "/v1/models/quiet", "GET"), ("OPTIONS", "/v1/models", "GET"),
            ("PATCH", "/v1/chat/completions", "POST"),
        ]
        for (method, path, allow) in wrong {
            var ask = Ask(method: method, path: path, key: key)
            if ["POST", "PUT", "PATCH"].contains(method) { ask.body = Array("{}".utf8) }
            let answer = try await setup.gateway.ask(ask)
            #expect(answer.status == 405, "\(method) \(path)")
            #expect(answer.errorCode == "method_not_allowed")
            #expect(answer.header("allow") == allow)
        }
        try await setup.expectUntouched()
    }

    @Test func aHeadRequestIsRefusedWithoutABody() async throws {
        let setup = try await start()
        // Whatever the status, a HEAD answer's body would be read as the next answer's head.
        let rest = try await setup.gateway.wire { wire in
            try wire.send(Ask(method: "HEAD", path: "/v1/models", key: setup.customer.key).with("Connection", "close"))
            return try wire.rest()
        }
        #expect(rest.hasPrefix("HTTP/1.1 405 "))
        #expect(rest.hasSuffix("\r\n\r\n"))
    }

    // MARK: Framing

    private static let goodBody = Ask.chatBody("quiet")

    /// Requests whose end two parsers could see at different places, or that are not HTTP/1.1 at all. KEY stands for a
    /// good key: only the framing is at fault.
    private static let smuggled: [String] = {
        let start =
            "POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer KEY\r\nContent-Type: application/json\r\n"
        let host = "Host: g\r\n"
        let length = "Content-Length: \(goodBody.utf8.count)\r\n"
        let chunked = "Transfer-Encoding: chunked\r\n"
        let hex = String(goodBody.utf8.count, radix: 16)
        let chunks = "\(hex)\r\n\(goodBody)\r\n0\r\n\r\n"
        return [
            // Two lengths, equal or not.
            start + host + length + "Content-Length: 5\r\n\r\n" + goodBody,
            start + host + length + length + "\r\n" + goodBody,
            start + host + "Content-Length: 5, 5\r\n\r\n" + goodBody,
            // Length and chunks.
            start + host + length + chunked + "\r\n" + chunks,
            start + host + chunked + length + "\r\n" + chunks,
            // Lengths that are no number.
            start + host + "Content-Length: +\(goodBody.utf8.count)\r\n\r\n" + goodBody,
            start + host + "Content-Length: -1\r\n\r\n" + goodBody,
            start + host + "Content-Length: 0x\(hex)\r\n\r\n" + goodBody,
            start + host + "Content-Length: 99999999999999999999999\r\n\r\n" + goodBody,
            start + host + "Content-Length:\r\n\r\n" + goodBody,
            // Transfer codings that are none, hidden or doubled.
            start + host + "Transfer-Encoding: identity\r\n\r\n" + goodBody,
            start + host + "Transfer-Encoding: xchunked\r\n\r\n" + chunks,
            start + host + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunks,
            start + host + "Transfer-Encoding: identity\r\n" + chunked + "\r\n" + chunks,
            start + host + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks,
            start + host + chunked + chunked + "\r\n" + chunks,
            start + host + "Transfer-Encoding: chunked;q=1\r\n\r\n" + chunks,
            start + host + "Transfer-Encoding : chunked\r\n\r\n" + chunks,
            start + host + "Transfer-Encoding:\u{0B}chunked\r\n\r\n" + chunks,
            start.replacingOccurrences(of: "HTTP/1.1", with: "HTTP/1.0") + host + chunked + "\r\n" + chunks,
            // Lines that end or go on in odd ways.
            (start + host + length + "\r\n").replacingOccurrences(of: "\r\n", with: "\n") + goodBody,
            start + host + length + "X-A: b\n\r\n" + goodBody,
            start + host + "X-A: b\r\n folded\r\n" + length + "\r\n" + goodBody,
            start + host + " X-A: b\r\n" + length + "\r\n" + goodBody,
            start + host + "X-A: b\r" + length + "\r\n" + goodBody,
            start + host + "X A: b\r\n" + length + "\r\n" + goodBody,
            start + host + "X-A\u{00}: b\r\n" + length + "\r\n" + goodBody,
            start + host + "X-A: b\u{00}c\r\n" + length + "\r\n" + goodBody,
            start + host + ": b\r\n" + length + "\r\n" + goodBody,
            // Chunks.
            start + host + chunked + "\r\n" + "+\(hex)\r\n\(goodBody)\r\n0\r\n\r\n",
            start + host + chunked + "\r\n" + "0x\(hex)\r\n\(goodBody)\r\n0\r\n\r\n",
            start + host + chunked + "\r\n" + "\(hex) \r\n\(goodBody)\r\n0\r\n\r\n",
            start + host + chunked + "\r\n" + "\(hex)\n\(goodBody)\r\n0\r\n\r\n",
            start + host + chunked + "\r\n" + "ffffffffffffffff1\r\n\(goodBody)\r\n0\r\n\r\n",
            start + host + chunked + "\r\n" + "\(hex)\r\n\(goodBody)XX0\r\n\r\n",
            start + host + chunked + "\r\n" + "zz\r\n\(goodBody)\r\n0\r\n\r\n",
            // Host.
            start + length + "\r\n" + goodBody,
            start + host + host + length + "\r\n" + goodBody,
            // Request lines.
            "POST /v1/chat/completions HTTP/1.1 \r\n" + host + length + "\r\n" + goodBody,
            "POST /v1/chat/completions HTTP/2.0\r\n" + host + length + "\r\n" + goodBody,
            "POST /v1/chat/completions\r\n" + host + length + "\r\n" + goodBody,
            "POST /v1/chat completions HTTP/1.1\r\n" + host + length + "\r\n" + goodBody,
            "GARBAGE\r\n\r\n",
            "\u{16}\u{03}\u{01}\u{02}\u{00}\u{01}\u{00}\u{01}\u{FC}\u{03}\u{03}",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    }()

    @Test func smugglingAndBrokenFramingGet400AndTheConnectionCloses() async throws {
        let setup = try await start()
        for (index, template) in Self.smuggled.enumerated() {
            let text = template.replacingOccurrences(of: "KEY", with: setup.customer.key)
            // What a smuggler hides behind: it must not be taken for a request.
            let hidden = Ask.chat("quiet", key: setup.customer.key).bytes
            let shown = "case \(index): \(template.prefix(250).debugDescription)"
            do {
                let (answer, isOrderly) = try await setup.gateway.wire { wire in
                    wire.patience = .seconds(5)
                    try wire.send(Array(text.utf8) + hidden)
                    let answer = try wire.response()
                    return (answer, try wire.waitForClose())
                }
                #expect(answer.status == 400, "\(shown)")
                #expect(answer.errorCode == "malformed_request", "\(shown): \(answer.text)")
                #expect(answer.header("connection") == "close", "\(shown)")
                #expect(isOrderly, "\(shown): reset")
            } catch {
                Issue.record("\(shown): \(error)")
            }
        }
        try await setup.expectUntouched()
    }

    @Test func garbageBehindAGoodRequestIsRefusedAfterItsAnswer() async throws {
        let setup = try await start()
        let key = setup.customer.key
        let (first, second) = try await setup.gateway.wire { wire in
            try wire.send(Ask.get("/v1/models", key: key).bytes + Array("GARBAGE\r\n\r\n".utf8))
            let answers = (try wire.response(), try wire.response())
            guard try wire.waitForClose() else { throw Wire.Failure.reset("") }
            return answers
        }
        #expect(first.status == 200)
        #expect(second.status == 400)
        #expect(second.errorCode == "malformed_request")
    }

    @Test func legalOdditiesOfFramingAreServed() async throws {
        let setup = try await start()
        let body = Self.goodBody
        let start = "POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer \(setup.customer.key)\r\nhost: g\r\n"
        let hex = String(body.utf8.count, radix: 16)
        let good = [
            "\r\n" + start + "content-type:application/json;charset=utf-8\r\ncontent-length:\(body.utf8.count)\r\n\r\n"
                + body,
            start
                + "Content-Type: application/json\r\nTransfer-Encoding: Chunked\r\n\r\n\(hex)\r\n\(body)\r\n0\r\n\r\n",
            start
                + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n000\(hex)\r\n\(body)\r\n0\r\nX: y\r\n\r\n",
            start
                + "Content-Type: APPLICATION/JSON\r\nContent-Encoding: identity\r\nContent-Length:  \(body.utf8.count) \r\n\r\n"
                + body,
        ]
        for text in good {
            let answer = try await setup.gateway.wire { wire in
                try wire.send(text)
                return try wire.response()
            }
            #expect(answer.status == 200, "\(text.prefix(250).debugDescription): \(answer.text)")
        }
        _ = try await setup.customer.books(settles: good.count)
        let after = setup.requestsBefore + good.count
        _ = try await setup.node.stats { $0.requests == after }
    }

    // MARK: Precedence

    /// What can be wrong, in the order of design.md.
    private enum Fault: Int, CaseIterable {
        case route, method, length, mediaType, key, size, json, invalid, model
    }

    private static let winners: [Fault: (status: Int, code: String)] = [
        .route: (404, "unknown_url"), .method: (405, "method_not_allowed"), .length: (411, "length_required"),
        .mediaType: (415, "unsupported_media_type"), .key: (401, "invalid_api_key"), .size: (413, "request_too_large"),
        .json: (400, "invalid_json"), .invalid: (400, "invalid_request"), .model: (404, "model_not_found"),
    ]

    @Test func ofTwoFaultsTheEarlierOfTheContractIsAnswered() async throws {
        let setup = try await start()
        for first in Fault.allCases {
            for second in Fault.allCases where second.rawValue >= first.rawValue {
                guard let ask = Self.ask(with: [first, second], key: setup.customer.key) else { continue }
                let answer = try await setup.gateway.wire { wire in
                    try wire.send(ask)
                    return try wire.response()
                }
                let winner = Self.winners[first]!
                #expect(answer.status == winner.status, "\(first) and \(second): \(answer.text)")
                #expect(answer.errorCode == winner.code, "\(first) and \(second)")
            }
        }
        try await setup.expectUntouched()
    }

    /// nil where two faults exclude each other.
    private static func ask(with faults: Set<Fault>, key: String) -> String? {
        // Without a length there is no body to be at fault, and one announced as too large is never read.
        if faults.contains(.length), faults.contains(where: { $0.rawValue > Fault.key.rawValue || $0 == .method }) {
            return nil
        }
        return broken(faults, key)
    }

    private static func broken(_ faults: Set<Fault>, _ key: String) -> String {
        var fields = "\"model\":\"\(faults.contains(.model) ? "nobody" : "quiet")\","
        if faults.contains(.invalid) { fields += "\"stream\":5," }
        var body = "{\(fields)\(messages)}"
        if faults.contains(.json) { body += "]" }
        let method = faults.contains(.method) ? "PUT" : "POST"
        let path = faults.contains(.route) ? "/v1/nothing" : "/v1/chat/completions"
        let secret = faults.contains(.key) ? "sk-tg-wrong" : key
        var head = "\(method) \(path) HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer \(secret)\r\n"
        head += "Content-Type: \(faults.contains(.mediaType) ? "text/xml" : "application/json")\r\n"
        if faults.contains(.length) { return head + "\r\n" }
        if faults.contains(.size) { return head + "Content-Length: 99999999\r\n\r\n" + body }
        return head + "Content-Length: \(body.utf8.count)\r\n\r\n" + body
    }
}

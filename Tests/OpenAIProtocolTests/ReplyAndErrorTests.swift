import Domain
import Foundation
import JSON
import OpenAIProtocol
import Testing

/// The members of an object, as JSON texts, by Foundation's parser.
func parsed(_ json: String) throws -> [String: String]? {
    let object = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
    return try object?.mapValues { value in
        let data = try JSONSerialization.data(withJSONObject: value, options: [.fragmentsAllowed, .sortedKeys])
        return String(decoding: data, as: UTF8.self)
    }
}

struct ReplyScannerTests {
    @Test func readsAChatReply() throws {
        let json = """
            {"id":"x","object":"chat.completion","model":"node/m","choices":[{"message":{"role":"assistant",
            "content":"hello","tool_calls":null},"finish_reason":"stop"},{"message":{"content":"ab"}}],
            "usage":{"prompt_tokens":11,"total_tokens":18,"completion_tokens":7,
            "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0}}}
            """
        try withBytes(json) { bytes in
            let reply = try #require(scanReply(bytes))
            #expect(reply.usage.tokens == TokenUsage(promptTokens: 11, cachedTokens: 4, completionTokens: 7))
            #expect(reply.choices == 2 && reply.contentBytes == 7 && !reply.isError)
            let relayed = applyEdits(reply.edits(publicModel: PublicModel("pub")), to: Array(bytes))
            #expect(text(relayed) == json.replacingOccurrences(of: "\"node/m\"", with: "\"pub\""))
        }
    }

    @Test(arguments: [
        (
            #"{"usage":{"prompt_tokens":3,"total_tokens":3}}"#,
            ReportedUsage.value(.init(promptTokens: 3, cachedTokens: 0, completionTokens: 0))
        ),
        (
            #"{"usage":{"prompt_tokens":3,"completion_tokens":null,"prompt_tokens_details":null}}"#,
            .value(.init(promptTokens: 3, cachedTokens: 0, completionTokens: 0))
        ),
        (
            #"{"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":null}}}"#,
            .value(.init(promptTokens: 3, cachedTokens: 0, completionTokens: 0))
        ),
        (
            #"{"usage":{"prompt_tokens":-3,"completion_tokens":1}}"#,
            .value(.init(promptTokens: -3, cachedTokens: 0, completionTokens: 1))
        ),
        (#"{"usage":{"completion_tokens":1}}"#, .malformed), (#"{"usage":{"prompt_tokens":"3"}}"#, .malformed),
        (#"{"usage":{"prompt_tokens":1.5}}"#, .malformed),
        (#"{"usage":{"prompt_tokens":1,"completion_tokens":"x"}}"#, .malformed),
        (#"{"usage":[]}"#, .malformed), (#"{"usage":null}"#, .null), (#"{}"#, .absent),
    ])
    func readsUsage(json: String, usage: ReportedUsage) throws {
        #expect(withBytes(json) { scanReply($0)?.usage } == usage)
    }

    @Test func countsEmbeddings() {
        let json =
            #"{"object":"list","data":[{"embedding":[1,2]},{"embedding":[3]}],"model":"n","usage":{"prompt_tokens":2}}"#
        #expect(withBytes(json) { scanReply($0)?.embeddings } == 2)
    }
}

struct ErrorEnvelopeTests {
    private static let table: [(Failure.Code, Int, String, String)] = [
        (.malformedRequest, 400, "invalid_request_error", "malformed_request"),
        (.routeNotFound, 404, "invalid_request_error", "unknown_url"),
        (.methodNotAllowed, 405, "invalid_request_error", "method_not_allowed"),
        (.headersTooLarge, 431, "invalid_request_error", "headers_too_large"),
        (.lengthRequired, 411, "invalid_request_error", "length_required"),
        (.unsupportedMediaType, 415, "invalid_request_error", "unsupported_media_type"),
        (.missingKey, 401, "invalid_request_error", "missing_api_key"),
        (.invalidKey, 401, "invalid_request_error", "invalid_api_key"),
        (.failedKeyLimit, 429, "requests", "rate_limit_exceeded"),
        (.keyStoreUnavailable, 503, "server_error", "store_unavailable"),
        (.orgSuspended, 403, "permission_error", "org_suspended"),
        (.bodyTooLarge, 413, "invalid_request_error", "request_too_large"),
        (.requestTimeout, 408, "invalid_request_error", "request_timeout"),
        (.overloadedBuffers, 503, "server_error", "overloaded"),
        (.invalidJSON, 400, "invalid_request_error", "invalid_json"),
        (.invalidRequest, 400, "invalid_request_error", "invalid_request"),
        (.modelNotFound, 404, "invalid_request_error", "model_not_found"),
        (.contextLengthExceeded, 400, "invalid_request_error", "context_length_exceeded"),
        (.requestTooLargeForLimit, 429, "tokens", "rate_limit_exceeded"),
        (.rateLimitRequests, 429, "requests", "rate_limit_exceeded"),
        (.rateLimitTokens, 429, "tokens", "rate_limit_exceeded"),
        (.rateLimitConcurrency, 429, "requests", "rate_limit_exceeded"),
        (.insufficientQuota, 429, "insufficient_quota", "insufficient_quota"),
        (.storeUnavailable, 503, "server_error", "store_unavailable"),
        (.journalUnavailable, 503, "server_error", "store_unavailable"),
        (.draining, 503, "server_error", "shutting_down"),
        (.saturated, 429, "server_error", "overloaded"), (.noCapacity, 503, "server_error", "overloaded"),
        (.upstreamRejected, 400, "invalid_request_error", "upstream_rejected"),
        (.upstreamInvalid, 502, "server_error", "upstream_invalid_response"),
        (.upstreamUnavailable, 503, "server_error", "upstream_unavailable"),
        (.upstreamTimeout, 504, "server_error", "upstream_timeout"),
        (.clientClosed, 499, "invalid_request_error", "client_closed_request"),
        (.internalError, 500, "server_error", "internal_error"),
    ]

    @Test func everyCodeHasItsStatusTypeAndCode() {
        #expect(Self.table.map(\.0) == Failure.Code.allCases)
        for (code, status, type, word) in Self.table {
            #expect(ErrorEnvelope.status(of: code) == status, "\(code)")
            #expect(ErrorEnvelope.type(of: code) == type && ErrorEnvelope.code(of: code) == word, "\(code)")
        }
        #expect(ErrorEnvelope.status(of: .upstreamRejected, upstream: 422) == 422)
        #expect(ErrorEnvelope.status(of: .invalidKey, upstream: 422) == 401)
    }

    /// The order that design.md fixes: of two faults the one with the lower code is answered.
    @Test func precedenceIsTheDocumentedOne() {
        let order: [Int] = [404, 405, 431, 411, 415, 401, 401, 429, 503, 403, 413, 408, 503, 400, 400, 404, 400]
        let codes: [Failure.Code] = [
            .routeNotFound, .methodNotAllowed, .headersTooLarge, .lengthRequired, .unsupportedMediaType, .missingKey,
            .invalidKey, .failedKeyLimit, .keyStoreUnavailable, .orgSuspended, .bodyTooLarge, .requestTimeout,
            .overloadedBuffers, .invalidJSON, .invalidRequest, .modelNotFound, .contextLengthExceeded,
        ]
        #expect(codes == codes.sorted() && codes.map { ErrorEnvelope.status(of: $0) } == order)
    }

    @Test func rendersAllFourMembers() {
        let bare = Failure(.internalError, "Sorry \"friend\".")
        #expect(
            text(ErrorEnvelope.render(bare))
                == #"{"error":{"message":"Sorry \"friend\".","type":"server_error","param":null,"code":"internal_error"}}"#
        )
        let named = Failure(.invalidRequest, "No.", parameter: "n")
        #expect(
            text(ErrorEnvelope.renderStreamEvent(named))
                == "data: {\"error\":{\"message\":\"No.\",\"type\":\"invalid_request_error\",\"param\":\"n\","
                + "\"code\":\"invalid_request\"}}\n\n")
    }

    @Test(arguments: [
        (Failure.Retry.never, ["x-should-retry": "false"]),
        (.after(milliseconds: 1_500), ["retry-after-ms": "1500", "retry-after": "2"]),
        (.after(milliseconds: 1_000), ["retry-after-ms": "1000", "retry-after": "1"]),
        (.after(milliseconds: 3_600_000), ["retry-after-ms": "60000", "retry-after": "60"]),
        (.after(milliseconds: -5), ["retry-after-ms": "0", "retry-after": "0"]),
        (.unsaid, [:]), (.otherNode, [:]),
    ])
    func saysWhetherToRetry(retry: Failure.Retry, expected: [String: String]) {
        let headers = ErrorEnvelope.headers(for: Failure(.rateLimitTokens, "", retry: retry))
        #expect(Dictionary(uniqueKeysWithValues: headers.map { ($0.name, $0.value) }) == expected)
    }

    @Test func listsModels() throws {
        let cards = [ModelCard(id: "a/b", created: 5), ModelCard(id: "c", created: 6, ownedBy: "o")]
        #expect(
            text(ModelCard.renderList(cards))
                == #"{"object":"list","data":[{"id":"a/b","object":"model","created":5,"owned_by":"tollgate"},"#
                + #"{"id":"c","object":"model","created":6,"owned_by":"o"}]}"#)
        #expect(text(cards[1].render()) == #"{"id":"c","object":"model","created":6,"owned_by":"o"}"#)
        #expect(text(ModelCard.renderList([])) == #"{"object":"list","data":[]}"#)
    }
}

struct NodeErrorTests {
    private func rebuilt(_ body: String, status: Int = 400) throws -> JSONValue {
        let bytes = withBytes(body) {
            rebuildNodeError(status: status, body: $0, upstreamModel: "meta/Llama-8B", publicModel: "llama")
        }
        let error = try #require(try JSONValue(parsing: bytes)["error"])
        #expect(error.object?.map(\.key) == ["message", "type", "param", "code"])
        return error
    }

    @Test(arguments: [
        #"{"error":{"code":400,"message":"bad prompt","type":"invalid_request_error"}}"#,
        #"{"object":"error","message":"bad prompt","type":"invalid_request_error","param":null,"code":400}"#,
        #"{"error":{"message":"bad prompt","code":"400"}}"#,
    ])
    func integerCodesBecomeStrings(body: String) throws {
        #expect(
            try rebuilt(body) == [
                "message": "bad prompt", "type": "invalid_request_error", "param": nil, "code": "400",
            ])
    }

    @Test(arguments: [
        (#"{"detail":"Not Found"}"#, "Not Found"),
        (#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, "field required"),
        (#"{"error":"plain"}"#, "plain"),
        ("<html>nginx</html>", "The model server refused the request with status 400."),
        ("", "The model server refused the request with status 400."),
        (#"{"error":{}}"#, "The model server refused the request with status 400."),
    ])
    func otherFormsAreUnderstoodOrReplaced(body: String, message: String) throws {
        #expect(try rebuilt(body)["message"]?.string == message)
    }

    @Test(arguments: [
        ("cannot connect to http://10.0.0.5:8000/v1 now", "cannot connect to [redacted] now"),
        ("host 10.1.2.3 is down.", "host [redacted] is down."),
        ("peer 192.168.0.1:5000, gone", "peer [redacted], gone"),
        ("see /usr/lib/python3/site.py line 5", "see [redacted] line 5"),
        ("in engine/core.py:55", "in [redacted]"),
        ("at (fe80::1%eth0)", "at ([redacted])"),
        ("on [2001:db8::1]:80", "on [redacted]"),
        ("from austin-01:8000!", "from [redacted]!"),
        ("from gpu.internal", "from [redacted]"),
        ("path=/models/llama", "[redacted]"),
        ("loads C:\\models\\x", "loads [redacted]"),
        ("model meta/Llama-8B is unknown", "model llama is unknown"),
        ("max_tokens must be at least 1, got -5.", "max_tokens must be at least 1, got -5."),
        ("This model's maximum context length is 4096 tokens; 'messages' and/or 'tools' gave 5000.", nil),
        ("ratio 3:1, at 12:30, temperature 0.5, v1.2.3", nil),
    ])
    func addressesAndPathsAreRemoved(message: String, expected: String?) throws {
        let body = JSONValue.object([.init(key: "error", value: ["message": .string(message)])]).bytes
        #expect(try rebuilt(text(body))["message"]?.string == expected ?? message)
    }

    @Test func membersThatTellAreDropped() throws {
        let error = try rebuilt(
            #"{"error":{"message":"m","type":"http://x/y","param":"a b","code":"10.0.0.1"}}"#, status: 500)
        #expect(error == ["message": "m", "type": "server_error", "param": nil, "code": nil])
    }

    @Test func longMessagesAreCutBetweenCharacters() throws {
        let long = String(repeating: "é ", count: 1_000)
        let error = try rebuilt(#"{"error":{"message":"\#(long)"}}"#)
        let message = try #require(error["message"]?.string)
        #expect(message.utf8.count <= NodeError.messageBytesMax && message.hasSuffix("..."))
        #expect(message.dropLast(3).allSatisfy { "é ".contains($0) })
    }

    @Test func hugeBodiesAreNotRead() throws {
        let huge = #"{"error":{"message":"\#(String(repeating: "x", count: NodeError.bodyBytesMax))"}}"#
        #expect(try rebuilt(huge)["message"]?.string == "The model server refused the request with status 400.")
    }

    @Test func streamErrorsAreEvents() {
        let event = withBytes(#"{"error":{"message":"m","code":500}}"#) { rebuildStreamError($0) }
        #expect(
            text(event)
                == "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"param\":null,\"code\":\"500\"}}\n\n"
        )
    }
}

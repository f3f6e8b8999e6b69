import OpenAIProtocol
import Testing

struct EndpointTests {
    @Test(arguments: [
        ("POST", "/v1/chat/completions", RouteMatch.found(.chatCompletions, argument: nil)),
        ("POST", "/v1/chat/completions?a=/b", .found(.chatCompletions, argument: nil)),
        ("POST", "/v1/completions", .found(.completions, argument: nil)),
        ("POST", "/v1/embeddings", .found(.embeddings, argument: nil)),
        ("GET", "/v1/models", .found(.models, argument: nil)),
        ("GET", "/v1/models/llama-3.1-8b", .found(.model, argument: "llama-3.1-8b")),
        ("GET", "/v1/models/meta-llama/Llama-3", .found(.model, argument: "meta-llama/Llama-3")),
        ("GET", "/v1/models/meta-llama%2FLlama-3?x", .found(.model, argument: "meta-llama/Llama-3")),
        ("GET", "/v1/chat/completions", .methodNotAllowed(.chatCompletions, allow: "POST")),
        ("post", "/v1/chat/completions", .methodNotAllowed(.chatCompletions, allow: "POST")),
        ("DELETE", "/v1/models/a", .methodNotAllowed(.model, allow: "GET")),
        ("GET", "/v1/messages", .methodNotAllowed(.messages, allow: "POST")),
        ("POST", "/v1/models", .methodNotAllowed(.models, allow: "GET")),
        ("POST", "/v1/chat/completions/", .notFound),
        ("POST", "//v1/chat/completions", .notFound),
        ("POST", "/v1/chat%2Fcompletions", .notFound),
        ("POST", "/V1/chat/completions", .notFound),
        ("GET", "/v1/models/", .notFound),
        ("GET", "/v1/models/a/", .notFound),
        ("GET", "/v1/models/a%2", .notFound),
        ("GET", "/v1/models/%ff", .notFound),
        ("GET", "/v1/modelsa", .notFound),
        ("GET", "", .notFound),
        ("GET", "?/v1/models", .notFound),
    ])
    func matches(method: String, path: String, expected: RouteMatch) {
        #expect(Endpoint.match(method: method, path: path) == expected)
    }

    @Test func everyEndpointIsReachedByItsOwnRow() {
        for endpoint in Endpoint.allCases {
            let row = endpoint.descriptor
            let path = row.takesArgument ? row.path + "/x" : row.path
            #expect(
                Endpoint.match(method: row.method, path: path)
                    == .found(endpoint, argument: row.takesArgument ? "x" : nil))
        }
        #expect(Set(Endpoint.allCases.map(\.label)).count == Endpoint.allCases.count)
    }
}

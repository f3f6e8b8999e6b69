import Domain
import Foundation
import Gateway
import OpenAIProtocol
import Testing
import Yams

/// What `/openapi.yaml` says is what is served: neither a route, a field nor a status more or less.
struct OpenAPIDocumentTests {
    private let root: Node
    private var paths: Node { root["paths"] ?? Node([(Node, Node)]()) }

    init() throws {
        root = try #require(try Yams.compose(yaml: String(buffer: OpenAPIDocument.bytes)))
    }

    private func operation(_ endpoint: Endpoint) -> Node? {
        let row = endpoint.descriptor
        return paths[row.takesArgument ? row.path + "/{id}" : row.path]?[row.method.lowercased()]
    }

    /// What a reference stands for.
    private func resolved(_ node: Node?) throws -> Node? {
        guard let reference = node?["$ref"]?.string else { return node }
        var found: Node? = root
        for part in reference.split(separator: "/").dropFirst() { found = found?[String(part)] }
        let target: Node = try #require(try resolved(found), "\(reference) names nothing")
        return target
    }

    /// Names of the properties of a schema, those that it has of others too.
    private func properties(_ schema: Node?) throws -> Set<String> {
        guard let schema = try resolved(schema) else { return [] }
        var names = Set(schema["properties"]?.mapping?.keys.compactMap(\.string) ?? [])
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in schema[key]?.array() ?? [] { names.formUnion(try properties(part)) }
        }
        return names
    }

    @Test func everyRouteIsDescribedAndEveryDescribedOneIsServed() {
        var described: Set<String> = []
        for (path, item) in paths.mapping ?? [:] {
            for method in item.mapping?.keys.compactMap(\.string) ?? [] where method != "parameters" {
                described.insert("\(method.uppercased()) \(path.string ?? "")")
            }
        }
        let served = Endpoint.allCases.map { endpoint in
            let row = endpoint.descriptor
            return "\(row.method) \(row.path)\(row.takesArgument ? "/{id}" : "")"
        }
        #expect(described == Set(served))
    }

    @Test(arguments: Endpoint.allCases)
    func everyStatusIsDescribed(endpoint: Endpoint) throws {
        let responses = try #require(operation(endpoint)?["responses"]?.mapping)
        let codes = Failure.Code.allCases.filter(endpoint.canEnd(with:))
        var expected = Set(codes.filter { $0 != .upstreamRejected }.map { "\(ErrorEnvelope.status(of: $0))" })
        expected.insert("200")
        // What a node says of a request goes on under the node's own status.
        if endpoint.isInference { expected.insert("4XX") }
        #expect(Set(responses.keys.compactMap(\.string)) == expected)
        for (status, response) in responses {
            let content = try #require(try resolved(response)?["content"]?.mapping)
            let types = Set(content.keys.compactMap(\.string))
            let isStream = endpoint.generates && status.string == "200"
            let plain = endpoint == .description && status.string == "200" ? "application/yaml" : "application/json"
            #expect(types == (isStream ? [plain, "text/event-stream"] : [plain]), "\(status.string ?? "")")
        }
    }

    @Test(arguments: Endpoint.allCases.filter(\.isInference))
    func everyFieldThatIsReadIsDescribed(endpoint: Endpoint) throws {
        let schema = operation(endpoint)?["requestBody"]?["content"]?["application/json"]?["schema"]
        let described = try properties(schema)
        var expected: Set<String> = ["model", "user", "prompt_cache_key"]
        // What only some engines call so is told in words, since no body may hold all of them.
        let words = try resolved(schema)?["description"]?.string ?? ""
        expected.formUnion(endpoint.descriptor.prompt.map(\.rawValue).filter { !words.contains("`\($0)`") })
        expected.formUnion(endpoint.descriptor.limits.map(\.rawValue))
        if endpoint.generates { expected.insert("stream") }
        switch endpoint.dialect {
        case .openAI where endpoint.generates: expected.formUnion(["stream_options", "n"])
        case .openAI: break
        case .responses:
            expected.formUnion([
                "previous_response_id", "conversation", "background", "prompt", "tools", "max_tokens",
            ])
        case .anthropic: expected.formUnion(["system", "tools", "mcp_servers", "container"])
        }
        #expect(expected.subtracting(described) == [])
        // Of the other endpoints' fields none is promised here.
        let others = Set(Endpoint.PromptField.allCases.map(\.rawValue)).subtracting(
            endpoint.descriptor.prompt.map(\.rawValue))
        let refused: Set<String> = ["prompt", "messages", "input"]
        #expect(described.intersection(others).subtracting(refused) == [])
    }

    @Test func everyErrorCodeIsListed() throws {
        let listed = root["components"]?["schemas"]?["ErrorObject"]?["properties"]?["code"]?["examples"]?.array() ?? []
        let codes = Failure.Code.allCases.filter { $0 != .clientClosed }.map { ErrorEnvelope.code(of: $0) }
        #expect(Set(listed.compactMap(\.string)) == Set(codes))
    }

    /// Every code is made somewhere besides the tables, and every code but two somewhere at an endpoint.
    @Test func everyCodeCanHappen() throws {
        let tables: Set = ["Failure.swift", "FailureReach.swift", "ErrorEnvelope.swift", "ErrorDescription.swift"]
        let here = URL(filePath: #filePath).deletingLastPathComponent()
        let sources = here.appending(path: "../../Sources").standardized
        let files = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)
        var text = ""
        for case let file as URL in try #require(files)
        where file.pathExtension == "swift" && !tables.contains(file.lastPathComponent) {
            text += try String(contentsOf: file, encoding: .utf8)
        }
        let made = Set(
            text.matches(of: /(?:(?:Failure|self\.init)\(\s*|code = )\.([a-zA-Z]+)/).map { String($0.1) })
        for code in Failure.Code.allCases {
            #expect(made.contains("\(code)"), "nothing ends with \(code)")
            let isAnEndpoints = code != .routeNotFound && code != .clientClosed
            #expect(Endpoint.allCases.contains { $0.canEnd(with: code) } == isAnEndpoints, "\(code)")
        }
    }

    @Test func onlyTheDocumentNeedsNoKey() throws {
        let kinds: Set<String> = ["key", "xApiKey"]
        func names(_ security: Node?) -> Set<String> {
            Set((security?.array() ?? []).flatMap { $0.mapping?.keys.compactMap(\.string) ?? [] })
        }
        #expect(names(root["security"]) == kinds)
        for endpoint in Endpoint.allCases {
            let own = operation(endpoint)?["security"]
            #expect((own == nil ? kinds : names(own)) == (endpoint.descriptor.isPublic ? [] : kinds), "\(endpoint)")
        }
    }
}

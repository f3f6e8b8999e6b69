import Domain
import Gateway
import Testing
import Yams

@testable import OpenAIProtocol

/// Every field that `/openapi.yaml` gives to a request is one that the gateway reads, refuses or has a reason to name.
struct OpenAPIRequestTests {
    /// Described inside of fields that are read, and read there.
    private static let nested: Set<String> = [
        // Of messages and items.
        "role", "content", "type", "output",
        // Of `stream_options`.
        "include_usage",
        // Of `chat_template_kwargs`, which are looked at by ``everyTemplateArgumentIsAllowed()``.
        "enable_thinking", "thinking", "clear_thinking", "preserve_thinking", "reasoning_effort", "thinking_mode",
        "thinking_budget",
    ]

    private let root: Node

    init() throws { root = try #require(try Yams.compose(yaml: String(buffer: OpenAPIDocument.bytes))) }

    private struct Property {
        var name: String
        /// The name of the schema that it refers to.
        var kind: String?
    }

    private func resolved(_ node: Node) throws -> Node {
        guard let reference = node["$ref"]?.string else { return node }
        var found: Node? = root
        for part in reference.split(separator: "/").dropFirst() { found = found?[String(part)] }
        return try resolved(#require(found, "\(reference) names nothing"))
    }

    /// The properties of a schema itself, and those further inside.
    private func properties(_ schema: Node, isInside: Bool = false) throws -> (own: [Property], inside: [Property]) {
        let schema = try resolved(schema)
        var (own, inside): ([Property], [Property]) = ([], [])
        for (name, part) in schema["properties"]?.mapping ?? [:] {
            let kind = part["$ref"]?.string?.split(separator: "/").last.map(String.init)
            own.append(Property(name: name.string ?? "", kind: kind))
            let below = try properties(part)
            inside += below.own + below.inside
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in schema[key]?.array() ?? [] {
                let found = try properties(part)
                own += found.own
                inside += found.inside
            }
        }
        if let items = schema["items"] {
            let found = try properties(items)
            inside += found.own + found.inside
        }
        return (own, inside)
    }

    private func described(_ endpoint: Endpoint) throws -> (own: [Property], inside: [Property]) {
        let operation = root["paths"]?[endpoint.path]?["post"]
        return try properties(#require(operation?["requestBody"]?["content"]?["application/json"]?["schema"]))
    }

    private func isRead(_ name: String) -> Bool {
        var name = name
        return name.withUTF8 { bytes in
            let raw = UnsafeRawBufferPointer(bytes)
            return TopLevelKey.named(raw, hash: KeyHash.of(raw)) != nil
        }
    }

    /// Why a body is refused before any node has it; nil where it is not.
    private func refusal(of body: String, _ endpoint: Endpoint) -> Failure? {
        do throws(Failure) {
            let bytes = Array(body.utf8)
            let scanned = try bytes.withUnsafeBytes { raw in
                Result { () throws(Failure) in try scanRequest(raw, endpoint: endpoint) }
            }.get()
            // Where any engine may be behind the model.
            try Steering.check(scanned, engines: Set(Engine.allCases))
            return nil
        } catch {
            return error
        }
    }

    /// A body that is served, with one more member.
    private func body(_ endpoint: Endpoint, _ member: String = "") -> String {
        let prompts = [
            "messages": #"[{"role":"user","content":"x"}]"#, "prompt": #""x""#, "input": #""x""#, "tokens": "[1]",
            "query": #""x""#, "documents": #"["x"]"#, "text_1": #""x""#, "text_2": #"["x"]"#,
        ]
        let names: [String]
        switch endpoint {
        case .rerank: names = ["query", "documents"]
        case .score: names = ["text_1", "text_2"]
        default: names = [endpoint.descriptor.prompt[0].rawValue]
        }
        let members = names.map { "\"\($0)\":\(prompts[$0] ?? "")" } + [#""model":"m""#]
        return "{\((members + (member.isEmpty ? [] : [member])).joined(separator: ","))}"
    }

    /// For each kind of refusal, a value that it names and one that passes.
    private static let kinds: [String: (refused: String, passes: String)] = [
        "Refused": (#""x""#, "null"), "RefusedUnlessFalse": ("true", "false"), "RefusedUnlessEmpty": (#"["x"]"#, "[]"),
    ]

    @Test(arguments: Endpoint.allCases.filter(\.isInference))
    func everyDescribedFieldIsReadOrRefused(endpoint: Endpoint) throws {
        #expect(refusal(of: body(endpoint), endpoint) == nil)
        let (own, inside) = try described(endpoint)
        #expect(own.count > 40)
        for property in own {
            let name = property.name
            #expect(isRead(name), "\(name) is described and not read")
            guard let kind = property.kind.flatMap({ Self.kinds[$0] }) else { continue }
            let refused = refusal(of: body(endpoint, "\"\(name)\":\(kind.refused)"), endpoint)
            #expect(refused?.parameter?.hasPrefix(name) == true, "\(name): \(kind.refused) is not refused")
            #expect(refused?.code == .invalidRequest)
            #expect(refusal(of: body(endpoint, "\"\(name)\":\(kind.passes)"), endpoint) == nil, "\(name)")
        }
        for property in inside {
            let name = property.name
            guard let kind = property.kind.flatMap({ Self.kinds[$0] }) else {
                #expect(Self.nested.contains(name) || isRead(name), "\(name) is described and not read")
                continue
            }
            // Those inside are parts of a conversation.
            let field = endpoint.dialect == .responses ? "input" : "messages"
            func part(_ value: String) -> String {
                #"{"model":"m","\#(field)":[{"role":"user","content":[{"type":"text","text":"x","\#(name)":\#(value)}]}]}"#
            }
            #expect(refusal(of: part(kind.refused), endpoint)?.code == .invalidRequest, "\(name) is not refused")
            #expect(refusal(of: part(kind.passes), endpoint) == nil, "\(name)")
        }
    }

    @Test func everyTemplateArgumentIsAllowedAndNoOther() throws {
        let schema = root["components"]?["schemas"]?["SteeringFields"]?["properties"]?["chat_template_kwargs"]
        for (name, part) in try #require(schema?["properties"]?.mapping) {
            let types = part["type"]?.array().compactMap(\.string) ?? []
            let value = types.contains("boolean") ? "true" : types.contains("string") ? #""low""# : "5"
            let member = "\"chat_template_kwargs\":{\"\(name.string ?? "")\":\(value)}"
            #expect(refusal(of: body(.chatCompletions, member), .chatCompletions) == nil, "\(member)")
        }
        #expect(refusal(of: body(.chatCompletions, #""chat_template_kwargs":{"other":1}"#), .chatCompletions) != nil)
    }
}

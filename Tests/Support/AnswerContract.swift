import JSON
import Yams

/// `openapi.yaml` as the judge of answers: status, headers and body of each are as described.
///
/// Of JSON Schema it knows the words that the document uses for answers, and takes a word that it does not know for a
/// violation rather than for a permission.
package struct AnswerContract {
    package struct Answer: Sendable {
        package var status: Int
        /// Names in lower case.
        package var headers: [(name: String, value: String)]
        package var body: [UInt8]

        package init(status: Int, headers: [(name: String, value: String)], body: [UInt8]) {
            self.status = status
            self.headers = headers
            self.body = body
        }
    }

    /// Headers of these names are the gateway's and must be described; the rest is HTTP's own.
    private static let ours = ["x-", "openai-", "retry-", "request-id", "allow"]

    private let root: Node

    package init(yaml: String) throws { root = try Yams.compose(yaml: yaml) ?? Node([(Node, Node)]()) }

    package var paths: [String] { root["paths"]?.mapping?.keys.compactMap(\.string) ?? [] }
    /// In upper case.
    package func methods(of path: String) -> [String] {
        root["paths"]?[path]?.mapping?.keys.compactMap { $0.string?.uppercased() } ?? []
    }

    /// - Parameter path: As in the document: `/v1/models/{id}`.
    /// - Returns: What is not as described; empty where all is.
    package func violations(_ method: String, _ path: String, _ answer: Answer) -> [String] {
        guard let responses = root["paths"]?[path]?[method.lowercased()]?["responses"] else {
            return ["\(method) \(path) is not described"]
        }
        func described(_ status: String) -> Node? { responses.mapping?.first { $0.key.string == status }?.value }
        guard let found = described("\(answer.status)") ?? described("\(answer.status / 100)XX") else {
            return ["\(answer.status) is not described"]
        }
        let response = resolved(found)
        var violations = headerViolations(answer, response["headers"])
        let type = answer.headers.first { $0.name == "content-type" }?.value.split(separator: ";").first ?? ""
        guard let schema = response["content"]?[String(type)]?["schema"] else {
            return violations + ["content-type '\(type)' is not described"]
        }
        if type == "application/json" {
            do throws(JSONError) {
                let body = try JSONValue(parsing: answer.body)
                violations += check(body, schema, at: "body")
            } catch {
                violations.append("the body is no JSON")
            }
        }
        return violations
    }

    private func resolved(_ node: Node) -> Node {
        guard let reference = node["$ref"]?.string else { return node }
        var found: Node? = root
        for part in reference.split(separator: "/").dropFirst() { found = found?[String(part)] }
        return found.map(resolved) ?? node
    }

    private func headerViolations(_ answer: Answer, _ described: Node?) -> [String] {
        var violations: [String] = []
        var known: [String: Node] = [:]
        for (name, header) in described?.mapping ?? [:] { known[name.string ?? ""] = resolved(header) }
        for (name, header) in known where header["required"]?.bool == true {
            if !answer.headers.contains(where: { $0.name == name }) { violations.append("\(name) is missing") }
        }
        for (name, value) in answer.headers where Self.ours.contains(where: name.hasPrefix) {
            guard let schema = known[name]?["schema"] else {
                violations.append("\(name) is sent and not described")
                continue
            }
            let isNumber = schema["type"]?.string == "integer"
            let json = isNumber ? Int64(value).map(JSONValue.integer) : JSONValue.string(value)
            violations += json.map { check($0, schema, at: name) } ?? ["\(name) is no integer: \(value)"]
        }
        return violations
    }

    private func check(_ value: JSONValue, _ schema: Node, at place: String) -> [String] {
        let schema = resolved(schema)
        var violations: [String] = []
        func require(_ holds: Bool, _ what: String) { if !holds { violations.append("\(place): \(what)") } }
        for (keyword, rule) in schema.mapping ?? [:] {
            switch keyword.string ?? "" {
            case "description", "examples": break
            case "type":
                let types = rule.string.map { [$0] } ?? rule.array().compactMap(\.string)
                require(types.contains { Self.isOf($0, value) }, "not of type \(types)")
            case "const": require(value.string == rule.string, "not \(rule.string ?? "")")
            case "enum": require(rule.array().contains { $0.string == value.string }, "not one of the enum")
            case "minimum": require((value.double ?? -.infinity) >= (rule.float ?? 0), "below the minimum")
            case "maximum": require((value.double ?? .infinity) <= (rule.float ?? 0), "above the maximum")
            case "pattern":
                let regex = rule.string.flatMap { try? Regex($0) }
                let text = value.string ?? ""
                require(regex.map { text.contains($0) } ?? false, "does not match \(rule.string ?? "")")
            case "required":
                for name in rule.array().compactMap(\.string) { require(value[name] != nil, "\(name) is missing") }
            case "additionalProperties":
                guard rule.bool == false else { continue }
                for member in value.object ?? [] {
                    require(schema["properties"]?[member.key] != nil, "\(member.key) is not described")
                }
            case "properties":
                for (name, part) in rule.mapping ?? [:] {
                    guard let name = name.string, let member = value[name] else { continue }
                    violations += check(member, part, at: "\(place).\(name)")
                }
            case "items":
                for (index, element) in (value.array ?? []).enumerated() {
                    violations += check(element, rule, at: "\(place)[\(index)]")
                }
            case let other: require(false, "'\(other)' is a word that this check does not know")
            }
        }
        return violations
    }

    private static func isOf(_ type: String, _ value: JSONValue) -> Bool {
        switch (type, value) {
        case ("null", .null), ("boolean", .bool), ("integer", .integer), ("number", .integer), ("number", .number),
            ("string", .string), ("array", .array), ("object", .object):
            true
        default: false
        }
    }
}

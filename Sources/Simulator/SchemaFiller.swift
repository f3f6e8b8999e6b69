import Domain
import JSON

/// Makes a value that a JSON schema accepts: what a model under a grammar would answer, with no sense in it.
///
/// Required members and all that `properties` names beside them, up to the depth at which only what is required goes on, so
/// that recursive schemas end. Numbers stand at their bounds, strings are filler words of an allowed length. `pattern` and
/// `not` are not understood: such a schema may get a value that it refuses.
struct SchemaFiller {
    /// Deeper than this only what must be there.
    static let generousDepth = 6
    static let depthMax = 48
    static let valuesMax = 10_000
    static let stringBytesMax = 16_384

    private let root: JSONValue
    private var generator: SplitMix64
    private var values = 0

    init(schema: JSONValue, seed: UInt64) {
        root = schema
        generator = SplitMix64(seed: seed ^ 0x7363_6865)
    }

    mutating func value() throws(NodeRefusal) -> JSONValue { try fill(root, depth: 0) }

    private mutating func fill(_ schema: JSONValue, depth: Int) throws(NodeRefusal) -> JSONValue {
        values += 1
        guard depth <= Self.depthMax, values <= Self.valuesMax else {
            throw .badRequest("The schema asks for a value that is too deep or too large.")
        }
        if let constant = schema["const"] { return constant }
        if case .array(let options)? = schema["enum"], !options.isEmpty {
            return options[Int(generator.next() % UInt64(options.count))]
        }
        if case .string(let reference)? = schema["$ref"] {
            return try fill(try target(of: reference), depth: depth + 1)
        }
        if case .array(let parts)? = schema["allOf"], !parts.isEmpty { return try fillAll(schema, parts, depth) }
        for name in ["anyOf", "oneOf"] {
            guard case .array(let options)? = schema[name], let first = options.first else { continue }
            // The way out of a recursion is usually the shortest, and null the shortest of all.
            let null = options.first { $0["type"] == "null" }
            return try fill(depth > Self.generousDepth ? null ?? options[options.count - 1] : first, depth: depth + 1)
        }
        return try fill(type: type(of: schema, depth), schema, depth)
    }

    private mutating func fill(type: String, _ schema: JSONValue, _ depth: Int) throws(NodeRefusal) -> JSONValue {
        switch type {
        case "object": return try object(schema, depth)
        case "array": return try array(schema, depth)
        case "string": return .string(try string(schema))
        case "integer", "number": return number(schema, isInteger: type == "integer")
        case "boolean": return .bool(generator.next() % 2 == 0)
        case "null": return .null
        default: throw .badRequest("The schema has an unknown type '\(type)'.")
        }
    }

    private func type(of schema: JSONValue, _ depth: Int) -> String {
        switch schema["type"] {
        case .string(let name)?: return name
        case .array(let names)?:
            let known = names.compactMap(\.string)
            if depth > Self.generousDepth, known.contains("null") { return "null" }
            return known.first { $0 != "null" } ?? "null"
        default: break
        }
        if schema["properties"] != nil || schema["required"] != nil { return "object" }
        if schema["items"] != nil || schema["prefixItems"] != nil { return "array" }
        return schema["minimum"] != nil || schema["maximum"] != nil ? "number" : "string"
    }

    /// `#`, or a pointer within the schema.
    private func target(of reference: String) throws(NodeRefusal) -> JSONValue {
        guard reference.utf8.first == UInt8(ascii: "#") else {
            throw .badRequest("The schema refers to '\(reference)', which is not within it.")
        }
        var value = root
        for part in reference.dropFirst().split(separator: "/") {
            let name = part.split(separator: "~1", omittingEmptySubsequences: false).joined(separator: "/")
                .split(separator: "~0", omittingEmptySubsequences: false).joined(separator: "~")
            guard let next = value[name] ?? Int(name).flatMap({ value[$0] }) else {
                throw .badRequest("The schema refers to '\(reference)', which is not there.")
            }
            value = next
        }
        return value
    }

    /// All of several object schemas: their members together.
    private mutating func fillAll(
        _ schema: JSONValue, _ parts: [JSONValue], _ depth: Int
    ) throws(NodeRefusal) -> JSONValue {
        var members: [JSONValue.Member] = []
        var rest = schema.object ?? []
        rest.removeAll { $0.key == "allOf" }
        let own: [JSONValue] = rest.contains { $0.key == "properties" } ? [.object(rest)] : []
        for part in parts + own {
            guard case .object(let made) = try fill(part, depth: depth + 1) else {
                return try fill(parts[0], depth: depth + 1)
            }
            for member in made where !members.contains(where: { $0.key == member.key }) { members.append(member) }
        }
        return .object(members)
    }

    private mutating func object(_ schema: JSONValue, _ depth: Int) throws(NodeRefusal) -> JSONValue {
        let required = Set((schema["required"]?.array ?? []).compactMap(\.string))
        var members: [JSONValue.Member] = []
        for property in schema["properties"]?.object ?? [] {
            guard required.contains(property.key) || depth < Self.generousDepth else { continue }
            members.append(JSONValue.Member(key: property.key, value: try fill(property.value, depth: depth + 1)))
        }
        // What is required without being described may be anything.
        for name in (schema["required"]?.array ?? []).compactMap(\.string)
        where !members.contains(where: { $0.key == name }) {
            members.append(JSONValue.Member(key: name, value: .string(words(bytes: 4...12))))
        }
        return .object(members)
    }

    private mutating func array(_ schema: JSONValue, _ depth: Int) throws(NodeRefusal) -> JSONValue {
        var elements: [JSONValue] = []
        for item in schema["prefixItems"]?.array ?? [] { elements.append(try fill(item, depth: depth + 1)) }
        let least = schema["minItems"]?.integer ?? 0
        let most = schema["maxItems"]?.integer ?? Int.max
        let items = schema["items"] ?? ["type": "string"]
        let wanted = max(least, depth < Self.generousDepth && items != false ? min(most, max(1, elements.count)) : 0)
        while elements.count < wanted { elements.append(try fill(items, depth: depth + 1)) }
        return .array(elements)
    }

    private mutating func number(_ schema: JSONValue, isInteger: Bool) -> JSONValue {
        let step = schema["multipleOf"]?.double ?? 1
        var least = schema["minimum"]?.double
        var most = schema["maximum"]?.double
        let fine = isInteger || step >= 1 ? 1 : step
        if let bound = schema["exclusiveMinimum"]?.double { least = max(least ?? bound + fine, bound + fine / 2) }
        if let bound = schema["exclusiveMaximum"]?.double { most = min(most ?? bound - fine / 2, bound - fine / 2) }
        var value = least ?? min(most ?? 42, 42)
        if isInteger || step != 1 {
            let unit = step > 0 ? step : 1
            value = (value / unit).rounded(least == nil ? .down : .up) * unit
        }
        if isInteger, let integer = Int64(exactly: value) { return .integer(integer) }
        return .number(value)
    }

    private mutating func string(_ schema: JSONValue) throws(NodeRefusal) -> String {
        switch schema["format"]?.string {
        case "date-time": return "2026-01-02T03:04:05Z"
        case "date": return "2026-01-02"
        case "time": return "03:04:05Z"
        case "duration": return "PT5M"
        case "email": return "node@example.com"
        case "hostname": return "example.com"
        case "ipv4": return "192.0.2.1"
        case "ipv6": return "2001:db8::1"
        case "uri": return "https://example.com/"
        case "uuid": return "00000000-0000-4000-8000-000000000001"
        default: break
        }
        let least = schema["minLength"]?.integer ?? 4
        let most = max(least, schema["maxLength"]?.integer ?? max(least, 24))
        guard least <= Self.stringBytesMax else { throw .badRequest("The schema asks for a text that is too long.") }
        return words(bytes: max(0, least)...min(most, Self.stringBytesMax))
    }

    private mutating func words(bytes range: ClosedRange<Int>) -> String {
        let text = FillerText(seed: generator.next())
        var words = String(text.token(0).dropFirst())
        var next = 1
        while words.utf8.count < range.lowerBound || next < 3 {
            words += text.token(next)
            next += 1
        }
        return String(words.prefix(range.upperBound))
    }
}

/// A small JSON document in memory: for tests, the simulator and the control plane, never for the data path.
package enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    /// A number written as an integer that fits.
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([Member])

    package struct Member: Hashable, Sendable {
        package let key: String
        package let value: JSONValue

        package init(key: String, value: JSONValue) {
            self.key = key
            self.value = value
        }
    }

    /// Parses a whole text. Depth is bounded by ``JSONLimits/depthMax``, length by `bytesMax`; keys must differ.
    package init(
        parsing text: UnsafeRawBufferPointer, bytesMax: Int = JSONLimits.documentBytesMax
    ) throws(JSONError) {
        guard text.count <= bytesMax else { throw JSONError(.tooLong, at: bytesMax) }
        var scanner = JSONScanner(text)
        self = try Self.parse(&scanner, text)
        try scanner.finish()
    }

    package init(parsing bytes: [UInt8], bytesMax: Int = JSONLimits.documentBytesMax) throws(JSONError) {
        let result = bytes.withUnsafeBytes { text in
            Result { () throws(JSONError) in try JSONValue(parsing: text, bytesMax: bytesMax) }
        }
        self = try result.get()
    }

    package init(parsing text: String, bytesMax: Int = JSONLimits.documentBytesMax) throws(JSONError) {
        try self.init(parsing: Array(text.utf8), bytesMax: bytesMax)
    }

    // MARK: Reading

    /// The member of that name; nil where there is none or this is no object.
    package subscript(key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.key == key }?.value
    }

    /// The element at that index; nil where there is none or this is no array.
    package subscript(index: Int) -> JSONValue? {
        guard case .array(let elements) = self, elements.indices.contains(index) else { return nil }
        return elements[index]
    }

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var integer: Int? { if case .integer(let value) = self { Int(value) } else { nil } }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var object: [Member]? { if case .object(let value) = self { value } else { nil } }
    package var isNull: Bool { self == .null }

    /// Any number, as a floating-point value.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    // MARK: Writing

    package var bytes: [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.bytes
    }

    package func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.null()
        case .bool(let value): writer.bool(value)
        case .integer(let value): writer.integer(value)
        case .number(let value): writer.double(value)
        case .string(let value): writer.string(value)
        case .array(let elements):
            writer.beginArray()
            for element in elements { element.write(to: &writer) }
            writer.endArray()
        case .object(let members):
            writer.beginObject()
            for member in members {
                writer.key(member.key)
                member.value.write(to: &writer)
            }
            writer.endObject()
        }
    }

    // MARK: Parsing

    /// Recursion is bounded by the scanner's depth.
    private static func parse(
        _ scanner: inout JSONScanner, _ text: UnsafeRawBufferPointer
    ) throws(JSONError) -> JSONValue {
        switch try scanner.peek() {
        case UInt8(ascii: "{"): return .object(try members(&scanner, text))
        case UInt8(ascii: "["):
            var elements: [JSONValue] = []
            var isFirst = true
            try scanner.enter()
            while try scanner.nextElement(&isFirst) { elements.append(try parse(&scanner, text)) }
            return .array(elements)
        case UInt8(ascii: "\""): return .string(JSONDecoding.text(try scanner.string(), in: text))
        default:
            let span = try scanner.value()
            switch JSONDecoding.kind(at: span.lowerBound, in: text) {
            case .bool(let value): return .bool(value)
            case .null: return .null
            default:
                if let integer = JSONDecoding.integer(span, in: text) { return .integer(integer) }
                guard let number = Double(String(decoding: text[span], as: UTF8.self)), number.isFinite else {
                    throw JSONError(.badNumber, at: span.lowerBound)
                }
                return .number(number)
            }
        }
    }

    private static func members(
        _ scanner: inout JSONScanner, _ text: UnsafeRawBufferPointer
    ) throws(JSONError) -> [Member] {
        var members: [Member] = []
        var keys: Set<String> = []
        var isFirst = true
        try scanner.enter()
        while let name = try scanner.nextMember(&isFirst) {
            let key = JSONDecoding.text(name, in: text)
            guard keys.insert(key).inserted else { throw JSONError(.duplicateKey, at: name.content.lowerBound) }
            members.append(Member(key: key, value: try parse(&scanner, text)))
        }
        return members
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(floatLiteral value: Double) { self = .number(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { Member(key: $0.0, value: $0.1) })
    }
    package init(nilLiteral: ()) { self = .null }
}

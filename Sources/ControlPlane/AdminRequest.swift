import Billing
import Domain
import Hummingbird
import NIOCore

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Any JSON value: what a request body is read into before its members are checked, and what the client sends.
package enum JSONValue: Codable, Hashable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

/// The members of a request's JSON object, each read once by the type it must have.
///
/// A member outside `allowed` is refused: a misspelt limit that is silently ignored is a limit that is not there.
struct RequestFields {
    /// Longest body that is read, in bytes.
    static let bodyBytesMax = 64 * 1024
    /// Longest name or reference, in bytes.
    static let textBytesMax = 128
    /// Models that an error lists.
    static let modelsShownMax = 32
    /// Largest limit that is taken, whatever its unit.
    static let limitMax: Int64 = 1_000_000_000_000

    private let members: [String: JSONValue]

    /// - Parameter body: Empty counts as `{}`.
    /// - Throws: `invalid_json`; `invalid_request` for a member that is not in `allowed`.
    init(body: ByteBuffer, allowed: [String]) throws(AdminFailure) {
        guard body.readableBytes > 0 else {
            members = [:]
            return
        }
        let decoded: JSONValue
        do {
            decoded = try JSONDecoder().decode(JSONValue.self, from: Data(body.readableBytesView))
        } catch {
            throw AdminFailure(.invalidJSON, "The body is not valid JSON; send one JSON object.")
        }
        guard case .object(let members) = decoded else {
            throw AdminFailure(.invalidRequest, "The body must be a JSON object.")
        }
        for name in members.keys.sorted() where !allowed.contains(name) {
            let known = allowed.isEmpty ? "this request takes none" : "known are \(allowed.joined(separator: ", "))"
            throw AdminFailure(.invalidRequest, "Unknown member '\(Self.printable(name))'; \(known).")
        }
        self.members = members
    }

    func has(_ name: String) -> Bool { members[name] != nil }

    /// A printable text of 1 to ``textBytesMax`` bytes.
    func text(_ name: String) throws(AdminFailure) -> String? {
        guard let value = members[name] else { return nil }
        guard case .string(let text) = value else {
            throw AdminFailure(.invalidRequest, "'\(name)' must be a string.")
        }
        guard !text.isEmpty, text.utf8.count <= Self.textBytesMax,
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) })
        else {
            throw AdminFailure(
                .invalidRequest, "'\(name)' must have 1 to \(Self.textBytesMax) bytes and no control characters.")
        }
        return text
    }

    func requiredText(_ name: String) throws(AdminFailure) -> String {
        try required(text(name), name)
    }

    func identifier<Kind>(_ name: String) throws(AdminFailure) -> Identifier<Kind> {
        let text = try requiredText(name)
        guard let identifier = Identifier<Kind>(text) else {
            throw AdminFailure(.invalidRequest, "'\(name)' \(IdentifierText.grammar).")
        }
        return identifier
    }

    /// Dollars as a decimal string. A JSON number is refused: most writers would send it through a binary fraction.
    func money(_ name: String, minimum: NanoUSD) throws(AdminFailure) -> NanoUSD? {
        guard let value = members[name] else { return nil }
        guard case .string(let text) = value, let amount = NanoUSD(dollars: text) else {
            throw AdminFailure(
                .invalidRequest,
                "'\(name)' must be US dollars as a decimal string with at most nine places, such as \"12.50\".")
        }
        guard amount >= minimum else {
            let bound = minimum == .zero ? "not be negative" : "be above zero"
            throw AdminFailure(.invalidRequest, "'\(name)' must \(bound).")
        }
        return amount
    }

    func requiredTexts(_ name: String) throws(AdminFailure) -> [String: String] {
        try required(texts(name), name)
    }

    func requiredMoney(_ name: String, minimum: NanoUSD) throws(AdminFailure) -> NanoUSD {
        try required(money(name, minimum: minimum), name)
    }

    /// A whole number from 1 to ``limitMax``, or null for unlimited.
    func limit(_ name: String) throws(AdminFailure) -> Change<Int> {
        switch members[name] {
        case nil: return .keep
        case .null: return .unlimited
        case .integer(let value) where value >= 1 && value <= Self.limitMax: return .set(Int(value))
        default:
            throw AdminFailure(
                .invalidRequest, "'\(name)' must be a whole number from 1 to \(Self.limitMax), or null for unlimited.")
        }
    }

    /// A whole number within `range`.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(AdminFailure) -> Int? {
        guard let value = members[name] else { return nil }
        guard case .integer(let number) = value, let number = Int(exactly: number), range.contains(number) else {
            throw AdminFailure(
                .invalidRequest, "'\(name)' must be a whole number from \(range.lowerBound) to \(range.upperBound).")
        }
        return number
    }

    /// Texts by name, such as `{"public-id": "name-on-the-node"}`.
    func texts(_ name: String) throws(AdminFailure) -> [String: String]? {
        guard let value = members[name] else { return nil }
        var texts: [String: String] = [:]
        guard case .object(let members) = value else {
            throw AdminFailure(.invalidRequest, "'\(name)' must be an object of strings.")
        }
        for (member, value) in members {
            guard case .string(let text) = value else {
                throw AdminFailure(.invalidRequest, "'\(name)' must be an object of strings.")
            }
            texts[member] = text
        }
        return texts
    }

    /// Seconds, whole or not, to the millisecond.
    func seconds(_ name: String, in range: ClosedRange<Duration>) throws(AdminFailure) -> Duration? {
        guard let value = members[name] else { return nil }
        let seconds: Double?
        switch value {
        case .integer(let number): seconds = Double(number)
        case .number(let number): seconds = number
        default: seconds = nil
        }
        let bounds = Double(range.lowerBound.milliseconds) / 1_000...Double(range.upperBound.milliseconds) / 1_000
        guard let seconds, bounds.contains(seconds) else {
            throw AdminFailure(
                .invalidRequest,
                "'\(name)' must be seconds from \(bounds.lowerBound) to \(bounds.upperBound), as a number.")
        }
        return .milliseconds(Int64(seconds * 1_000))
    }

    /// `rpm`, `tpm` and `concurrency` together.
    func limits() throws(AdminFailure) -> LimitsUpdate {
        LimitsUpdate(
            requestsPerMinute: try limit("rpm"), tokensPerMinute: try limit("tpm"),
            concurrency: try limit("concurrency"))
    }

    /// A list of models by id or alias, or null for every model.
    ///
    /// - Parameter known: What this gateway's configuration names: id or alias to id.
    /// - Throws: `invalid_request` for a name that is not among them: a key that is restricted to a misspelt model could
    ///   do nothing.
    func models(_ name: String, known: [String: ModelID]) throws(AdminFailure) -> Change<Set<ModelID>> {
        switch members[name] {
        case nil: return .keep
        case .null: return .unlimited
        case .array(let values) where (1...KeyRecord.modelsMax).contains(values.count):
            var models: Set<ModelID> = []
            for value in values {
                guard case .string(let text) = value else {
                    throw AdminFailure(.invalidRequest, "'\(name)' must be a list of models' names.")
                }
                guard let model = known[text] else { throw Self.unknownModel(text, known: known) }
                models.insert(model)
            }
            return .set(models)
        default:
            throw AdminFailure(
                .invalidRequest,
                "'\(name)' must be a list of 1 to \(KeyRecord.modelsMax) models, or null for every model.")
        }
    }

    /// A region of the configuration's sites, or null for anywhere.
    ///
    /// - Parameter known: The regions of the configuration: a misspelt one would shut its customer out.
    func region(_ name: String, known: [String]) throws(AdminFailure) -> Change<String> {
        switch members[name] {
        case nil: return .keep
        case .null: return .unlimited
        case .string(let text) where known.contains(text): return .set(text)
        case .string(let text):
            throw AdminFailure(
                .invalidRequest,
                "No site is in a region '\(Self.printable(text))'; configured are \(known.isEmpty ? "none" : known.joined(separator: ", "))."
            )
        default: throw AdminFailure(.invalidRequest, "'\(name)' must be a region of a site, or null for anywhere.")
        }
    }

    private static func unknownModel(_ text: String, known: [String: ModelID]) -> AdminFailure {
        let ids = Set(known.values).sorted().map(\.rawValue)
        let shown = ids.prefix(modelsShownMax).joined(separator: ", ") + (ids.count > modelsShownMax ? ", ..." : "")
        return AdminFailure(
            .invalidRequest,
            "There is no model '\(printable(text))'; configured are \(ids.isEmpty ? "none" : shown).")
    }

    private func required<Value>(_ value: Value?, _ name: String) throws(AdminFailure) -> Value {
        guard let value else { throw AdminFailure(.invalidRequest, "'\(name)' is missing.") }
        return value
    }

    /// What a stranger's member name may look like in an answer.
    static func printable(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.prefix(64).map { $0.isASCII && $0.value >= 0x20 ? $0 : "?" }))
    }
}

package enum IdentifierText {
    /// For messages: what ``Identifier`` takes.
    package static let grammar =
        "must have 1 to 64 of the characters a-z A-Z 0-9 . _ - / : and start with a letter or digit"
}

/// One request as a route sees it: names from the path, the query, the body.
struct AdminRequest {
    let parameters: [String: String]
    let query: [String: String]
    let body: ByteBuffer
    /// A node that registers itself, rather than an operator.
    var isJoining = false

    /// - Throws: `not_found`, for what no grammar allows cannot exist.
    func identifier<Kind>(_ name: String) throws(AdminFailure) -> Identifier<Kind> {
        guard let text = parameters[name], let identifier = Identifier<Kind>(text) else {
            throw AdminFailure(.notFound, "No such \(name): a name \(IdentifierText.grammar).")
        }
        return identifier
    }

    func fields(_ allowed: String...) throws(AdminFailure) -> RequestFields {
        try RequestFields(body: body, allowed: allowed)
    }

    func date(_ name: String) throws(AdminFailure) -> UTCDate? {
        guard let text = query[name] else { return nil }
        guard let date = UTCDate(text) else {
            throw AdminFailure(.invalidRequest, "'\(name)' must be a UTC date as YYYY-MM-DD.")
        }
        return date
    }
}

/// What a route answers.
struct AdminAnswer {
    var status: HTTPResponse.Status
    var headers: HTTPFields
    var body: ByteBuffer

    static func json(_ document: some Encodable, status: HTTPResponse.Status = .ok) -> AdminAnswer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // The documents hold integers, strings and finite numbers, so encoding has no way to fail; an empty 500 says so
        // should that ever change.
        guard let data = try? encoder.encode(document) else {
            return AdminAnswer(status: .internalServerError, headers: [:], body: ByteBuffer())
        }
        return AdminAnswer(
            status: status, headers: [.contentType: "application/json", .cacheControl: "no-store"],
            body: ByteBuffer(bytes: data))
    }

    static func text(_ text: String, contentType: String) -> AdminAnswer {
        AdminAnswer(status: .ok, headers: [.contentType: contentType], body: ByteBuffer(string: text))
    }

    func response() -> Response { Response(status: status, headers: headers, body: .init(byteBuffer: body)) }
}

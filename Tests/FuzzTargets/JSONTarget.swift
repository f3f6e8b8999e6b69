import Foundation
import JSON
import OpenAIProtocol

/// Our scanners against `JSONSerialization`, which stands for the parsers of nodes.
///
/// What we accept it accepts, with the same values; a request that we accept has for it, too, the model, the stream flag
/// and the token limit that we act by. Ours may refuse more, and does: duplicate and escaped top-level keys, lone
/// surrogates, more than `JSONLimits.depthMax` levels, numbers of more than `numberBytesMax` bytes or beyond Double's
/// range. One thing it accepts more: a number beyond Double's range in a field that the gateway does not read goes on to
/// the node as it is.
enum JSONTarget {
    static func finding(in bytes: UnsafeRawBufferPointer) -> String? {
        let theirs = try? JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
        if let ours = try? JSONValue(parsing: bytes) {
            guard let theirs else { return "JSONValue accepts what JSONSerialization refuses" }
            if let place = difference(ours, theirs, "$") { return "values differ at \(place)" }
        }
        for endpoint in Endpoint.allCases where endpoint.isInference {
            guard let request = try? scanRequest(bytes, endpoint: endpoint) else { continue }
            if let finding = finding(request, bytes, theirs) { return "\(endpoint): \(finding)" }
        }
        return nil
    }

    private static func finding(
        _ request: ScannedRequest, _ bytes: UnsafeRawBufferPointer, _ theirs: Any?
    ) -> String? {
        guard let theirs else {
            return hasHugeNumber(bytes) ? nil : "the request scanner accepts what JSONSerialization refuses"
        }
        guard let object = theirs as? [String: Any] else { return "the body is no object" }
        guard let model = object["model"] as? String, model.utf8.elementsEqual(request.model.utf8) else {
            return "model '\(request.model)' against \(String(describing: object["model"]))"
        }
        // Which of two that are called the same counts differs between parsers. Swift's dictionary takes canonically
        // equivalent keys for one, which parsers of JSON do not.
        if object.keys.allSatisfy({ $0.utf8.allSatisfy { $0 < 0x80 } }), object.count != request.keyHashes.count {
            return "\(request.keyHashes.count) keys where there are \(object.count)"
        }
        let stream = object["stream"].flatMap(flag) ?? false
        if stream != request.stream { return "stream \(request.stream) against \(stream)" }
        let include = (object["stream_options"] as? [String: Any])?["include_usage"].flatMap(flag) ?? false
        // The other dialects always tell the usage, and have no such option.
        if request.endpoint.dialect == .openAI, include != request.includeUsage {
            return "include_usage \(request.includeUsage) against \(include)"
        }
        // Which of the names an endpoint reads is its own affair; what it read must stand there.
        let limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"].compactMap { name -> Int? in
            guard let number = object[name] as? NSNumber, flag(number) == nil else { return nil }
            return number.intValue
        }
        if let limit = request.maxTokens {
            if !limits.contains(limit) { return "token limit \(limit) against \(limits)" }
        } else if request.endpoint == .chatCompletions || request.endpoint == .completions {
            for name in ["max_tokens", "max_completion_tokens"] where object[name] is NSNumber {
                return "no token limit against \(name) \(String(describing: object[name]))"
            }
        }
        guard request.modelSpan.upperBound <= bytes.count,
            let span = try? JSONValue(parsing: Array(bytes[request.modelSpan])),
            span.string?.utf8.elementsEqual(request.model.utf8) == true
        else { return "the model's span is not the model" }
        return nil
    }

    /// A JSON boolean, which Foundation keeps as a kind of number.
    private static func flag(_ value: Any) -> Bool? {
        guard let number = value as? NSNumber, isBoolean(number) else { return nil }
        return number.boolValue
    }

    private static func isBoolean(_ number: NSNumber) -> Bool {
        // 'c' is the type of what was made from a Bool; no JSON number is kept in so few bits.
        String(cString: number.objCType) == "c"
    }

    /// Whether the text has a number that Double cannot hold: digits that with their exponent pass 1e308.
    private static func hasHugeNumber(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let text = String(decoding: bytes, as: UTF8.self)
        return text.split { !"+-.0123456789eE".contains($0) }.contains { Double($0).map { !$0.isFinite } ?? false }
    }

    private static func difference(_ ours: JSONValue, _ theirs: Any, _ place: String) -> String? {
        switch ours {
        case .null: return theirs is NSNull ? nil : place
        case .bool(let value): return flag(theirs) == value ? nil : place
        case .string(let value):
            return (theirs as? String)?.utf8.elementsEqual(value.utf8) == true ? nil : place
        case .integer(let value):
            guard let number = theirs as? NSNumber, flag(number) == nil else { return place }
            return number.int64Value == value ? nil : "\(place): \(value) against \(number)"
        case .number(let value):
            guard let number = theirs as? NSNumber, flag(number) == nil else { return place }
            let other = number.doubleValue
            // Foundation rounds some long decimals in the last bits.
            let isNear = abs(value - other) <= max(abs(value), abs(other)) * 1e-14
            return value == other || isNear ? nil : "\(place): \(value) against \(number)"
        case .array(let elements):
            guard let array = theirs as? [Any], array.count == elements.count else { return place }
            for (index, element) in elements.enumerated() {
                if let found = difference(element, array[index], "\(place)[\(index)]") { return found }
            }
            return nil
        case .object(let members):
            guard let object = theirs as? [String: Any] else { return place }
            // Swift's dictionary takes keys that are canonically equivalent for one; JSON does not.
            guard object.count == Set(members.map(\.key)).count else { return place }
            for member in members where members.count == object.count {
                guard let value = object[member.key] else { return "\(place).\(member.key)" }
                if let found = difference(member.value, value, "\(place).\(member.key)") { return found }
            }
            return nil
        }
    }
}

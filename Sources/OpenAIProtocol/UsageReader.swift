import Domain
import JSON

/// What a node says that a request used.
package enum ReportedUsage: Hashable, Sendable {
    /// No `usage` member.
    case absent
    /// `"usage": null`, as every chunk but the last carries it.
    case null
    case value(TokenUsage)
    /// There, but without the counts as integers: the gateway's own count is billed, and the node is distrusted.
    case malformed

    /// The counts, where there are any. Whether they can be true is ``TokenUsage/isPlausible(promptTokensMax:completionTokensMax:)``'s.
    package var tokens: TokenUsage? { if case .value(let usage) = self { usage } else { nil } }

    /// Takes the value of a `usage` member.
    static func read(_ scanner: inout JSONScanner, _ json: UnsafeRawBufferPointer) throws(JSONError) -> ReportedUsage {
        guard try scanner.peek() == UInt8(ascii: "{") else {
            let span = try scanner.value()
            return JSONDecoding.kind(at: span.lowerBound, in: json) == .null ? .null : .malformed
        }
        var prompt: Int?
        var completion: Int? = 0
        var cached: Int? = 0
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if key.matches("prompt_tokens", in: json) {
                prompt = count(try scanner.value(), json)
            } else if key.matches("completion_tokens", in: json) {
                // Embeddings have none, or null.
                let span = try scanner.value()
                completion = isNull(span, json) ? 0 : count(span, json)
            } else if key.matches("prompt_tokens_details", in: json), try scanner.peek() == UInt8(ascii: "{") {
                var isFirst = true
                try scanner.enter()
                while let key = try scanner.nextMember(&isFirst) {
                    let span = try scanner.value()
                    if key.matches("cached_tokens", in: json) { cached = isNull(span, json) ? 0 : count(span, json) }
                }
            } else {
                try scanner.value()
            }
        }
        guard let prompt, let completion, let cached else { return .malformed }
        return .value(TokenUsage(promptTokens: prompt, cachedTokens: cached, completionTokens: completion))
    }

    private static func isNull(_ span: Range<Int>, _ json: UnsafeRawBufferPointer) -> Bool {
        json[span.lowerBound] == UInt8(ascii: "n")
    }

    private static func count(_ span: Range<Int>, _ json: UnsafeRawBufferPointer) -> Int? {
        JSONDecoding.integer(span, in: json).flatMap { Int(exactly: $0) }
    }
}

extension JSONString {
    /// Whether the key is written exactly so.
    func matches(_ name: StaticString, in json: UnsafeRawBufferPointer) -> Bool {
        guard content.count == name.utf8CodeUnitCount else { return false }
        for index in 0..<content.count where json[content.lowerBound + index] != name.utf8Start[index] {
            return false
        }
        return true
    }
}

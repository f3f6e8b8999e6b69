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
}

/// The counts of one `usage` member as they stand, under whichever names: a stream may tell them in several events.
package struct UsageFields: Hashable, Sendable {
    /// `prompt_tokens` or `input_tokens`.
    package private(set) var input: Int?
    /// `completion_tokens` or `output_tokens`.
    package private(set) var output: Int?
    /// Of the input: `prompt_tokens_details.cached_tokens` and the like.
    package private(set) var cached: Int?
    /// Beside the input, as Anthropic counts: read from a cache, and written to one.
    package private(set) var cacheRead: Int?
    package private(set) var cacheCreation: Int?
    /// Of the output: `completion_tokens_details.reasoning_tokens` and the like.
    package private(set) var reasoning: Int?
    /// Where nothing is generated some servers give this alone.
    package private(set) var total: Int?
    /// A count is there that is no integer.
    package private(set) var isMalformed = false

    package init() {}

    /// Takes what a later event says over what earlier ones said.
    package mutating func merge(_ newer: UsageFields) {
        input = newer.input ?? input
        output = newer.output ?? output
        cached = newer.cached ?? cached
        cacheRead = newer.cacheRead ?? cacheRead
        cacheCreation = newer.cacheCreation ?? cacheCreation
        reasoning = newer.reasoning ?? reasoning
        total = newer.total ?? total
        isMalformed = isMalformed || newer.isMalformed
    }

    /// The usage that they amount to. Anthropic counts what concerns a cache beside the input; others that tell it, within.
    package func reported(_ dialect: Dialect) -> ReportedUsage {
        guard !isMalformed, let input = input ?? (output == nil ? total : nil) else { return .malformed }
        let isBeside = dialect == .anthropic
        let read = cacheRead ?? 0
        // Reasoning is a part of the output; a server that counts it beside it contradicts its own total.
        guard reasoning ?? 0 <= output ?? 0 else { return .malformed }
        let (prompt, overflow) = input.addingReportingOverflow(isBeside ? read : 0)
        let (all, overflows) = prompt.addingReportingOverflow(isBeside ? cacheCreation ?? 0 : 0)
        guard !overflow, !overflows else { return .malformed }
        return .value(TokenUsage(promptTokens: all, cachedTokens: cached ?? read, completionTokens: output ?? 0))
    }

    /// Takes the value of a `usage` member.
    ///
    /// - Returns: nil where it is null.
    static func read(_ scanner: inout JSONScanner, _ json: UnsafeRawBufferPointer) throws(JSONError) -> UsageFields? {
        var fields = UsageFields()
        guard try scanner.peek() == UInt8(ascii: "{") else {
            let span = try scanner.value()
            if JSONDecoding.kind(at: span.lowerBound, in: json) == .null { return nil }
            fields.isMalformed = true
            return fields
        }
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if let field = Field(key, json) {
                fields.set(field, try scanner.value(), json)
            } else if isDetails(key, json), try scanner.peek() == UInt8(ascii: "{") {
                var isFirst = true
                try scanner.enter()
                while let key = try scanner.nextMember(&isFirst) {
                    let span = try scanner.value()
                    if key.matches("cached_tokens", in: json) { fields.set(.cached, span, json) }
                    if key.matches("reasoning_tokens", in: json) { fields.set(.reasoning, span, json) }
                }
            } else {
                try scanner.value()
            }
        }
        return fields
    }

    private enum Field {
        case input, output, total, cached, cacheRead, cacheCreation, reasoning

        init?(_ key: JSONString, _ json: UnsafeRawBufferPointer) {
            if key.matches("prompt_tokens", in: json) || key.matches("input_tokens", in: json) {
                self = .input
            } else if key.matches("completion_tokens", in: json) || key.matches("output_tokens", in: json) {
                self = .output
            } else if key.matches("total_tokens", in: json) {
                self = .total
            } else if key.matches("cache_read_input_tokens", in: json) {
                self = .cacheRead
            } else if key.matches("cache_creation_input_tokens", in: json) {
                self = .cacheCreation
            } else {
                return nil
            }
        }
    }

    private static func isDetails(_ key: JSONString, _ json: UnsafeRawBufferPointer) -> Bool {
        key.matches("prompt_tokens_details", in: json) || key.matches("input_tokens_details", in: json)
            || key.matches("completion_tokens_details", in: json) || key.matches("output_tokens_details", in: json)
    }

    private mutating func set(_ field: Field, _ span: Range<Int>, _ json: UnsafeRawBufferPointer) {
        // Embeddings have no completion tokens, or null.
        if json[span.lowerBound] == UInt8(ascii: "n") { return }
        guard let value = JSONDecoding.integer(span, in: json).flatMap({ Int(exactly: $0) }) else {
            isMalformed = true
            return
        }
        switch field {
        case .input: input = value
        case .output: output = value
        case .total: total = value
        case .cached: cached = value
        case .cacheRead: cacheRead = value
        case .cacheCreation: cacheCreation = value
        case .reasoning: reasoning = value
        }
    }
}

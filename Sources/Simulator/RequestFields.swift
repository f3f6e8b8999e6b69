import JSON

/// Typed reading of a request's fields: a wrong type or range is a 400 that names the field.
struct RequestFields {
    let body: JSONValue

    init(_ body: JSONValue) {
        self.body = body
    }

    func bool(_ name: String) throws(NodeRefusal) -> Bool? {
        guard let value = body.field(name) else { return nil }
        guard case .bool(let flag) = value else {
            throw .badRequest("'\(name)' must be true or false.", parameter: name)
        }
        return flag
    }

    func string(_ name: String) throws(NodeRefusal) -> String? {
        guard let value = body.field(name) else { return nil }
        guard case .string(let text) = value else { throw .badRequest("'\(name)' must be a string.", parameter: name) }
        return text
    }

    func integer(_ name: String, _ range: ClosedRange<Int>) throws(NodeRefusal) -> Int? {
        guard let value = body.field(name) else { return nil }
        guard case .integer(let number) = value else {
            throw .badRequest("'\(name)' must be an integer.", parameter: name)
        }
        guard let number = Int(exactly: number), range.contains(number) else {
            let bound = number < range.lowerBound ? "at least \(range.lowerBound)" : "at most \(range.upperBound)"
            throw .badRequest("\(name) must be \(bound), got \(number).", parameter: name)
        }
        return number
    }

    func number(_ name: String, _ range: ClosedRange<Double>) throws(NodeRefusal) -> Double? {
        guard let value = body.field(name) else { return nil }
        guard let number = value.double else { throw .badRequest("'\(name)' must be a number.", parameter: name) }
        guard range.contains(number) else {
            throw .badRequest(
                "\(name) must be in [\(range.lowerBound), \(range.upperBound)], got \(number).", parameter: name)
        }
        return number
    }

    /// Reads what only a real model would heed, for the sake of its errors.
    func checkSampling() throws(NodeRefusal) {
        _ = try number("temperature", 0...2)
        _ = try number("top_p", 0...1)
        _ = try number("presence_penalty", -2...2)
        _ = try number("frequency_penalty", -2...2)
    }

    /// Which logprobs an answer shows; nil for none.
    func logprobs(_ kind: GenerationRequest.Kind) throws(NodeRefusal) -> TokenLogprobs? {
        let counts = 0...TokenLogprobs.topMax
        switch kind {
        case .chat:
            let top = try integer("top_logprobs", counts)
            guard try bool("logprobs") ?? false else {
                guard top ?? 0 == 0 else {
                    throw .badRequest(
                        "when using `top_logprobs`, `logprobs` must be set to true.", parameter: "top_logprobs")
                }
                return nil
            }
            return TokenLogprobs(top: top ?? 0)
        case .completion: return try integer("logprobs", counts).map { TokenLogprobs(top: $0) }
        case .responses:
            let include = body.field("include")?.array ?? []
            let top = try integer("top_logprobs", counts) ?? 0
            return include.contains("message.output_text.logprobs") ? TokenLogprobs(top: top) : nil
        case .messages: return nil
        }
    }

    func object(_ name: String) throws(NodeRefusal) -> RequestFields? {
        guard let value = body.field(name) else { return nil }
        guard case .object = value else { throw .badRequest("'\(name)' must be an object.", parameter: name) }
        return RequestFields(value)
    }

    func stops(_ name: String = "stop") throws(NodeRefusal) -> [String] {
        let texts: [JSONValue]
        switch body.field(name) {
        case nil: return []
        case .string(let text): texts = [.string(text)]
        case .array(let values): texts = values
        default: throw .badRequest("'\(name)' must be a string or a list of strings.", parameter: name)
        }
        guard texts.count <= GenerationRequest.stopsMax else {
            throw .badRequest("'\(name)' has at most \(GenerationRequest.stopsMax) strings.", parameter: name)
        }
        var stops: [String] = []
        for case let text in texts {
            guard case .string(let stop) = text, stop.utf8.count <= GenerationRequest.stopBytesMax else {
                throw .badRequest(
                    "'\(name)' must be strings of at most \(GenerationRequest.stopBytesMax) bytes.", parameter: name)
            }
            stops.append(stop)
        }
        return stops
    }

    /// A text, a list of texts, token ids, or a list of token id lists.
    func prompts(_ name: String) throws(NodeRefusal) -> [PromptTokens] {
        let values: [JSONValue]
        switch body.field(name) {
        case .string?: values = [body.field(name) ?? .null]
        case .array(let list)?:
            if case .integer? = list.first { values = [.array(list)] } else { values = list }
        default:
            throw .badRequest(
                "'\(name)' must be a string, a list of strings, a list of token ids or a list of such lists.",
                parameter: name)
        }
        guard !values.isEmpty, values.count <= GenerationRequest.promptsMax else {
            throw .badRequest("'\(name)' must have 1 to \(GenerationRequest.promptsMax) entries.", parameter: name)
        }
        var prompts: [PromptTokens] = []
        for value in values { prompts.append(try prompt(value, name)) }
        return prompts
    }

    private func prompt(_ value: JSONValue, _ name: String) throws(NodeRefusal) -> PromptTokens {
        var prompt = PromptTokens()
        switch value {
        case .string(let text): prompt.append(text: text)
        case .array(let identifiers):
            var tokens: [Int64] = []
            tokens.reserveCapacity(identifiers.count)
            for identifier in identifiers {
                guard case .integer(let token) = identifier, token >= 0 else {
                    throw .badRequest("Token ids in '\(name)' must be integers from 0.", parameter: name)
                }
                tokens.append(token)
            }
            prompt.append(tokenIDs: tokens)
        default: throw .badRequest("'\(name)' must hold strings or token ids.", parameter: name)
        }
        guard prompt.count > 0 else { throw .badRequest("'\(name)' must not be empty.", parameter: name) }
        return prompt
    }
}

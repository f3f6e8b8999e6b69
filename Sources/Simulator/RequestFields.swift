import JSON

/// Typed reading of a request's fields: a wrong type or range is a 400 that names the field.
struct RequestFields {
    private let body: JSONValue

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

    func object(_ name: String) throws(NodeRefusal) -> RequestFields? {
        guard let value = body.field(name) else { return nil }
        guard case .object = value else { throw .badRequest("'\(name)' must be an object.", parameter: name) }
        return RequestFields(value)
    }

    func stops() throws(NodeRefusal) -> [String] {
        let texts: [JSONValue]
        switch body.field("stop") {
        case nil: return []
        case .string(let text): texts = [.string(text)]
        case .array(let values): texts = values
        default: throw .badRequest("'stop' must be a string or a list of strings.", parameter: "stop")
        }
        guard texts.count <= GenerationRequest.stopsMax else {
            throw .badRequest("'stop' has at most \(GenerationRequest.stopsMax) strings.", parameter: "stop")
        }
        var stops: [String] = []
        for case let text in texts {
            guard case .string(let stop) = text, stop.utf8.count <= GenerationRequest.stopBytesMax else {
                throw .badRequest(
                    "'stop' must be strings of at most \(GenerationRequest.stopBytesMax) bytes.", parameter: "stop")
            }
            stops.append(stop)
        }
        return stops
    }

    /// The messages of a chat with the template around them; tools count, as they stand in the real prompt.
    func conversation() throws(NodeRefusal) -> PromptTokens {
        guard case .array(let messages)? = body.field("messages"), !messages.isEmpty else {
            throw .badRequest("'messages' must be a list of at least one message.", parameter: "messages")
        }
        var prompt = PromptTokens()
        if let tools = body.field("tools") {
            prompt.appendMessageStart(role: "tools")
            prompt.append(text: tools.text)
        }
        for message in messages {
            guard case .string(let role)? = message.field("role") else {
                throw .badRequest("Each of 'messages' must be an object with a 'role'.", parameter: "messages")
            }
            prompt.appendMessageStart(role: role)
            switch message.field("content") {
            case nil: break
            case .string(let text): prompt.append(text: text)
            case .array(let parts):
                for part in parts {
                    if case .string(let text) = part {
                        prompt.append(text: text)
                    } else if case .string(let text)? = part.field("text") {
                        prompt.append(text: text)
                    } else if case .string? = part.field("type") {
                        prompt.append(mediaPart: part.text)
                    } else {
                        throw .badRequest("Each part of 'content' must have a 'type'.", parameter: "messages")
                    }
                }
            default: throw .badRequest("'content' must be a string or a list of parts.", parameter: "messages")
            }
            if let calls = message.field("tool_calls") { prompt.append(text: calls.text) }
        }
        prompt.appendConversationEnd()
        return prompt
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

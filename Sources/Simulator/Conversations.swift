import JSON

/// Conversations as the three protocols write them, each with the chat template around its messages; tools count, as they
/// stand in the real prompt.
extension RequestFields {
    /// `messages` of a chat completion.
    func conversation() throws(NodeRefusal) -> PromptTokens {
        guard case .array(let messages)? = body.field("messages"), !messages.isEmpty else {
            throw .badRequest("'messages' must be a list of at least one message.", parameter: "messages")
        }
        var prompt = PromptTokens()
        appendTools(to: &prompt)
        for message in messages {
            try append(message: message, of: "messages", to: &prompt)
            if let calls = message.field("tool_calls") { prompt.append(text: calls.text) }
        }
        prompt.appendConversationEnd()
        return prompt
    }

    /// `instructions` and `input` of a response.
    func responsesConversation() throws(NodeRefusal) -> PromptTokens {
        // As vLLM without its store: there is nothing to go on from.
        if let previous = try string("previous_response_id") {
            throw NodeRefusal(
                404, "NotFoundError", "Response with id '\(previous)' not found.", parameter: "previous_response_id")
        }
        if try bool("background") ?? false {
            throw .badRequest("This engine does not support background mode.", parameter: "background")
        }
        var prompt = PromptTokens()
        appendTools(to: &prompt)
        if let instructions = try string("instructions") {
            prompt.appendMessageStart(role: "system")
            prompt.append(text: instructions)
        }
        switch body.field("input") {
        case .string(let text)?:
            prompt.appendMessageStart(role: "user")
            prompt.append(text: text)
        case .array(let items)? where !items.isEmpty:
            for item in items { try append(item: item, to: &prompt) }
        default: throw .badRequest("'input' must be a string or a list of at least one item.", parameter: "input")
        }
        prompt.appendConversationEnd()
        return prompt
    }

    /// `system` and `messages` of an Anthropic message.
    func messagesConversation() throws(NodeRefusal) -> PromptTokens {
        guard case .array(let messages)? = body.field("messages"), !messages.isEmpty else {
            throw .badRequest("'messages' must be a list of at least one message.", parameter: "messages")
        }
        var prompt = PromptTokens()
        appendTools(to: &prompt)
        if let system = body.field("system") {
            prompt.appendMessageStart(role: "system")
            try append(content: system, of: "system", to: &prompt)
        }
        for message in messages {
            guard ["user", "assistant", "system"].contains(message.field("role")?.string) else {
                throw .badRequest("Each of 'messages' must have the role 'user' or 'assistant'.", parameter: "messages")
            }
            try append(message: message, of: "messages", to: &prompt)
        }
        prompt.appendConversationEnd()
        return prompt
    }

    private func appendTools(to prompt: inout PromptTokens) {
        guard let tools = body.field("tools") else { return }
        prompt.appendMessageStart(role: "tools")
        prompt.append(text: tools.text)
    }

    private func append(
        message: JSONValue, of name: String, to prompt: inout PromptTokens
    ) throws(NodeRefusal) {
        guard case .string(let role)? = message.field("role") else {
            throw .badRequest("Each of '\(name)' must be an object with a 'role'.", parameter: name)
        }
        prompt.appendMessageStart(role: role)
        if let content = message.field("content") { try append(content: content, of: name, to: &prompt) }
    }

    /// An item of a response's input: a message, or a call, its output, or reasoning of an earlier turn.
    private func append(item: JSONValue, to prompt: inout PromptTokens) throws(NodeRefusal) {
        switch item.field("type")?.string {
        case nil, "message": try append(message: item, of: "input", to: &prompt)
        case "function_call":
            prompt.appendMessageStart(role: "assistant")
            prompt.append(text: (item.field("name")?.string ?? "") + (item.field("arguments")?.string ?? ""))
        case "function_call_output":
            prompt.appendMessageStart(role: "tool")
            if let output = item.field("output") { try append(content: output, of: "input", to: &prompt) }
        case "reasoning":
            prompt.appendMessageStart(role: "assistant")
            if let content = item.field("content") { try append(content: content, of: "input", to: &prompt) }
        case .some(let type): throw .badRequest("'input' has an item of unknown type '\(type)'.", parameter: "input")
        }
    }

    /// A text or a list of parts. Tool calls and results count for the texts in them.
    private func append(
        content: JSONValue, of name: String, to prompt: inout PromptTokens
    ) throws(NodeRefusal) {
        switch content {
        case .string(let text): prompt.append(text: text)
        case .array(let parts):
            for part in parts {
                if case .string(let text) = part {
                    prompt.append(text: text)
                } else if case .string(let text)? = part.field("text") ?? part.field("thinking") {
                    prompt.append(text: text)
                } else if let input = part.field("input"), part.field("type") == "tool_use" {
                    prompt.append(text: (part.field("name")?.string ?? "") + input.text)
                } else if part.field("type") == "tool_result" {
                    // Recursion is bounded by the depth of the JSON.
                    if let result = part.field("content") { try append(content: result, of: name, to: &prompt) }
                } else if case .string? = part.field("type") {
                    prompt.append(mediaPart: part.text)
                } else {
                    throw .badRequest("Each part of 'content' must have a 'type'.", parameter: name)
                }
            }
        default: throw .badRequest("'content' must be a string or a list of parts.", parameter: name)
        }
    }
}

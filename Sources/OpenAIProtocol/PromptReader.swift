import JSON

/// The parts of a body that hold the prompt. They are walked rather than skipped, because their shape decides how much
/// can be generated and how many tokens a node can make of them.
extension RequestReader {
    /// What a node can turn into prompt tokens that the body's bytes do not bound: audio, video, embeddings by
    /// reference. Images are bounded by the model's `image_tokens_max`; everything not listed here is refused.
    private enum Part {
        case text, image
    }

    /// By dialect: what a part may be. OpenAI's two know each other's words, since engines take both.
    private static func part(ofType type: String, in dialect: Dialect) -> Part? {
        switch (dialect, type) {
        case (_, "text"), (_, "thinking"): .text
        case (.openAI, "input_text"), (.openAI, "output_text"), (.openAI, "refusal"): .text
        case (.responses, "input_text"), (.responses, "output_text"), (.responses, "refusal"): .text
        case (.responses, "summary_text"), (.responses, "reasoning_text"): .text
        case (.openAI, "image_url"), (.openAI, "input_image"), (.responses, "input_image"): .image
        case (.anthropic, "image"): .image
        case (.anthropic, "redacted_thinking"), (.anthropic, "tool_use"), (.anthropic, "tool_result"): .text
        default: nil
        }
    }

    /// What a list of `input` may hold beside messages: what a client gives back of an earlier answer, whole.
    private static let itemTypes: Set<String> = [
        "message", "reasoning", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
    ]

    /// Keys by which vLLM recognises media even in a part without `type`.
    private static let partKeys: [String: Part?] = [
        "image_url": .image, "input_image": .image, "image": .image,
        "video": .none, "video_url": .none, "input_video": .none, "audio": .none, "audio_url": .none,
        "input_audio": .none, "image_embeds": .none, "audio_embeds": .none, "image_pil": .none, "file": .none,
        "media_marker": .none,
    ]

    /// Takes the value of `messages`.
    ///
    /// - Returns: Its span, or nil where it is at fault, which is noted.
    mutating func readMessages() throws(JSONError) -> Range<Int>? {
        guard try scanner.peek() == UInt8(ascii: "[") else {
            try scanner.value()
            note("'messages' must be an array of messages.", "messages")
            return nil
        }
        return try readConversation("messages", "Each of 'messages' must be an object with 'role' and 'content'.")
    }

    /// Takes the value of a response's `input`: a string, or a list of messages and of what they led to.
    mutating func readItems() throws(JSONError) -> Range<Int>? {
        switch try scanner.peek() {
        case UInt8(ascii: "\""):
            contentParts = ScannedRequest.ContentParts(conversations: 1, messages: 1)
            return try scanner.value()
        case UInt8(ascii: "["): return try readConversation("input", "Each of 'input' must be an object.")
        default:
            try scanner.value()
            note("'input' must be a string or an array of items.", "input")
            return nil
        }
    }

    private mutating func readConversation(_ name: String, _ explanation: String) throws(JSONError) -> Range<Int> {
        let start = scanner.offset
        contentParts.conversations = 1
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            let parameter = "\(name)[\(contentParts.messages)]"
            if try scanner.peek() == UInt8(ascii: "{") {
                try readMessage(parameter)
            } else {
                try scanner.value()
                note(explanation, parameter)
            }
            contentParts.messages += 1
        }
        if contentParts.messages == 0 { note("'\(name)' must have at least one message.", name) }
        return start..<scanner.offset
    }

    private mutating func readMessage(_ parameter: @autoclosure () -> String) throws(JSONError) {
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if key.isEscaped { note("Write the keys of a message plainly, without escapes.", parameter()) }
            if key.matches("content", in: body) {
                try readContent(parameter() + ".content")
            } else if endpoint.dialect == .responses, key.matches("output", in: body) {
                try readContent(parameter() + ".output")
            } else if endpoint.dialect == .responses, key.matches("type", in: body) {
                let span = try scanner.value()
                let kind = JSONDecoding.kind(at: span.lowerBound, in: body)
                guard kind != .null else { continue }
                guard span.count <= 64, let type = string(span, kind), Self.itemTypes.contains(type) else {
                    note(
                        "Items of this type are not supported. Send messages, function calls and their outputs.",
                        parameter() + ".type")
                    continue
                }
            } else {
                try scanner.value()
            }
        }
    }

    /// Takes a text or an array of parts.
    mutating func readContent(_ parameter: @autoclosure () -> String) throws(JSONError) {
        switch try scanner.peek() {
        case UInt8(ascii: "\""), UInt8(ascii: "n"):
            try scanner.value()
        case UInt8(ascii: "["):
            var isFirst = true
            try scanner.enter()
            while try scanner.nextElement(&isFirst) { try readPart(parameter()) }
        default:
            try scanner.value()
            note("The content of a message must be a string or an array of parts.", parameter())
        }
    }

    /// One content part. Whatever says that it is an image counts, duplicates included: the count is an upper bound.
    private mutating func readPart(_ parameter: @autoclosure () -> String) throws(JSONError) {
        switch try scanner.peek() {
        case UInt8(ascii: "{"): break
        case UInt8(ascii: "\""):
            try scanner.value()
            return
        default:
            try scanner.value()
            return note("A content part must be an object with a 'type'.", parameter())
        }
        var isImage = false
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if key.isEscaped { note("Write the keys of a content part plainly, without escapes.", parameter()) }
            if endpoint.dialect == .anthropic, key.matches("content", in: body) {
                // What a tool gave back may hold parts of its own.
                try readContent(parameter())
                continue
            }
            let value = try scanner.value()
            let name = key.content.count <= 16 ? String(decoding: body[key.content], as: UTF8.self) : ""
            if name == "type" {
                let kind = JSONDecoding.kind(at: value.lowerBound, in: body)
                let type = value.count <= 64 ? string(value, kind) ?? "" : ""
                switch Self.part(ofType: type, in: endpoint.dialect) {
                case .text: break
                case .image: isImage = true
                case nil: note("Content parts must be \(supportedParts).", parameter())
                }
            } else if let part = Self.partKeys[name], body[value.lowerBound] != UInt8(ascii: "n") {
                // A null member is no medium.
                if part == .image {
                    isImage = true
                } else {
                    note("Content parts with '\(name)' are not supported. Send text and images.", parameter())
                }
            }
        }
        if isImage { contentParts.images += 1 }
    }

    private var supportedParts: String {
        switch endpoint.dialect {
        case .openAI: "of type 'text' or 'image_url'"
        case .responses: "of type 'input_text', 'output_text' or 'input_image'"
        case .anthropic: "of type 'text', 'image', 'thinking', 'tool_use' or 'tool_result'"
        }
    }

    /// Takes one side of a comparison: a string or an array of strings.
    ///
    /// - Returns: Its span and how many strings it holds; nil where it is at fault, which is noted.
    mutating func readTexts(_ name: String) throws(JSONError) -> (span: Range<Int>, count: Int)? {
        switch try scanner.peek() {
        case UInt8(ascii: "\""): return (try scanner.value(), 1)
        case UInt8(ascii: "["): break
        default:
            try scanner.value()
            note("'\(name)' must be a string or an array of strings.", name)
            return nil
        }
        let start = scanner.offset
        var count = 0
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            let value = try scanner.value()
            if body[value.lowerBound] != UInt8(ascii: "\"") {
                note("'\(name)' must hold only strings.", "\(name)[\(count)]")
            }
            count += 1
        }
        if count == 0 { note("'\(name)' must not be empty.", name) }
        if count > RequestLimits.promptsMax {
            note("'\(name)' must hold at most \(RequestLimits.promptsMax) texts.", name)
        }
        return (start..<scanner.offset, max(1, count))
    }

    /// Takes the value of `prompt`, `input` or `tokens`: a string, tokens, or a list of strings or of token lists.
    ///
    /// - Returns: Its span and how many prompts it holds; nil and 1 where it is at fault, which is noted.
    mutating func readPrompts(_ name: String) throws(JSONError) -> (Range<Int>?, Int) {
        switch try scanner.peek() {
        case UInt8(ascii: "\""): return (try scanner.value(), 1)
        case UInt8(ascii: "["): break
        default:
            try scanner.value()
            note("'\(name)' must be a string, or an array of strings, of tokens or of arrays of tokens.", name)
            return (nil, 1)
        }
        let start = scanner.offset
        var shape: JSONKind?
        var count = 0
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            let next = try scanner.peek()
            let value: Range<Int>
            if next == UInt8(ascii: "[") {
                value = try readTokens(name)
            } else {
                value = try scanner.value()
            }
            let kind = JSONDecoding.kind(at: value.lowerBound, in: body)
            if kind == .number {
                checkToken(value, name)
                promptTokensMin = max(promptTokensMin, count + 1)
            }
            if ![.string, .number, .array].contains(kind) || (shape ?? kind) != kind {
                note("'\(name)' must hold only strings, only tokens, or only arrays of tokens.", name)
            }
            shape = kind
            count += 1
        }
        if count == 0 { note("'\(name)' must not be empty.", name) }
        // A list of numbers is one prompt, given in tokens.
        let prompts = shape == .number ? 1 : max(1, count)
        if prompts > RequestLimits.promptsMax {
            note("'\(name)' must hold at most \(RequestLimits.promptsMax) prompts.", name)
        }
        return (start..<scanner.offset, prompts)
    }

    private mutating func readTokens(_ name: String) throws(JSONError) -> Range<Int> {
        let start = scanner.offset
        var tokens = 0
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            tokens += 1
            checkToken(try scanner.value(), name)
        }
        promptTokensMin = max(promptTokensMin, tokens)
        if tokens == 0 { note("The arrays of tokens in '\(name)' must not be empty.", name) }
        return start..<scanner.offset
    }

    private mutating func checkToken(_ span: Range<Int>, _ name: String) {
        guard JSONDecoding.kind(at: span.lowerBound, in: body) == .number,
            let token = JSONDecoding.integer(span, in: body), (0...Int64(UInt32.max)).contains(token)
        else { return note("Tokens in '\(name)' must be integers from 0 to \(UInt32.max).", name) }
    }
}

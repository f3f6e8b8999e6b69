import JSON

/// The parts of a body that hold the prompt. They are walked rather than skipped, because their shape decides how much
/// can be generated and how many tokens a node can make of them.
extension RequestReader {
    /// What a node can turn into prompt tokens that the body's bytes do not bound: audio, video, embeddings by
    /// reference. Images are bounded by the model's `image_tokens_max`; everything not listed here is refused.
    private enum Part {
        case text, image
    }

    private static let partTypes: [String: Part] = [
        "text": .text, "input_text": .text, "output_text": .text, "refusal": .text, "thinking": .text,
        "image_url": .image, "input_image": .image,
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
        let start = scanner.offset
        contentParts.conversations = 1
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            guard try scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                note(
                    "Each of 'messages' must be an object with 'role' and 'content'.",
                    "messages[\(contentParts.messages)]")
                contentParts.messages += 1
                continue
            }
            try readMessage()
            contentParts.messages += 1
        }
        if contentParts.messages == 0 { note("'messages' must have at least one message.", "messages") }
        return start..<scanner.offset
    }

    private var contentParameter: String { "messages[\(contentParts.messages)].content" }

    private mutating func readMessage() throws(JSONError) {
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if key.isEscaped {
                note("Write the keys of a message plainly, without escapes.", "messages[\(contentParts.messages)]")
            }
            guard key.matches("content", in: body) else {
                try scanner.value()
                continue
            }
            switch try scanner.peek() {
            case UInt8(ascii: "\""), UInt8(ascii: "n"):
                try scanner.value()
            case UInt8(ascii: "["):
                var isFirst = true
                try scanner.enter()
                while try scanner.nextElement(&isFirst) { try readPart() }
            default:
                try scanner.value()
                note("The content of a message must be a string or an array of parts.", contentParameter)
            }
        }
    }

    /// One content part. Whatever says that it is an image counts, duplicates included: the count is an upper bound.
    private mutating func readPart() throws(JSONError) {
        switch try scanner.peek() {
        case UInt8(ascii: "{"): break
        case UInt8(ascii: "\""):
            try scanner.value()
            return
        default:
            try scanner.value()
            return note("A content part must be an object with a 'type'.", contentParameter)
        }
        var isImage = false
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            let value = try scanner.value()
            if key.isEscaped { note("Write the keys of a content part plainly, without escapes.", contentParameter) }
            let name = key.content.count <= 16 ? String(decoding: body[key.content], as: UTF8.self) : ""
            if name == "type" {
                let kind = JSONDecoding.kind(at: value.lowerBound, in: body)
                let type = value.count <= 64 ? string(value, kind) ?? "" : ""
                switch Self.partTypes[type] {
                case .text: break
                case .image: isImage = true
                case nil: note("Content parts must be of type 'text' or 'image_url'.", contentParameter)
                }
            } else if let part = Self.partKeys[name], body[value.lowerBound] != UInt8(ascii: "n") {
                // A null member is no medium.
                if part == .image {
                    isImage = true
                } else {
                    note("Content parts with '\(name)' are not supported. Send text and images.", contentParameter)
                }
            }
        }
        if isImage { contentParts.images += 1 }
    }

    /// Takes the value of `prompt` or `input`: a string, tokens, or a list of strings or of token lists.
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
            if kind == .number { checkToken(value, name) }
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
        var isEmpty = true
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            isEmpty = false
            checkToken(try scanner.value(), name)
        }
        if isEmpty { note("The arrays of tokens in '\(name)' must not be empty.", name) }
        return start..<scanner.offset
    }

    private mutating func checkToken(_ span: Range<Int>, _ name: String) {
        guard JSONDecoding.kind(at: span.lowerBound, in: body) == .number,
            let token = JSONDecoding.integer(span, in: body), (0...Int64(Int32.max)).contains(token)
        else { return note("Tokens in '\(name)' must be integers that are not negative.", name) }
    }
}

import Domain
import JSON

/// Reads a request's body in one pass: checks the whole grammar, finds what the gateway decides by.
///
/// - Parameters:
///   - body: The whole body. Nothing is kept of it but spans and the few strings that are read.
///   - endpoint: One whose descriptor names a prompt field.
/// - Throws: `.invalidJSON` where the text is not JSON, with the byte offset and what was expected; `.invalidRequest`
///   with `parameter` where it is, but a field that the gateway reads is missing, of a wrong type, out of range or there
///   twice. The former wins over the latter wherever both apply; among several of the latter the first in the body wins,
///   and missing fields come last.
package func scanRequest(
    _ body: UnsafeRawBufferPointer, endpoint: Endpoint
) throws(Failure) -> ScannedRequest {
    var reader = RequestReader(body: body, endpoint: endpoint)
    do {
        try reader.readBody()
    } catch {
        throw Failure(
            .invalidJSON,
            "We could not parse the JSON body of your request: at byte \(error.offset): \(error.explanation).")
    }
    return try reader.result()
}

/// The pass. Grammar errors are thrown and end it; faults of meaning are noted (the first one stays) and it goes on, so
/// that the precedence of the two does not depend on their order in the body.
struct RequestReader {
    // SAFETY: borrowed for the duration of `scanRequest`, which does not let the reader escape.
    let body: UnsafeRawBufferPointer
    let endpoint: Endpoint
    var scanner: JSONScanner
    private(set) var fault: Failure?

    private var keyHashes: [UInt64] = []
    private var keySpans: [Range<Int>] = []
    private var insertionOffset = 0
    private var model: (text: String, span: Range<Int>)?
    private var stream = false
    private var streamOptions = ScannedRequest.StreamOptions.absent
    private var includeUsage = false
    private var limits = ScannedRequest.LimitSpans()
    private var maxTokens: (value: Int, name: String)?
    private var limitsDisagree: Failure?
    private var n = 1
    private var nSpan: Range<Int>?
    private var bestOf: Int?
    private var bestOfSpan: Range<Int>?
    private var promptSpan: Range<Int>?
    private var promptCount = 1
    /// Tokens that the longest prompt has whatever the vocabulary: those given as numbers.
    var promptTokensMin = 0
    private var left: (name: String, span: Range<Int>, count: Int)?
    private var right: (name: String, span: Range<Int>, count: Int)?
    private var repeatedBytes = 0
    private var toolsSpan: Range<Int>?
    private var systemSpan: Range<Int>?
    var contentParts = ScannedRequest.ContentParts()
    private var steering: [SteeringField] = []
    private var cacheSaltSpan: Range<Int>?
    private var promptCacheKey: String?
    private var user: String?

    init(body: UnsafeRawBufferPointer, endpoint: Endpoint) {
        self.body = body
        self.endpoint = endpoint
        scanner = JSONScanner(body)
        keyHashes.reserveCapacity(24)
        keySpans.reserveCapacity(24)
    }

    mutating func note(_ message: String, _ parameter: String?) {
        if fault == nil { fault = Failure(.invalidRequest, message, parameter: parameter) }
    }

    mutating func readBody() throws(JSONError) {
        guard try scanner.peek() == UInt8(ascii: "{") else {
            try scanner.value()
            try scanner.finish()
            return note("The body must be a JSON object, such as {\"model\": \"...\"}.", nil)
        }
        try scanner.enter()
        insertionOffset = scanner.offset
        var isFirst = true
        while let key = try scanner.nextMember(&isFirst) {
            let name = UnsafeRawBufferPointer(rebasing: body[key.content])
            let hash = KeyHash.of(name)
            guard isNew(key, hash, name) else {
                try scanner.value()
                continue
            }
            if let known = TopLevelKey.named(name, hash: hash) {
                try readMember(known)
            } else {
                try scanner.value()
            }
        }
        try scanner.finish()
    }

    /// Notes a fault and answers false where the key is escaped, or was there before.
    private mutating func isNew(_ key: JSONString, _ hash: UInt64, _ name: UnsafeRawBufferPointer) -> Bool {
        guard !key.isEscaped else {
            let text = shown(JSONDecoding.text(key, in: body))
            note("The key '\(text)' is written with escapes. Write top-level keys plainly.", text)
            return false
        }
        for index in keyHashes.indices
        where keyHashes[index] == hash && body[keySpans[index]].elementsEqual(name) {
            let text = shown(String(decoding: name, as: UTF8.self))
            note("The key '\(text)' occurs twice. Send it once.", text)
            return false
        }
        guard keyHashes.count < RequestLimits.topLevelKeysMax else {
            note("The body has more than \(RequestLimits.topLevelKeysMax) top-level keys.", nil)
            return false
        }
        keyHashes.append(hash)
        keySpans.append(key.content)
        return true
    }

    /// A client's own key as it may stand in a message: bounded, without control characters.
    private func shown(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.prefix(64).filter { $0.value >= 0x20 && $0.value != 0x7F }))
    }

    private mutating func readMember(_ key: TopLevelKey) throws(JSONError) {
        switch key {
        case .prompt(let field): try readPrompt(field)
        case .system where endpoint.dialect == .anthropic:
            _ = try scanner.peek()
            let start = scanner.offset
            try readContent("system")
            systemSpan = start..<scanner.offset
        case .streamOptions where endpoint.dialect == .openAI: try readStreamOptions()
        case .tools where endpoint.dialect != .openAI: toolsSpan = try readTools()
        case .steering(.chatTemplateKwargs): try readTemplateArguments()
        default: readScalar(key, try scanner.value())
        }
    }

    private mutating func readPrompt(_ field: Endpoint.PromptField) throws(JSONError) {
        guard endpoint.descriptor.prompt.contains(field) else {
            let start = try scanner.value()
            if field == .messages {
                steering.append(SteeringField(key: .messages, value: steeringValue(start)))
            } else if field == .prompt, endpoint == .responses, body[start.lowerBound] != UInt8(ascii: "n") {
                note("'prompt' is not supported: no prompts are stored here. Send 'input'.", "prompt")
            }
            return
        }
        let name = field.rawValue
        switch field {
        case .messages: promptSpan = try readMessages()
        case .input where endpoint == .responses: promptSpan = try readItems()
        case .prompt, .input, .tokens: (promptSpan, promptCount) = try readPrompts(name)
        case .content: promptSpan = try scanner.value()
        case .query, .queries, .leftText, .documents, .items, .rightText:
            guard let texts = try readTexts(name) else { return }
            if field.isLeft {
                if left != nil { note("'\(name)' says again what another field says. Send one of them.", name) }
                left = (name, texts.span, texts.count)
            } else {
                if right != nil { note("'\(name)' says again what another field says. Send one of them.", name) }
                right = (name, texts.span, texts.count)
            }
        }
    }

    private mutating func readScalar(_ key: TopLevelKey, _ span: Range<Int>) {
        let kind = JSONDecoding.kind(at: span.lowerBound, in: body)
        switch key {
        case .model:
            guard let text = string(span, kind), !text.isEmpty, text.utf8.count <= RequestLimits.modelBytesMax else {
                let limit = RequestLimits.modelBytesMax
                return note("'model' must be a string of 1 to \(limit) bytes that names a model.", "model")
            }
            model = (text, span)
        case .stream:
            switch kind {
            case .bool(let value): stream = value
            case .null: break
            default: note("'stream' must be a boolean, not \(kind.name).", "stream")
            }
        case .limit(let field): readLimit(field, span, kind)
        case .n: (n, nSpan) = (choiceCount("n", span, kind) ?? 1, span)
        case .bestOf: (bestOf, bestOfSpan) = (choiceCount("best_of", span, kind), span)
        case .cacheSalt:
            cacheSaltSpan = span
            if kind != .null { steering.append(SteeringField(key: .cacheSalt, value: steeringValue(span))) }
        case .tools: toolsSpan = span
        case .instructions: if endpoint.dialect == .responses, kind == .string { systemSpan = span }
        case .promptCacheKey: promptCacheKey = sessionKey("prompt_cache_key", span, kind)
        case .user: user = sessionKey("user", span, kind)
        case .steering(let steered):
            steering.append(SteeringField(key: steered, value: steeringValue(span)))
        case .stateful(let key) where endpoint.dialect != .openAI: readStateful(key, kind)
        case .prompt, .system, .streamOptions, .stateful: break
        }
    }

    private mutating func readLimit(_ field: Endpoint.LimitField, _ span: Range<Int>, _ kind: JSONKind) {
        let name = field.rawValue
        guard endpoint.descriptor.limits.contains(field) else {
            // An engine that turns one protocol into another may read it under this name too.
            if let own = endpoint.descriptor.limits.first, endpoint.dialect != .openAI, kind != .null {
                note("'\(name)' is not supported here. Use '\(own.rawValue)' instead.", name)
            }
            return
        }
        limits[field] = span
        guard let value = tokenLimit(name, span, kind) else { return }
        if let maxTokens, maxTokens.value != value, limitsDisagree == nil {
            limitsDisagree = Failure(
                .invalidRequest,
                "'\(maxTokens.name)' (\(maxTokens.value)) and '\(name)' (\(value)) disagree. Send one of them.",
                parameter: endpoint.descriptor.limits.first?.rawValue)
        }
        maxTokens = (value, name)
    }

    private mutating func readStateful(_ key: TopLevelKey.StatefulKey, _ kind: JSONKind) {
        switch (key, kind) {
        case (_, .null), (.background, .bool(false)): return
        case (.previousResponseID, _), (.conversation, _):
            note(
                "'\(key.rawValue)' is not supported: responses are not stored here. Send the whole history as 'input'.",
                key.rawValue)
        case (.background, _), (.container, _), (.mcpServers, _):
            note("'\(key.rawValue)' is not supported. Leave it out.", key.rawValue)
        }
    }

    /// - Returns: nil where the value is null or at fault.
    private mutating func tokenLimit(_ name: String, _ span: Range<Int>, _ kind: JSONKind) -> Int? {
        if kind == .null { return nil }
        guard let value = integer(span, kind), (1...RequestLimits.maxTokensMax).contains(value) else {
            note(
                "'\(name)' must be an integer from 1 to \(RequestLimits.maxTokensMax), written without fraction or "
                    + "exponent.", name)
            return nil
        }
        return value
    }

    private mutating func choiceCount(_ name: String, _ span: Range<Int>, _ kind: JSONKind) -> Int? {
        if kind == .null { return nil }
        guard let value = integer(span, kind), (1...RequestLimits.choicesPerPromptMax).contains(value) else {
            note("'\(name)' must be an integer from 1 to \(RequestLimits.choicesPerPromptMax).", name)
            return nil
        }
        return value
    }

    private mutating func sessionKey(_ name: String, _ span: Range<Int>, _ kind: JSONKind) -> String? {
        if kind == .null { return nil }
        guard let text = string(span, kind) else {
            note("'\(name)' must be a string, not \(kind.name).", name)
            return nil
        }
        guard text.utf8.count > RequestLimits.sessionKeyBytesMax else { return text }
        return String(decoding: text.utf8.prefix(RequestLimits.sessionKeyBytesMax), as: UTF8.self)
    }

    private mutating func readStreamOptions() throws(JSONError) {
        let span: Range<Int>
        switch try scanner.peek() {
        case UInt8(ascii: "{"): break
        case UInt8(ascii: "n"):
            span = try scanner.value()
            streamOptions = .null(span)
            return
        default:
            try scanner.value()
            return note("'stream_options' must be an object, such as {\"include_usage\": true}.", "stream_options")
        }
        try scanner.enter()
        let insertion = scanner.offset
        var isEmpty = true
        var isFirst = true
        var seen: Range<Int>?
        while let key = try scanner.nextMember(&isFirst) {
            isEmpty = false
            let value = try scanner.value()
            let parameter = "stream_options.include_usage"
            if key.isEscaped {
                note("Write the keys of 'stream_options' plainly, without escapes.", "stream_options")
            } else if key.matches("include_usage", in: body) {
                if seen != nil { note("The key '\(parameter)' occurs twice. Send it once.", parameter) }
                seen = value
                switch JSONDecoding.kind(at: value.lowerBound, in: body) {
                case .bool(let asked): includeUsage = asked
                case .null: break
                case let kind: note("'\(parameter)' must be a boolean, not \(kind.name).", parameter)
                }
            }
        }
        streamOptions = seen.map { .includeUsage($0) } ?? .object(insertion: insertion, isEmpty: isEmpty)
    }

    /// Takes the value of `tools`: those that a node would run itself, with work and prompts of their own, are refused.
    private mutating func readTools() throws(JSONError) -> Range<Int> {
        guard try scanner.peek() == UInt8(ascii: "[") else {
            let span = try scanner.value()
            if body[span.lowerBound] != UInt8(ascii: "n") { note("'tools' must be an array of tools.", "tools") }
            return span
        }
        let start = scanner.offset
        var index = 0
        var isFirstTool = true
        try scanner.enter()
        while try scanner.nextElement(&isFirstTool) {
            let parameter = "tools[\(index)]"
            index += 1
            guard try scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                note("Each of 'tools' must be an object.", parameter)
                continue
            }
            // Anthropic's own tools are the untyped ones.
            var isClients = endpoint.dialect == .anthropic
            var isFirst = true
            try scanner.enter()
            while let key = try scanner.nextMember(&isFirst) {
                if key.isEscaped { note("Write the keys of a tool plainly, without escapes.", parameter) }
                let span = try scanner.value()
                guard key.matches("type", in: body) else { continue }
                let kind = JSONDecoding.kind(at: span.lowerBound, in: body)
                let type = span.count <= 64 ? string(span, kind) : nil
                isClients =
                    type == "custom" || (endpoint.dialect == .anthropic ? kind == .null : type == "function")
            }
            if !isClients {
                note(
                    "Only tools that the client runs are supported: "
                        + (endpoint.dialect == .anthropic
                            ? "leave 'type' out, or say 'custom'." : "say type 'function' or 'custom'."),
                    parameter + ".type")
            }
        }
        return start..<scanner.offset
    }

    private mutating func readTemplateArguments() throws(JSONError) {
        let start = scanner.offset
        var harmful: String?
        if try scanner.peek() == UInt8(ascii: "{") {
            try scanner.enter()
            var isFirst = true
            while let key = try scanner.nextMember(&isFirst) {
                let value = try scanner.value()
                let name = JSONDecoding.text(key, in: body)
                let kind = JSONDecoding.kind(at: value.lowerBound, in: body)
                if !Steering.isHarmless(templateArgument: name, kind: kind, bytes: value.count) {
                    harmful = harmful ?? shown(name)
                }
            }
            let value = harmful.map(SteeringValue.harmfulMember) ?? .null
            return steering.append(SteeringField(key: .chatTemplateKwargs, value: value))
        }
        try scanner.value()
        steering.append(SteeringField(key: .chatTemplateKwargs, value: steeringValue(start..<scanner.offset)))
    }

    // MARK: Values

    func string(_ span: Range<Int>, _ kind: JSONKind) -> String? {
        guard kind == .string else { return nil }
        // A decoded string is never longer than its text; decoding only when there is a backslash costs a search.
        let content = (span.lowerBound + 1)..<(span.upperBound - 1)
        let isEscaped = body[content].contains(UInt8(ascii: "\\"))
        return JSONDecoding.text(JSONString(content: content, isEscaped: isEscaped), in: body)
    }

    private func integer(_ span: Range<Int>, _ kind: JSONKind) -> Int? {
        guard kind == .number, let value = JSONDecoding.integer(span, in: body) else { return nil }
        return Int(value)
    }

    private func steeringValue(_ span: Range<Int>) -> SteeringValue {
        let kind = JSONDecoding.kind(at: span.lowerBound, in: body)
        return switch kind {
        case .null: .null
        case .bool(let value): .bool(value)
        case .number: JSONDecoding.integer(span, in: body).map { .integer(Int($0)) } ?? .other
        case .string: span.count <= 34 ? .string(string(span, kind) ?? "") : .other
        case .array where !body[span].dropFirst().dropLast().contains(where: { $0 > 0x20 }): .emptyArray
        case .array, .object: .other
        }
    }

    // MARK: The result

    mutating func result() throws(Failure) -> ScannedRequest {
        if let fault { throw fault }
        guard let model else {
            throw Failure(.invalidRequest, "You must provide a 'model' parameter.", parameter: "model")
        }
        let promptSpan = try comparedSpan() ?? self.promptSpan
        guard let promptSpan else {
            let field = endpoint.descriptor.prompt[0].rawValue
            throw Failure(.invalidRequest, "Missing required parameter: '\(field)'.", parameter: field)
        }
        if stream, !endpoint.generates {
            throw Failure(
                .invalidRequest, "'stream' is not supported for \(endpoint.path). Leave it out.", parameter: "stream")
        }
        if let limitsDisagree { throw limitsDisagree }
        if let bestOf, bestOf < n {
            throw Failure(.invalidRequest, "'best_of' must be at least 'n' (\(n)).", parameter: "best_of")
        }
        let perPrompt = endpoint.generates ? max(n, bestOf ?? 1) : 1
        return ScannedRequest(
            endpoint: endpoint, bodyBytes: body.count, insertionOffset: insertionOffset, model: model.text,
            modelSpan: model.span, stream: stream, streamOptions: streamOptions, includeUsage: includeUsage,
            maxTokens: maxTokens?.value, limitSpans: limits, n: n, nSpan: nSpan, bestOf: bestOf,
            bestOfSpan: bestOfSpan, promptCount: promptCount, choices: perPrompt * promptCount,
            contentParts: contentParts, repeatedBytes: repeatedBytes,
            promptTokensMin: promptTokensMin, steering: steering, cacheSaltSpan: cacheSaltSpan,
            sessionKey: promptCacheKey ?? user, promptSpan: promptSpan, systemSpan: systemSpan, toolsSpan: toolsSpan,
            keyHashes: keyHashes)
    }

    /// Both sides of a comparison, where the endpoint has sides: the span of the right one.
    ///
    /// A node puts a single left text before each of the right ones, and each pair into its template.
    private mutating func comparedSpan() throws(Failure) -> Range<Int>? {
        let fields = endpoint.descriptor.prompt
        guard let leftField = fields.first(where: \.isLeft), let rightField = fields.first(where: \.isRight) else {
            return nil
        }
        guard let left else {
            throw Failure(
                .invalidRequest, "Missing required parameter: '\(leftField.rawValue)'.", parameter: leftField.rawValue)
        }
        guard let right else {
            throw Failure(
                .invalidRequest, "Missing required parameter: '\(rightField.rawValue)'.",
                parameter: rightField.rawValue)
        }
        guard left.count == 1 || left.count == right.count else {
            throw Failure(
                .invalidRequest, "'\(left.name)' must be one text, or as many as '\(right.name)' (\(right.count)).",
                parameter: left.name)
        }
        promptCount = right.count
        contentParts.conversations = promptCount
        if left.count == 1 {
            let (bytes, overflow) = left.span.count.multipliedReportingOverflow(by: promptCount - 1)
            repeatedBytes = overflow ? .max : bytes
        }
        return right.span
    }
}

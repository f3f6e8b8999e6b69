import Domain
import JSON

/// The pass over a reply or over one event of a stream: both have the same members at the top.
struct AnswerReader {
    // SAFETY: borrowed for the duration of the function that makes the reader, which does not let it escape.
    private let json: UnsafeRawBufferPointer
    private let dialect: Dialect
    private var scanner: JSONScanner
    private(set) var modelSpan: Range<Int>?
    private(set) var usageFields: UsageFields?
    private var hasUsage = false
    /// What to remove so that no `usage` is left: the member and one comma.
    private(set) var usageMember: Range<Int>?
    /// The content of `type`: what a stream with names calls the event.
    private(set) var type: Range<Int>?
    private(set) var choices = 0
    private(set) var hasChoices = false
    private(set) var embeddings = 0
    private(set) var contentBytes = 0
    /// Choices that bring anything, and those that bring text or reasoning: a token at least, each.
    private(set) var choicesWithContent = 0
    private(set) var choicesWithText = 0
    private var hasText = false
    /// The contents of the strings that are text or reasoning, in order, where they are asked for.
    private(set) var texts: [Range<Int>] = []
    private let collectsTexts: Bool
    private(set) var isFinished = false
    private(set) var isError = false
    private(set) var isAmbiguous = false

    init(_ json: UnsafeRawBufferPointer, _ dialect: Dialect, collectsTexts: Bool = false) {
        self.collectsTexts = collectsTexts
        self.json = json
        self.dialect = dialect
        scanner = JSONScanner(json)
    }

    var usage: ReportedUsage { usageFields?.reported(dialect) ?? (hasUsage ? .null : .absent) }

    mutating func readReply() throws(JSONError) {
        guard try scanner.peek() == UInt8(ascii: "[") else { return try readEvent() }
        embeddings = try countElements()
        try scanner.finish()
    }

    mutating func readEvent() throws(JSONError) {
        guard try scanner.peek() == UInt8(ascii: "{") else { throw JSONError(.expectedValue, at: scanner.offset) }
        try scanner.enter()
        var isFirst = true
        /// The end of the member before.
        var previousEnd: Int?
        /// Whether `usage` stood first, so that the comma after it has to go.
        var needsNext = false
        while let key = try scanner.nextMember(&isFirst) {
            let start = key.span.lowerBound
            if needsNext, let member = usageMember {
                usageMember = member.lowerBound..<start
                needsNext = false
            }
            if key.matches("model", in: json) {
                try readModel()
            } else if key.matches("usage", in: json) {
                try readUsage()
                usageMember = (previousEnd ?? start)..<scanner.offset
                needsNext = previousEnd == nil
            } else if key.matches("error", in: json) {
                if json[try scanner.value().lowerBound] != UInt8(ascii: "n") { isError = true }
            } else if key.matches("object", in: json) {
                let value = try scanner.value()
                if value.count == 7, json[value].elementsEqual("\"error\"".utf8) { isError = true }
            } else {
                switch dialect {
                case .openAI: try readMember(key)
                case .responses, .anthropic: try readNamedMember(key)
                }
            }
            previousEnd = scanner.offset
        }
        try scanner.finish()
        if dialect != .openAI { judgeType() }
    }

    private mutating func readModel() throws(JSONError) {
        if modelSpan != nil { isAmbiguous = true }
        modelSpan = try scanner.value()
    }

    private mutating func readUsage() throws(JSONError) {
        if hasUsage { isAmbiguous = true }
        hasUsage = true
        usageFields = try UsageFields.read(&scanner, json)
    }

    // MARK: OpenAI's chunks and replies

    private mutating func readMember(_ key: JSONString) throws(JSONError) {
        if key.matches("choices", in: json), try scanner.peek() == UInt8(ascii: "[") {
            try readChoices()
        } else if key.matches("data", in: json), try scanner.peek() == UInt8(ascii: "[") {
            embeddings += try countElements()
        } else {
            try scanner.value()
        }
    }

    private mutating func countElements() throws(JSONError) -> Int {
        var count = 0
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            try scanner.value()
            count += 1
        }
        return count
    }

    private mutating func readChoices() throws(JSONError) {
        hasChoices = true
        var isFirst = true
        try scanner.enter()
        while try scanner.nextElement(&isFirst) {
            choices += 1
            let before = contentBytes
            hasText = false
            guard try scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                continue
            }
            try readChoice()
            if contentBytes > before { choicesWithContent += 1 }
            if hasText { choicesWithText += 1 }
        }
    }

    private mutating func readChoice() throws(JSONError) {
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            let isMessage = key.matches("delta", in: json) || key.matches("message", in: json)
            if isMessage, try scanner.peek() == UInt8(ascii: "{") {
                try readMessage()
            } else if key.matches("text", in: json) {
                count(try scanner.value(), isText: true)
            } else if key.matches("finish_reason", in: json) {
                if json[try scanner.value().lowerBound] != UInt8(ascii: "n") { isFinished = true }
            } else {
                try scanner.value()
            }
        }
    }

    private mutating func readMessage() throws(JSONError) {
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            let isText =
                key.matches("content", in: json) || key.matches("reasoning_content", in: json)
                || key.matches("reasoning", in: json) || key.matches("refusal", in: json)
            let isCall = key.matches("tool_calls", in: json) || key.matches("function_call", in: json)
            let span = try scanner.value()
            if isText || isCall { count(span, isText: isText) }
        }
    }

    /// Counts a string's content, or an array or object that is not empty.
    private mutating func count(_ span: Range<Int>, isText: Bool) {
        switch json[span.lowerBound] {
        case UInt8(ascii: "\""), UInt8(ascii: "["), UInt8(ascii: "{"):
            contentBytes += span.count - 2
            guard isText, span.count > 2 else { return }
            hasText = true
            if collectsTexts, json[span.lowerBound] == UInt8(ascii: "\"") {
                texts.append((span.lowerBound + 1)..<(span.upperBound - 1))
            }
        default: break
        }
    }

    // MARK: Replies and events with names

    private mutating func readNamedMember(_ key: JSONString) throws(JSONError) {
        if key.matches("type", in: json) {
            if type != nil { isAmbiguous = true }
            let span = try scanner.value()
            // A string between its quotes; of another kind it is no name.
            type = json[span.lowerBound] == UInt8(ascii: "\"") ? (span.lowerBound + 1)..<(span.upperBound - 1) : nil
        } else if key.matches("response", in: json) || key.matches("message", in: json),
            try scanner.peek() == UInt8(ascii: "{")
        {
            try readInner()
        } else if key.matches("delta", in: json) || key.matches("output", in: json)
            || key.matches("content", in: json)
        {
            try readTexts(.text)
        } else {
            try scanner.value()
        }
    }

    /// The answer as an event carries it: what it has at the top of a reply.
    private mutating func readInner() throws(JSONError) {
        var isFirst = true
        try scanner.enter()
        while let key = try scanner.nextMember(&isFirst) {
            if key.matches("model", in: json) {
                try readModel()
            } else if key.matches("usage", in: json) {
                try readUsage()
            } else {
                try scanner.value()
            }
        }
    }

    private enum Texts { case none, text, call }

    /// Counts the texts in a value, however deep: the value itself where it is a string, and the strings under the names
    /// of texts, and of what tools are called with, where it holds objects.
    private mutating func readTexts(_ kind: Texts) throws(JSONError) {
        switch try scanner.peek() {
        case UInt8(ascii: "["):
            var isFirst = true
            try scanner.enter()
            while try scanner.nextElement(&isFirst) { try readTexts(kind) }
        case UInt8(ascii: "{"):
            var isFirst = true
            try scanner.enter()
            while let key = try scanner.nextMember(&isFirst) { try readTexts(kindOfText(key)) }
        case UInt8(ascii: "\""):
            let span = try scanner.value()
            if kind != .none { count(span, isText: kind == .text) }
        default: try scanner.value()
        }
    }

    private func kindOfText(_ key: JSONString) -> Texts {
        if key.matches("text", in: json) || key.matches("thinking", in: json) || key.matches("refusal", in: json) {
            return .text
        }
        let isCall =
            key.matches("partial_json", in: json) || key.matches("arguments", in: json)
            || key.matches("input", in: json)
        return isCall ? .call : .none
    }

    /// A delta's text is a token at least; what other events carry says again what deltas said.
    private mutating func judgeType() {
        guard let type else { return }
        let name = UnsafeRawBufferPointer(rebasing: json[type])
        if dialect.isFailure(event: name) { isError = true }
        let isDelta =
            dialect == .anthropic
            ? name.elementsEqual("content_block_delta".utf8) : name.suffix(6).elementsEqual(".delta".utf8)
        guard isDelta, contentBytes > 0 else { return }
        choicesWithContent = 1
        // Arguments of a call may come in pieces that are no whole tokens; texts do not.
        let isCall =
            name.suffix(15).elementsEqual("arguments.delta".utf8) || name.suffix(12).elementsEqual("_input.delta".utf8)
        if hasText, !isCall { choicesWithText = 1 }
    }
}

import Domain
import JSON

/// What one pass over a node's whole reply found.
package struct ReplyScan: Hashable, Sendable {
    /// The value of `model`, quotes included.
    package var modelSpan: Range<Int>?
    package var usage = ReportedUsage.absent
    /// Elements of `choices`.
    package var choices = 0
    /// Elements of `data`: embeddings.
    package var embeddings = 0
    /// Bytes of text, reasoning and tool calls as they stand: what the gateway's own count goes by.
    package var contentBytes = 0
    /// Whether there is an `error` that is not null, or `object` is `error`, whatever the status said.
    package var isError = false

    /// The change that puts the public model in the node's place.
    package func edits(publicModel: PublicModel) -> [BodyEdit] {
        modelSpan.map { [BodyEdit(replacing: $0, with: publicModel.json)] } ?? []
    }
}

/// A model's public id, encoded once per request or configuration rather than once per event.
package struct PublicModel: Hashable, Sendable {
    package let json: [UInt8]

    package init(_ id: String) { json = JSONWriter.encoded(id) }
}

/// - Returns: nil where the text is not a JSON object, or names its model or usage twice.
package func scanReply(_ json: UnsafeRawBufferPointer) -> ReplyScan? {
    var reader = AnswerReader(json)
    guard (try? reader.read()) != nil, !reader.isAmbiguous else { return nil }
    return ReplyScan(
        modelSpan: reader.modelSpan, usage: reader.usage, choices: reader.choices, embeddings: reader.embeddings,
        contentBytes: reader.contentBytes, isError: reader.isError)
}

/// The pass over a reply or over one event of a stream: both have the same members at the top.
struct AnswerReader {
    // SAFETY: borrowed for the duration of the function that makes the reader, which does not let it escape.
    private let json: UnsafeRawBufferPointer
    private var scanner: JSONScanner
    private(set) var modelSpan: Range<Int>?
    private(set) var usage = ReportedUsage.absent
    /// What to remove so that no `usage` is left: the member and one comma.
    private(set) var usageMember: Range<Int>?
    private(set) var choices = 0
    private(set) var hasChoices = false
    private(set) var embeddings = 0
    private(set) var contentBytes = 0
    private(set) var choicesWithContent = 0
    private(set) var isFinished = false
    private(set) var isError = false
    private(set) var isAmbiguous = false

    init(_ json: UnsafeRawBufferPointer) {
        self.json = json
        scanner = JSONScanner(json)
    }

    mutating func read() throws(JSONError) {
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
                if modelSpan != nil { isAmbiguous = true }
                modelSpan = try scanner.value()
            } else if key.matches("usage", in: json) {
                if usageMember != nil { isAmbiguous = true }
                usage = try ReportedUsage.read(&scanner, json)
                usageMember = (previousEnd ?? start)..<scanner.offset
                needsNext = previousEnd == nil
            } else if key.matches("choices", in: json), try scanner.peek() == UInt8(ascii: "[") {
                try readChoices()
            } else if key.matches("data", in: json), try scanner.peek() == UInt8(ascii: "[") {
                embeddings += try countElements()
            } else if key.matches("error", in: json) {
                if json[try scanner.value().lowerBound] != UInt8(ascii: "n") { isError = true }
            } else if key.matches("object", in: json) {
                let value = try scanner.value()
                if value.count == 7, json[value].elementsEqual("\"error\"".utf8) { isError = true }
            } else {
                try scanner.value()
            }
            previousEnd = scanner.offset
        }
        try scanner.finish()
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
            guard try scanner.peek() == UInt8(ascii: "{") else {
                try scanner.value()
                continue
            }
            try readChoice()
            if contentBytes > before { choicesWithContent += 1 }
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
                count(try scanner.value())
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
            let isContent =
                key.matches("content", in: json) || key.matches("reasoning_content", in: json)
                || key.matches("reasoning", in: json) || key.matches("tool_calls", in: json)
                || key.matches("refusal", in: json) || key.matches("function_call", in: json)
            let span = try scanner.value()
            if isContent { count(span) }
        }
    }

    /// Counts a string's content, or an array or object that is not empty.
    private mutating func count(_ span: Range<Int>) {
        switch json[span.lowerBound] {
        case UInt8(ascii: "\""), UInt8(ascii: "["), UInt8(ascii: "{"): contentBytes += span.count - 2
        default: break
        }
    }
}

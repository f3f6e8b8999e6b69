import Domain
import JSON
import NIOCore

/// One protocol's bytes of an answer. The machine says what happens and when; a renderer knows names and shapes, and keeps
/// at most a counter.
protocol AnswerRenderer {
    /// Whether the stream's first events come before the first token, as soon as the request is accepted.
    var opensAtOnce: Bool { get }

    /// The stream's first events.
    /// - Parameter usage: Of the prompt alone; nil where it is not told.
    mutating func opened(usage: TokenUsage?, into sink: inout EventSink)
    /// What stands before the choice's first token.
    mutating func choiceOpened(
        _ choice: GenerationRequest.Choice, _ index: Int, _ token: AnswerToken, _: inout EventSink)
    mutating func token(_ token: AnswerToken, of choice: GenerationRequest.Choice, _ index: Int, _: inout EventSink)
    /// An event that stops in the middle of a name.
    mutating func brokenToken(into sink: inout EventSink)
    mutating func choiceFinished(
        _ choice: GenerationRequest.Choice, _ index: Int, usage: TokenUsage?, _: inout EventSink)
    /// What stands after all choices.
    /// - Parameters:
    ///   - choices: The visible ones.
    ///   - usage: Nil leaves it out.
    ///   - isComplete: False leaves out the event that says that this is the end.
    mutating func ended(
        _ choices: [GenerationRequest.Choice], usage: TokenUsage?, isComplete: Bool, into sink: inout EventSink)

    /// The body of an answer that is no stream.
    func answer(_ choices: [GenerationRequest.Choice], usage: TokenUsage?, into body: inout ByteBuffer)
}

/// One token on its way out.
struct AnswerToken {
    /// As much of it as is shown.
    var text: String
    /// Of its choice's tokens.
    var index: Int
    /// Bytes of text before it.
    var offset: Int
    /// For `continuous_usage_stats`: of this choice so far.
    var usage: TokenUsage?
}

/// What all answers of one request share.
struct AnswerIdentity {
    /// 32 hexadecimal digits; each protocol puts its own prefix in front.
    var id: String
    /// Seconds since 1970.
    var created: Int64
    /// The name as JSON, quoted.
    var model: String
}

extension ByteBuffer {
    /// The content of a JSON string, without its quotes.
    mutating func writeEscaped(_ text: String) {
        let needsNone = text.utf8.allSatisfy { $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        if needsNone {
            writeString(text)
        } else {
            var bytes: [UInt8] = []
            var text = text
            text.withUTF8 { JSONWriter.append(escapingContent: UnsafeRawBufferPointer($0), to: &bytes) }
            writeBytes(bytes)
        }
    }

    mutating func writeQuoted(_ text: String) {
        writeStaticString("\"")
        writeEscaped(text)
        writeStaticString("\"")
    }
}

/// How an endpoint writes its errors, its events and its usage.
package enum Dialect: Hashable, Sendable {
    /// `data:` lines, `[DONE]` at the end; usage in the last chunk, and only where it was asked for.
    case openAI
    /// OpenAI's Responses: events with names; the last one carries the whole response, usage included.
    case responses
    /// Anthropic's Messages: events with names, `message_stop` at the end; usage in two of them.
    case anthropic

    /// Bytes of an event's name; longer ones are no names that any client knows.
    static let eventNameBytesMax = 64

    /// Whether a stream is over with the event of this name. False where a `[DONE]` ends it.
    func isLast(event name: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .openAI: false
        case .responses:
            name.elementsEqual("response.completed".utf8) || name.elementsEqual("response.incomplete".utf8)
        case .anthropic: name.elementsEqual("message_stop".utf8)
        }
    }

    /// Whether the event of this name says that the node failed.
    func isFailure(event name: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .openAI: false
        case .responses: name.elementsEqual("error".utf8) || name.elementsEqual("response.failed".utf8)
        case .anthropic: name.elementsEqual("error".utf8)
        }
    }

    /// Whether a name may go on to a client in an `event:` line: a word of letters, digits, dots and underscores.
    static func isEventName(_ name: UnsafeRawBufferPointer) -> Bool {
        !name.isEmpty && name.count <= eventNameBytesMax
            && name.allSatisfy { byte in
                Redaction.isAlphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
            }
    }
}

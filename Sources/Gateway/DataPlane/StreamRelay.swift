import Domain
import NIOCore
import OpenAIProtocol

/// Reads a node's event stream as it passes: whole events go on at once, an unfinished one waits for its end.
///
/// Counts what is delivered, takes note of the node's usage, strips usage from clients that did not ask for it, and
/// puts the public model in place of the node's. The last event (`[DONE]`, or the one that ends a stream of named
/// events) is held back in ``lastEvent``: the charge is journalled before it.
package struct StreamRelay {
    package enum Outcome: Hashable, Sendable {
        /// The stream goes on.
        case open
        /// The node's last event came; whatever follows is ignored.
        case done
        /// The node reported an error: the event to send in place of its own.
        case nodeError([UInt8])
        /// The node generated past what was reserved.
        case overrun
        /// No client could make sense of it: what is wrong, for the log.
        case invalid(String)
    }

    private let publicModel: PublicModel
    private let publicModelName: String
    private let upstreamModelName: String
    private let clientWantsUsage: Bool
    private let contentEventsMax: Int
    private let contentBytesMax: Int
    private var contentBytes = 0
    private let dialect: Dialect
    private let requestID: String?
    private var tail = ByteBuffer()
    private var position = SSEScanner.Position()

    /// Completion tokens delivered, by the gateway's own count: one for each choice of each event that brings content.
    package private(set) var contentEvents = 0
    /// Those of them that brought text or reasoning.
    package private(set) var textEvents = 0
    /// The text that was delivered, as its events had it, where it is kept for counting; and how many of
    /// ``contentEvents`` it came in. What comes past the bound is counted by its events.
    package private(set) var keptText: [UInt8] = []
    package private(set) var keptEvents = 0
    private let keepsText: Bool
    /// More of a stream's text is not kept: some 30,000 tokens.
    package static let keptTextBytesMax = 128 << 10
    /// What the answer ends with, once the charge is written.
    package private(set) var lastEvent = ByteBuffer()
    private var usageFields: UsageFields?

    /// - Parameters:
    ///   - completionTokensMax: Of all choices together.
    ///   - bodyBytes: Of the request, which a node may repeat in its answer.
    ///   - dialect: How the endpoint writes its events.
    ///   - keepsText: For models whose vocabulary is known; with several choices it is never kept, since they mix.
    ///   - requestID: For errors in dialects that carry it.
    package init(
        model: ModelID, upstreamModelName: String, clientWantsUsage: Bool, completionTokensMax: Int, choices: Int = 1,
        bodyBytes: Int = 0, dialect: Dialect = .openAI, requestID: String? = nil, keepsText: Bool = false
    ) {
        self.keepsText = keepsText && choices == 1
        self.dialect = dialect
        self.requestID = requestID
        publicModel = PublicModel(model.rawValue)
        publicModelName = model.rawValue
        self.upstreamModelName = upstreamModelName
        self.clientWantsUsage = clientWantsUsage
        contentEventsMax = UsageVerdict.textEventsMax(completionTokens: completionTokensMax, choices: choices)
        contentBytesMax = UsageVerdict.contentBytesMax(
            completionTokens: completionTokensMax, choices: choices, bodyBytes: bodyBytes)
    }

    /// What the node reported, in whichever of its events.
    package var usage: ReportedUsage { usageFields?.reported(dialect) ?? .absent }

    /// Memory that the unfinished event holds.
    var heldBytes: Int { tail.capacity }

    /// Takes the next bytes of the node's body and appends what goes on to the client.
    package mutating func feed(_ bytes: ByteBuffer, into output: inout ByteBuffer) -> Outcome {
        var held = ByteBuffer()
        // Taken out, so that the bytes are read in place while the relay changes.
        swap(&held, &tail)
        if held.readableBytes == 0 { held = bytes } else { held.writeImmutableBuffer(bytes) }
        let (taken, outcome) = held.withUnsafeReadableBytes { relayEvents(of: $0, into: &output) }
        guard outcome == .open else { return outcome }
        held.moveReaderIndex(forwardBy: taken)
        guard held.readableBytes > 0 else { return .open }
        // Bytes that are read must not stay in front of the tail: a stream that never pauses would keep them all.
        if held.readerIndex > 0 { held.discardReadBytes() }
        tail = held
        return tail.readableBytes > SSELimits.tailBytesMax ? .invalid("event too long") : .open
    }

    /// - Returns: How many bytes the whole events among them take.
    private mutating func relayEvents(
        of bytes: UnsafeRawBufferPointer, into output: inout ByteBuffer
    ) -> (taken: Int, Outcome) {
        var taken = 0
        while true {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[taken...])
            guard let end = SSEScanner.nextEventEnd(in: rest, from: &position) else { return (taken, .open) }
            position.discard(end)
            taken += end
            let outcome = relay(event: UnsafeRawBufferPointer(rebasing: rest[..<end]), into: &output)
            guard outcome == .open else { return (taken, outcome) }
        }
    }

    private mutating func relay(event bytes: UnsafeRawBufferPointer, into output: inout ByteBuffer) -> Outcome {
        switch SSEEvent.payload(in: bytes) {
        case .comment:
            // A sign of life goes on; what a node says in it is nobody's business.
            // An LF may stand in front that belongs to the CR before it: see `SSEScanner`.
            let line = bytes.first == UInt8(ascii: "\n") ? UnsafeRawBufferPointer(rebasing: bytes.dropFirst()) : bytes
            if line.first == UInt8(ascii: ":") { output.writeStaticString(": ping\n\n") }
            return .open
        case .done:
            // A stream of named events has said its last word before; without that it is not whole.
            guard dialect == .openAI else { return .invalid("[DONE] before the last event") }
            lastEvent = ByteBuffer(staticString: "data: [DONE]\n\n")
            return .done
        case .data(let span):
            let json = UnsafeRawBufferPointer(rebasing: bytes[span])
            return relay(json, into: &output)
        case .joined(var lines):
            // JSON knows no raw line feed inside a string, so between its tokens a space serves as well.
            for index in lines.indices where lines[index] == UInt8(ascii: "\n") { lines[index] = UInt8(ascii: " ") }
            return lines.withUnsafeBytes { relay($0, into: &output) }
        }
    }

    private mutating func relay(_ json: UnsafeRawBufferPointer, into output: inout ByteBuffer) -> Outcome {
        guard let chunk = scanStreamChunk(json, dialect: dialect, collectsTexts: keepsText) else {
            // llama.cpp begins the answer to a list of prompts so (measured).
            return json.elementsEqual("null".utf8) ? .open : .invalid("event is not a JSON object")
        }
        if chunk.isError {
            return .nodeError(
                rebuildStreamError(
                    json, upstreamModel: upstreamModelName, publicModel: publicModelName, dialect: dialect,
                    requestID: requestID))
        }
        if let fields = chunk.usageFields {
            // Only Anthropic's events tell a part each; of others the last one counts, whole.
            if dialect == .anthropic, usageFields != nil { usageFields?.merge(fields) } else { usageFields = fields }
        }
        contentEvents += chunk.choicesWithContent
        textEvents += chunk.choicesWithText
        contentBytes += chunk.choicesWithContent > 0 ? chunk.contentBytes : 0
        guard contentEvents <= contentEventsMax, contentBytes <= contentBytesMax else { return .overrun }
        if keepsText, chunk.choicesWithText > 0, keptText.count < Self.keptTextBytesMax {
            for text in chunk.texts { keptText.append(contentsOf: UnsafeRawBufferPointer(rebasing: json[text])) }
            keptEvents += chunk.choicesWithContent
        }
        let edits: [BodyEdit]
        switch chunk.relay(json, publicModel: publicModel, clientWantsUsage: clientWantsUsage || dialect != .openAI) {
        case .drop: return .open
        case .pass: edits = []
        case .edits(let found): edits = found
        }
        if chunk.isLast {
            write(json, chunk.eventName, edits, into: &lastEvent)
            return .done
        }
        write(json, chunk.eventName, edits, into: &output)
        return .open
    }

    /// Framed anew: a node's own fields (`retry`, `id`) would steer the client. The event's name is what its data say.
    private func write(
        _ json: UnsafeRawBufferPointer, _ name: Range<Int>?, _ edits: [BodyEdit], into output: inout ByteBuffer
    ) {
        if let name {
            output.writeStaticString("event: ")
            output.writeBytes(UnsafeRawBufferPointer(rebasing: json[name]))
            output.writeStaticString("\n")
        }
        output.writeEvent(json, edits)
    }
}

extension ByteBuffer {
    /// Appends `data: `, the text with the edits applied, and a blank line. In one access to the storage: each costs as
    /// much as copying the text.
    mutating func writeEvent(_ json: UnsafeRawBufferPointer, _ edits: [BodyEdit]) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: 8 + json.count + Swift.max(0, edits.growth)) { target in
            // SAFETY: used within this closure only. Edits are ascending and within the text, so what is put comes to
            // 8 + json.count + growth bytes, which is at most what was asked for.
            var rest = target
            func put(_ bytes: UnsafeRawBufferPointer) {
                rest.copyMemory(from: bytes)
                rest = UnsafeMutableRawBufferPointer(rebasing: rest[bytes.count...])
            }
            put(UnsafeRawBufferPointer(start: ("data: " as StaticString).utf8Start, count: 6))
            var taken = 0
            for edit in edits {
                put(UnsafeRawBufferPointer(rebasing: json[taken..<edit.offset]))
                edit.inserted.withUnsafeBytes { put($0) }
                taken = edit.offset + edit.removed
            }
            put(UnsafeRawBufferPointer(rebasing: json[taken...]))
            put(UnsafeRawBufferPointer(start: ("\n\n" as StaticString).utf8Start, count: 2))
            return target.count - rest.count
        }
    }

    /// Appends `source` with the edits applied.
    mutating func writeApplying(_ edits: [BodyEdit], to source: UnsafeRawBufferPointer) {
        var taken = 0
        for edit in edits {
            writeBytes(UnsafeRawBufferPointer(rebasing: source[taken..<edit.offset]))
            writeBytes(edit.inserted)
            taken = edit.offset + edit.removed
        }
        writeBytes(UnsafeRawBufferPointer(rebasing: source[taken...]))
    }
}

import Domain
import NIOCore
import OpenAIProtocol

/// Reads a node's event stream as it passes: whole events go on at once, an unfinished one waits for its end.
///
/// Counts what is delivered, takes note of the node's usage, strips usage from clients that did not ask for it, and
/// puts the public model in place of the node's. `[DONE]` is held back: it is the answer's last word, and the charge
/// is journalled before it.
package struct StreamRelay {
    package enum Outcome: Hashable, Sendable {
        /// The stream goes on.
        case open
        /// The node said `[DONE]`; whatever follows is ignored.
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
    private let completionTokensMax: Int
    private var tail = ByteBuffer()
    private var position = SSEScanner.Position()

    /// Completion tokens delivered, by the gateway's own count: one for each choice of each event that brings content.
    package private(set) var contentEvents = 0
    /// What the node reported last, where it is a usage at all.
    package private(set) var usage: ReportedUsage = .absent

    package init(
        model: ModelID, upstreamModelName: String, clientWantsUsage: Bool, completionTokensMax: Int
    ) {
        publicModel = PublicModel(model.rawValue)
        publicModelName = model.rawValue
        self.upstreamModelName = upstreamModelName
        self.clientWantsUsage = clientWantsUsage
        self.completionTokensMax = completionTokensMax
    }

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
            return .done
        case .data(let span):
            let json = UnsafeRawBufferPointer(rebasing: bytes[span])
            return relay(json, into: &output) { edits, output in
                // Framed anew: a node's own fields (`retry`, `id`, `event`) would steer the client.
                output.writeEvent(json, edits)
            }
        case .joined(let lines):
            return lines.withUnsafeBytes { json in
                relay(json, into: &output) { edits, output in
                    output.writeStaticString("data: ")
                    // JSON knows no raw line feed inside a string, so between its tokens a space serves as well.
                    let line = applyEdits(edits, to: json).map { $0 == UInt8(ascii: "\n") ? UInt8(ascii: " ") : $0 }
                    output.writeBytes(line)
                    output.writeStaticString("\n\n")
                }
            }
        }
    }

    private mutating func relay(
        _ json: UnsafeRawBufferPointer, into output: inout ByteBuffer, write: ([BodyEdit], inout ByteBuffer) -> Void
    ) -> Outcome {
        guard let chunk = scanStreamChunk(json) else { return .invalid("event is not a JSON object") }
        if chunk.isError {
            return .nodeError(
                rebuildStreamError(json, upstreamModel: upstreamModelName, publicModel: publicModelName))
        }
        if case .value = chunk.usage { usage = chunk.usage }
        contentEvents += chunk.choicesWithContent
        guard contentEvents <= completionTokensMax else { return .overrun }
        switch chunk.relay(json, publicModel: publicModel, clientWantsUsage: clientWantsUsage) {
        case .drop: break
        case .pass: write([], &output)
        case .edits(let edits): write(edits, &output)
        }
        return .open
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

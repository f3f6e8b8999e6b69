import Domain
import JSON

/// What one pass over one event of a node's stream found.
package struct ChunkScan: Hashable, Sendable {
    /// The value of `model`, quotes included.
    package let modelSpan: Range<Int>?
    package let usage: ReportedUsage
    /// The counts of `usage` as they stand, where it is an object: other events may tell the rest.
    package let usageFields: UsageFields?
    /// The whole `usage` member with one comma: without these bytes the text is the same object with no usage.
    package let usageMember: Range<Int>?
    /// Whether `choices` is there and empty, as in the last chunk, which only tells usage.
    package let choicesEmpty: Bool
    /// Choices that bring text, reasoning or tool calls: at least one token each.
    package let choicesWithContent: Int
    /// Those of them that bring text or reasoning.
    package let choicesWithText: Int
    package let contentBytes: Int
    /// The contents of its texts as they stand, where they were asked for.
    package let texts: [Range<Int>]
    /// Whether a choice ends here.
    package let isFinished: Bool
    package let isError: Bool
    /// The content of `type`, where the dialect names its events: fit for an `event:` line.
    package let eventName: Range<Int>?
    /// Whether the stream is over with this event.
    package let isLast: Bool

    package var hasContent: Bool { choicesWithContent > 0 }

    /// How this chunk goes to the client.
    ///
    /// - Parameters:
    ///   - json: The text that was scanned.
    ///   - clientWantsUsage: What `stream_options.include_usage` said.
    /// - Returns: `.drop` for a chunk that only tells usage to a client that did not ask.
    package func relay(
        _ json: UnsafeRawBufferPointer, publicModel: PublicModel, clientWantsUsage: Bool
    ) -> ChunkRelay {
        if !clientWantsUsage, choicesEmpty, usageMember != nil, usage != .null { return .drop }
        var edits: [BodyEdit] = []
        if let modelSpan,
            modelSpan.count != publicModel.json.count || !json[modelSpan].elementsEqual(publicModel.json)
        {
            edits.append(BodyEdit(replacing: modelSpan, with: publicModel.json))
        }
        if !clientWantsUsage, let usageMember {
            edits.append(BodyEdit(replacing: usageMember, with: []))
            if edits.count == 2, edits[1].offset < edits[0].offset { edits.swapAt(0, 1) }
        }
        return edits.isEmpty ? .pass : .edits(edits)
    }
}

package enum ChunkRelay: Hashable, Sendable {
    case drop
    case pass
    /// Ascending, not overlapping.
    case edits([BodyEdit])
}

/// - Returns: nil where the text is not a JSON object, or names its model or usage twice.
package func scanStreamChunk(
    _ json: UnsafeRawBufferPointer, dialect: Dialect = .openAI, collectsTexts: Bool = false
) -> ChunkScan? {
    var reader = AnswerReader(json, dialect, collectsTexts: collectsTexts)
    guard (try? reader.readEvent()) != nil, !reader.isAmbiguous else { return nil }
    var eventName: Range<Int>?
    var isLast = false
    if dialect != .openAI, let type = reader.type {
        let name = UnsafeRawBufferPointer(rebasing: json[type])
        if Dialect.isEventName(name) { eventName = type }
        isLast = dialect.isLast(event: name)
    }
    return ChunkScan(
        modelSpan: reader.modelSpan, usage: reader.usage, usageFields: reader.usageFields,
        usageMember: reader.usageMember, choicesEmpty: reader.hasChoices && reader.choices == 0,
        choicesWithContent: reader.choicesWithContent, choicesWithText: reader.choicesWithText,
        contentBytes: reader.contentBytes, texts: reader.texts, isFinished: reader.isFinished, isError: reader.isError,
        eventName: eventName, isLast: isLast)
}

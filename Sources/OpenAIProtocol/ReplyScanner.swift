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
    /// The contents of its texts as they stand, where they were asked for.
    package var texts: [Range<Int>] = []
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

/// - Returns: nil where the text is not a JSON object, or names its model or usage twice. An array is an object without
///   members: SGLang answers a rerank so.
package func scanReply(
    _ json: UnsafeRawBufferPointer, dialect: Dialect = .openAI, collectsTexts: Bool = false
) -> ReplyScan? {
    var reader = AnswerReader(json, dialect, collectsTexts: collectsTexts)
    guard (try? reader.readReply()) != nil, !reader.isAmbiguous else { return nil }
    return ReplyScan(
        modelSpan: reader.modelSpan, usage: reader.usage, choices: reader.choices, embeddings: reader.embeddings,
        contentBytes: reader.contentBytes, texts: reader.texts, isError: reader.isError)
}

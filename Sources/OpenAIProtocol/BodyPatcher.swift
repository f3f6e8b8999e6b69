import Domain
import JSON

/// What the gateway changes in a body before it goes to a node. Everything else goes byte for byte.
package struct PatchPlan: Sendable {
    /// What the node calls the model.
    package var upstreamModel: String
    /// The max-token limit that the hold was computed with; nil leaves the field alone.
    package var maxTokens: Int?
    /// Whether the node shall report usage in a stream whatever the client asked.
    package var forceStreamUsage: Bool
    /// For engines that have one.
    package var cacheSalt: String?
    /// Members for keys on which the client is silent; their values are JSON.
    package var defaults: [(key: String, json: [UInt8])]
    /// The choices of one prompt where the client asked for more than the model's clamp: written over the client's own.
    package var choicesClamp: Int?
    /// Decides under which names the limit goes upstream.
    package var engine: Engine

    package init(
        upstreamModel: String, maxTokens: Int? = nil, forceStreamUsage: Bool = true, cacheSalt: String? = nil,
        defaults: [(key: String, json: [UInt8])] = [], engine: Engine = .vllm
    ) {
        self.upstreamModel = upstreamModel
        self.maxTokens = maxTokens
        self.forceStreamUsage = forceStreamUsage
        self.cacheSalt = cacheSalt
        self.defaults = defaults
        self.engine = engine
    }

    /// Whether a configured default for this key is never sent: the gateway writes the field itself, or counts by it.
    package static func isReserved(defaultKey key: String) -> Bool {
        let written: Set<String> = [
            "model", "stream", "stream_options",
        ]
        return written.contains(key) || SteeringKey(rawValue: key) != nil
            || Endpoint.LimitField(rawValue: key) != nil || Endpoint.PromptField(rawValue: key) != nil
    }
}

extension ScannedRequest {
    /// The edits that `plan` makes to the scanned body, in ascending order, not overlapping.
    package func edits(for plan: PatchPlan, endpoint: Endpoint) -> [BodyEdit] {
        var edits = [BodyEdit(replacing: modelSpan, with: JSONWriter.encoded(plan.upstreamModel))]
        var inserted: [UInt8] = []
        if endpoint.generates {
            if plan.forceStreamUsage, stream, endpoint.dialect == .openAI { askForUsage(&edits, &inserted) }
            if let maxTokens = plan.maxTokens { limit(maxTokens, endpoint, plan.engine, &edits, &inserted) }
        }
        if let clamp = plan.choicesClamp { limitChoices(clamp, &edits) }
        if let salt = plan.cacheSalt {
            let json = JSONWriter.encoded(salt)
            if let cacheSaltSpan {
                edits.append(BodyEdit(replacing: cacheSaltSpan, with: json))
            } else {
                Self.append("cache_salt", json, to: &inserted)
            }
        }
        for entry in plan.defaults
        where !PatchPlan.isReserved(defaultKey: entry.key) && !keyHashes.contains(KeyHash.of(entry.key)) {
            Self.append(entry.key, entry.json, to: &inserted)
        }
        // The object is never empty, since it names a model: each new member ends with a comma.
        if !inserted.isEmpty { edits.append(BodyEdit(offset: insertionOffset, removed: 0, inserted: inserted)) }
        edits.sort { $0.offset < $1.offset }
        return edits
    }

    private func askForUsage(_ edits: inout [BodyEdit], _ inserted: inout [UInt8]) {
        let object = Array("{\"include_usage\":true}".utf8)
        switch streamOptions {
        case .absent: Self.append("stream_options", object, to: &inserted)
        case .null(let span): edits.append(BodyEdit(replacing: span, with: object))
        case .object(let insertion, let isEmpty):
            let member = Array((isEmpty ? "\"include_usage\":true" : "\"include_usage\":true,").utf8)
            edits.append(BodyEdit(offset: insertion, removed: 0, inserted: member))
        case .includeUsage(let span):
            if !includeUsage { edits.append(BodyEdit(replacing: span, with: Array("true".utf8))) }
        }
    }

    /// Writes the limit under every name that the client used, and under the endpoint's first wherever an engine may
    /// read only that one: text completions know no other than `max_tokens`, and older llama.cpp has no
    /// `max_completion_tokens`. OpenAI's own servers refuse a chat that names both.
    private func limit(
        _ maxTokens: Int, _ endpoint: Endpoint, _ engine: Engine, _ edits: inout [BodyEdit],
        _ inserted: inout [UInt8]
    ) {
        var json: [UInt8] = []
        JSONWriter.append(integer: Int64(maxTokens), to: &json)
        let fields = endpoint.descriptor.limits
        for field in fields {
            if let span = limitSpans[field] { edits.append(BodyEdit(replacing: span, with: json)) }
        }
        let isEnough = limitSpans[.maxCompletionTokens] != nil && endpoint == .chatCompletions && engine == .openai
        if limitSpans[fields[0]] == nil, !isEnough { Self.append(fields[0].rawValue, json, to: &inserted) }
    }

    /// A client's `n` and `best_of` above the clamp become the clamp.
    private func limitChoices(_ clamp: Int, _ edits: inout [BodyEdit]) {
        var json: [UInt8] = []
        JSONWriter.append(integer: Int64(clamp), to: &json)
        if let nSpan, n >= clamp { edits.append(BodyEdit(replacing: nSpan, with: json)) }
        if let bestOfSpan, let bestOf, bestOf >= clamp { edits.append(BodyEdit(replacing: bestOfSpan, with: json)) }
    }

    private static func append(_ key: String, _ json: [UInt8], to bytes: inout [UInt8]) {
        JSONWriter.append(escaping: key, to: &bytes)
        bytes.append(UInt8(ascii: ":"))
        bytes.append(contentsOf: json)
        bytes.append(UInt8(ascii: ","))
    }
}

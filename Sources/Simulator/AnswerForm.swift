import JSON

/// What shape a request gives its answer: free text, JSON by a schema, or the call of a tool.
enum AnswerForm: Equatable {
    case text
    case json(schema: JSONValue)
    case tool(name: String, schema: JSONValue)

    /// `json_object` names no schema; any object will do.
    static let anyObject: JSONValue = [
        "type": "object", "properties": ["answer": ["type": "string"]], "required": ["answer"],
    ]

    var toolName: String? { if case .tool(let name, _) = self { name } else { nil } }

    /// The text that the form prescribes; nil for free text.
    func text(seed: UInt64) throws(NodeRefusal) -> String? {
        switch self {
        case .text: return nil
        case .json(let schema), .tool(_, let schema):
            var filler = SchemaFiller(schema: schema, seed: seed)
            return try filler.value().text
        }
    }
}

extension RequestFields {
    /// Reads tools, the choice among them, and the format of the answer, each in its protocol's words.
    func answerForm(_ kind: GenerationRequest.Kind) throws(NodeRefusal) -> AnswerForm {
        if kind == .completion { return .text }
        let offers = try toolOffers(kind)
        if let tool = try chosenTool(kind, of: offers) { return tool }
        return switch kind {
        case .chat: try format(object("response_format"), in: "response_format", nested: "json_schema")
        case .responses: try format(object("text")?.object("format"), in: "text.format", nested: nil)
        case .messages: try format(object("output_config")?.object("format"), in: "output_config", nested: nil)
        case .completion: .text
        }
    }

    private func format(
        _ format: RequestFields?, in name: String, nested: String?
    ) throws(NodeRefusal) -> AnswerForm {
        guard let format else { return .text }
        switch try format.string("type") {
        case "text": return .text
        case "json_object": return .json(schema: AnswerForm.anyObject)
        case "json_schema":
            let holder = if let nested { try format.object(nested) } else { format }
            guard let holder, let schema = try holder.object("schema") else {
                throw .badRequest("'\(name)' of type 'json_schema' needs a 'schema'.", parameter: name)
            }
            return .json(schema: schema.body)
        default:
            throw .badRequest("'\(name)' must have a type 'text', 'json_object' or 'json_schema'.", parameter: name)
        }
    }

    private func toolOffers(
        _ kind: GenerationRequest.Kind
    ) throws(NodeRefusal) -> [(name: String, schema: JSONValue)] {
        guard let tools = body.field("tools") else { return [] }
        guard case .array(let list) = tools else { throw .badRequest("'tools' must be a list.", parameter: "tools") }
        var offers: [(name: String, schema: JSONValue)] = []
        for tool in list {
            guard case .object = tool else {
                throw .badRequest("Each of 'tools' must be an object.", parameter: "tools")
            }
            // Built-in tools of other types are for the server; this one has none.
            if kind == .responses, tool.field("type") != "function" { continue }
            let function = kind == .chat ? tool.field("function") : tool
            // What is no function at all is no tool that could be called; vLLM's templates pass it by, too.
            guard case .string(let name)? = function?.field("name") else { continue }
            let schema = function?.field(kind == .messages ? "input_schema" : "parameters")
            offers.append((name, schema ?? ["type": "object"]))
        }
        return offers
    }

    private func chosenTool(
        _ kind: GenerationRequest.Kind, of offers: [(name: String, schema: JSONValue)]
    ) throws(NodeRefusal) -> AnswerForm? {
        guard let choice = body.field("tool_choice") else { return nil }
        let word = if case .string(let text) = choice { text } else { choice.field("type")?.string }
        var named: String?
        switch (kind, word) {
        case (_, "none"), (_, "auto"): return nil
        case (_, "required") where kind != .messages, (.messages, "any"): break
        case (.chat, "function"): named = choice.field("function")?.field("name")?.string
        case (.responses, "function"), (.messages, "tool"): named = choice.field("name")?.string
        default:
            throw .badRequest("'tool_choice' is none that this endpoint knows.", parameter: "tool_choice")
        }
        guard !offers.isEmpty else {
            throw .badRequest("When using `tool_choice`, `tools` must be set.", parameter: "tool_choice")
        }
        guard let offer = named == nil ? offers.first : offers.first(where: { $0.name == named }) else {
            throw .badRequest(
                "The tool specified in `tool_choice` does not match any of the specified `tools`.",
                parameter: "tool_choice")
        }
        return .tool(name: offer.name, schema: offer.schema)
    }
}

import JSON

extension JSONValue {
    /// The object's member; nil where there is none, where it is null, and where this is no object: to a node, null and
    /// absent are the same.
    func field(_ name: String) -> JSONValue? {
        guard let value = self[name], !value.isNull else { return nil }
        return value
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    /// A text as JSON, with its quotes.
    static func quoted(_ text: String) -> String { String(decoding: JSONWriter.encoded(text), as: UTF8.self) }
}

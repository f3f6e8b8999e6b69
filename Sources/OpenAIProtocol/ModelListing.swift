import JSON

/// A model as `/v1/models` lists it.
package struct ModelCard: Hashable, Sendable {
    package let id: String
    /// Seconds since 1970: when the model was configured.
    package let created: Int64
    package let ownedBy: String

    package init(id: String, created: Int64, ownedBy: String = "tollgate") {
        self.id = id
        self.created = created
        self.ownedBy = ownedBy
    }

    /// The body of `/v1/models/{id}`.
    package func render() -> [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.bytes
    }

    /// The body of `/v1/models`.
    package static func renderList(_ cards: [ModelCard]) -> [UInt8] {
        var writer = JSONWriter(reservingCapacity: 64 + 96 * cards.count)
        writer.object {
            $0.member("object", "list")
            $0.key("data")
            $0.array { for card in cards { card.write(to: &$0) } }
        }
        return writer.bytes
    }

    private func write(to writer: inout JSONWriter) {
        writer.object {
            $0.member("id", id)
            $0.member("object", "model")
            $0.member("created", created)
            $0.member("owned_by", ownedBy)
        }
    }
}

import Domain

/// The field `models` of a key's record: ids, sorted, a space between. No id can hold one. The field is absent where the
/// key may use every model.
enum KeyModels {
    static func text(_ models: Set<ModelID>) -> String {
        models.sorted().map(\.rawValue).joined(separator: " ")
    }

    static func parse(_ text: String) -> Set<ModelID> {
        Set(text.split(separator: " ").map { ModelID(unchecked: String($0)) })
    }
}

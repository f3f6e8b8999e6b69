import Billing
import Domain

/// The current prices, as one moment of the store knew them.
package struct PriceBook: Sendable {
    package static let empty = PriceBook([])

    private let entries: [ModelID: Price]

    package init(_ entries: [PriceEntry]) {
        self.entries = Dictionary(entries.map { ($0.model, $0.price) }, uniquingKeysWith: { _, last in last })
    }

    /// nil where the model has no price: it is not for sale.
    package func price(of model: ModelID) -> Price? { entries[model] }
}

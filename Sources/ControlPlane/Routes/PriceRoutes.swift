import Billing
import Domain

extension AdminRoute {
    static let prices: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/prices") { _, services in
            .json(try await services.store.prices().map(PriceDocument.init))
        },
        AdminRoute(.get, "/admin/v1/prices/{model}") { request, services in
            let model: ModelID = try request.identifier("model")
            guard let entry = try await services.store.prices().first(where: { $0.model == model }) else {
                throw AdminFailure(.notFound, "The model '\(model)' has no price.")
            }
            return .json(PriceDocument(entry))
        },
        AdminRoute(.put, "/admin/v1/prices/{model}") { request, services in
            let model: ModelID = try request.identifier("model")
            let fields = try request.fields("input_usd", "cached_input_usd", "output_usd")
            let entry = try await services.store.setPrice(
                model: model,
                input: try fields.requiredMoney("input_usd", minimum: .zero).nanodollars,
                cachedInput: try fields.requiredMoney("cached_input_usd", minimum: .zero).nanodollars,
                output: try fields.requiredMoney("output_usd", minimum: .zero).nanodollars)
            services.audit("price.set", ["model": model.rawValue, "price_version": "\(entry.price.version)"])
            return .json(PriceDocument(entry))
        },
    ]
}

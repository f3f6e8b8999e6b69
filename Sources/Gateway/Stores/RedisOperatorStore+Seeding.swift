import Billing
import Domain
import Logging

extension RedisOperatorStore {
    /// Prices in the file seed the store once; from then on the store is the truth, and a difference is only said.
    package func seedPrices(of configuration: GatewayConfiguration, logger: Logger) async throws(OperatorFailure) {
        for model in configuration.models {
            guard let price = model.price else { continue }
            let stored = try await seedPrice(
                model: model.id, input: price.input, cachedInput: price.cachedInput, output: price.output)
            let same =
                stored.price.input == price.input && stored.price.cachedInput == price.cachedInput
                && stored.price.output == price.output
            if !same {
                logger.warning(
                    "the configuration's price differs from the store's, which holds: see 'tollgate price set'",
                    metadata: ["model": "\(model.id)"])
            }
        }
    }
}

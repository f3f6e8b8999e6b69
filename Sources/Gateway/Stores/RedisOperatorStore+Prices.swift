import Billing
import Domain
import Redis

extension RedisOperatorStore {
    /// Current prices, sorted by model.
    package func prices() async throws(OperatorFailure) -> [PriceEntry] {
        guard let fields = try await command("HGETALL", .string(StoreKeys.prices)).array else { throw Self.malformed }
        var entries: [PriceEntry] = []
        for index in stride(from: 0, to: fields.count - 1, by: 2) {
            guard let model = fields[index].string, let text = fields[index + 1].string,
                let entry = PriceEntry(model: ModelID(unchecked: model), text)
            else { throw Self.malformed }
            entries.append(entry)
        }
        return entries.sorted { $0.model < $1.model }
    }

    /// Sets a price as a new version. Running requests keep the version that they were admitted at.
    ///
    /// - Parameters: Rates in nano-dollars per million tokens, from 0 to ``Price/rateMax``.
    /// - Throws: `invalid`, `storeUnavailable`.
    package func setPrice(
        model: ModelID, input: Int64, cachedInput: Int64, output: Int64
    ) async throws(OperatorFailure) -> PriceEntry {
        try await setPrice(model, [input, cachedInput, output], mode: "")
    }

    /// Sets a price only where the store has none.
    ///
    /// - Returns: What the store has now: the price given, or the one that was there.
    /// - Throws: `invalid`, `storeUnavailable`.
    package func seedPrice(
        model: ModelID, input: Int64, cachedInput: Int64, output: Int64
    ) async throws(OperatorFailure) -> PriceEntry {
        try await setPrice(model, [input, cachedInput, output], mode: "seed")
    }

    package func loadPrices() async throws(OperatorFailure) -> PriceBook { PriceBook(try await prices()) }

    private func setPrice(
        _ model: ModelID, _ rates: [Int64], mode: RESPArgument
    ) async throws(OperatorFailure) -> PriceEntry {
        for rate in rates {
            guard (0...Price.rateMax).contains(rate) else {
                throw OperatorFailure(
                    .invalid, "A price must be from 0 to \(NanoUSD(unchecked: Price.rateMax)) dollars a million tokens."
                )
            }
        }
        let reply: RESPValue
        do throws(RedisError) {
            reply = try await session.evaluate(
                StoreScripts.priceSet,
                keys: [.string(StoreKeys.prices), .string(StoreKeys.priceHistory(model))],
                args: [.string(model.rawValue)] + rates.map { .integer($0) } + [mode])
        } catch {
            throw Self.unavailable(error)
        }
        guard let parts = reply.array, parts.count == 2, let text = parts[1].string,
            let entry = PriceEntry(model: model, text)
        else { throw Self.malformed }
        if parts[0].string == "set" { _ = try await command("INCR", .string(StoreKeys.pricesVersion)) }
        return entry
    }
}

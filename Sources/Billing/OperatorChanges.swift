import Domain

/// What an operator wants of one limit.
package enum Change<Value: Hashable & Sendable>: Hashable, Sendable {
    /// Leave it as it is.
    case keep
    case set(Value)
    /// Take it away.
    case unlimited

    package func applied(to current: Value?) -> Value? {
        switch self {
        case .keep: current
        case .set(let value): value
        case .unlimited: nil
        }
    }
}

/// Which of an org's or a key's limits change.
package struct LimitsUpdate: Hashable, Sendable {
    package static let keep = LimitsUpdate()

    package var requestsPerMinute: Change<Int>
    package var tokensPerMinute: Change<Int>
    package var concurrency: Change<Int>

    package init(
        requestsPerMinute: Change<Int> = .keep, tokensPerMinute: Change<Int> = .keep, concurrency: Change<Int> = .keep
    ) {
        self.requestsPerMinute = requestsPerMinute
        self.tokensPerMinute = tokensPerMinute
        self.concurrency = concurrency
    }

    package func applied(to current: Limits) -> Limits {
        Limits(
            requestsPerMinute: requestsPerMinute.applied(to: current.requestsPerMinute),
            tokensPerMinute: tokensPerMinute.applied(to: current.tokensPerMinute),
            concurrency: concurrency.applied(to: current.concurrency))
    }
}

/// What an org gets where its creator says nothing.
package struct OrgDefaults: Hashable, Sendable {
    package var limits: Limits
    package var keysMax: Int

    package init(
        limits: Limits = Limits(requestsPerMinute: 600, tokensPerMinute: 200_000, concurrency: 64), keysMax: Int = 100
    ) {
        self.limits = limits
        self.keysMax = keysMax
    }
}

/// A model's price in the store.
package struct PriceEntry: Hashable, Sendable {
    package var model: ModelID
    package var price: Price
    /// When this version was set.
    package var at: WallTime

    package init(model: ModelID, price: Price, at: WallTime) {
        self.model = model
        self.price = price
        self.at = at
    }
}

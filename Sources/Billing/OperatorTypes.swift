import Domain

/// What an org or a key may do in a minute. nil means unlimited.
package struct Limits: Hashable, Sendable {
    package static let unlimited = Limits()

    package var requestsPerMinute: Int?
    package var tokensPerMinute: Int?
    package var concurrency: Int?

    package init(requestsPerMinute: Int? = nil, tokensPerMinute: Int? = nil, concurrency: Int? = nil) {
        self.requestsPerMinute = requestsPerMinute
        self.tokensPerMinute = tokensPerMinute
        self.concurrency = concurrency
    }
}

/// Whether an org or a key may spend.
package enum AccountStatus: String, Hashable, Sendable {
    case active, suspended, revoked
}

/// An org as operators see it.
package struct OrgSummary: Hashable, Sendable {
    package var id: OrgID
    package var name: String
    package var status: AccountStatus
    package var balance: NanoUSD
    package var creditLimit: NanoUSD
    /// Holds running.
    package var reserved: NanoUSD
    package var openReservations: Int
    /// Lent to gateways beyond their running holds.
    package var leased: NanoUSD
    /// balance + credit limit - reserved - leased.
    package var available: NanoUSD
    package var limits: Limits
    package var keysMax: Int
    /// Where its requests must stay; nil is anywhere.
    package var region: String?
    package var createdAt: WallTime

    package init(
        id: OrgID, name: String, status: AccountStatus, balance: NanoUSD, creditLimit: NanoUSD, reserved: NanoUSD,
        openReservations: Int, leased: NanoUSD, available: NanoUSD, limits: Limits, keysMax: Int, createdAt: WallTime
    ) {
        self.id = id
        self.name = name
        self.status = status
        self.balance = balance
        self.creditLimit = creditLimit
        self.reserved = reserved
        self.openReservations = openReservations
        self.leased = leased
        self.available = available
        self.limits = limits
        self.keysMax = keysMax
        self.createdAt = createdAt
    }
}

/// An API key as operators see it: never the secret.
package struct KeySummary: Hashable, Sendable {
    package var id: KeyID
    package var org: OrgID
    package var name: String
    package var lastFour: String
    package var status: AccountStatus
    package var limits: Limits
    /// All that it may use; nil for every model.
    package var models: Set<ModelID>?
    /// Where its requests must stay; nil is wherever its org's may go.
    package var region: String?
    package var createdAt: WallTime

    package init(
        id: KeyID, org: OrgID, name: String, lastFour: String, status: AccountStatus, limits: Limits,
        models: Set<ModelID>? = nil, createdAt: WallTime
    ) {
        self.id = id
        self.org = org
        self.name = name
        self.lastFour = lastFour
        self.status = status
        self.limits = limits
        self.models = models
        self.createdAt = createdAt
    }
}

/// One signed line of an org's ledger. The balance is the sum of them.
package struct LedgerEntry: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable {
        case credit, settle, refund, adjust
    }

    /// The store's stream id: ordered, unique in the org.
    package var id: String
    package var kind: Kind
    /// Signed effect on the balance.
    package var amount: NanoUSD
    package var requestID: String?
    package var key: KeyID?
    package var model: ModelID?
    package var usage: TokenUsage
    package var isEstimated: Bool
    package var priceVersion: Int64?
    /// Of a top-up, refund or adjustment.
    package var reference: String?
    package var at: WallTime

    package init(
        id: String, kind: Kind, amount: NanoUSD, requestID: String?, key: KeyID?, model: ModelID?, usage: TokenUsage,
        isEstimated: Bool, priceVersion: Int64?, reference: String?, at: WallTime
    ) {
        self.id = id
        self.kind = kind
        self.amount = amount
        self.requestID = requestID
        self.key = key
        self.model = model
        self.usage = usage
        self.isEstimated = isEstimated
        self.priceVersion = priceVersion
        self.reference = reference
        self.at = at
    }
}

/// What `ledger verify` found: the entries summed again, against the balance.
package struct LedgerVerification: Hashable, Sendable {
    package var entries: Int
    /// balance - sum of the entries. Zero, or something is broken.
    package var drift: Int64
    package var openReservations: Int

    package init(entries: Int, drift: Int64, openReservations: Int) {
        self.entries = entries
        self.drift = drift
        self.openReservations = openReservations
    }
}

/// Usage summed over one group: a key, a model or a day, or all.
package struct UsageRow: Hashable, Sendable {
    package enum Grouping: String, Hashable, Sendable, CaseIterable {
        case key, model, day
    }

    /// The group's name: a key id, a model id or a UTC date.
    package var group: String?
    package var requests: Int
    package var usage: TokenUsage
    package var cost: NanoUSD

    package init(group: String?, requests: Int, usage: TokenUsage, cost: NanoUSD) {
        self.group = group
        self.requests = requests
        self.usage = usage
        self.cost = cost
    }
}

/// What an operator asked for that cannot be done, and what to do instead.
package struct OperatorFailure: Error, Hashable, Sendable {
    package enum Code: String, Hashable, Sendable {
        /// 404
        case notFound
        /// 409
        case alreadyExists
        /// 409: the reference was used before with another amount
        case referenceReused
        /// 400
        case invalid
        /// 409: a cap was reached
        case limitReached
        /// 503
        case storeUnavailable
    }

    package var code: Code
    package var message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

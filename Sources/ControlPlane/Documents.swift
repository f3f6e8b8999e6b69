import Billing
import Domain
import Gateway

/// Encodes nil as an explicit `null`, so that every document always has the same members.
@propertyWrapper
package struct OrNull<Value: Codable & Sendable>: Codable, Sendable {
    package var wrappedValue: Value?

    package init(wrappedValue: Value?) {
        self.wrappedValue = wrappedValue
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        wrappedValue = container.decodeNil() ? nil : try container.decode(Value.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let wrappedValue { try container.encode(wrappedValue) } else { try container.encodeNil() }
    }
}

/// The wire form of a refusal.
package struct ErrorDocument: Codable, Sendable {
    package struct Detail: Codable, Sendable {
        package var code: String
        package var message: String
    }

    package var error: Detail

    init(code: String, message: String) {
        error = Detail(code: code, message: message)
    }
}

/// `/livez` and `/readyz`.
package struct StatusDocument: Codable, Sendable {
    package var status: String
}

/// An org. Amounts in nano-dollars; a limit of null is unlimited.
package struct OrgDocument: Codable, Sendable {
    package var id: String
    package var name: String
    package var status: String
    package var balance: Int64
    package var creditLimit: Int64
    package var reserved: Int64
    package var openReservations: Int
    package var leased: Int64
    package var available: Int64
    @OrNull package var rpm: Int?
    @OrNull package var tpm: Int?
    @OrNull package var concurrency: Int?
    package var keysMax: Int
    /// Null for anywhere.
    @OrNull package var region: String?
    package var createdAt: String

    enum CodingKeys: String, CodingKey {
        case id, name, status, rpm, tpm, concurrency, region
        case balance = "balance_nanousd"
        case creditLimit = "credit_limit_nanousd"
        case reserved = "reserved_nanousd"
        case openReservations = "open_reservations"
        case leased = "leased_nanousd"
        case available = "available_nanousd"
        case keysMax = "keys_max"
        case createdAt = "created_at"
    }

    init(_ org: OrgSummary) {
        id = org.id.rawValue
        name = org.name
        status = org.status.rawValue
        balance = org.balance.nanodollars
        creditLimit = org.creditLimit.nanodollars
        reserved = org.reserved.nanodollars
        openReservations = org.openReservations
        leased = org.leased.nanodollars
        available = org.available.nanodollars
        rpm = org.limits.requestsPerMinute
        tpm = org.limits.tokensPerMinute
        concurrency = org.limits.concurrency
        keysMax = org.keysMax
        region = org.region
        createdAt = org.createdAt.rfc3339
    }
}

/// A key without its secret. A limit of null is unlimited; the org's limits hold beside it.
package struct KeyDocument: Codable, Sendable {
    package var id: String
    package var org: String
    package var name: String
    package var last4: String
    package var status: String
    @OrNull package var rpm: Int?
    @OrNull package var tpm: Int?
    @OrNull package var concurrency: Int?
    /// Sorted; null for every model.
    @OrNull package var models: [String]?
    /// Null for wherever the org's may go.
    @OrNull package var region: String?
    package var createdAt: String

    enum CodingKeys: String, CodingKey {
        case id, org, name, last4, status, rpm, tpm, concurrency, models, region
        case createdAt = "created_at"
    }

    init(_ key: KeySummary) {
        id = key.id.rawValue
        org = key.org.rawValue
        name = key.name
        last4 = key.lastFour
        status = key.status.rawValue
        rpm = key.limits.requestsPerMinute
        tpm = key.limits.tokensPerMinute
        concurrency = key.limits.concurrency
        models = key.models.map { $0.sorted().map(\.rawValue) }
        region = key.region
        createdAt = key.createdAt.rfc3339
    }
}

/// A key just made: the members of ``KeyDocument`` and the secret, this once.
package struct CreatedKeyDocument: Codable, Sendable, CustomStringConvertible {
    package var summary: KeyDocument
    package var secret: String

    enum CodingKeys: String, CodingKey {
        case secret = "key"
    }

    init(_ summary: KeySummary, secret: String) {
        self.summary = KeyDocument(summary)
        self.secret = secret
    }

    package init(from decoder: any Decoder) throws {
        summary = try KeyDocument(from: decoder)
        secret = try decoder.container(keyedBy: CodingKeys.self).decode(String.self, forKey: .secret)
    }

    package func encode(to encoder: any Encoder) throws {
        try summary.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(secret, forKey: .secret)
    }

    package var description: String { "CreatedKeyDocument(\(summary.id), <redacted>)" }
}

/// One line of a ledger. `amount_nanousd` is its signed effect on the balance.
package struct LedgerEntryDocument: Codable, Sendable {
    package var id: String
    package var type: String
    package var amount: Int64
    @OrNull package var requestID: String?
    @OrNull package var key: String?
    @OrNull package var model: String?
    package var promptTokens: Int
    package var cachedTokens: Int
    package var completionTokens: Int
    package var estimated: Bool
    @OrNull package var priceVersion: Int64?
    @OrNull package var reference: String?
    package var at: String

    enum CodingKeys: String, CodingKey {
        case id, type, key, model, estimated, reference, at
        case amount = "amount_nanousd"
        case requestID = "request_id"
        case promptTokens = "prompt_tokens"
        case cachedTokens = "cached_tokens"
        case completionTokens = "completion_tokens"
        case priceVersion = "price_version"
    }

    init(_ entry: LedgerEntry) {
        id = entry.id
        type = entry.kind.rawValue
        amount = entry.amount.nanodollars
        requestID = entry.requestID
        key = entry.key?.rawValue
        model = entry.model?.rawValue
        promptTokens = entry.usage.promptTokens
        cachedTokens = entry.usage.cachedTokens
        completionTokens = entry.usage.completionTokens
        estimated = entry.isEstimated
        priceVersion = entry.priceVersion
        reference = entry.reference
        at = entry.at.rfc3339
    }
}

/// A top-up: the members of its ``LedgerEntryDocument``, and whether the reference had been used for it before.
package struct CreditDocument: Codable, Sendable {
    package var entry: LedgerEntryDocument
    package var isRepeat: Bool

    enum CodingKeys: String, CodingKey {
        case isRepeat = "repeat"
    }

    init(_ entry: LedgerEntry, isRepeat: Bool) {
        self.entry = LedgerEntryDocument(entry)
        self.isRepeat = isRepeat
    }

    package init(from decoder: any Decoder) throws {
        entry = try LedgerEntryDocument(from: decoder)
        isRepeat = try decoder.container(keyedBy: CodingKeys.self).decode(Bool.self, forKey: .isRepeat)
    }

    package func encode(to encoder: any Encoder) throws {
        try entry.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(isRepeat, forKey: .isRepeat)
    }
}

/// The entries summed again, against the balance.
package struct VerificationDocument: Codable, Sendable {
    package var entries: Int
    package var drift: Int64
    package var openReservations: Int

    enum CodingKeys: String, CodingKey {
        case entries
        case drift = "drift_nanousd"
        case openReservations = "open_reservations"
    }

    init(_ verification: LedgerVerification) {
        entries = verification.entries
        drift = verification.drift
        openReservations = verification.openReservations
    }
}

/// Usage of one group. Its name is in the member that the grouping is called by: `key`, `model` or `day`.
package struct UsageDocument: Codable, Sendable {
    package var key: String?
    package var model: String?
    package var day: String?
    package var requests: Int
    package var promptTokens: Int
    package var cachedTokens: Int
    package var completionTokens: Int
    package var cost: Int64

    enum CodingKeys: String, CodingKey {
        case key, model, day, requests
        case promptTokens = "prompt_tokens"
        case cachedTokens = "cached_tokens"
        case completionTokens = "completion_tokens"
        case cost = "cost_nanousd"
    }

    init(_ row: UsageRow, by grouping: UsageRow.Grouping?) {
        key = grouping == .key ? row.group : nil
        model = grouping == .model ? row.group : nil
        day = grouping == .day ? row.group : nil
        requests = row.requests
        promptTokens = row.usage.promptTokens
        cachedTokens = row.usage.cachedTokens
        completionTokens = row.usage.completionTokens
        cost = row.cost.nanodollars
    }
}

/// A model's price, in nano-dollars per million tokens.
package struct PriceDocument: Codable, Sendable {
    package var model: String
    package var input: Int64
    package var cachedInput: Int64
    package var output: Int64
    package var priceVersion: Int64
    package var at: String

    enum CodingKeys: String, CodingKey {
        case model, at
        case input = "input_nanousd"
        case cachedInput = "cached_input_nanousd"
        case output = "output_nanousd"
        case priceVersion = "price_version"
    }

    init(_ entry: PriceEntry) {
        model = entry.model.rawValue
        input = entry.price.input
        cachedInput = entry.price.cachedInput
        output = entry.price.output
        priceVersion = entry.price.version
        at = entry.at.rfc3339
    }
}

/// A node as this gateway sees it. What was not measured yet is null.
package struct NodeDocument: Codable, Sendable {
    package var id: String
    package var site: String
    package var engine: String
    package var models: [String]
    package var state: String
    /// `file`, `added`, `registered` or `dns`.
    package var origin: String
    package var inflightRequests: Int
    package var inflightTokens: Int
    @OrNull package var prefillTokensPerSecond: Double?
    @OrNull package var firstTokenSeconds: Double?

    enum CodingKeys: String, CodingKey {
        case id, site, engine, models, state, origin
        case inflightRequests = "inflight_requests"
        case inflightTokens = "inflight_tokens"
        case prefillTokensPerSecond = "prefill_tokens_per_second"
        case firstTokenSeconds = "ttft_seconds"
    }

    init(_ node: NodeStatus) {
        id = node.id.rawValue
        site = node.site.rawValue
        engine = node.engine.rawValue
        models = node.models.map(\.rawValue)
        state = node.state.rawValue
        origin = node.origin.rawValue
        inflightRequests = node.inflightRequests
        inflightTokens = node.inflightTokens
        // JSON has no infinity or NaN.
        prefillTokensPerSecond = node.prefillTokensPerSecond.flatMap { $0.isFinite ? $0 : nil }
        firstTokenSeconds = node.firstTokenSeconds.flatMap { $0.isFinite ? $0 : nil }
    }
}

import Billing
import Domain
import Redis

/// Orgs, keys, prices, ledger and usage as operators change and read them. Off every request's path.
///
/// A mutation is one script in the org's slot; indexes and the key directory, which live in other slots, are written
/// after it, so that what they name is there. A call that failed with `storeUnavailable` may have been carried out:
/// money is safe to repeat with the same reference, everything else is safe to repeat as it is.
package struct RedisOperatorStore: Sendable {
    package static let nameBytesMax = 200
    package static let referenceBytesMax = 200
    /// No limit is set higher: sums of a minute must stay exact in the scripts' arithmetic.
    package static let limitMax = 1_000_000_000_000
    package static let keysMaxMax = 1_000_000

    let session: RedisSession
    let peppers: Peppers
    private let defaults: OrgDefaults
    /// Stands in for the store's clock in tests; nil in production, where the scripts read the server's.
    private let clock: (@Sendable () -> Int64)?

    /// - Parameters:
    ///   - peppers: New keys are hashed under the current one.
    ///   - defaults: What an org gets where its creator says nothing.
    package init(
        session: RedisSession, peppers: Peppers, defaults: OrgDefaults, clock: (@Sendable () -> Int64)? = nil
    ) {
        self.session = session
        self.peppers = peppers
        self.defaults = defaults
        self.clock = clock
    }

    // MARK: Orgs

    /// - Parameters:
    ///   - openingCredit: Becomes the ledger's first entry; nil for none.
    ///   - limits: nil takes the defaults.
    /// - Throws: `alreadyExists`, `invalid`, `storeUnavailable`.
    package func createOrg(
        id: OrgID, name: String, openingCredit: NanoUSD?, limits: Limits?, keysMax: Int?
    ) async throws(OperatorFailure) -> OrgSummary {
        let limits = limits ?? defaults.limits
        let keysMax = keysMax ?? defaults.keysMax
        try check(name: name)
        try check(limits)
        guard (0...Self.keysMaxMax).contains(keysMax) else {
            throw OperatorFailure(.invalid, "The cap on keys must be from 0 to \(Self.keysMaxMax).")
        }
        if let openingCredit, openingCredit <= .zero {
            throw OperatorFailure(.invalid, "The opening credit must be more than 0.")
        }
        let reply = try await run(
            StoreScripts.orgCredit, id,
            [
                now, openingCredit.map { .integer($0.nanodollars) } ?? "", .string(LedgerModel.openingReference), "1",
                .string(name),
            ] + Self.arguments(limits) + [.integer(Int64(keysMax))])
        let code = reply.array?.first?.string
        if code == "ok" || code == "exists" {
            // Also where it exists: an earlier call may have ended before it came to the index.
            _ = try await command("SADD", .string(StoreKeys.orgs), .string(id.rawValue))
        }
        switch code {
        case "ok": return try await org(id)
        case "exists": throw OperatorFailure(.alreadyExists, "There is an org '\(id)' already.")
        case "reused": throw OperatorFailure(.alreadyExists, "The org '\(id)' had an opening credit before.")
        default: throw outOfBounds
        }
    }

    /// Sorted by id.
    package func orgs() async throws(OperatorFailure) -> [OrgSummary] {
        let ids = try await command("SMEMBERS", .string(StoreKeys.orgs)).array?.compactMap(\.string) ?? []
        var summaries: [OrgSummary] = []
        for id in ids.sorted() {
            let id = OrgID(unchecked: id)
            if let summary = try await read(id)?.summary(id) { summaries.append(summary) }
        }
        return summaries
    }

    /// - Throws: `notFound`, `storeUnavailable`.
    package func org(_ id: OrgID) async throws(OperatorFailure) -> OrgSummary {
        guard let record = try await read(id) else { throw Self.unknown(id) }
        guard let summary = record.summary(id) else { throw Self.malformed }
        return summary
    }

    /// Adds money once for each reference: the same reference and amount again answers the first entry.
    ///
    /// - Throws: `notFound`, `referenceReused`, `invalid`, `storeUnavailable`.
    package func creditOrg(
        _ id: OrgID, amount: NanoUSD, reference: String
    ) async throws(OperatorFailure) -> (entry: LedgerEntry, isRepeat: Bool) {
        guard amount > .zero else { throw OperatorFailure(.invalid, "The amount must be more than 0.") }
        try check(reference: reference)
        let reply = try await run(
            StoreScripts.orgCredit, id, [now, .integer(amount.nanodollars), .string(reference), ""])
        let parts = reply.array?.map { $0.string ?? "" } ?? []
        switch parts.first {
        case "ok":
            guard parts.count == 4, let at = Int64(parts[2]) else { throw Self.malformed }
            let entry = LedgerEntry(
                id: parts[1], kind: .credit, amount: amount, requestID: nil, key: nil, model: nil, usage: .zero,
                isEstimated: false, priceVersion: nil, reference: reference, at: WallTime(milliseconds: at))
            return (entry, parts[3] == "1")
        case "unknown": throw Self.unknown(id)
        case "reused":
            throw OperatorFailure(
                .referenceReused, "The reference '\(reference)' was used before with another amount. Use a new one.")
        default: throw outOfBounds
        }
    }

    /// - Throws: `notFound`, `invalid`, `limitReached` where running requests need the credit, `storeUnavailable`.
    package func updateOrg(
        _ id: OrgID, name: String?, creditLimit: NanoUSD?, limits: LimitsUpdate
    ) async throws(OperatorFailure) -> OrgSummary {
        if let name { try check(name: name) }
        try check(limits)
        if let creditLimit, creditLimit < .zero {
            throw OperatorFailure(.invalid, "The credit limit must not be negative.")
        }
        try await update(
            id,
            [.string(name ?? ""), creditLimit.map { .integer($0.nanodollars) } ?? "", ""] + Self.arguments(limits))
        return try await org(id)
    }

    /// - Throws: `notFound`, `invalid` for `revoked`, which orgs cannot be, `storeUnavailable`.
    package func setOrgStatus(_ id: OrgID, _ status: AccountStatus) async throws(OperatorFailure) -> OrgSummary {
        guard status != .revoked else { throw OperatorFailure(.invalid, "An org is active or suspended.") }
        try await update(id, ["", "", .string(status.rawValue), "", "", ""])
        // What gateways have cached of the org's keys says whether it is suspended.
        _ = try await command("INCR", .string(StoreKeys.authVersion))
        return try await org(id)
    }

    private func update(_ id: OrgID, _ arguments: [RESPArgument]) async throws(OperatorFailure) {
        switch try await run(StoreScripts.orgUpdate, id, arguments).string {
        case "ok": return
        case "unknown": throw Self.unknown(id)
        case "lent":
            throw OperatorFailure(
                .limitReached,
                "Running requests of '\(id)' need the credit limit it has. Lower it when they have ended.")
        default: throw outOfBounds
        }
    }

    // MARK: What the other files share

    var now: RESPArgument { clock.map { .integer($0()) } ?? "" }

    func read(_ id: OrgID, keys: Bool = false, newestOf month: String = "") async throws(OperatorFailure) -> OrgRecord?
    {
        let reply = try await run(StoreScripts.orgRead, id, [keys ? "keys" : "", .string(month)])
        if reply.isNull { return nil }
        guard let record = OrgRecord(reply) else { throw Self.malformed }
        return record
    }

    func run(
        _ script: RedisScript, _ org: OrgID, _ arguments: [RESPArgument]
    ) async throws(OperatorFailure) -> RESPValue {
        do throws(RedisError) {
            return try await session.evaluate(script, keys: [.string(StoreKeys.account(org))], args: arguments)
        } catch {
            throw Self.unavailable(error)
        }
    }

    func command(_ arguments: RESPArgument...) async throws(OperatorFailure) -> RESPValue {
        do throws(RedisError) {
            return try await session.command(arguments)
        } catch {
            throw Self.unavailable(error)
        }
    }

    func check(name: String) throws(OperatorFailure) {
        guard (1...Self.nameBytesMax).contains(name.utf8.count), Self.isPrintable(name) else {
            throw OperatorFailure(
                .invalid, "A name has 1 to \(Self.nameBytesMax) bytes and no control characters.")
        }
    }

    private func check(reference: String) throws(OperatorFailure) {
        guard (1...Self.referenceBytesMax).contains(reference.utf8.count), Self.isPrintable(reference) else {
            throw OperatorFailure(
                .invalid, "A reference has 1 to \(Self.referenceBytesMax) bytes and no control characters.")
        }
    }

    func check(_ limits: Limits) throws(OperatorFailure) {
        for limit in [limits.requestsPerMinute, limits.tokensPerMinute, limits.concurrency] {
            guard let limit else { continue }
            guard (0...Self.limitMax).contains(limit) else {
                throw OperatorFailure(.invalid, "A limit must be from 0 to \(Self.limitMax).")
            }
        }
    }

    func check(_ limits: LimitsUpdate) throws(OperatorFailure) {
        try check(limits.applied(to: .unlimited))
    }

    private static func isPrintable(_ text: String) -> Bool { text.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F } }

    private var outOfBounds: OperatorFailure {
        OperatorFailure(
            .invalid,
            "Balance and credit limit together must stay below \(NanoUSD(unchecked: NanoUSD.magnitudeMax)) dollars.")
    }

    static func unknown(_ id: OrgID) -> OperatorFailure { OperatorFailure(.notFound, "There is no org '\(id)'.") }

    static let malformed = OperatorFailure(.storeUnavailable, "The store answered with something that was not asked.")

    static func unavailable(_ error: RedisError) -> OperatorFailure {
        OperatorFailure(.storeUnavailable, "The store failed: \(error).")
    }

    /// Empty means unlimited.
    static func arguments(_ limits: Limits) -> [RESPArgument] {
        [limits.requestsPerMinute, limits.tokensPerMinute, limits.concurrency].map {
            $0.map { .integer(Int64($0)) } ?? ""
        }
    }

    /// Empty keeps, `-` takes away.
    static func arguments(_ limits: LimitsUpdate) -> [RESPArgument] {
        [limits.requestsPerMinute, limits.tokensPerMinute, limits.concurrency].map { change -> RESPArgument in
            switch change {
            case .keep: ""
            case .set(let value): .integer(Int64(value))
            case .unlimited: "-"
            }
        }
    }
}

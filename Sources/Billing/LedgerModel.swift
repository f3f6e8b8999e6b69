import Domain

/// What the store does, as code: the specification that `Scripts/*.lua` are held equal to by the Auditor.
///
/// Pure and in memory; time is an argument, as the store's clock in unix milliseconds. Every operation that changes
/// money keeps the invariants of the ledger: the balance is the sum of the entries (I3), money lent never passes
/// balance + credit unless a gateway's floor forced it, which is reported (I1), and a journal's `applied` counts the
/// charges taken from it (I4).
package struct LedgerModel: Sendable {
    /// What one key may do.
    package struct Key: Hashable, Sendable {
        package var status = AccountStatus.active
        package var limits = Limits.unlimited
    }

    /// What one journal has told: the fields `q:S`, `l:S`, `f:S` and `o:S`.
    package struct Journal: Hashable, Sendable {
        package var applied: Int64 = 0
        package var revision: SyncRevision?
        package var lent: Int64 = 0
        package var isFenced = false
        package var open: Int64 = 0
        package var openHolds = 0

        package init() {}
    }

    /// Aggregates are kept by UTC day, key and model.
    package struct AggregateKey: Hashable, Sendable {
        package var day: UTCDate
        package var key: KeyID
        package var model: ModelID

        package init(day: UTCDate, key: KeyID, model: ModelID) {
            self.day = day
            self.key = key
            self.model = model
        }
    }

    package struct Aggregate: Hashable, Sendable {
        package var requests = 0
        package var usage = TokenUsage.zero
        package var cost: Int64 = 0

        package init(requests: Int = 0, usage: TokenUsage = .zero, cost: Int64 = 0) {
            self.requests = requests
            self.usage = usage
            self.cost = cost
        }
    }

    package struct Org: Sendable {
        package var status = AccountStatus.active
        package var limits: Limits
        package var keysMax: Int
        package internal(set) var balance: Int64 = 0
        package internal(set) var credit: Int64 = 0
        /// The latest time that any operation saw: it never goes backwards.
        package internal(set) var now: Int64 = 0
        package internal(set) var keys: [KeyID: Key] = [:]
        package internal(set) var journals: [JournalID: Journal] = [:]
        package internal(set) var entries: [LedgerEntry] = []
        package internal(set) var aggregates: [AggregateKey: Aggregate] = [:]
        var references: [String: LedgerEntry] = [:]
        var windows: [Scope: RateWindow] = [:]
        var slots = Slots()

        /// Lent to all journals.
        package var lent: Int64 { journals.values.reduce(0) { $0 + $1.lent } }

        var second: Int64 { now / 1_000 }

        mutating func append(_ entry: LedgerEntry) {
            var entry = entry
            let sequence = entries.last.map { $0.id.split(separator: "-") } ?? []
            let isSameInstant = sequence.first.map(String.init) == String(now)
            entry.id = "\(now)-\(isSameInstant ? (Int64(sequence[1]) ?? 0) + 1 : 0)"
            entries.append(entry)
            balance += entry.amount.nanodollars
        }
    }

    package private(set) var orgs: [OrgID: Org] = [:]

    package init() {}

    // MARK: What operators do

    /// - Throws: `alreadyExists`; `invalid` where the amount passes the bounds.
    package mutating func createOrg(
        _ id: OrgID, openingCredit: NanoUSD?, limits: Limits, keysMax: Int, now: Int64
    ) throws(OperatorFailure) {
        guard orgs[id] == nil else { throw OperatorFailure(.alreadyExists, "") }
        orgs[id] = Org(limits: limits, keysMax: keysMax, now: now)
        if let openingCredit {
            do throws(OperatorFailure) {
                _ = try topUp(id, amount: openingCredit, reference: Self.openingReference, now: now)
            } catch {
                orgs[id] = nil
                throw error
            }
        }
    }

    /// The reference of the top-up that an org is created with.
    package static let openingReference = "opening"

    /// Adds prepaid money, once for each reference.
    ///
    /// - Returns: The entry, and whether it was there already.
    /// - Throws: `referenceReused` where the reference had another amount; `invalid` where the amount is not positive
    ///   or balance + credit would pass 2^53 - 1.
    package mutating func topUp(
        _ id: OrgID, amount: NanoUSD, reference: String, now: Int64
    ) throws(OperatorFailure) -> (entry: LedgerEntry, isRepeat: Bool) {
        var org = try existing(id)
        if let known = org.references[reference] {
            guard known.amount == amount else { throw OperatorFailure(.referenceReused, "") }
            return (known, true)
        }
        guard amount > .zero, NanoUSD(org.balance + org.credit + amount.nanodollars) != nil,
            NanoUSD(org.balance + amount.nanodollars) != nil
        else { throw OperatorFailure(.invalid, "") }
        org.now = max(org.now, now)
        org.append(
            LedgerEntry(
                id: "", kind: .credit, amount: amount, requestID: nil, key: nil, model: nil, usage: .zero,
                isEstimated: false, priceVersion: nil, reference: reference, at: WallTime(milliseconds: org.now)))
        org.references[reference] = org.entries.last
        orgs[id] = org
        return (org.entries[org.entries.count - 1], false)
    }

    /// - Throws: `invalid` where the limit passes the bounds; `limitReached` where lent money would lose its cover.
    package mutating func setCreditLimit(_ id: OrgID, _ credit: NanoUSD) throws(OperatorFailure) {
        var org = try existing(id)
        guard credit >= .zero, NanoUSD(org.balance + credit.nanodollars) != nil else {
            throw OperatorFailure(.invalid, "")
        }
        guard credit.nanodollars >= org.credit || org.lent <= org.balance + credit.nanodollars else {
            throw OperatorFailure(.limitReached, "")
        }
        org.credit = credit.nanodollars
        orgs[id] = org
    }

    package mutating func setOrgStatus(_ id: OrgID, _ status: AccountStatus) throws(OperatorFailure) {
        _ = try existing(id)
        orgs[id]?.status = status
    }

    package mutating func setLimits(_ id: OrgID, _ limits: Limits) throws(OperatorFailure) {
        _ = try existing(id)
        orgs[id]?.limits = limits
    }

    /// - Throws: `alreadyExists`; `limitReached` at the org's cap of active keys.
    package mutating func createKey(_ key: KeyID, org id: OrgID, limits: Limits) throws(OperatorFailure) {
        let org = try existing(id)
        guard org.keys[key] == nil else { throw OperatorFailure(.alreadyExists, "") }
        guard org.keys.values.count(where: { $0.status == .active }) < org.keysMax else {
            throw OperatorFailure(.limitReached, "")
        }
        orgs[id]?.keys[key] = Key(limits: limits)
    }

    package mutating func setLimits(_ key: KeyID, org id: OrgID, _ limits: Limits) throws(OperatorFailure) {
        guard try existing(id).keys[key] != nil else { throw OperatorFailure(.notFound, "") }
        orgs[id]?.keys[key]?.limits = limits
    }

    package mutating func revokeKey(_ key: KeyID, org id: OrgID) throws(OperatorFailure) {
        guard try existing(id).keys[key] != nil else { throw OperatorFailure(.notFound, "") }
        orgs[id]?.keys[key]?.status = .revoked
    }

    /// Nothing of this journal will ever be lent or booked again; charges that it wrote still apply.
    package mutating func fence(_ journal: JournalID, org id: OrgID) throws(OperatorFailure) {
        _ = try existing(id)
        orgs[id]?.journals[journal, default: Journal()].isFenced = true
    }

    private func existing(_ id: OrgID) throws(OperatorFailure) -> Org {
        guard let org = orgs[id] else { throw OperatorFailure(.notFound, "") }
        return org
    }

    // MARK: What gateways do

    /// SYNC: see the protocol in ledger.md. The one operation that spends.
    ///
    /// - Parameter now: Unix milliseconds of the store's clock.
    package mutating func sync(_ request: SyncRequest, now: Int64) -> SyncAnswer {
        guard var org = orgs[request.org] else {
            return SyncAnswer(
                status: .unknownOrg, applied: 0, lent: .zero, balance: .zero, available: .zero, isOverspent: false,
                now: now, verdicts: [])
        }
        let before = org.entries.count
        let answer = org.sync(request, now: now)
        // A gap, or a late call without a new charge, leaves no trace, not even of the time.
        if answer.status == .ok || org.entries.count > before { orgs[request.org] = org }
        return answer
    }

    /// What a key's rate windows hold at this moment, for answers that never asked to spend. Changes nothing.
    ///
    /// - Parameter now: Unix milliseconds of the store's clock.
    /// - Returns: Unlimited, too, where there is no such key or it is revoked.
    package func rates(of key: KeyID, org id: OrgID, now: Int64) -> RateStatus {
        guard var org = orgs[id] else { return .unlimited }
        return org.readRates(of: key, now: now)
    }
}

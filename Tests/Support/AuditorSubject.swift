import Billing
import Domain

/// A ledger that the Auditor holds against the model. Time is an argument: the store's clock in unix milliseconds.
package protocol AuditorSubject {
    mutating func createOrg(_ id: OrgID, opening: NanoUSD?, limits: Limits, keysMax: Int, now: Int64) async throws
    mutating func topUp(
        _ id: OrgID, amount: NanoUSD, reference: String, now: Int64
    ) async throws -> (entry: LedgerEntry, isRepeat: Bool)
    mutating func setCreditLimit(_ id: OrgID, _ credit: NanoUSD) async throws
    mutating func setOrgStatus(_ id: OrgID, _ status: AccountStatus) async throws
    mutating func setLimits(_ id: OrgID, _ limits: Limits) async throws
    /// The subject chooses the key's id.
    mutating func createKey(org: OrgID, limits: Limits) async throws -> KeyID
    mutating func setLimits(_ key: KeyID, org: OrgID, _ limits: Limits) async throws
    mutating func revokeKey(_ key: KeyID, org: OrgID) async throws
    mutating func fence(_ journal: JournalID, org: OrgID) async throws
    mutating func sync(_ request: SyncRequest, now: Int64) async throws -> SyncAnswer
    mutating func rates(of key: KeyID, org: OrgID, now: Int64) async throws -> RateStatus
    mutating func state(_ id: OrgID) async throws -> AuditorState
}

/// All that an org's ledger holds, in one comparable value.
package struct AuditorState: Equatable {
    package var balance: Int64
    package var credit: Int64
    package var lent: Int64
    package var journals: [JournalID: LedgerModel.Journal]
    package var entries: [LedgerEntry]
    package var aggregates: [LedgerModel.AggregateKey: LedgerModel.Aggregate]

    package init(
        balance: Int64, credit: Int64, lent: Int64, journals: [JournalID: LedgerModel.Journal],
        entries: [LedgerEntry], aggregates: [LedgerModel.AggregateKey: LedgerModel.Aggregate]
    ) {
        self.balance = balance
        self.credit = credit
        self.lent = lent
        self.journals = journals
        self.entries = entries
        self.aggregates = aggregates
    }

    package init(_ org: LedgerModel.Org) {
        self.init(
            balance: org.balance, credit: org.credit, lent: org.lent, journals: org.journals, entries: org.entries,
            aggregates: org.aggregates)
    }

    /// What differs from `other`, in few words; nil where nothing does.
    package func difference(from other: AuditorState) -> String? {
        if balance != other.balance { return "balance \(balance) against \(other.balance)" }
        if credit != other.credit { return "credit \(credit) against \(other.credit)" }
        if lent != other.lent { return "lent \(lent) against \(other.lent)" }
        if journals != other.journals { return "journals \(journals) against \(other.journals)" }
        if aggregates != other.aggregates { return "aggregates \(aggregates) against \(other.aggregates)" }
        if entries.count != other.entries.count { return "\(entries.count) entries against \(other.entries.count)" }
        for (mine, theirs) in zip(entries, other.entries) where mine != theirs { return "\(mine) against \(theirs)" }
        return nil
    }
}

/// The model as its own subject: what remains are the invariants.
package struct ModelSubject: AuditorSubject {
    private var model = LedgerModel()
    private var keys = 0

    package init() {}

    package mutating func createOrg(_ id: OrgID, opening: NanoUSD?, limits: Limits, keysMax: Int, now: Int64) throws {
        try model.createOrg(id, openingCredit: opening, limits: limits, keysMax: keysMax, now: now)
    }
    package mutating func topUp(
        _ id: OrgID, amount: NanoUSD, reference: String, now: Int64
    ) throws -> (entry: LedgerEntry, isRepeat: Bool) {
        try model.topUp(id, amount: amount, reference: reference, now: now)
    }
    package mutating func setCreditLimit(_ id: OrgID, _ credit: NanoUSD) throws { try model.setCreditLimit(id, credit) }
    package mutating func setOrgStatus(_ id: OrgID, _ status: AccountStatus) throws {
        try model.setOrgStatus(id, status)
    }
    package mutating func setLimits(_ id: OrgID, _ limits: Limits) throws { try model.setLimits(id, limits) }
    package mutating func createKey(org: OrgID, limits: Limits) throws -> KeyID {
        keys += 1
        let id = KeyID(unchecked: "key\(keys)")
        try model.createKey(id, org: org, limits: limits)
        return id
    }
    package mutating func setLimits(_ key: KeyID, org: OrgID, _ limits: Limits) throws {
        try model.setLimits(key, org: org, limits)
    }
    package mutating func revokeKey(_ key: KeyID, org: OrgID) throws { try model.revokeKey(key, org: org) }
    package mutating func fence(_ journal: JournalID, org: OrgID) throws { try model.fence(journal, org: org) }
    package mutating func sync(_ request: SyncRequest, now: Int64) -> SyncAnswer { model.sync(request, now: now) }
    package mutating func rates(of key: KeyID, org: OrgID, now: Int64) -> RateStatus {
        model.rates(of: key, org: org, now: now)
    }
    package mutating func state(_ id: OrgID) throws -> AuditorState {
        guard let org = model.orgs[id] else { throw OperatorFailure(.notFound, "") }
        return AuditorState(org)
    }
}

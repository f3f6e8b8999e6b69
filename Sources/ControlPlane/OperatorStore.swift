import Billing
import Domain
import Gateway

/// What the control plane asks of the store: orgs, keys, prices, ledger and usage as operators change and read them.
///
/// Every method throws ``OperatorFailure`` and nothing else. A mutation that returns is durable.
package protocol OperatorStore: Sendable {
    /// - Parameters:
    ///   - openingCredit: Becomes the ledger's first entry; nil for none.
    ///   - limits: nil takes the configuration's `org_defaults`.
    func createOrg(
        id: OrgID, name: String, openingCredit: NanoUSD?, limits: Limits?, keysMax: Int?
    ) async throws(OperatorFailure) -> OrgSummary
    func orgs() async throws(OperatorFailure) -> [OrgSummary]
    func org(_ id: OrgID) async throws(OperatorFailure) -> OrgSummary
    /// Adds money once per reference: the same reference and amount again answers the first entry and `isRepeat`.
    func creditOrg(
        _ id: OrgID, amount: NanoUSD, reference: String
    ) async throws(OperatorFailure) -> (entry: LedgerEntry, isRepeat: Bool)
    func updateOrg(
        _ id: OrgID, name: String?, creditLimit: NanoUSD?, limits: LimitsUpdate
    ) async throws(OperatorFailure) -> OrgSummary
    func setOrgStatus(_ id: OrgID, _ status: AccountStatus) async throws(OperatorFailure) -> OrgSummary

    /// - Parameter models: All that it may use; nil for every model.
    /// - Returns: The key and its secret, which nobody can read again.
    func createKey(
        org: OrgID, name: String, limits: Limits, models: Set<ModelID>?
    ) async throws(OperatorFailure) -> (summary: KeySummary, secret: String)
    func keys(org: OrgID) async throws(OperatorFailure) -> [KeySummary]
    func key(_ id: KeyID) async throws(OperatorFailure) -> KeySummary
    func updateKey(
        _ id: KeyID, name: String?, limits: LimitsUpdate, models: Change<Set<ModelID>>
    ) async throws(OperatorFailure) -> KeySummary
    func revokeKey(_ id: KeyID) async throws(OperatorFailure) -> KeySummary

    /// Where the requests of an org or a key must stay; nil is anywhere.
    func setRegion(_ region: String?, of id: OrgID) async throws(OperatorFailure) -> OrgSummary
    func setRegion(_ region: String?, of id: KeyID) async throws(OperatorFailure) -> KeySummary

    func prices() async throws(OperatorFailure) -> [PriceEntry]
    /// Rates in nano-dollars per million tokens.
    func setPrice(
        model: ModelID, input: Int64, cachedInput: Int64, output: Int64
    ) async throws(OperatorFailure) -> PriceEntry

    /// Oldest first; at most `limit` of those after the entry `after`.
    func ledger(org: OrgID, limit: Int?, after: String?) async throws(OperatorFailure) -> [LedgerEntry]
    func verifyLedger(org: OrgID) async throws(OperatorFailure) -> LedgerVerification
    /// Both days included.
    func usage(
        org: OrgID, from: UTCDate, to: UTCDate, by: UsageRow.Grouping?
    ) async throws(OperatorFailure) -> [UsageRow]
}

extension RedisOperatorStore: OperatorStore {}

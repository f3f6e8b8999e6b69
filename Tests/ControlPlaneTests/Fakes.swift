import Billing
import Domain
import Gateway
import Synchronization

@testable import ControlPlane

/// An operator store in memory: small, honest, and able to fail on demand.
final class FakeOperatorStore: OperatorStore {
    struct State {
        var orgs: [OrgID: OrgSummary] = [:]
        var keys: [KeyID: KeySummary] = [:]
        var prices: [ModelID: PriceEntry] = [:]
        var entries: [OrgID: [LedgerEntry]] = [:]
        var usage: [UsageRow] = []
        var usageAsked: [String] = []
        /// Thrown by every method while set.
        var failure: OperatorFailure?
        var drift: Int64 = 0
    }

    static let secret = "sk-tg-4fT9kQ2mXa7B-verysecretverysecret"
    static let time = WallTime(milliseconds: 1_795_000_000_000)

    let state = Mutex(State())

    private func access<Value>(_ body: (inout State) throws(OperatorFailure) -> Value) throws(OperatorFailure) -> Value
    {
        let result: Result<Value, OperatorFailure> = state.withLock { state in
            if let failure = state.failure { return .failure(failure) }
            do throws(OperatorFailure) {
                return .success(try body(&state))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    func createOrg(
        id: OrgID, name: String, openingCredit: NanoUSD?, limits: Limits?, keysMax: Int?
    ) async throws(OperatorFailure) -> OrgSummary {
        try access { state throws(OperatorFailure) in
            guard state.orgs[id] == nil else { throw OperatorFailure(.alreadyExists, "The org '\(id)' exists.") }
            let balance = openingCredit ?? .zero
            state.orgs[id] = OrgSummary(
                id: id, name: name, status: .active, balance: balance, creditLimit: .zero, reserved: .zero,
                openReservations: 0, leased: .zero, available: balance, limits: limits ?? .unlimited,
                keysMax: keysMax ?? 100, createdAt: Self.time)
            if let openingCredit { append(.credit, openingCredit, "opening", to: id, in: &state) }
            return try Self.org(id, in: state)
        }
    }

    func orgs() async throws(OperatorFailure) -> [OrgSummary] {
        try access { state throws(OperatorFailure) in state.orgs.values.sorted { $0.id < $1.id } }
    }

    func org(_ id: OrgID) async throws(OperatorFailure) -> OrgSummary {
        try access { state throws(OperatorFailure) in try Self.org(id, in: state) }
    }

    func creditOrg(
        _ id: OrgID, amount: NanoUSD, reference: String
    ) async throws(OperatorFailure) -> (entry: LedgerEntry, isRepeat: Bool) {
        try access { state throws(OperatorFailure) in
            let org = try Self.org(id, in: state)
            if let before = state.entries[id]?.first(where: { $0.reference == reference }) {
                guard before.amount == amount else {
                    throw OperatorFailure(.referenceReused, "'\(reference)' was \(before.amount).")
                }
                return (before, true)
            }
            state.orgs[id]?.balance = NanoUSD(unchecked: org.balance.nanodollars + amount.nanodollars)
            return (append(.credit, amount, reference, to: id, in: &state), false)
        }
    }

    func updateOrg(
        _ id: OrgID, name: String?, creditLimit: NanoUSD?, limits: LimitsUpdate
    ) async throws(OperatorFailure) -> OrgSummary {
        try access { state throws(OperatorFailure) in
            var org = try Self.org(id, in: state)
            org.name = name ?? org.name
            org.creditLimit = creditLimit ?? org.creditLimit
            org.limits = limits.applied(to: org.limits)
            state.orgs[id] = org
            return org
        }
    }

    func setOrgStatus(_ id: OrgID, _ status: AccountStatus) async throws(OperatorFailure) -> OrgSummary {
        try access { state throws(OperatorFailure) in
            _ = try Self.org(id, in: state)
            state.orgs[id]?.status = status
            return try Self.org(id, in: state)
        }
    }

    func createKey(
        org: OrgID, name: String, limits: Limits, models: Set<ModelID>?
    ) async throws(OperatorFailure) -> (summary: KeySummary, secret: String) {
        try access { state throws(OperatorFailure) in
            let owner = try Self.org(org, in: state)
            guard state.keys.count < owner.keysMax else { throw OperatorFailure(.limitReached, "Too many keys.") }
            let key = KeySummary(
                id: KeyID(unchecked: "4fT9kQ2mXa7\(state.keys.count)"), org: org, name: name, lastFour: "cret",
                status: .active, limits: limits, models: models, createdAt: Self.time)
            state.keys[key.id] = key
            return (key, Self.secret)
        }
    }

    func keys(org: OrgID) async throws(OperatorFailure) -> [KeySummary] {
        try access { state throws(OperatorFailure) in
            state.keys.values.filter { $0.org == org }.sorted { $0.id < $1.id }
        }
    }

    func key(_ id: KeyID) async throws(OperatorFailure) -> KeySummary {
        try access { state throws(OperatorFailure) in try Self.key(id, in: state) }
    }

    func updateKey(
        _ id: KeyID, name: String?, limits: LimitsUpdate, models: Change<Set<ModelID>>
    ) async throws(OperatorFailure) -> KeySummary {
        try access { state throws(OperatorFailure) in
            var key = try Self.key(id, in: state)
            key.name = name ?? key.name
            key.limits = limits.applied(to: key.limits)
            key.models = models.applied(to: key.models)
            state.keys[id] = key
            return key
        }
    }

    func revokeKey(_ id: KeyID) async throws(OperatorFailure) -> KeySummary {
        try access { state throws(OperatorFailure) in
            _ = try Self.key(id, in: state)
            state.keys[id]?.status = .revoked
            return try Self.key(id, in: state)
        }
    }

    func setRegion(_ region: String?, of id: OrgID) async throws(OperatorFailure) -> OrgSummary {
        try access { state throws(OperatorFailure) in
            _ = try Self.org(id, in: state)
            state.orgs[id]?.region = region
            return try Self.org(id, in: state)
        }
    }

    func setRegion(_ region: String?, of id: KeyID) async throws(OperatorFailure) -> KeySummary {
        try access { state throws(OperatorFailure) in
            _ = try Self.key(id, in: state)
            state.keys[id]?.region = region
            return try Self.key(id, in: state)
        }
    }

    func prices() async throws(OperatorFailure) -> [PriceEntry] {
        try access { state throws(OperatorFailure) in state.prices.values.sorted { $0.model < $1.model } }
    }

    func setPrice(
        model: ModelID, input: Int64, cachedInput: Int64, output: Int64
    ) async throws(OperatorFailure) -> PriceEntry {
        try access { state throws(OperatorFailure) in
            let entry = PriceEntry(
                model: model,
                price: Domain.Price(
                    version: (state.prices[model]?.price.version ?? 0) + 1, input: input, cachedInput: cachedInput,
                    output: output),
                at: Self.time)
            state.prices[model] = entry
            return entry
        }
    }

    func ledger(org: OrgID, limit: Int?, after: String?) async throws(OperatorFailure) -> [LedgerEntry] {
        try access { state throws(OperatorFailure) in
            _ = try Self.org(org, in: state)
            let entries = state.entries[org] ?? []
            let start = after.flatMap { id in entries.firstIndex { $0.id == id }.map { $0 + 1 } } ?? 0
            return Array(entries[start...].prefix(limit ?? .max))
        }
    }

    func verifyLedger(org: OrgID) async throws(OperatorFailure) -> LedgerVerification {
        try access { state throws(OperatorFailure) in
            _ = try Self.org(org, in: state)
            return LedgerVerification(
                entries: state.entries[org]?.count ?? 0, drift: state.drift, openReservations: 2)
        }
    }

    func usage(
        org: OrgID, from: UTCDate, to: UTCDate, by: UsageRow.Grouping?
    ) async throws(OperatorFailure) -> [UsageRow] {
        try access { state throws(OperatorFailure) in
            _ = try Self.org(org, in: state)
            state.usageAsked.append("\(from) \(to) \(by?.rawValue ?? "-")")
            return state.usage
        }
    }

    @discardableResult
    func append(
        _ kind: LedgerEntry.Kind, _ amount: NanoUSD, _ reference: String, to org: OrgID, in state: inout State
    ) -> LedgerEntry {
        let entry = LedgerEntry(
            id: "\(Self.time.milliseconds)-\(state.entries[org]?.count ?? 0)", kind: kind, amount: amount,
            requestID: nil, key: nil, model: nil, usage: .zero, isEstimated: false, priceVersion: nil,
            reference: reference, at: Self.time)
        state.entries[org, default: []].append(entry)
        return entry
    }

    private static func org(_ id: OrgID, in state: State) throws(OperatorFailure) -> OrgSummary {
        guard let org = state.orgs[id] else { throw OperatorFailure(.notFound, "There is no org '\(id)'.") }
        return org
    }

    private static func key(_ id: KeyID, in state: State) throws(OperatorFailure) -> KeySummary {
        guard let key = state.keys[id] else { throw OperatorFailure(.notFound, "There is no key '\(id)'.") }
        return key
    }
}

/// A gateway of two nodes at two sites, of 2026-11-22 for ever.
final class FakeGateway: GatewayControl {
    private struct State {
        var cordoned: Set<NodeID> = []
        var draining: [NodeID: Duration] = [:]
        var curtailed: [SiteID: Curtailment] = [:]
    }

    static let now = WallTime(milliseconds: 1_795_000_000_000)

    private let state = Mutex(State())
    let reason = Mutex<String?>(nil)

    func nodes() async -> [NodeStatus] {
        let state = state.withLock { $0 }
        return ["austin-01", "berlin/01"].map { name in
            let id = NodeID(unchecked: name)
            return NodeStatus(
                id: id, site: SiteID(unchecked: String(name.prefix(6))), engine: .vllm,
                models: [ModelID(unchecked: "llama-3.1-8b")],
                state: state.draining[id] != nil ? .draining : state.cordoned.contains(id) ? .cordoned : .ready,
                inflightRequests: 3, inflightTokens: 1_200, prefillTokensPerSecond: name == "austin-01" ? 8_000.5 : nil,
                firstTokenSeconds: .nan)
        }
    }

    func detail(of node: NodeID) async -> NodeDetail? {
        guard let status = await nodes().first(where: { $0.id == node }) else { return nil }
        var detail = NodeDetail(status: status)
        detail.url = "http://10.0.0.5:8000"
        detail.upstreamNames = [ModelID(unchecked: "llama-3.1-8b"): "meta-llama/Llama-3.1-8B-Instruct"]
        detail.decodeStep = .infinity
        detail.report.state = .distrusted
        detail.report.distrust = "implausible"
        detail.report.reason = "its numbers are nonsense"
        let state = state.withLock { $0 }
        detail.drainEndsAt = state.draining[node].map {
            WallTime(milliseconds: Self.now.milliseconds + $0.milliseconds)
        }
        return detail
    }

    func sites() async -> [SiteStatus] {
        let curtailed = state.withLock { $0.curtailed }
        return ["austin", "berlin"].map { name in
            let id = SiteID(unchecked: name)
            return SiteStatus(
                id: id, region: nil, curtailment: curtailed[id],
                permille: curtailed[id]?.permille(at: Self.now) ?? 1_000,
                hasBegun: curtailed[id].map { $0.startsAt <= Self.now } ?? false, rttConfigured: 0.012,
                rttMeasured: 0.0105, nodes: 1, nodesServing: 1, inflightRequests: 3, inflightTokens: 1_200)
        }
    }

    func say(_ word: OperatorWord, of node: NodeID) async throws {
        guard await nodes().contains(where: { $0.id == node }) else {
            throw OperatorFailure(.notFound, "There is no node '\(node)'.")
        }
        state.withLock { state in
            state.cordoned.remove(node)
            state.draining[node] = nil
            switch word {
            case .cordon: state.cordoned.insert(node)
            case .drain(_, let deadline): state.draining[node] = deadline
            default: break
            }
        }
    }

    func regions() async -> [String] { ["eu", "us-tx"] }

    func say(_ word: OperatorWord, of site: SiteID) async throws {
        guard await sites().contains(where: { $0.id == site }) else {
            throw OperatorFailure(.notFound, "There is no site '\(site)'.")
        }
        state.withLock { state in
            guard case .curtail(_, let permille, let start, let time) = word else {
                state.curtailed[site] = nil
                return
            }
            let startsAt = WallTime(milliseconds: Self.now.milliseconds + start.milliseconds)
            state.curtailed[site] = Curtailment(
                permille: permille, startsAt: startsAt,
                endsAt: time.map { WallTime(milliseconds: startsAt.milliseconds + $0.milliseconds) })
        }
    }

    func admit(_ proposal: NodeProposal, origin: NodeOrigin) async throws -> NodeAdmission {
        guard proposal.id.rawValue != "austin-01" else { throw OperatorFailure(.alreadyExists, "It is there.") }
        return NodeAdmission(id: proposal.id, origin: origin, isNew: true, heartbeat: proposal.heartbeat)
    }

    func remove(_ node: NodeID) async throws {
        guard node.rawValue == "late" else { throw OperatorFailure(.notFound, "There is no node '\(node)'.") }
    }

    func modelNames() async -> [String: ModelID] {
        let llama = ModelID(unchecked: "llama-3.1-8b")
        return ["llama-3.1-8b": llama, "gpt-4o-mini": llama, "bge": ModelID(unchecked: "bge")]
    }

    func metricsText() async -> String { "tollgate_up 1\n" }

    func unreadiness() async -> String? { reason.withLock { $0 } }
}

import Billing
import Domain

/// Drives the ledger's model and a subject with the same seeded random operations, and compares every answer and every
/// sum; after each operation it checks the invariants of the ledger itself.
///
/// The operations are those of several gateways that keep the protocol (charges, releases, admissions, restarts), of a
/// network that loses answers, repeats calls and delivers them late, of operators (top-ups, limits, revocations), and
/// of calls that break the protocol (gaps). Time passes, stands, jumps past every window and goes backwards.
package struct Auditor<Subject: AuditorSubject> {
    /// What was found, with all that it takes to see it again.
    package struct Finding: Error, CustomStringConvertible {
        package let seed: UInt64
        package let step: Int
        package let text: String
        package var description: String { "seed \(seed), step \(step): \(text)" }
    }

    /// How often what happened: a run that never saw a refusal proves nothing about it.
    package private(set) var seen: [String: Int] = [:]
    package private(set) var model = LedgerModel()
    package private(set) var subject: Subject

    private let seed: UInt64
    private var random: SplitMix64
    private var step = 0
    private var now: Int64
    private var orgs: [OrgID] = []
    private var keys: [OrgID: [KeyID]] = [:]
    private var gateways: [AuditorGateway] = []
    private var late: [SyncRequest] = []
    private var references: [OrgID: [String]] = [:]
    private var journals = 0
    private let models = ["llama", "qwen", "bge/m3"].map { ModelID(unchecked: $0) }

    /// - Parameter start: Unix milliseconds. A minute before a month's end by default, so that months change.
    package init(subject: Subject, seed: UInt64, start: Int64 = 1_790_812_740_000) {
        self.subject = subject
        self.seed = seed
        random = SplitMix64(seed: seed)
        now = start
    }

    /// - Throws: ``Finding``, or what the subject throws that the model does not.
    package mutating func run(orgs count: Int, gatewaysPerOrg: Int, steps: Int, compareEvery: Int = 10) async throws {
        for index in 0..<count {
            let org = OrgID(unchecked: "org-\(seed)-\(index)")
            orgs.append(org)
            try await createOrg(org)
            for _ in 0..<3 { try await createKey(org) }
            for _ in 0..<gatewaysPerOrg { gateways.append(AuditorGateway(org: org, journal: newJournal())) }
        }
        for index in 0..<steps {
            step = index
            pass()
            try await operate()
            try checkInvariants()
            if index % compareEvery == 0 { try await compareStates() }
        }
        try await compareStates()
    }

    // MARK: Operations

    private mutating func operate() async throws {
        let org = orgs[random.int(0...(orgs.count - 1))]
        switch random.int(1...100) {
        case 1...70: try await sync(random.int(0...(gateways.count - 1)))
        case 71...76: try await deliverLate()
        case 77...79: try await gap(random.int(0...(gateways.count - 1)))
        case 80...82:
            let index = random.int(0...(gateways.count - 1))
            gateways[index].restarted(models: models, now: now, using: &random)
            seen["restart", default: 0] += 1
        case 83...88: try await topUp(org)
        case 89...90: try await setCredit(org)
        case 91...93: try await changeLimits(org)
        case 94...95: try await createKey(org)
        case 96: if random.chance(70) { try await revokeKey(org) }
        case 97...98:
            let status: AccountStatus = random.chance(10) ? .suspended : .active
            try await same("status", { (model) throws(OperatorFailure) in try model.setOrgStatus(org, status) }) {
                try await $0.setOrgStatus(org, status)
            }
        case 99:
            if random.chance(20) { try await fence(random.int(0...(gateways.count - 1))) }
        default: try await createOrg(org)
        }
    }

    private mutating func sync(_ index: Int) async throws {
        let org = gateways[index].org
        let known = (keys[org] ?? []) + (random.chance(3) ? [KeyID(unchecked: "unknown")] : [])
        let request = gateways[index].nextRequest(keys: known, models: models, now: now, using: &random)
        if random.chance(6) {
            // It will execute when its successor has, or never.
            late.append(request)
            if late.count > 8 { late.removeFirst() }
            return
        }
        let answer = try await sync(request)
        if random.chance(10) {
            seen["answer lost", default: 0] += 1
        } else {
            gateways[index].received(answer, to: request)
            if answer.status == .fenced { gateways[index].replaced(by: newJournal()) }
        }
        if random.chance(8) { _ = try await sync(request) }
        if random.chance(10), let key = known.randomElement(using: &random) { try await readRates(of: key, org) }
    }

    private mutating func readRates(of key: KeyID, _ org: OrgID) async throws {
        let expected = model.rates(of: key, org: org, now: now)
        let rates = try await subject.rates(of: key, org: org, now: now)
        guard rates == expected else { throw finding("rates of \(key) are \(rates) instead of \(expected)") }
        seen[rates == .unlimited ? "unlimited rates" : "rates", default: 0] += 1
    }

    private mutating func deliverLate() async throws {
        guard !late.isEmpty else { return }
        _ = try await sync(late.remove(at: random.int(0...(late.count - 1))))
    }

    private mutating func gap(_ index: Int) async throws {
        var copy = gateways[index]
        var request = copy.nextRequest(keys: keys[copy.org] ?? [], models: models, now: now, using: &random)
        // Further than any answer that was lost can explain.
        let missing = Int64(random.int(1_000...1_003))
        request.first += missing
        for place in request.charges.indices { request.charges[place].sequence += missing }
        _ = try await sync(request)
    }

    private mutating func sync(_ request: SyncRequest) async throws -> SyncAnswer {
        let expected = model.sync(request, now: now)
        let answer = try await subject.sync(request, now: now)
        guard answer == expected else {
            throw finding("SYNC answered \(answer)\n  instead of \(expected)\n  to \(request)")
        }
        seen["\(answer.status)", default: 0] += 1
        if answer.isOverspent { throw finding("overspent, though no gateway broke a rule") }
        for verdict in answer.verdicts { seen[Self.name(verdict.outcome), default: 0] += 1 }
        return answer
    }

    private mutating func createOrg(_ id: OrgID) async throws {
        let opening = random.chance(80) ? NanoUSD(unchecked: Int64(random.int(1...20_000_000_000))) : nil
        let limits = someLimits()
        let now = now
        try await same(
            "org",
            { (model) throws(OperatorFailure) in
                try model.createOrg(id, openingCredit: opening, limits: limits, keysMax: 6, now: now)
            }
        ) {
            try await $0.createOrg(id, opening: opening, limits: limits, keysMax: 6, now: now)
        }
    }

    private mutating func topUp(_ id: OrgID) async throws {
        let isRepeat = random.chance(25)
        let reference = (isRepeat ? references[id]?.randomElement(using: &random) : nil) ?? "top up #\(step)"
        references[id, default: []].append(reference)
        // Few amounts, so that a repeated reference meets the same one now and then; and one past every bound.
        let amount = NanoUSD(
            unchecked: random.chance(3) ? NanoUSD.magnitudeMax : Int64(random.int(1...3)) * 2_500_000_000)
        let now = now
        let result = try await same(
            "top-up",
            { (model) throws(OperatorFailure) in
                try model.topUp(id, amount: amount, reference: reference, now: now)
            }
        ) {
            try await $0.topUp(id, amount: amount, reference: reference, now: now)
        }
        guard let (expected, found) = result else { return }
        guard expected.entry == found.entry, expected.isRepeat == found.isRepeat else {
            throw finding("the top-up answered \(found) instead of \(expected)")
        }
        if found.isRepeat { seen["top-up repeated", default: 0] += 1 }
    }

    private mutating func setCredit(_ id: OrgID) async throws {
        let credit = NanoUSD(unchecked: Int64(random.int(0...4)) * 1_000_000_000)
        try await same("credit", { (model) throws(OperatorFailure) in try model.setCreditLimit(id, credit) }) {
            try await $0.setCreditLimit(id, credit)
        }
    }

    private mutating func changeLimits(_ id: OrgID) async throws {
        let limits = someLimits()
        if random.chance(50), let key = keys[id]?.randomElement(using: &random) {
            try await same("limits", { (model) throws(OperatorFailure) in try model.setLimits(key, org: id, limits) }) {
                try await $0.setLimits(key, org: id, limits)
            }
        } else {
            try await same("limits", { (model) throws(OperatorFailure) in try model.setLimits(id, limits) }) {
                try await $0.setLimits(id, limits)
            }
        }
    }

    private mutating func createKey(_ id: OrgID) async throws {
        let limits = random.chance(50) ? Limits.unlimited : someLimits()
        let found: Result<KeyID, OperatorFailure>
        do {
            found = .success(try await subject.createKey(org: id, limits: limits))
        } catch let failure as OperatorFailure {
            found = .failure(failure)
        }
        let key = (try? found.get()) ?? KeyID(unchecked: "refused")
        do throws(OperatorFailure) {
            try model.createKey(key, org: id, limits: limits)
            guard case .success = found else { throw OperatorFailure(.invalid, "the subject refused: \(found)") }
            keys[id, default: []].append(key)
        } catch {
            guard case .failure(let failure) = found, failure.code == error.code else {
                throw finding("key: \(found) against \(error)")
            }
            seen["key: \(error.code)", default: 0] += 1
        }
    }

    private mutating func revokeKey(_ id: OrgID) async throws {
        guard let key = keys[id]?.randomElement(using: &random) else { return }
        try await same("revoke", { (model) throws(OperatorFailure) in try model.revokeKey(key, org: id) }) {
            try await $0.revokeKey(key, org: id)
        }
        // Some clients go on using it.
        if random.chance(70) { keys[id]?.removeAll { $0 == key } }
    }

    private mutating func fence(_ index: Int) async throws {
        let journal = gateways[index].journal
        let org = gateways[index].org
        try await same("fence", { (model) throws(OperatorFailure) in try model.fence(journal, org: org) }) {
            try await $0.fence(journal, org: org)
        }
    }

    /// Both do it, or both refuse for the same reason.
    @discardableResult
    private mutating func same<Value>(
        _ name: String, _ expected: (inout LedgerModel) throws(OperatorFailure) -> Value,
        _ actual: (inout Subject) async throws -> Value
    ) async throws -> (expected: Value, found: Value)? {
        let wanted: Result<Value, OperatorFailure>
        do throws(OperatorFailure) {
            wanted = .success(try expected(&model))
        } catch {
            wanted = .failure(error)
        }
        do {
            let found = try await actual(&subject)
            guard case .success(let value) = wanted else { throw finding("\(name) worked instead of \(wanted)") }
            seen[name, default: 0] += 1
            return (value, found)
        } catch let failure as OperatorFailure {
            guard case .failure(let expected) = wanted, expected.code == failure.code else {
                throw finding("\(name) refused with \(failure) instead of \(wanted)")
            }
            seen["\(name): \(failure.code)", default: 0] += 1
            return nil
        }
    }

    // MARK: Checks

    private mutating func compareStates() async throws {
        for id in orgs {
            guard let org = model.orgs[id] else { continue }
            if let difference = try await subject.state(id).difference(from: AuditorState(org)) {
                throw finding("\(id): \(difference)")
            }
        }
    }

    private func checkInvariants() throws {
        for (id, org) in model.orgs {
            guard org.lent <= org.balance + org.credit else {
                throw finding("I1, \(id): lent \(org.lent) of \(org.balance) + \(org.credit)")
            }
            guard org.balance == org.entries.reduce(0, { $0 + $1.amount.nanodollars }) else {
                throw finding("I3, \(id): balance \(org.balance) is not the sum of the entries")
            }
            let settles = org.entries.count(where: { $0.kind == .settle })
            guard org.journals.values.reduce(0, { $0 + $1.applied }) == Int64(settles) else {
                throw finding("I4, \(id): \(settles) settles, applied \(org.journals.mapValues(\.applied))")
            }
            guard Set(org.entries.compactMap(\.requestID)).count == settles else {
                throw finding("\(id): a request was charged twice")
            }
            // What gateways let in and did not yet tell is covered: nothing can overspend.
            var exposed: Int64 = 0
            for gateway in gateways where gateway.org == id {
                let stored = org.journals[gateway.journal]?.lent ?? 0
                let pending = gateway.unsynced.filter { $0.sequence > (org.journals[gateway.journal]?.applied ?? 0) }
                let running = gateway.open.reduce(0) { $0 + $1.hold.nanodollars }
                let exposure = running + pending.reduce(0) { $0 + $1.amount.nanodollars }
                guard exposure <= stored else { throw finding("I2, \(id): exposed \(exposure), lent \(stored)") }
                exposed += exposure
            }
            guard exposed <= org.balance + org.credit else { throw finding("\(id): \(exposed) exposed without cover") }
        }
    }

    // MARK: Chance

    private mutating func pass() {
        switch random.int(1...100) {
        case 1...60: now += Int64(random.int(0...400))
        case 61...90: now += Int64(random.int(0...4_000))
        case 91...95: now += Int64(random.int(5_000...30_000))
        case 96: now += Int64(random.int(30_000...200_000))
        case 97...98: now -= Int64(random.int(1...3_000))
        default: break
        }
    }

    private mutating func someLimits() -> Limits {
        Limits(
            requestsPerMinute: random.chance(60) ? random.int(0...40) : nil,
            tokensPerMinute: random.chance(60) ? random.int(0...300) * 100 : nil,
            concurrency: random.chance(60) ? random.int(0...12) : nil)
    }

    private mutating func newJournal() -> JournalID {
        journals += 1
        return JournalID("s\(seed)x\(journals)")
    }

    private func finding(_ text: String) -> Finding { Finding(seed: seed, step: step, text: text) }

    private static func name(_ outcome: Verdict.Outcome) -> String {
        switch outcome {
        case .granted: "granted"
        case .refused(.keyInvalid): "keyInvalid"
        case .refused(.orgSuspended): "orgSuspended"
        case .refused(.largerThanLimit): "largerThanLimit"
        case .refused(.requestsPerMinute): "requestsPerMinute"
        case .refused(.tokensPerMinute): "tokensPerMinute"
        case .refused(.concurrency): "concurrency"
        case .refused(.balance(mayComeBack: true)): "balance that may come back"
        case .refused(.balance(mayComeBack: false)): "balance"
        }
    }
}

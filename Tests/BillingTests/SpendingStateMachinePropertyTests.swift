import Domain
import Support
import Testing

@testable import Billing

/// Two gateways and one store over a network that loses, delays, repeats and reorders; gateways crash and restart.
private struct World {
    struct Gateway {
        var machine: SpendingStateMachine
        var id: JournalID
        /// What the journal on disk holds.
        var journal: [Charge] = []
        var holds: [UInt64: (amount: Int64, booking: RateBooking)] = [:]
        var pendingRead: ClosedRange<Int64>?
        var isAnswered = true
    }

    static let org = OrgID(unchecked: "acme")
    static let keys = ["a", "b", "revoked"].map { KeyID(unchecked: $0) }

    var random: SplitMix64
    var store = LedgerModel()
    var gateways: [Gateway]
    var time: Int64 = 1_000_000_000
    var tickets: UInt64 = 0
    /// Tickets that wait for their one decision, by gateway.
    var undecided: [Set<UInt64>] = [[], []]
    /// Calls that the client has given up or sent twice: they execute when they like.
    var strays: [SyncRequest] = []
    /// Outstanding calls.
    var calls: [SyncRequest?] = [nil, nil]
    var settled: [RequestID: Int64] = [:]
    var mayRollBack: Bool
    var snapshot: LedgerModel?
    var overspent = false
    var grants = 0

    init(seed: UInt64, mayRollBack: Bool) throws {
        random = SplitMix64(seed: seed)
        self.mayRollBack = mayRollBack
        gateways = ["0", "1"].map { name in
            let id = JournalID(String(repeating: name, count: 32))
            return Gateway(
                machine: SpendingStateMachine(org: Self.org, journal: id, incarnation: 1, lastSequence: 0), id: id)
        }
        try store.createOrg(
            Self.org, openingCredit: NanoUSD(unchecked: 20_000),
            limits: Limits(requestsPerMinute: 300, tokensPerMinute: 20_000, concurrency: 12), keysMax: 10, now: 0)
        for key in Self.keys { try store.createKey(key, org: Self.org, limits: .unlimited) }
        try store.revokeKey(Self.keys[2], org: Self.org)
    }

    var now: MonotonicTime { MonotonicTime(nanoseconds: time) }
    var model: LedgerModel.Org { store.orgs[Self.org]! }

    mutating func step() throws {
        time += Int64(random.next() % 20_000_000)
        let g = random.below(2)
        switch random.below(14) {
        case 0...3: admit(g)
        case 4, 5: settle(g)
        case 6: release(g)
        case 7: if let ticket = undecided[g].sorted().first, random.chance(30) { abandon(g, ticket) }
        case 8...11: deliver(g)
        case 12: take(g, gateways[g].machine.timePassed(now: now))
        default: try rare(g)
        }
    }

    private mutating func rare(_ g: Int) throws {
        if let index = strays.indices.randomElement(using: &random), random.chance(60) {
            _ = execute(strays.remove(at: index))
        }
        if gateways[g].pendingRead != nil { read(g) }
        if random.chance(4) { crash(g) }
        if random.chance(10) { time += Int64(random.next() % 3_000_000_000) }
        if random.chance(10) {
            _ = try store.topUp(
                Self.org, amount: NanoUSD(unchecked: 2_000), reference: "r\(random.next())", now: time / 1_000_000)
        }
        guard mayRollBack else { return }
        if random.chance(20) { snapshot = store }
        if random.chance(5), let lost = snapshot {
            store = lost
            snapshot = nil
        }
    }

    private mutating func admit(_ g: Int) {
        tickets += 1
        undecided[g].insert(tickets)
        let admission = Admission(
            key: Self.keys[random.chance(5) ? 2 : random.below(2)],
            hold: NanoUSD(unchecked: 1 + Int64(random.below(1_500))),
            tokens: random.below(200))
        let ticket = tickets
        let time = now
        take(g, gateways[g].machine.admissionArrived(admission, ticket: ticket, now: time))
    }

    private mutating func settle(_ g: Int) {
        guard let ticket = gateways[g].holds.keys.min(), let hold = gateways[g].holds.removeValue(forKey: ticket) else {
            return
        }
        var charge = testCharge(gateways[g].machine.nextSequence, amount: Int64(random.below(Int(hold.amount) + 1)))
        charge.requestID = RequestID(high: UInt64(g), low: ticket)
        charge.booking = hold.booking
        gateways[g].journal.append(charge)
        settled[charge.requestID] = charge.amount.nanodollars
        take(g, gateways[g].machine.holdSettled(ticket: ticket, charge: charge, now: now))
    }

    private mutating func release(_ g: Int) {
        guard let ticket = gateways[g].holds.keys.max(), let hold = gateways[g].holds.removeValue(forKey: ticket) else {
            return
        }
        take(g, gateways[g].machine.holdReleased(ticket: ticket, booking: hold.booking))
    }

    private mutating func abandon(_ g: Int, _ ticket: UInt64) {
        undecided[g].remove(ticket)
        gateways[g].machine.admissionAbandoned(ticket: ticket)
    }

    private mutating func execute(_ request: SyncRequest) -> SyncAnswer {
        let answer = store.sync(request, now: time / 1_000_000)
        if answer.isOverspent { overspent = true }
        return answer
    }

    /// Something happens to the outstanding call.
    private mutating func deliver(_ g: Int) {
        guard let call = calls[g] else { return }
        calls[g] = nil
        let revision = call.revision
        switch random.below(10) {
        case 0:  // never arrives
            take(g, gateways[g].machine.transportFailed(revision: revision, now: now))
        case 1:  // executes, the answer is lost
            _ = execute(call)
            take(g, gateways[g].machine.transportFailed(revision: revision, now: now))
        case 2:  // given up, and executes later
            strays.append(call)
            take(g, gateways[g].machine.transportFailed(revision: revision, now: now))
        case 3:  // executes twice, the second answer comes back
            _ = execute(call)
            take(g, gateways[g].machine.answerReceived(execute(call), revision: revision, now: now))
        case 4:  // executes now and again later
            strays.append(call)
            fallthrough
        default:
            take(g, gateways[g].machine.answerReceived(execute(call), revision: revision, now: now))
        }
    }

    private mutating func read(_ g: Int) {
        guard let range = gateways[g].pendingRead else { return }
        gateways[g].pendingRead = nil
        let found = gateways[g].journal.filter { range.contains($0.sequence) }
        let count = min(found.count, 1 + random.below(5))
        let unread = found[count...].reduce(0) { $0 + $1.amount.nanodollars }
        take(
            g,
            gateways[g].machine.chargesRead(
                Array(found[..<count]), unread: NanoUSD(unchecked: unread), now: now))
    }

    /// The process ends: its holds are gone, its journal stays, its last call may still execute.
    private mutating func crash(_ g: Int) {
        if let call = calls[g] { strays.append(call) }
        calls[g] = nil
        let incarnation = gateways[g].machine.revision.incarnation + 1
        gateways[g].machine = SpendingStateMachine(
            org: Self.org, journal: gateways[g].id, incarnation: incarnation,
            lastSequence: gateways[g].journal.last?.sequence ?? 0)
        gateways[g].holds = [:]
        gateways[g].pendingRead = nil
        undecided[g] = []
        take(g, gateways[g].machine.started(now: now))
    }

    private mutating func take(_ g: Int, _ actions: SpendingStateMachine.Actions) {
        #expect(!actions.isIllegal)
        for alarm in actions.alarms { #expect(mayRollBack && alarm == .overspent, "\(alarm)") }
        for decision in actions.decisions {
            #expect(undecided[g].remove(decision.ticket) != nil, "decided twice, or after it was abandoned")
            if case .granted(let booking, _) = decision.outcome {
                grants += 1
                gateways[g].holds[decision.ticket] = (
                    gateways[g].machine.open[decision.ticket]!.amount.nanodollars, booking
                )
            }
        }
        if let read = actions.read { gateways[g].pendingRead = read }
        if let send = actions.send {
            #expect(calls[g] == nil, "two SYNCs outstanding")
            calls[g] = send
        }
    }

    func check() {
        let org = model
        let settles = org.entries.filter { $0.kind == .settle }
        // I3, and no charge twice.
        #expect(org.balance == org.entries.reduce(0) { $0 + $1.amount.nanodollars })
        #expect(Set(settles.map(\.requestID)).count == settles.count)
        // I4
        #expect(Int64(settles.count) == org.journals.values.reduce(0) { $0 + $1.applied })
        guard !mayRollBack else { return }
        // I1
        #expect(overspent == false && org.lent <= org.balance + org.credit)
        for gateway in gateways where gateway.machine.phase == .running {
            // I2; what the store has applied is not unsynced, whoever knows it.
            let applied = org.journals[gateway.id]?.applied ?? 0
            let unsynced = gateway.journal.reduce(0) { $0 + ($1.sequence > applied ? $1.amount.nanodollars : 0) }
            let open = gateway.machine.openHoldsAmount.nanodollars
            #expect(open == gateway.holds.values.reduce(0) { $0 + $1.amount })
            #expect(open + unsynced <= org.journals[gateway.id]?.lent ?? 0)
        }
    }

    /// The network heals, every hold ends, time passes. A store that forgot while a gateway had nothing to say hears what
    /// is lent with the org's next request, so there is one.
    mutating func settleDown() {
        for stray in strays { _ = execute(stray) }
        strays = []
        for round in 0..<400 {
            time += 50_000_000
            for g in 0..<2 {
                if round == 100, mayRollBack { admit(g) }
                if round == 100 || round == 200 { while !gateways[g].holds.isEmpty { settle(g) } }
                read(g)
                if let call = calls[g] {
                    calls[g] = nil
                    let answer = store.sync(call, now: time / 1_000_000)
                    let actions = gateways[g].machine.answerReceived(answer, revision: call.revision, now: now)
                    take(g, actions)
                }
                take(g, gateways[g].machine.timePassed(now: now))
            }
        }
    }
}

@Suite struct SpendingStateMachinePropertyTests {
    @Test func everySettledChargeIsAppliedExactlyOnceThroughAnyNetwork() throws {
        try run(mayRollBack: false, rounds: 12, steps: 1_500)
    }

    @Test func everySettledChargeIsAppliedOnceMoreWhenTheStoreForgets() throws {
        try run(mayRollBack: true, rounds: 12, steps: 1_500)
    }

    private func run(mayRollBack: Bool, rounds: Int, steps: Int) throws {
        let base = UInt64.random(in: 0..<1 << 32)
        var grants = 0
        var charges = 0
        // Before the random ones, seeds that once found something: a store that forgot a gateway at rest; a floor that
        // counted charges which a late call of the run before had applied.
        let seeds = [3_393_907_008, 2_197_877_452] + (0..<rounds).map { base + UInt64($0) }
        for seed in seeds {
            var world = try World(seed: seed, mayRollBack: mayRollBack)
            for _ in 0..<steps {
                try world.step()
                world.check()
            }
            world.settleDown()
            let applied = world.model.entries.filter { $0.kind == .settle }
            let sum = applied.reduce(0) { $0 - $1.amount.nanodollars }
            #expect(sum == world.settled.values.reduce(0, +), "seed \(seed)")
            #expect(applied.count == world.settled.count, "seed \(seed)")
            #expect(Set(applied.compactMap(\.requestID)) == Set(world.settled.keys.map(\.description)), "seed \(seed)")
            for gateway in world.gateways {
                #expect(gateway.machine.isIdle && gateway.machine.isFlushed, "seed \(seed)")
                #expect(world.model.journals[gateway.id]?.lent == 0, "seed \(seed)")
                #expect(world.model.journals[gateway.id]?.openHolds == 0, "seed \(seed)")
            }
            #expect(world.undecided == [[], []], "seed \(seed)")
            grants += world.grants
            charges += applied.count
        }
        print("spending property test: seeds \(base)..<\(base + UInt64(rounds)), \(grants) grants, \(charges) charges")
        #expect(grants > 50 * rounds && charges > 25 * rounds)
    }
}

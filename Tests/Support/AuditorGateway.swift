import Billing
import Domain

/// A gateway as the ledger sees it: a journal with its running holds and its charges, for one org. It keeps the rules
/// that gateways must keep; answers get lost, calls are late and it restarts.
struct AuditorGateway {
    struct Open {
        let key: KeyID
        let hold: NanoUSD
        let booking: RateBooking
    }

    let org: OrgID
    private(set) var journal: JournalID
    private var revision = SyncRevision(incarnation: 1, counter: 0)
    private(set) var open: [Open] = []
    /// Written to the journal and not known to be applied.
    private(set) var unsynced: [Charge] = []
    private var nextSequence: Int64 = 1
    private(set) var lent: NanoUSD = .zero

    init(org: OrgID, journal: JournalID) {
        self.org = org
        self.journal = journal
    }

    /// open + unsynced: what this gateway may spend or has spent beyond what the balance knows.
    var exposure: Int64 {
        open.reduce(0) { $0 + $1.hold.nanodollars } + unsynced.reduce(0) { $0 + $1.amount.nanodollars }
    }

    /// Ends some requests, asks for some, and puts it into one SYNC.
    mutating func nextRequest(
        keys: [KeyID], models: [ModelID], now: Int64, using random: inout SplitMix64
    ) -> SyncRequest {
        var returns: [RateReturn] = []
        while !open.isEmpty, random.chance(45) {
            let ended = open.remove(at: random.int(0...(open.count - 1)))
            if random.chance(25) {
                var booking = ended.booking
                // More than was booked must not come back.
                if random.chance(5) { booking.tokens *= 3 }
                returns.append(RateReturn(key: ended.key, booking: booking))
            } else {
                charge(ended, models: models, now: now, using: &random)
            }
        }
        revision.counter += 1
        let admissions = (0..<(random.chance(75) ? random.int(1...5) : 0)).map { _ in
            Admission(
                key: keys.randomElement(using: &random) ?? KeyID(unchecked: "none"),
                hold: NanoUSD(unchecked: Int64(random.chance(5) ? 0 : random.int(1...4_000_000_000))),
                tokens: random.int(0...25) * 100)
        }
        var running: [KeyID: Int] = [:]
        for hold in open { running[hold.key, default: 0] += 1 }
        let floor = NanoUSD(unchecked: open.reduce(0) { $0 + $1.hold.nanodollars })
        let pool = random.chance(30) ? Int64(random.int(0...3_000_000_000)) : 0
        return SyncRequest(
            org: org, journal: journal, revision: revision, first: unsynced.first?.sequence ?? nextSequence,
            charges: unsynced, returns: returns, floor: floor, openHolds: open.count,
            want: NanoUSD(unchecked: floor.nanodollars + pool), slots: running.map { (key: $0.key, running: $0.value) },
            admissions: admissions)
    }

    mutating func received(_ answer: SyncAnswer, to request: SyncRequest) {
        guard answer.status != .gap, answer.status != .unknownOrg else { return }
        unsynced.removeAll { $0.sequence <= answer.applied }
        guard answer.status == .ok else { return }
        lent = answer.lent
        for (admission, verdict) in zip(request.admissions, answer.verdicts) {
            guard case .granted(let booking) = verdict.outcome else { continue }
            open.append(Open(key: admission.key, hold: admission.hold, booking: booking))
        }
    }

    /// What was running when it died is charged from the journal, or was never charged at all.
    mutating func restarted(models: [ModelID], now: Int64, using random: inout SplitMix64) {
        for hold in open where random.chance(60) { charge(hold, models: models, now: now, using: &random) }
        open = []
        revision = SyncRevision(incarnation: revision.incarnation + 1, counter: 0)
    }

    /// The journal was fenced: what runs is charged there, and a new journal begins.
    mutating func replaced(by journal: JournalID) {
        self = AuditorGateway(org: org, journal: journal)
    }

    private mutating func charge(
        _ ended: Open, models: [ModelID], now: Int64, using random: inout SplitMix64
    ) {
        // Round numbers, so that sums meet limits exactly now and then.
        let used = random.int(0...max(0, ended.booking.tokens / 100)) * 100
        let cached = random.int(0...used)
        unsynced.append(
            Charge(
                sequence: nextSequence, requestID: RequestID(using: &random), key: ended.key,
                model: models.randomElement(using: &random) ?? ModelID(unchecked: "none"),
                priceVersion: Int64(random.int(1...9)),
                usage: TokenUsage(promptTokens: used, cachedTokens: cached, completionTokens: random.int(0...100)),
                amount: NanoUSD(unchecked: Int64.random(in: 0...ended.hold.nanodollars, using: &random)),
                isEstimated: random.chance(20), at: WallTime(milliseconds: now - Int64(random.int(0...5_000))),
                booking: ended.booking, unusedTokens: ended.booking.tokens - used))
        nextSequence += 1
    }
}

import Domain

/// One org's spending in one gateway: which holds run, which charges the store has not applied, who waits to be let in.
///
/// The protocol is SYNC in exact mode (a pool of 0): every admission asks. The machine keeps one SYNC outstanding;
/// whatever arrives meanwhile shares the next one, so the load on the store is bounded by its own round trip however
/// many requests come. Three things are never given up:
///
/// - **A charge** stays until the store says that it is applied (`applied` at or past its sequence). A lost answer, a
///   stale one or a store that forgot only mean that it is sent again; the store skips what it has.
/// - **The floor** of every SYNC is open holds + charges that will be unsynced after it, so what the store lends this
///   journal always covers what it has admitted (I2). A hold enters `open` only by a verdict; one that nobody waits
///   for any more is given back at once by leaving it out of the next floor.
/// - **Order**: revisions grow by one with each SYNC, so one that executes late, after its successor, changes nothing.
///
/// Rate tokens given back by releases go out at most once: a lost one errs on the strict side and ages out in a minute.
///
/// Nothing is admitted before the store and the journal agree on the last sequence (`learning`). A store that is behind
/// the journal gets the missing charges read back from it. A store that is ahead at the start has charges whose record
/// the journal lost (a failed write, the last moments before a power failure): they are paid, so the journal goes on
/// after them, and a person hears of it. A store that gets ahead later means that someone else spends as this journal,
/// and the org stops.
package struct SpendingStateMachine: Sendable {
    /// Admissions that may wait in one org; more are answered `unavailable` at once.
    package static let waitingMax = 1_024
    /// Charges that the store has not applied, beyond which nothing new is admitted. Charges themselves always go in.
    package static let unsyncedMax = 16_384
    /// Rate returns kept for the next SYNC, and sent in one. More are dropped: they err on the strict side.
    package static let returnsMax = 1_024
    package static let returnsPerSyncMax = 256
    /// How long an admission waits for its verdict before it is `unavailable`, in nanoseconds.
    package static let admissionWait: Int64 = 2_000_000_000
    /// V: how long the store keeps a journal's concurrency slots after its last SYNC, in nanoseconds.
    package static let slotValidity: Int64 = 10_000_000_000
    /// While holds are open, a SYNC goes out at least this often, in nanoseconds.
    package static let heartbeatInterval: Int64 = slotValidity / 3
    /// The first wait after a failed SYNC, doubled with each further failure, in nanoseconds.
    package static let retryDelayMin: Int64 = 50_000_000
    package static let retryDelayMax: Int64 = 1_000_000_000
    /// Answers in a row that call the revision old before the org stops: someone else spends as this journal.
    package static let staleMax = 8

    package enum Phase: Hashable, Sendable {
        /// The store's last sequence is not known. Left by an `ok` (running), `fenced`, or a stop.
        case learning
        /// Store and journal agree. Left by `fenced` or a stop.
        case running
        /// The journal was retired: nothing is admitted any more, charges still go out. Final.
        case fenced
        /// Store and journal cannot be reconciled: nothing is admitted, nothing is sent. Final.
        case stopped(Stop)
    }

    /// Why an org stopped, for the operator.
    package enum Stop: Hashable, Sendable {
        /// The store has applied charges that this process never made, after both had agreed: another process spends
        /// as this journal.
        case journalBehind(applied: Int64, journaled: Int64)
        /// The store lacks charges from this sequence on, and the journal does not keep them any more.
        case chargesMissing(from: Int64)
        /// The store keeps calling new revisions old: another process spends as this journal, or the journal is a copy.
        case alwaysStale
    }

    /// What a person should hear of.
    package enum Alarm: Hashable, Sendable {
        case stopped(Stop)
        case fenced
        /// At the start the store had applied charges that the journal does not hold: it goes on after them.
        case recordsLost(applied: Int64, journaled: Int64)
        /// The store does not know the org, yet these charges are for it. They stay, and are offered again.
        case unknownOrg(charges: Int)
        /// The store reported that what is lent passes what there is.
        case overspent
    }

    package enum Outcome: Hashable, Sendable {
        case granted(RateBooking, RateStatus)
        case refused(Refusal, RateStatus)
        case unavailable
    }

    package struct Decision: Hashable, Sendable {
        package var ticket: UInt64
        package var outcome: Outcome
    }

    /// What the shell does next, in this order.
    package struct Actions: Sendable {
        package var decisions: [Decision] = []
        package var alarms: [Alarm] = []
        /// Write to the journal that this is the org's last sequence: its own last is before it.
        package var position: Int64?
        /// Read these sequences back from the journal; the result comes in as `chargesRead`.
        package var read: ClosedRange<Int64>?
        package var send: SyncRequest?
        /// The event cannot happen in this state; it changed nothing.
        package var isIllegal = false

        package init() {}
    }

    package struct OpenHold: Hashable, Sendable {
        package var key: KeyID
        package var amount: NanoUSD
    }

    struct Waiting: Sendable {
        var ticket: UInt64
        var admission: Admission
        var deadline: MonotonicTime
        var isAbandoned = false
    }

    struct InFlight: Sendable {
        var revision: SyncRevision
        var first: Int64
        var charges: Int
        var admissions: [Waiting]
        var sentAt: MonotonicTime
    }

    /// Charges that the store lost and the journal gives back: a part in memory, the rest on disk.
    struct Replay: Sendable {
        /// The last sequence that has to be read back; what follows is in `unsynced`.
        var through: Int64
        var charges: [Charge] = []
        var chargesAmount: Int64 = 0
        var unreadAmount: Int64 = 0
        var isReading = true
    }

    package let org: OrgID
    package let journal: JournalID
    package private(set) var revision: SyncRevision
    package internal(set) var phase: Phase = .learning
    /// The last sequence given to a charge.
    package internal(set) var lastSequence: Int64
    /// q as the store last said; nil until it has.
    package internal(set) var applied: Int64?
    /// The store said that the org does not exist.
    package internal(set) var isUnknown = false
    /// The store said that more is lent than there is.
    package internal(set) var isOverspent = false

    var open: [UInt64: OpenHold] = [:]
    var running: [KeyID: Int] = [:]
    var openAmount: Int64 = 0
    var unsynced: [Charge] = []
    var unsyncedAmount: Int64 = 0
    var replay: Replay?
    var waiting: [Waiting] = []
    var returns: [RateReturn] = []
    var inFlight: InFlight?
    /// Something to tell the store that nobody waits for: a release, or a SYNC whose answer was lost.
    var isDirty = false
    var failures = 0
    var stales = 0
    var retryAt: MonotonicTime?
    var lastSyncAt: MonotonicTime?

    /// - Parameter lastSequence: The last that the journal has for this org; 0 where it has none.
    package init(org: OrgID, journal: JournalID, incarnation: Int64, lastSequence: Int64) {
        self.org = org
        self.journal = journal
        self.revision = SyncRevision(incarnation: incarnation, counter: 0)
        self.lastSequence = lastSequence
    }

    // MARK: What others may see

    package var openHolds: Int { open.count }
    package var openHoldsAmount: NanoUSD { NanoUSD(unchecked: openAmount) }
    package var unsyncedCharges: Int {
        guard let replay else { return unsynced.count }
        return unsynced.count + Int(max(0, replay.through - (applied ?? replay.through)))
    }
    package var unsyncedChargesAmount: NanoUSD {
        NanoUSD(unchecked: unsyncedAmount + (replay.map { $0.chargesAmount + $0.unreadAmount } ?? 0))
    }
    package var waitingAdmissions: Int { waiting.count + (inFlight?.admissions.count ?? 0) }
    package func hasOpenHold(_ ticket: UInt64) -> Bool { open[ticket] != nil }
    /// What the next charge's sequence has to be.
    package var nextSequence: Int64 { lastSequence + 1 }
    package var isStopped: Bool { if case .stopped = phase { true } else { false } }
    /// Nothing to do until the next event: no time needs to pass for this org.
    package var isIdle: Bool {
        inFlight == nil && waiting.isEmpty && (isStopped || (open.isEmpty && !hasUnsynced && !isDirty))
    }
    /// The store has all that this org owes it, or never will.
    package var isFlushed: Bool { isStopped || (inFlight == nil && !hasUnsynced && !isDirty) }
    /// Journal and store agree, or the org will not admit anything until someone acts.
    package var isSettledIn: Bool { isStopped || isUnknown || (phase != .learning && replay == nil) }

    var hasUnsynced: Bool { !unsynced.isEmpty || replay != nil }

    // MARK: Events

    /// The gateway started with charges of this org in its journal: the store is asked what it has.
    package mutating func started(now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard phase == .learning else {
            actions.isIllegal = true
            return actions
        }
        isDirty = true
        pump(now: now, isTimer: true, &actions)
        return actions
    }

    /// A request asks to be let in. `ticket` is unique in the process, and becomes the hold's id.
    package mutating func admissionArrived(_ admission: Admission, ticket: UInt64, now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard phase == .learning || phase == .running, waiting.count < Self.waitingMax,
            unsyncedCharges < Self.unsyncedMax
        else {
            actions.decisions.append(Decision(ticket: ticket, outcome: .unavailable))
            return actions
        }
        waiting.append(
            Waiting(
                ticket: ticket, admission: admission, deadline: now.advanced(byNanoseconds: Self.admissionWait)))
        pump(now: now, isTimer: false, &actions)
        return actions
    }

    /// Nobody waits for this verdict any more. Not sent: forgotten. Sent: given back at once when it is granted.
    package mutating func admissionAbandoned(ticket: UInt64) {
        if let index = waiting.firstIndex(where: { $0.ticket == ticket }) {
            waiting.remove(at: index)
        } else if let index = inFlight?.admissions.firstIndex(where: { $0.ticket == ticket }) {
            inFlight?.admissions[index].isAbandoned = true
        }
    }

    /// The hold's charge is in the journal. Its sequence is ``nextSequence``, its amount at most the hold.
    package mutating func holdSettled(ticket: UInt64, charge: Charge, now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard charge.sequence == nextSequence, close(ticket) != nil else {
            actions.isIllegal = true
            return actions
        }
        lastSequence = charge.sequence
        unsynced.append(charge)
        unsyncedAmount += charge.amount.nanodollars
        pump(now: now, isTimer: false, &actions)
        return actions
    }

    /// The request cost nothing: hold, slot and tokens go back with the next SYNC, which time starts if nothing else
    /// does.
    package mutating func holdReleased(ticket: UInt64, booking: RateBooking) -> Actions {
        var actions = Actions()
        guard let hold = close(ticket) else {
            actions.isIllegal = true
            return actions
        }
        giveBack(key: hold.key, booking: booking)
        return actions
    }

    /// To be called each 50 ms or so while the machine is not idle.
    package mutating func timePassed(now: MonotonicTime) -> Actions {
        var actions = Actions()
        if let first = waiting.first, first.deadline <= now {
            let count = waiting.firstIndex { $0.deadline > now } ?? waiting.count
            for late in waiting[..<count] {
                actions.decisions.append(Decision(ticket: late.ticket, outcome: .unavailable))
            }
            waiting.removeFirst(count)
        }
        if let first = inFlight?.admissions.first, first.deadline <= now, let sent = inFlight {
            for (index, late) in sent.admissions.enumerated() where late.deadline <= now && !late.isAbandoned {
                actions.decisions.append(Decision(ticket: late.ticket, outcome: .unavailable))
                inFlight?.admissions[index].isAbandoned = true
            }
        }
        pump(now: now, isTimer: true, &actions)
        return actions
    }

    // MARK: Holds

    private mutating func close(_ ticket: UInt64) -> OpenHold? {
        guard let hold = open.removeValue(forKey: ticket) else { return nil }
        openAmount -= hold.amount.nanodollars
        if let count = running[hold.key] { running[hold.key] = count > 1 ? count - 1 : nil }
        return hold
    }

    mutating func openHold(ticket: UInt64, admission: Admission) {
        open[ticket] = OpenHold(key: admission.key, amount: admission.hold)
        openAmount += admission.hold.nanodollars
        running[admission.key, default: 0] += 1
    }

    /// Tokens return and the store hears that the hold is gone.
    mutating func giveBack(key: KeyID, booking: RateBooking) {
        if booking.tokens > 0, returns.count < Self.returnsMax {
            returns.append(RateReturn(key: key, booking: booking))
        }
        isDirty = true
    }

    // MARK: Sending

    /// Starts a SYNC where one is wanted and may go.
    /// - Parameter isTimer: Time passed: what may be late (releases, heartbeats) goes now.
    mutating func pump(now: MonotonicTime, isTimer: Bool, _ actions: inout Actions) {
        guard inFlight == nil, actions.send == nil, !isStopped, replay?.isReading != true, (retryAt ?? now) <= now
        else {
            return
        }
        let isDue = isTimer && (isDirty || isHeartbeatDue(now))
        guard hasUnsynced || !waiting.isEmpty || isDue else { return }
        actions.send = makeRequest(now: now)
    }

    private func isHeartbeatDue(_ now: MonotonicTime) -> Bool {
        guard !open.isEmpty, phase != .fenced else { return false }
        return lastSyncAt.map { now.nanoseconds(since: $0) >= Self.heartbeatInterval } ?? true
    }

    private mutating func makeRequest(now: MonotonicTime) -> SyncRequest {
        revision.counter += 1
        let source = replay?.charges ?? unsynced
        let charges = Array(source.prefix(SyncRequest.chargesMax))
        let carried = charges.reduce(Int64(0)) { $0 + $1.amount.nanodollars }
        let floor = NanoUSD(
            unchecked: min(openAmount + unsyncedChargesAmount.nanodollars - carried, NanoUSD.magnitudeMax))
        // Nothing is admitted while the store lacks charges that the journal has.
        let admitted = replay == nil ? Array(waiting.prefix(SyncRequest.admissionsMax)) : []
        waiting.removeFirst(admitted.count)
        let returned = Array(returns.prefix(Self.returnsPerSyncMax))
        returns.removeFirst(returned.count)
        isDirty = !returns.isEmpty
        let first = charges.first?.sequence ?? nextSequence
        inFlight = InFlight(
            revision: revision, first: first, charges: charges.count, admissions: admitted, sentAt: now)
        return SyncRequest(
            org: org, journal: journal, revision: revision, first: first, charges: charges, returns: returned,
            floor: floor, openHolds: open.count, want: floor, slots: running.map { (key: $0.key, running: $0.value) },
            admissions: admitted.map(\.admission))
    }
}

import Domain

/// What comes back: answers, failures, and charges read from the journal.
extension SpendingStateMachine {
    /// The store answered the SYNC of `revision`.
    package mutating func answerReceived(_ answer: SyncAnswer, revision: SyncRevision, now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard let sent = inFlight, sent.revision == revision else {
            actions.isIllegal = true
            return actions
        }
        inFlight = nil
        if answer.isOverspent, !isOverspent { actions.alarms.append(.overspent) }
        isOverspent = answer.isOverspent
        if answer.status != .unknownOrg, answer.applied > lastSequence, phase != .learning {
            stop(.journalBehind(applied: answer.applied, journaled: lastSequence), sent, &actions)
            return actions
        }
        let isBelievable =
            switch answer.status {
            case .ok:
                answer.applied >= sent.first + Int64(sent.charges) - 1 && answer.verdicts.count == sent.admissions.count
            case .gap: answer.applied >= 0 && answer.applied < sent.first - 1
            case .stale, .fenced: answer.applied >= sent.first + Int64(sent.charges) - 1
            case .unknownOrg: true
            }
        guard isBelievable else {
            fail(sent, now: now, &actions)
            return actions
        }
        if answer.status != .unknownOrg { isUnknown = false }
        switch answer.status {
        case .ok: accept(answer, sent, &actions)
        case .gap: reopen(applied: answer.applied, sent, &actions)
        case .stale: overtake(answer, sent, now: now, &actions)
        case .fenced: fence(answer, sent, &actions)
        case .unknownOrg: disown(sent, now: now, &actions)
        }
        pump(now: now, isTimer: false, &actions)
        return actions
    }

    /// No answer came. The call may have executed, or may execute later.
    package mutating func transportFailed(revision: SyncRevision, now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard let sent = inFlight, sent.revision == revision else {
            actions.isIllegal = true
            return actions
        }
        inFlight = nil
        fail(sent, now: now, &actions)
        return actions
    }

    /// The journal gave back charges from the first sequence that was asked for.
    /// - Parameters:
    ///   - charges: Consecutive; fewer than asked where the journal reads in parts. Empty where it does not have the
    ///     first.
    ///   - unread: The sum of what was asked for and is not in `charges`.
    package mutating func chargesRead(_ charges: [Charge], unread: NanoUSD, now: MonotonicTime) -> Actions {
        var actions = Actions()
        guard var replay, replay.isReading, let applied else {
            actions.isIllegal = true
            return actions
        }
        let isConsecutive = zip(charges, (applied + 1)...).allSatisfy { $0.sequence == $1 }
        guard !charges.isEmpty, isConsecutive, applied + Int64(charges.count) <= replay.through else {
            stop(.chargesMissing(from: applied + 1), nil, &actions)
            return actions
        }
        replay.isReading = false
        replay.charges = charges
        replay.chargesAmount = charges.reduce(0) { $0 + $1.amount.nanodollars }
        replay.unreadAmount = unread.nanodollars
        self.replay = replay
        pump(now: now, isTimer: false, &actions)
        return actions
    }

    // MARK: One function a status

    private mutating func accept(_ answer: SyncAnswer, _ sent: InFlight, _ actions: inout Actions) {
        succeeded(sent)
        adopt(answer.applied, &actions)
        advance(to: answer.applied, &actions)
        // The store had more than this gateway knew: the floor that went out counted what is paid, so the next goes soon.
        if answer.applied >= sent.first + Int64(sent.charges) { isDirty = true }
        if phase == .learning, replay == nil { phase = .running }
        for (waiter, verdict) in zip(sent.admissions, answer.verdicts) {
            switch verdict.outcome {
            case .granted(let booking) where waiter.isAbandoned || phase == .fenced:
                giveBack(key: waiter.admission.key, booking: booking)
            case .granted(let booking):
                openHold(ticket: waiter.ticket, admission: waiter.admission)
                actions.decisions.append(Decision(ticket: waiter.ticket, outcome: .granted(booking, verdict.rates)))
            case .refused(let refusal):
                guard !waiter.isAbandoned else { continue }
                actions.decisions.append(Decision(ticket: waiter.ticket, outcome: .refused(refusal, verdict.rates)))
            }
        }
    }

    /// The store lacks charges before the ones that were sent, and changed nothing.
    private mutating func reopen(applied: Int64, _ sent: InFlight, _ actions: inout Actions) {
        failures = 0
        retryAt = nil
        isDirty = true
        wait(again: sent)
        self.applied = applied
        // `applied` is below what was sent, so at least one sequence is missing before the ones in memory.
        let through = max(applied + 1, (unsynced.first?.sequence ?? nextSequence) - 1)
        replay = Replay(through: through, unreadAmount: replay.map { $0.chargesAmount + $0.unreadAmount } ?? 0)
        actions.read = applied + 1...through
    }

    /// The revision was not newer than the store's: charges went in, admissions were not looked at.
    private mutating func overtake(
        _ answer: SyncAnswer, _ sent: InFlight, now: MonotonicTime, _ actions: inout Actions
    ) {
        stales += 1
        guard stales <= Self.staleMax else {
            stop(.alwaysStale, sent, &actions)
            return
        }
        isDirty = true
        wait(again: sent)
        advance(to: answer.applied, &actions)
        // The first time at once, with the next revision; then slower.
        retryAt = stales > 1 ? now.advanced(byNanoseconds: Self.retryDelay(failures: stales - 1)) : nil
    }

    private mutating func fence(_ answer: SyncAnswer, _ sent: InFlight, _ actions: inout Actions) {
        succeeded(sent)
        isDirty = false
        adopt(answer.applied, &actions)
        advance(to: answer.applied, &actions)
        if phase != .fenced { actions.alarms.append(.fenced) }
        phase = .fenced
        refuseAll(sent, .unavailable, &actions)
    }

    private mutating func disown(_ sent: InFlight, now: MonotonicTime, _ actions: inout Actions) {
        failures = 0
        refuseAll(sent, .refused(.keyInvalid, .unlimited), &actions)
        if hasUnsynced || !open.isEmpty {
            if !isUnknown { actions.alarms.append(.unknownOrg(charges: unsyncedCharges)) }
            retryAt = now.advanced(byNanoseconds: Self.retryDelayMax)
        } else {
            retryAt = nil
            isDirty = false
        }
        isUnknown = true
    }

    private mutating func fail(_ sent: InFlight, now: MonotonicTime, _ actions: inout Actions) {
        failures += 1
        retryAt = now.advanced(byNanoseconds: Self.retryDelay(failures: failures))
        // Whether or not it executed, the store must hear the floor again.
        isDirty = phase != .fenced
        for waiter in sent.admissions where !waiter.isAbandoned {
            actions.decisions.append(Decision(ticket: waiter.ticket, outcome: .unavailable))
        }
    }

    private mutating func stop(_ reason: Stop, _ sent: InFlight?, _ actions: inout Actions) {
        phase = .stopped(reason)
        replay?.isReading = false
        actions.alarms.append(.stopped(reason))
        refuseAll(sent, .unavailable, &actions)
    }

    // MARK: Parts

    private mutating func succeeded(_ sent: InFlight) {
        failures = 0
        stales = 0
        retryAt = nil
        lastSyncAt = sent.sentAt
    }

    private mutating func refuseAll(_ sent: InFlight?, _ outcome: Outcome, _ actions: inout Actions) {
        for waiter in (sent?.admissions ?? []) + waiting where !waiter.isAbandoned {
            actions.decisions.append(Decision(ticket: waiter.ticket, outcome: outcome))
        }
        waiting.removeAll()
    }

    /// Admissions of a SYNC that did not look at them go first in the next, with the deadlines that they had.
    private mutating func wait(again sent: InFlight) {
        waiting.insert(contentsOf: sent.admissions.lazy.filter { !$0.isAbandoned }, at: 0)
    }

    /// A store that is ahead of the journal while the org is learning: nothing has been charged since the start, so
    /// every sequence up to `applied` belongs to a charge of an earlier run that is paid.
    private mutating func adopt(_ applied: Int64, _ actions: inout Actions) {
        guard applied > lastSequence else { return }
        actions.alarms.append(.recordsLost(applied: applied, journaled: lastSequence))
        actions.position = applied
        lastSequence = applied
    }

    /// The store has applied everything up to `sequence`.
    private mutating func advance(to sequence: Int64, _ actions: inout Actions) {
        applied = sequence
        Self.drop(through: sequence, of: &unsynced, amount: &unsyncedAmount)
        guard var replay else { return }
        Self.drop(through: sequence, of: &replay.charges, amount: &replay.chargesAmount)
        if sequence >= replay.through {
            self.replay = nil
            return
        }
        if replay.charges.isEmpty, !replay.isReading {
            replay.isReading = true
            actions.read = sequence + 1...replay.through
        }
        self.replay = replay
    }

    private static func drop(through sequence: Int64, of charges: inout [Charge], amount: inout Int64) {
        guard let first = charges.first?.sequence, first <= sequence else { return }
        let count = min(charges.count, Int(sequence - first + 1))
        for charge in charges[..<count] { amount -= charge.amount.nanodollars }
        charges.removeFirst(count)
    }

    private static func retryDelay(failures: Int) -> Int64 {
        min(retryDelayMax, retryDelayMin << Int64(min(failures - 1, 10)))
    }
}

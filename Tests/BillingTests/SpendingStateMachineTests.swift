import Domain
import Testing

@testable import Billing

private let org = OrgID(unchecked: "acme")
private let key = KeyID(unchecked: "key1")
private let journal = JournalID("0123456789abcdef0123456789abcdef")
private let admission = Admission(key: key, hold: NanoUSD(unchecked: 100), tokens: 10)
private let booking = RateBooking(second: 7, tokens: 10)
private let second: Int64 = 1_000_000_000

private func at(_ nanoseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: nanoseconds) }

func testCharge(_ sequence: Int64, amount: Int64 = 40) -> Charge {
    Charge(
        sequence: sequence, requestID: RequestID(high: 1, low: UInt64(sequence)), key: key,
        model: ModelID(unchecked: "m"), priceVersion: 1, usage: .zero, amount: NanoUSD(unchecked: amount),
        isEstimated: false, at: WallTime(milliseconds: 0), booking: booking, unusedTokens: 4)
}

private func answer(
    _ status: SyncAnswer.Status, applied: Int64, _ outcomes: [Verdict.Outcome] = [], isOverspent: Bool = false
) -> SyncAnswer {
    SyncAnswer(
        status: status, applied: applied, lent: .zero, balance: .zero, available: .zero, isOverspent: isOverspent,
        now: 0, verdicts: outcomes.map { Verdict(outcome: $0, rates: .unlimited) })
}

private func machine(lastSequence: Int64 = 0) -> SpendingStateMachine {
    SpendingStateMachine(org: org, journal: journal, incarnation: 3, lastSequence: lastSequence)
}

/// Running, with nothing going on, 5 charges applied.
private func running() -> SpendingStateMachine {
    var machine = machine(lastSequence: 5)
    let sent = machine.started(now: at(0))
    _ = machine.answerReceived(answer(.ok, applied: 5), revision: sent.send!.revision, now: at(1))
    return machine
}

/// Running, with one hold of 100 for ticket 1.
private func holding() -> SpendingStateMachine {
    var machine = running()
    let sent = machine.admissionArrived(admission, ticket: 1, now: at(2))
    _ = machine.answerReceived(answer(.ok, applied: 5, [.granted(booking)]), revision: sent.send!.revision, now: at(3))
    return machine
}

@Suite struct SpendingStateMachineTests {
    // MARK: State x event

    enum State: String, CaseIterable {
        case learning, learningAsked, reading, replaying, idle, holding, asking, backingOff, fenced, stopped

        /// In each state that can have one: hold 1 is open, admission 2 is in flight, 3 waits.
        var machine: SpendingStateMachine {
            var result: SpendingStateMachine
            switch self {
            case .learning: return BillingTests.machine(lastSequence: 5)
            case .learningAsked:
                result = BillingTests.machine(lastSequence: 5)
                _ = result.admissionArrived(admission, ticket: 2, now: at(4))
                _ = result.admissionArrived(admission, ticket: 3, now: at(4))
            case .reading, .replaying:
                result = BillingTests.machine(lastSequence: 5)
                let sent = result.admissionArrived(admission, ticket: 3, now: at(4))
                _ = result.answerReceived(answer(.gap, applied: 3), revision: sent.send!.revision, now: at(5))
                if self == .replaying {
                    _ = result.chargesRead([testCharge(4), testCharge(5)], unread: .zero, now: at(6))
                }
            case .idle: return running()
            case .holding: return BillingTests.holding()
            case .asking:
                result = BillingTests.holding()
                _ = result.admissionArrived(admission, ticket: 2, now: at(4))
                _ = result.admissionArrived(admission, ticket: 3, now: at(4))
            case .backingOff:
                result = BillingTests.holding()
                let sent = result.admissionArrived(admission, ticket: 2, now: at(4))
                _ = result.transportFailed(revision: sent.send!.revision, now: at(5))
            case .fenced:
                result = BillingTests.holding()
                let sent = result.admissionArrived(admission, ticket: 2, now: at(4))
                _ = result.answerReceived(answer(.fenced, applied: 5), revision: sent.send!.revision, now: at(5))
            case .stopped:
                result = BillingTests.holding()
                let sent = result.admissionArrived(admission, ticket: 2, now: at(4))
                _ = result.answerReceived(answer(.ok, applied: 9), revision: sent.send!.revision, now: at(5))
            }
            return result
        }
    }

    enum Event: String, CaseIterable {
        case started, admissionArrived, settled, released, ok, gap, stale, fenced, unknownOrg, storeAhead, nonsense
        case transportFailed, chargesRead, chargesMissing, timePassed

        func apply(to machine: inout SpendingStateMachine) -> SpendingStateMachine.Actions {
            let revision = machine.revision
            let sent = machine.inFlight
            let through = max(machine.applied ?? 0, sent.map { $0.first + Int64($0.charges) - 1 } ?? 0)
            let grants = Array(repeating: Verdict.Outcome.granted(booking), count: sent?.admissions.count ?? 0)
            func received(_ answer: SyncAnswer) -> SpendingStateMachine.Actions {
                machine.answerReceived(answer, revision: revision, now: at(10))
            }
            switch self {
            case .started: return machine.started(now: at(10))
            case .admissionArrived: return machine.admissionArrived(admission, ticket: 9, now: at(10))
            case .settled:
                return machine.holdSettled(ticket: 1, charge: testCharge(machine.nextSequence), now: at(10))
            case .released: return machine.holdReleased(ticket: 1, booking: booking)
            case .ok: return received(answer(.ok, applied: through, grants))
            case .gap: return received(answer(.gap, applied: 2))
            case .stale: return received(answer(.stale, applied: through))
            case .fenced: return received(answer(.fenced, applied: through))
            case .unknownOrg: return received(answer(.unknownOrg, applied: 0))
            case .storeAhead: return received(answer(.ok, applied: 9, grants))
            case .nonsense: return received(answer(.ok, applied: through, grants + [.refused(.orgSuspended)]))
            case .transportFailed: return machine.transportFailed(revision: revision, now: at(10))
            case .chargesRead:
                return machine.chargesRead([testCharge(4), testCharge(5)], unread: .zero, now: at(10))
            case .chargesMissing: return machine.chargesRead([], unread: .zero, now: at(10))
            case .timePassed: return machine.timePassed(now: at(3 * second))
            }
        }
    }

    /// What an event does in a state: the actions in order, then the phase where it changed. `-` is nothing,
    /// `illegal` changes nothing either.
    static func outcome(_ event: Event, in state: State) -> String {
        var machine = state.machine
        let before = machine.phase
        let actions = event.apply(to: &machine)
        var words: [String] = []
        if actions.isIllegal { words.append("illegal") }
        for decision in actions.decisions {
            switch decision.outcome {
            case .granted: words.append("grant\(decision.ticket)")
            case .refused: words.append("refuse\(decision.ticket)")
            case .unavailable: words.append("fail\(decision.ticket)")
            }
        }
        if !actions.alarms.isEmpty { words.append("alarm") }
        if let position = actions.position { words.append("position\(position)") }
        if let read = actions.read { words.append("read\(read.lowerBound)...\(read.upperBound)") }
        if let send = actions.send { words.append("send\(send.charges.count)c\(send.admissions.count)a") }
        if machine.phase != before {
            switch machine.phase {
            case .learning: words.append(">learning")
            case .running: words.append(">running")
            case .fenced: words.append(">fenced")
            case .stopped: words.append(">stopped")
            }
        }
        return words.isEmpty ? "-" : words.joined(separator: " ")
    }

    static let illegalAnswers: [Event: String] = [
        .ok: "illegal", .gap: "illegal", .stale: "illegal", .fenced: "illegal", .unknownOrg: "illegal",
        .storeAhead: "illegal", .nonsense: "illegal", .transportFailed: "illegal",
    ]

    static let table: [State: [Event: String]] = [
        .learning: [
            .started: "send0c0a", .admissionArrived: "send0c1a", .settled: "illegal", .released: "illegal",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "-",
        ].merging(illegalAnswers) { old, _ in old },
        .learningAsked: [
            .started: "-", .admissionArrived: "-", .settled: "illegal", .released: "illegal",
            .ok: "grant2 send0c1a >running", .gap: "read3...5", .stale: "send0c2a",
            .fenced: "fail2 fail3 alarm >fenced", .unknownOrg: "refuse2 refuse3",
            .storeAhead: "grant2 alarm position9 send0c1a >running", .nonsense: "fail2", .transportFailed: "fail2",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "fail3 fail2",
        ],
        .reading: [
            .started: "-", .admissionArrived: "-", .settled: "illegal", .released: "illegal",
            .chargesRead: "send2c0a", .chargesMissing: "fail3 alarm >stopped", .timePassed: "fail3",
        ].merging(illegalAnswers) { old, _ in old },
        .replaying: [
            .started: "-", .admissionArrived: "-", .settled: "illegal", .released: "illegal",
            .ok: "send0c1a >running", .gap: "read3...5", .stale: "send0c1a", .fenced: "fail3 alarm >fenced",
            .unknownOrg: "refuse3 alarm", .storeAhead: "alarm position9 send0c1a >running", .nonsense: "-",
            .transportFailed: "-", .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "fail3",
        ],
        .idle: [
            .started: "illegal", .admissionArrived: "send0c1a", .settled: "illegal", .released: "illegal",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "-",
        ].merging(illegalAnswers) { old, _ in old },
        .holding: [
            .started: "illegal", .admissionArrived: "send0c1a", .settled: "send1c0a", .released: "-",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "-",
        ].merging(illegalAnswers) { old, _ in old },
        .asking: [
            .started: "illegal", .admissionArrived: "-", .settled: "-", .released: "-", .ok: "grant2 send0c1a",
            .gap: "read3...5", .stale: "send0c2a", .fenced: "fail2 fail3 alarm >fenced",
            .unknownOrg: "refuse2 refuse3 alarm", .storeAhead: "fail2 fail3 alarm >stopped", .nonsense: "fail2",
            .transportFailed: "fail2", .chargesRead: "illegal", .chargesMissing: "illegal",
            .timePassed: "fail3 fail2",
        ],
        .backingOff: [
            .started: "illegal", .admissionArrived: "-", .settled: "-", .released: "-", .chargesRead: "illegal",
            .chargesMissing: "illegal", .timePassed: "send0c0a",
        ].merging(illegalAnswers) { old, _ in old },
        .fenced: [
            .started: "illegal", .admissionArrived: "fail9", .settled: "send1c0a", .released: "-",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "-",
        ].merging(illegalAnswers) { old, _ in old },
        .stopped: [
            .started: "illegal", .admissionArrived: "fail9", .settled: "-", .released: "-",
            .chargesRead: "illegal", .chargesMissing: "illegal", .timePassed: "-",
        ].merging(illegalAnswers) { old, _ in old },
    ]

    @Test(arguments: State.allCases) func everyEventDoesWhatTheTableSays(in state: State) {
        for event in Event.allCases {
            #expect(Self.outcome(event, in: state) == Self.table[state]?[event], "\(state) x \(event)")
        }
    }

    // MARK: Claims

    @Test func whatArrivesDuringASyncSharesTheNextOne() {
        var machine = holding()
        let first = machine.admissionArrived(admission, ticket: 2, now: at(10))
        #expect(first.send?.admissions.count == 1)
        for ticket in 3...9 {
            #expect(machine.admissionArrived(admission, ticket: UInt64(ticket), now: at(11)).send == nil)
        }
        #expect(machine.holdSettled(ticket: 1, charge: testCharge(6), now: at(12)).send == nil)
        let next = machine.answerReceived(
            answer(.ok, applied: 5, [.granted(booking)]), revision: first.send!.revision, now: at(13))
        #expect(next.send?.admissions.count == 7)
        #expect(next.send?.charges.map(\.sequence) == [6])
        #expect(next.send?.revision == SyncRevision(incarnation: 3, counter: machine.revision.counter))
        #expect(next.send!.revision > first.send!.revision)
    }

    @Test func floorIsOpenHoldsAndTheChargesThatStayUnsynced() {
        var machine = holding()
        let first = machine.admissionArrived(admission, ticket: 2, now: at(10))
        // The open hold of 100; the admission's own is added by the store.
        #expect(first.send?.floor.nanodollars == 100)
        #expect(first.send?.openHolds == 1)
        #expect(first.send?.slots.map(\.running) == [1])
        _ = machine.holdSettled(ticket: 1, charge: testCharge(6), now: at(11))
        let next = machine.answerReceived(
            answer(.ok, applied: 5, [.granted(booking)]), revision: first.send!.revision, now: at(12))
        // Hold 2 is open, charge 6 goes along.
        #expect(next.send?.floor.nanodollars == 100)
        #expect(next.send?.want == next.send?.floor)
        #expect(next.send?.charges.count == 1)
    }

    @Test func lostAnswerFailsItsAdmissionsAndRepeatsItsCharges() {
        var machine = holding()
        let charged = machine.holdSettled(ticket: 1, charge: testCharge(6), now: at(10))
        _ = machine.admissionArrived(admission, ticket: 2, now: at(11))
        let failed = machine.transportFailed(revision: charged.send!.revision, now: at(12))
        #expect(failed.decisions.isEmpty && failed.send == nil)
        let early = machine.timePassed(now: at(12 + SpendingStateMachine.retryDelayMin - 1))
        #expect(early.send == nil)
        let again = machine.timePassed(now: at(12 + SpendingStateMachine.retryDelayMin))
        #expect(again.send?.charges.map(\.sequence) == [6])
        #expect(again.send?.admissions.count == 1)
        let lost = machine.transportFailed(revision: again.send!.revision, now: at(second))
        #expect(lost.decisions == [.init(ticket: 2, outcome: .unavailable)])
        // Twice the wait after the second failure.
        #expect(machine.timePassed(now: at(second + 2 * SpendingStateMachine.retryDelayMin - 1)).send == nil)
        #expect(machine.timePassed(now: at(second + 2 * SpendingStateMachine.retryDelayMin)).send?.charges.count == 1)
    }

    @Test func lostAnswerIsFollowedByASyncEvenIfNothingElseIs() {
        // Else what the lost SYNC was lent would stay lent for good.
        var machine = running()
        let sent = machine.admissionArrived(admission, ticket: 2, now: at(10))
        _ = machine.transportFailed(revision: sent.send!.revision, now: at(11))
        #expect(!machine.isIdle)
        let next = machine.timePassed(now: at(second)).send
        #expect(next?.floor == .zero)
        _ = machine.answerReceived(answer(.ok, applied: 5), revision: next!.revision, now: at(second))
        #expect(machine.isIdle && machine.isFlushed)
    }

    @Test func releaseReturnsItsTokensWithTheNextTick() {
        var machine = holding()
        #expect(machine.holdReleased(ticket: 1, booking: booking).send == nil)
        let sent = machine.timePassed(now: at(10)).send
        #expect(sent?.returns == [RateReturn(key: key, booking: booking)])
        #expect(sent?.floor == .zero && sent?.slots.isEmpty == true)
        // Lost: the release is said again, the tokens are not.
        _ = machine.transportFailed(revision: sent!.revision, now: at(11))
        let again = machine.timePassed(now: at(second)).send
        #expect(again?.returns.isEmpty == true && again?.floor == .zero)
    }

    @Test func abandonedAdmissionIsForgottenOrGivenBackWhenGranted() {
        var machine = running()
        let sent = machine.admissionArrived(admission, ticket: 2, now: at(10))
        _ = machine.admissionArrived(admission, ticket: 3, now: at(10))
        machine.admissionAbandoned(ticket: 2)
        machine.admissionAbandoned(ticket: 3)
        let answered = machine.answerReceived(
            answer(.ok, applied: 5, [.granted(booking)]), revision: sent.send!.revision, now: at(11))
        #expect(answered.decisions.isEmpty && answered.send == nil)
        #expect(machine.openHolds == 0)
        let returned = machine.timePassed(now: at(12)).send
        #expect(returned?.returns == [RateReturn(key: key, booking: booking)])
        #expect(returned?.floor == .zero && returned?.admissions.isEmpty == true)
    }

    @Test func admissionWaitsNoLongerThanItsDeadline() {
        var machine = running()
        let sent = machine.admissionArrived(admission, ticket: 2, now: at(10))
        _ = machine.admissionArrived(admission, ticket: 3, now: at(20))
        #expect(machine.timePassed(now: at(9 + SpendingStateMachine.admissionWait)).decisions.isEmpty)
        let late = machine.timePassed(now: at(20 + SpendingStateMachine.admissionWait))
        #expect(late.decisions.map(\.ticket).sorted() == [2, 3])
        #expect(late.decisions.allSatisfy { $0.outcome == .unavailable })
        // Granted after all: nobody is told twice, and it is given back.
        let answered = machine.answerReceived(
            answer(.ok, applied: 5, [.granted(booking)]), revision: sent.send!.revision, now: at(3 * second))
        #expect(answered.decisions.isEmpty && machine.openHolds == 0 && !machine.isIdle)
    }

    @Test func heartbeatRenewsSlotsWhileHoldsAreOpenAndOnlyThen() {
        var machine = holding()
        #expect(machine.timePassed(now: at(2 + SpendingStateMachine.heartbeatInterval - 1)).send == nil)
        let beat = machine.timePassed(now: at(2 + SpendingStateMachine.heartbeatInterval)).send
        #expect(beat?.slots.count == 1)
        _ = machine.answerReceived(answer(.ok, applied: 5), revision: beat!.revision, now: at(4 * second))
        #expect(machine.timePassed(now: at(4 * second)).send == nil)
        var idle = running()
        #expect(idle.timePassed(now: at(100 * second)).send == nil)
    }

    @Test func unsyncedChargesAreBoundedForAdmissionsAndNotForCharges() {
        var machine = running()
        var sent = machine.admissionArrived(admission, ticket: 1, now: at(1)).send
        for ticket in 2...UInt64(SpendingStateMachine.waitingMax) {
            #expect(machine.admissionArrived(admission, ticket: ticket, now: at(1)).decisions.isEmpty)
        }
        while let request = sent {
            let grants = request.admissions.map { _ in Verdict.Outcome.granted(booking) }
            sent = machine.answerReceived(answer(.ok, applied: 5, grants), revision: request.revision, now: at(2)).send
        }
        #expect(machine.openHolds == SpendingStateMachine.waitingMax)
        machine.unsynced = (0..<Int64(SpendingStateMachine.unsyncedMax - 1)).map { testCharge(6 + $0, amount: 0) }
        _ = machine.holdSettled(ticket: 1, charge: testCharge(machine.nextSequence), now: at(3))
        let refused = machine.admissionArrived(admission, ticket: 5_000, now: at(4))
        #expect(refused.decisions == [.init(ticket: 5_000, outcome: .unavailable)])
        let charged = machine.holdSettled(ticket: 2, charge: testCharge(machine.nextSequence), now: at(5))
        #expect(!charged.isIllegal && machine.unsyncedCharges == SpendingStateMachine.unsyncedMax + 1)
    }

    @Test func waitingAdmissionsAreBounded() {
        var machine = running()
        for ticket in 0...UInt64(SpendingStateMachine.waitingMax) {
            _ = machine.admissionArrived(admission, ticket: ticket, now: at(1))
        }
        let refused = machine.admissionArrived(admission, ticket: 9_999, now: at(1))
        #expect(refused.decisions == [.init(ticket: 9_999, outcome: .unavailable)])
    }

    @Test func replayReadsInPartsAndAdmitsOnlyWhenItIsDone() {
        var machine = machine(lastSequence: 600)
        let asked = machine.admissionArrived(admission, ticket: 1, now: at(1)).send!
        #expect(asked.first == 601 && asked.charges.isEmpty)
        let gap = machine.answerReceived(answer(.gap, applied: 0), revision: asked.revision, now: at(2))
        #expect(gap.read == 1...600)
        let part = (1...Int64(400)).map { testCharge($0, amount: 1) }
        var sent = machine.chargesRead(part, unread: NanoUSD(unchecked: 200), now: at(3)).send!
        #expect(sent.charges.count == SyncRequest.chargesMax && sent.admissions.isEmpty)
        #expect(sent.floor.nanodollars == 600 - 256)
        sent = machine.answerReceived(answer(.ok, applied: 256), revision: sent.revision, now: at(4)).send!
        #expect(sent.first == 257 && sent.charges.count == 144 && sent.floor.nanodollars == 200)
        let more = machine.answerReceived(answer(.ok, applied: 400), revision: sent.revision, now: at(5))
        #expect(more.read == 401...600 && more.send == nil)
        sent = machine.chargesRead((401...600).map { testCharge($0, amount: 1) }, unread: .zero, now: at(6)).send!
        let done = machine.answerReceived(answer(.ok, applied: 600), revision: sent.revision, now: at(7))
        #expect(machine.phase == .running)
        #expect(done.send?.admissions.count == 1 && done.send?.floor == .zero)
    }

    @Test func storeThatIsAheadAtTheStartIsFollowed() {
        var machine = machine(lastSequence: 5)
        let sent = machine.started(now: at(0)).send!
        let learned = machine.answerReceived(answer(.ok, applied: 8), revision: sent.revision, now: at(1))
        #expect(learned.alarms == [.recordsLost(applied: 8, journaled: 5)] && learned.position == 8)
        #expect(machine.phase == .running && machine.nextSequence == 9)
        let asked = machine.admissionArrived(admission, ticket: 1, now: at(2)).send!
        #expect(asked.first == 9)
        let granted = machine.answerReceived(
            answer(.ok, applied: 8, [.granted(booking)]), revision: asked.revision, now: at(3))
        #expect(granted.decisions.count == 1 && granted.alarms.isEmpty && granted.position == nil)
        let charged = machine.holdSettled(ticket: 1, charge: testCharge(9), now: at(4))
        #expect(!charged.isIllegal && charged.send?.first == 9)
    }

    @Test func storeThatIsAheadAndCallsTheRevisionOldTellsNothingYet() {
        var machine = machine(lastSequence: 5)
        let sent = machine.started(now: at(0)).send!
        let stale = machine.answerReceived(answer(.stale, applied: 8), revision: sent.revision, now: at(1))
        #expect(stale.position == nil && stale.alarms.isEmpty && machine.phase == .learning)
    }

    @Test func storeThatGetsAheadOfTheJournalStopsTheOrg() {
        var machine = running()
        let sent = machine.admissionArrived(admission, ticket: 9, now: at(2)).send!
        let stopped = machine.answerReceived(
            answer(.ok, applied: 6, [.granted(booking)]), revision: sent.revision, now: at(3))
        #expect(stopped.alarms == [.stopped(.journalBehind(applied: 6, journaled: 5))])
        #expect(machine.admissionArrived(admission, ticket: 1, now: at(2)).decisions.first?.outcome == .unavailable)
        #expect(machine.timePassed(now: at(60 * second)).send == nil)
    }

    @Test func holeInWhatTheJournalGivesBackStopsTheOrg() {
        var machine = machine(lastSequence: 5)
        let sent = machine.started(now: at(0)).send!
        _ = machine.answerReceived(answer(.gap, applied: 2), revision: sent.revision, now: at(1))
        let read = machine.chargesRead([testCharge(3), testCharge(5)], unread: .zero, now: at(2))
        #expect(read.alarms == [.stopped(.chargesMissing(from: 3))])
    }

    @Test func endlessStalenessStopsTheOrg() {
        var machine = running()
        var time = at(10)
        var sent = machine.admissionArrived(admission, ticket: 1, now: time).send
        var answers = 0
        while let request = sent, answers < 100 {
            answers += 1
            let received = machine.answerReceived(answer(.stale, applied: 5), revision: request.revision, now: time)
            time = time.advanced(byNanoseconds: SpendingStateMachine.retryDelayMax)
            sent = received.send ?? machine.timePassed(now: time).send
        }
        #expect(machine.phase == .stopped(.alwaysStale))
        #expect(answers == SpendingStateMachine.staleMax + 1)
    }

    @Test func fencedJournalStillDeliversItsCharges() {
        var machine = State.fenced.machine
        let sent = machine.holdSettled(ticket: 1, charge: testCharge(6), now: at(10)).send
        #expect(sent?.charges.count == 1)
        let done = machine.answerReceived(answer(.fenced, applied: 6), revision: sent!.revision, now: at(11))
        #expect(done.alarms.isEmpty && machine.isFlushed && machine.phase == .fenced)
    }

    @Test func overspendIsReportedOnce() {
        var machine = holding()
        for (round, alarms) in [[SpendingStateMachine.Alarm.overspent], [], []].enumerated() {
            let time = at(Int64(10 + 4 * round) * second)
            let sent = machine.timePassed(now: time).send!
            let overspent = answer(.ok, applied: 5, isOverspent: round < 2)
            #expect(machine.answerReceived(overspent, revision: sent.revision, now: time).alarms == alarms)
        }
    }
}

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

    static let table: [State: [Event: String]] = [:]

    @Test(arguments: State.allCases) func everyEventDoesWhatTheTableSays(in state: State) {
        for event in Event.allCases {
            print("T", state.rawValue, event.rawValue, Self.outcome(event, in: state), separator: "|")
        }
    }
}

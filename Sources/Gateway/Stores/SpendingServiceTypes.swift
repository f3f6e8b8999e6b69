import Billing
import Domain
import NIOCore
import Synchronization

/// Names an admission that waits, to abandon it.
package struct AdmissionTicket: Hashable, Sendable {
    package let org: OrgID
    let number: UInt64
}

package enum AdmissionOutcome: Hashable, Sendable {
    /// Let in: to be settled or released exactly once.
    case granted(Hold)
    case refused(Refusal, RateStatus)
    /// No store, no journal, no answer in time, or too many wait: 503.
    case unavailable
}

/// Money, a slot and rate tokens set aside for one request.
package struct Hold: Hashable, Sendable {
    let id: UInt64
    package let org: OrgID
    package let key: KeyID
    package let requestID: RequestID
    /// The most that can be charged.
    package let amount: NanoUSD
    package let booking: RateBooking
    /// What the rate headers say.
    package let rates: RateStatus
    /// Tokens that the admission asked for.
    package let tokens: Int
}

/// What a request cost.
package struct Settlement: Hashable, Sendable {
    package var model: ModelID
    package var price: Price
    package var usage: TokenUsage
    /// The usage is the gateway's own count.
    package var isEstimated: Bool
    package var at: WallTime

    package init(model: ModelID, price: Price, usage: TokenUsage, isEstimated: Bool, at: WallTime) {
        self.model = model
        self.price = price
        self.usage = usage
        self.isEstimated = isEstimated
        self.at = at
    }
}

/// The service at one moment, for metrics and readiness.
package struct SpendingSnapshot: Hashable, Sendable {
    package var orgs = 0
    /// Orgs that admit nothing until an operator acts: fenced ones too.
    package var stoppedOrgs = 0
    package var openHolds = 0
    package var openNanoUSD: Int64 = 0
    package var unsyncedCharges = 0
    package var unsyncedNanoUSD: Int64 = 0
    package var waitingAdmissions = 0
    package var syncs = 0
    package var syncFailures = 0
    /// Settles that cost more than their hold, and what was not charged.
    package var shortfalls = 0
    package var shortfallNanoUSD: Int64 = 0
    /// Charges that the journal did not take, and that went out from memory.
    package var unjournaledCharges = 0
    /// Charges that the store had at the start and the journal had lost.
    package var lostRecords = 0
    package var illegalEvents = 0
    package var isJournalHealthy = true

    package init() {}
}

/// Monotonic counts, relaxed: they order nothing.
final class SpendingCounters: Sendable {
    let syncs = Atomic<Int>(0)
    let syncFailures = Atomic<Int>(0)
    let shortfalls = Atomic<Int>(0)
    let shortfallNanoUSD = Atomic<Int64>(0)
    let unjournaledCharges = Atomic<Int>(0)
    let lostRecords = Atomic<Int>(0)
    let illegalEvents = Atomic<Int>(0)
}

/// Who waits for a verdict.
struct Waiter: Sendable {
    let requestID: RequestID
    let admission: Admission
    let loop: any EventLoop
    let completion: NIOLoopBound<(AdmissionOutcome) -> Void>
    /// Decided, and on its way to the loop.
    var outcome: AdmissionOutcome?
}

/// What to do once a shard is unlocked.
struct Plan: Sendable {
    /// Admissions whose outcome stands with their waiters, to be told on these loops.
    var decided: [(ticket: UInt64, loop: any EventLoop)] = []
    /// How many of those that were decided do not need their room in the journal any more.
    var unreserved = 0
    var alarms: [SpendingStateMachine.Alarm] = []
    var position: Int64?
    var read: ClosedRange<Int64>?
    var send: SyncRequest?
    var isIllegal = false

    var isEmpty: Bool { decided.isEmpty && alarms.isEmpty && read == nil && send == nil && !isIllegal }
}

/// A part of the orgs behind one lock.
final class Shard: Sendable {
    let state = Mutex(State())

    struct Org: Sendable {
        let id: OrgID
        var machine: SpendingStateMachine
        /// It is among those that time passes for.
        var isListed = false
    }

    struct State: Sendable {
        /// In the order in which they came: none leaves, so each keeps its index.
        var orgs: ContiguousArray<Org> = []
        private var indexes: [OrgID: Int] = [:]
        /// Orgs that are not idle.
        private var listed: [Int] = []
        var waiters: [UInt64: Waiter] = [:]

        /// - Returns: nil where no request of the org has come.
        func index(of org: OrgID) -> Int? { indexes[org] }

        /// - Returns: nil where the shard is full.
        mutating func index(of org: OrgID, creating make: () -> SpendingStateMachine) -> Int? {
            if let index = indexes[org] { return index }
            guard orgs.count < SpendingService.orgsMax / SpendingService.shardCount else { return nil }
            indexes[org] = orgs.count
            orgs.append(Org(id: org, machine: make()))
            return orgs.count - 1
        }

        /// An org's machine in place, since a copy would retain all that it holds.
        mutating func withMachine<Answer>(
            at index: Int, _ body: (inout SpendingStateMachine) -> Answer
        ) -> Answer { body(&orgs[index].machine) }

        /// Gives a machine an event.
        mutating func apply(
            at index: Int, _ event: (inout SpendingStateMachine) -> SpendingStateMachine.Actions
        ) -> Plan {
            let actions = event(&orgs[index].machine)
            if !orgs[index].isListed, !orgs[index].machine.isIdle {
                orgs[index].isListed = true
                listed.append(index)
            }
            let org = orgs[index].id
            var plan = Plan(
                alarms: actions.alarms, position: actions.position, read: actions.read, send: actions.send,
                isIllegal: actions.isIllegal)
            for decision in actions.decisions { decide(decision.ticket, decision.outcome, org, &plan) }
            return plan
        }

        /// Writes an outcome down in the same critical section as the machine's decision, so that whoever abandons the
        /// ticket from another loop sees either a request that waits or the hold that it has to give back.
        mutating func decide(
            _ ticket: UInt64, _ outcome: SpendingStateMachine.Outcome, _ org: OrgID, _ plan: inout Plan
        ) {
            guard let loop = waiters[ticket]?.decide(ticket, outcome, org) else { return }
            if case .granted = outcome {} else { plan.unreserved += 1 }
            plan.decided.append((ticket, loop))
        }

        mutating func timePassed(now: MonotonicTime) -> [(OrgID, Plan)] {
            guard !listed.isEmpty else { return [] }
            var plans: [(OrgID, Plan)] = []
            for index in listed {
                let plan = apply(at: index) { $0.timePassed(now: now) }
                if !plan.isEmpty { plans.append((orgs[index].id, plan)) }
            }
            listed.removeAll { index in
                guard orgs[index].machine.isIdle else { return false }
                orgs[index].isListed = false
                return true
            }
            return plans
        }
    }
}

extension Waiter {
    /// In place: a copy would retain all that it holds.
    ///
    /// - Returns: Where it is to be told.
    fileprivate mutating func decide(
        _ ticket: UInt64, _ outcome: SpendingStateMachine.Outcome, _ org: OrgID
    ) -> any EventLoop {
        self.outcome =
            switch outcome {
            case .granted(let booking, let rates):
                .granted(
                    Hold(
                        id: ticket, org: org, key: admission.key, requestID: requestID, amount: admission.hold,
                        booking: booking, rates: rates, tokens: admission.tokens))
            case .refused(let refusal, let rates): .refused(refusal, rates)
            case .unavailable: .unavailable
            }
        return loop
    }
}

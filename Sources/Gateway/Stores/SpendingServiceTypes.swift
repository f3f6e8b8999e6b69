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
        var machine: SpendingStateMachine
        /// It is among those that time passes for.
        var isListed = false
    }

    struct State: Sendable {
        var orgs: [OrgID: Org] = [:]
        /// Orgs that are not idle.
        var listed: [OrgID] = []
        var waiters: [UInt64: Waiter] = [:]

        /// - Returns: nil where the shard is full.
        mutating func index(
            of org: OrgID, creating make: () -> SpendingStateMachine
        ) -> Dictionary<OrgID, Org>.Index? {
            if let index = orgs.index(forKey: org) { return index }
            guard orgs.count < SpendingService.orgsMax / SpendingService.shardCount else { return nil }
            orgs[org] = Org(machine: make())
            return orgs.index(forKey: org)
        }

        /// Gives a machine an event.
        mutating func apply(
            _ org: OrgID, at index: Dictionary<OrgID, Org>.Index,
            _ event: (inout SpendingStateMachine) -> SpendingStateMachine.Actions
        ) -> Plan {
            let actions = event(&orgs.values[index].machine)
            if !orgs.values[index].isListed, !orgs.values[index].machine.isIdle {
                orgs.values[index].isListed = true
                listed.append(org)
            }
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
            guard let waiter = waiters[ticket] else { return }
            switch outcome {
            case .granted(let booking, let rates):
                waiters[ticket]?.outcome = .granted(
                    Hold(
                        id: ticket, org: org, key: waiter.admission.key, requestID: waiter.requestID,
                        amount: waiter.admission.hold, booking: booking, rates: rates,
                        tokens: waiter.admission.tokens))
            case .refused(let refusal, let rates):
                waiters[ticket]?.outcome = .refused(refusal, rates)
                plan.unreserved += 1
            case .unavailable:
                waiters[ticket]?.outcome = .unavailable
                plan.unreserved += 1
            }
            plan.decided.append((ticket, waiter.loop))
        }

        mutating func timePassed(now: MonotonicTime) -> [(OrgID, Plan)] {
            guard !listed.isEmpty else { return [] }
            var plans: [(OrgID, Plan)] = []
            for org in listed {
                guard let index = orgs.index(forKey: org) else { continue }
                let plan = apply(org, at: index) { $0.timePassed(now: now) }
                if !plan.isEmpty { plans.append((org, plan)) }
            }
            listed.removeAll { org in
                guard let index = orgs.index(forKey: org), orgs.values[index].machine.isIdle else { return false }
                orgs.values[index].isListed = false
                return true
            }
            return plans
        }
    }
}

import Billing
import Domain
import Logging
import NIOCore
import Synchronization

/// Lets requests in against the ledger and charges them, for all event loops of the gateway.
///
/// One ``SpendingStateMachine`` an org decides; they lie in shards, each behind a mutex, and what they decide is done
/// after unlocking, with one exception: a charge gets its sequence and goes into the journal under its shard's lock,
/// because sequences have to reach the journal in order.
///
/// A SYNC goes out through the transport of whoever caused it, and its answer starts the next one there. A verdict hops
/// to the loop of the request that waits for it, if that is another.
///
/// Spending fails closed: without a store, a journal or room in it, requests get `.unavailable`.
package final class SpendingService: Sendable {
    /// Orgs are spread over this many locks; a power of two.
    package static let shardCount = 16
    /// Orgs that one gateway can serve between restarts; requests of further ones are `.unavailable`.
    package static let orgsMax = 200_000

    let journal: Journal
    let logger: Logger
    let now: @Sendable () -> MonotonicTime
    let shards: [Shard]
    let counters = SpendingCounters()
    private let tickets = Atomic<UInt64>(0)

    package init(
        journal: Journal, logger: Logger, now: @escaping @Sendable () -> MonotonicTime = { .now() }
    ) {
        self.journal = journal
        self.logger = logger
        self.now = now
        let shards = (0..<Self.shardCount).map { _ in Shard() }
        self.shards = shards
        journal.setAppliedSource { org in
            Self.shard(of: org, in: shards).state.withLock { state in
                state.index(of: org).flatMap { state.withMachine(at: $0) { $0.applied } }
            }
        }
    }

    // MARK: Admission

    /// Asks the store to let a request in. On the request's loop, which is the transport's.
    ///
    /// - Parameter completion: Called on that same loop after this returns, exactly once, never if abandoned before.
    package func admit(
        _ admission: Admission, org: OrgID, requestID: RequestID, on transport: any LedgerTransport,
        completion: @escaping (AdmissionOutcome) -> Void
    ) -> AdmissionTicket {
        let ticket = AdmissionTicket(
            org: org, number: tickets.wrappingAdd(1, ordering: .relaxed).newValue)
        let loop = transport.eventLoop
        let waiter = Waiter(
            requestID: requestID, admission: admission, loop: loop,
            completion: NIOLoopBound(completion, eventLoop: loop))
        let isReserved = journal.reserve()
        let plan = shard(of: org).state.withLock { state -> Plan in
            state.waiters[ticket.number] = waiter
            guard isReserved, let index = state.index(of: org, creating: { makeMachine(org) }) else {
                var plan = Plan()
                state.decide(ticket.number, .unavailable, org, &plan)
                if !isReserved { plan.unreserved = 0 }
                return plan
            }
            return state.apply(at: index) { machine in
                machine.admissionArrived(admission, ticket: ticket.number, now: now())
            }
        }
        perform(plan, org: org, on: transport, isWithinAdmit: true)
        return ticket
    }

    /// The request is gone: its completion is not called any more, and what it was or will be granted goes back.
    package func abandon(_ ticket: AdmissionTicket, on transport: any LedgerTransport) {
        let (granted, isFound) = shard(of: ticket.org).state.withLock { state -> (Hold?, Bool) in
            guard let waiter = state.waiters.removeValue(forKey: ticket.number) else { return (nil, false) }
            switch waiter.outcome {
            case .granted(let hold): return (hold, true)
            case .refused, .unavailable: return (nil, false)
            case nil:
                if let index = state.index(of: ticket.org) {
                    state.withMachine(at: index) { $0.admissionAbandoned(ticket: ticket.number) }
                }
                return (nil, true)
            }
        }
        if let granted {
            release(granted, on: transport)
        } else if isFound {
            journal.unreserve()
        }
    }

    // MARK: The life of a hold

    /// Journals an Open: before a stream's first byte goes down.
    /// - Throws: It is not in the journal: send nothing.
    package func opened(
        _ hold: Hold, model: ModelID, price: Price, promptTokens: Int
    ) throws(JournalFailure) {
        try journal.appendOpen(
            JournalOpen(
                requestID: hold.requestID, org: hold.org, key: hold.key, model: model, price: price,
                promptTokens: promptTokens, hold: hold.amount, booking: hold.booking))
    }

    /// What a stream has delivered so far: each second of a stream. Best effort.
    package func progressed(_ hold: Hold, completionTokens: Int) {
        journal.appendProgress(hold.requestID, completionTokens: completionTokens)
    }

    /// Charges what the request cost and gives back the rest. The charge is written when this returns; then it goes
    /// out.
    ///
    /// An amount above the hold is capped there and counted. A hold that was settled or released before is left alone.
    /// In `fsync` mode a charge that is written but not known to be on the disk stands all the same: the journal counts
    /// as failed, so nothing new is admitted, but this answer may go down.
    /// - Parameter isDelivered: The client already has some of the answer (a stream).
    /// - Throws: The journal did not take the charge; the last byte should not go down. Where nothing was delivered,
    ///   nothing is charged and the hold is released: an answer that is withheld costs nothing. Where something was,
    ///   the charge goes to the store from memory, and is lost only if the gateway ends before.
    package func settle(
        _ hold: Hold, _ settlement: Settlement, isDelivered: Bool = false, on transport: any LedgerTransport
    ) throws(JournalFailure) {
        let amount = capped(hold, settlement)
        var failure: JournalFailure?
        var position: UInt64 = 0
        let plan = shard(of: hold.org).state.withLock { state -> Plan? in
            guard let index = state.index(of: hold.org),
                let sequence = state.withMachine(at: index, { $0.hasOpenHold(hold.id) ? $0.nextSequence : nil })
            else { return nil }
            let charge = Charge(
                sequence: sequence, requestID: hold.requestID, key: hold.key,
                model: settlement.model, priceVersion: settlement.price.version, usage: settlement.usage,
                amount: amount, isEstimated: settlement.isEstimated, at: settlement.at, booking: hold.booking,
                unusedTokens: max(0, hold.booking.tokens - settlement.usage.totalTokens))
            do throws(JournalFailure) {
                position = try journal.appendCharge(charge, org: hold.org)
            } catch {
                failure = error
            }
            if failure != nil, !isDelivered {
                return state.apply(at: index) { machine in
                    machine.holdReleased(ticket: hold.id, booking: hold.booking)
                }
            }
            return state.apply(at: index) { machine in
                machine.holdSettled(ticket: hold.id, charge: charge, now: now())
            }
        }
        guard let plan else { return illegal("settled", hold) }
        if failure == nil {
            do throws(JournalFailure) { try journal.wait(for: position) } catch { journal.fail(error) }
        } else if !isDelivered {
            // The failed charge gave the room back; a stream's Open must not be charged by the next start.
            journal.takeBackOpen(hold.requestID)
        }
        perform(plan, org: hold.org, on: transport)
        guard let failure else { return }
        if isDelivered { counters.unjournaledCharges.add(1, ordering: .relaxed) }
        logger.critical(
            isDelivered
                ? "a charge is not in the journal"
                : "the journal did not take a charge: the answer is withheld and costs nothing",
            metadata: ["request_id": "\(hold.requestID)", "error": "\(failure)"])
        throw failure
    }

    /// The request cost nothing: all of the hold goes back, within 50 ms.
    package func release(_ hold: Hold, on transport: any LedgerTransport) {
        let plan = shard(of: hold.org).state.withLock { state -> Plan? in
            guard let index = state.index(of: hold.org), state.withMachine(at: index, { $0.hasOpenHold(hold.id) })
            else {
                return nil
            }
            return state.apply(at: index) { machine in
                machine.holdReleased(ticket: hold.id, booking: hold.booking)
            }
        }
        guard let plan else { return illegal("released", hold) }
        journal.appendRelease(hold.requestID)
        perform(plan, org: hold.org, on: transport)
    }

    private func capped(_ hold: Hold, _ settlement: Settlement) -> NanoUSD {
        let cost = try? settlement.price.cost(of: settlement.usage)
        guard let cost, cost <= hold.amount else {
            counters.shortfalls.add(1, ordering: .relaxed)
            // A cost that no price can have (an impossible usage) is counted, but adds no amount.
            let missing = cost.map { $0.nanodollars - hold.amount.nanodollars } ?? 0
            counters.shortfallNanoUSD.wrappingAdd(missing, ordering: .relaxed)
            logger.error(
                "a request cost more than its hold: the rest is not charged",
                metadata: ["request_id": "\(hold.requestID)", "shortfall_nanousd": "\(missing)"])
            return hold.amount
        }
        return cost
    }

    private func illegal(_ event: String, _ hold: Hold) {
        counters.illegalEvents.add(1, ordering: .relaxed)
        logger.error("a hold was \(event) twice", metadata: ["request_id": "\(hold.requestID)"])
    }

    // MARK: Time

    /// Retries, heartbeats, releases and late admissions. Each 50 ms, from one loop.
    package func tick(on transport: any LedgerTransport) {
        let now = now()
        for shard in shards {
            let plans = shard.state.withLock { state in state.timePassed(now: now) }
            for (org, plan) in plans { perform(plan, org: org, on: transport) }
        }
    }

    func makeMachine(_ org: OrgID) -> SpendingStateMachine {
        SpendingStateMachine(
            org: org, journal: journal.id, incarnation: journal.incarnation,
            lastSequence: journal.recovery.lastSequences[org] ?? 0)
    }

    func shard(of org: OrgID) -> Shard { Self.shard(of: org, in: shards) }

    private static func shard(of org: OrgID, in shards: [Shard]) -> Shard {
        shards[org.hashValue & (shardCount - 1)]
    }
}

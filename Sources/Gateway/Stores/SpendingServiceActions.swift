import Billing
import Domain
import Logging
import NIOCore
import NIOPosix

/// The shell's other half: what machines decided is done here, on the loop of the transport that is passed along.
extension SpendingService {
    /// - Parameter isWithinAdmit: The request that is being admitted may be among the decided: it is told later.
    func perform(_ plan: Plan, org: OrgID, on transport: any LedgerTransport, isWithinAdmit: Bool = false) {
        for alarm in plan.alarms { log(alarm, org: org) }
        if let position = plan.position { journal.appendPosition(position, org: org) }
        if plan.isIllegal { counters.illegalEvents.add(1, ordering: .relaxed) }
        for _ in 0..<plan.unreserved { journal.unreserve() }
        if !plan.decided.isEmpty { tell(plan.decided, org: org, isWithinAdmit: isWithinAdmit) }
        if let read = plan.read { self.read(read, org: org, on: transport) }
        if let request = plan.send { send(request, on: transport) }
    }

    // MARK: Verdicts

    /// Those on this loop at once, those of other loops with one hop a loop.
    private func tell(
        _ decided: [(ticket: UInt64, loop: any EventLoop)], org: OrgID, isWithinAdmit: Bool
    ) {
        var here: [UInt64] = []
        var elsewhere: [ObjectIdentifier: (loop: any EventLoop, tickets: [UInt64])] = [:]
        for (ticket, loop) in decided {
            if !isWithinAdmit, loop.inEventLoop {
                here.append(ticket)
            } else {
                elsewhere[ObjectIdentifier(loop), default: (loop, [])].tickets.append(ticket)
            }
        }
        tell(here, org: org)
        for (loop, tickets) in elsewhere.values {
            loop.execute { [self] in tell(tickets, org: org) }
        }
    }

    /// On the waiters' loop. One that was abandoned on the way is not there any more.
    private func tell(_ tickets: [UInt64], org: OrgID) {
        guard !tickets.isEmpty else { return }
        let waiters = shard(of: org).state.withLock { state in
            tickets.compactMap { state.waiters.removeValue(forKey: $0) }
        }
        for waiter in waiters {
            if let outcome = waiter.outcome { waiter.completion.value(outcome) }
        }
    }

    // MARK: The store and the journal

    private func send(_ request: SyncRequest, on transport: any LedgerTransport) {
        counters.syncs.add(1, ordering: .relaxed)
        let (org, revision) = (request.org, request.revision)
        // A transport that knows at once that it cannot send may say so within the call: its caller is in the midst of
        // something, so the answer waits for the loop's next turn.
        var isWithinCall = true
        transport.sync(request) { [self] result in
            if isWithinCall {
                let bound = NIOLoopBound(transport, eventLoop: transport.eventLoop)
                transport.eventLoop.execute { self.received(result, org, revision, on: bound.value) }
            } else {
                received(result, org, revision, on: transport)
            }
        }
        isWithinCall = false
    }

    private func received(
        _ result: Result<SyncAnswer, LedgerTransportFailure>, _ org: OrgID, _ revision: SyncRevision,
        on transport: any LedgerTransport
    ) {
        if case .failure(let failure) = result {
            counters.syncFailures.add(1, ordering: .relaxed)
            logger.debug("SYNC failed", metadata: ["org": "\(org)", "error": "\(failure)"])
        }
        apply(org, on: transport) { machine, now in
            switch result {
            case .success(let answer): machine.answerReceived(answer, revision: revision, now: now)
            case .failure: machine.transportFailed(revision: revision, now: now)
            }
        }
    }

    private func read(_ sequences: ClosedRange<Int64>, org: OrgID, on transport: any LedgerTransport) {
        let loop = transport.eventLoop
        let bound = NIOLoopBound(transport, eventLoop: loop)
        logger.info(
            "the store lacks charges that the journal has: reading them back",
            metadata: ["org": "\(org)", "from": "\(sequences.lowerBound)", "through": "\(sequences.upperBound)"])
        NIOThreadPool.singleton.submit { [self] state in
            guard case .active = state else { return }
            var found = JournalCharges()
            do {
                found = try journal.charges(of: org, in: sequences)
            } catch {
                logger.critical("the journal cannot be read back", metadata: ["org": "\(org)", "error": "\(error)"])
            }
            let charges = found
            loop.execute {
                self.apply(org, on: bound.value) { machine, now in
                    machine.chargesRead(charges.charges, unread: charges.unread, now: now)
                }
            }
        }
    }

    /// Gives an org's machine an event and does what follows.
    func apply(
        _ org: OrgID, on transport: any LedgerTransport,
        _ event: (inout SpendingStateMachine, MonotonicTime) -> SpendingStateMachine.Actions
    ) {
        let now = now()
        let plan = shard(of: org).state.withLock { state -> Plan? in
            guard let index = state.index(of: org) else { return nil }
            return state.apply(at: index) { event(&$0, now) }
        }
        if let plan { perform(plan, org: org, on: transport) }
    }

    private func log(_ alarm: SpendingStateMachine.Alarm, org: OrgID) {
        switch alarm {
        case .stopped(.journalBehind(let applied, let journaled)):
            logger.critical(
                """
                org stopped: the store has applied charges that this gateway did not make; end the other process that \
                uses a copy of this journal, then restart this gateway
                """,
                metadata: ["org": "\(org)", "applied": "\(applied)", "journaled": "\(journaled)"])
        case .stopped(.chargesMissing(let from)):
            logger.critical(
                "org stopped: the store lacks charges that the journal does not keep any more; restore the archive",
                metadata: ["org": "\(org)", "from": "\(from)"])
        case .stopped(.alwaysStale):
            logger.critical(
                "org stopped: the store calls every revision old; another process spends with a copy of this journal",
                metadata: ["org": "\(org)", "journal": "\(journal.id)"])
        case .fenced:
            logger.critical(
                "this journal was retired: nothing is admitted any more", metadata: ["org": "\(org)"])
        case .recordsLost(let applied, let journaled):
            counters.lostRecords.wrappingAdd(Int(applied - journaled), ordering: .relaxed)
            logger.error(
                """
                the store has applied charges whose records this journal lost (a failed write, or power lost): the org \
                goes on after them; the ledger's entries are the only record of them
                """,
                metadata: ["org": "\(org)", "applied": "\(applied)", "journaled": "\(journaled)"])
        case .unknownOrg(let charges):
            logger.error(
                "the store does not know an org that owes charges: they stay and are offered again",
                metadata: ["org": "\(org)", "charges": "\(charges)"])
        case .overspent:
            logger.error("the store reports that more is lent than there is", metadata: ["org": "\(org)"])
        }
    }
}

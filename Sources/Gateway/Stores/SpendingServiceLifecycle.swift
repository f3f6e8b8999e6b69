import Billing
import Domain
import NIOCore
import Synchronization

/// The store did not answer in time at the start. Orgs stay closed until it does; ticks go on trying.
package struct ReplayFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package var orgs: Int

    package var description: String {
        "the store did not take over the charges of \(orgs) orgs in time; they admit nothing until it does"
    }
}

/// Start, shutdown and what metrics see.
extension SpendingService {
    /// How often start and shutdown look whether they are done.
    static let lifecycleInterval = TimeAmount.milliseconds(10)
    /// Orgs whose charges are brought to the store at a time.
    package static let replaysMax = 64
    /// How long a start waits for the store.
    package static let replayWait: Duration = .seconds(10)

    package var snapshot: SpendingSnapshot {
        var snapshot = SpendingSnapshot()
        for shard in shards {
            shard.state.withLock { state in
                snapshot.orgs += state.orgs.count
                for org in state.orgs {
                    if org.machine.isStopped || org.machine.phase == .fenced { snapshot.stoppedOrgs += 1 }
                    snapshot.openHolds += org.machine.openHolds
                    snapshot.openNanoUSD += org.machine.openHoldsAmount.nanodollars
                    snapshot.unsyncedCharges += org.machine.unsyncedCharges
                    snapshot.unsyncedNanoUSD += org.machine.unsyncedChargesAmount.nanodollars
                    snapshot.waitingAdmissions += org.machine.waitingAdmissions
                }
            }
        }
        snapshot.syncs = counters.syncs.load(ordering: .relaxed)
        snapshot.syncFailures = counters.syncFailures.load(ordering: .relaxed)
        snapshot.shortfalls = counters.shortfalls.load(ordering: .relaxed)
        snapshot.shortfallNanoUSD = counters.shortfallNanoUSD.load(ordering: .relaxed)
        snapshot.unjournaledCharges = counters.unjournaledCharges.load(ordering: .relaxed)
        snapshot.lostRecords = counters.lostRecords.load(ordering: .relaxed)
        snapshot.illegalEvents = counters.illegalEvents.load(ordering: .relaxed)
        snapshot.isJournalHealthy = journal.isHealthy
        return snapshot
    }

    /// Brings what the journal holds to the store, org by org. On the transport's loop.
    ///
    /// Nothing is wrong with serving before it is done: an org admits nothing until its own charges are there.
    /// - Returns: Fails with ``ReplayFailure`` where that takes longer than `wait`.
    package func replay(on transport: any LedgerTransport, wait: Duration = replayWait) -> EventLoopFuture<Void> {
        let loop = transport.eventLoop
        let promise = loop.makePromise(of: Void.self)
        let deadline = now().advanced(by: wait)
        let run = ReplayRun(pending: Array(journal.recovery.lastSequences.keys))
        let bound = NIOLoopBound((transport, run), eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.lifecycleInterval) { [self] task in
            let (transport, run) = bound.value
            run.outstanding.removeAll { isSettledIn($0) }
            while run.outstanding.count < Self.replaysMax, let org = run.pending.popLast() {
                begin(org, on: transport)
                run.outstanding.append(org)
            }
            tick(on: transport)
            let left = run.outstanding.count + run.pending.count
            if left == 0 {
                promise.succeed()
            } else if now() >= deadline {
                // The rest is begun as well: ticks carry on with them.
                for org in run.pending { begin(org, on: transport) }
                promise.fail(ReplayFailure(orgs: left))
            } else {
                return
            }
            task.cancel()
        }
        return promise.futureResult
    }

    package func replay(on transport: NIOLoopBound<any LedgerTransport>, loop: any EventLoop) async throws {
        try await loop.flatSubmit { self.replay(on: transport.value) }.get()
    }

    /// Waits until the store has all charges and releases. On the transport's loop.
    ///
    /// - Returns: Charges that it did not take before `deadline`; they are in the journal, and the next start sends
    ///   them.
    package func flush(on transport: any LedgerTransport, deadline: MonotonicTime) -> EventLoopFuture<Int> {
        let loop = transport.eventLoop
        let promise = loop.makePromise(of: Int.self)
        let bound = NIOLoopBound(transport, eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.lifecycleInterval) { [self] task in
            tick(on: bound.value)
            guard isFlushed || now() >= deadline else { return }
            promise.succeed(snapshot.unsyncedCharges)
            task.cancel()
        }
        return promise.futureResult
    }

    package func flush(
        on transport: NIOLoopBound<any LedgerTransport>, loop: any EventLoop, deadline: MonotonicTime
    ) async -> Int {
        let flushed = loop.flatSubmit { self.flush(on: transport.value, deadline: deadline) }
        return (try? await flushed.get()) ?? snapshot.unsyncedCharges
    }

    private var isFlushed: Bool {
        shards.allSatisfy { shard in shard.state.withLock { $0.orgs.allSatisfy(\.machine.isFlushed) } }
    }

    private func begin(_ org: OrgID, on transport: any LedgerTransport) {
        let now = now()
        let plan = shard(of: org).state.withLock { state -> Plan? in
            guard let index = state.index(of: org, creating: { makeMachine(org) }),
                state.withMachine(at: index, { $0.phase == .learning })
            else { return nil }
            return state.apply(at: index) { $0.started(now: now) }
        }
        if let plan { perform(plan, org: org, on: transport) }
    }

    private func isSettledIn(_ org: OrgID) -> Bool {
        shard(of: org).state.withLock { state in
            state.index(of: org).map { state.withMachine(at: $0) { $0.isSettledIn } } ?? true
        }
    }
}

/// What a replay has to do yet. On one loop.
private final class ReplayRun {
    var pending: [OrgID]
    var outstanding: [OrgID] = []

    init(pending: [OrgID]) { self.pending = pending }
}

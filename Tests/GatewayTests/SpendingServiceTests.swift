import Billing
import Domain
import Glibc
import NIOCore
import Synchronization
import Testing

@testable import Gateway

@Suite struct SpendingServiceTests {
    @Test func settledRequestIsChargedWhatItCostAndTheRestComesBack() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger(balance: 5_000))
        defer { rig.close() }
        let hold = try await rig.granted(1)
        #expect(hold.amount.nanodollars == 1_000 && hold.tokens == 100 && hold.booking.tokens == 100)
        #expect(rig.ledger.org.lent == 1_000)
        try await rig.on { service, transport in try service.settle(hold, SpendingRig.settlement(), on: transport) }
        #expect(await rig.flush() == 0)
        #expect(rig.ledger.settles.map(\.amount.nanodollars) == [-60])
        #expect(rig.ledger.settles.first?.requestID == hold.requestID.description)
        #expect(rig.ledger.org.balance == 4_940 && rig.ledger.org.lent == 0)
        let journaled = try rig.journal.charges(of: JournalFixture.org, in: 1...1).charges
        #expect(journaled.first?.amount.nanodollars == 60 && journaled.first?.unusedTokens == 50)
        #expect(rig.service.snapshot.openHolds == 0 && rig.service.snapshot.illegalEvents == 0)
    }

    @Test func costAboveTheHoldIsCappedAndCounted() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        let hold = try await rig.granted(1, hold: 50)
        try await rig.on { service, transport in try service.settle(hold, SpendingRig.settlement(), on: transport) }
        await rig.flush()
        #expect(rig.ledger.settles.map(\.amount.nanodollars) == [-50])
        #expect(rig.service.snapshot.shortfalls == 1 && rig.service.snapshot.shortfallNanoUSD == 10)
    }

    @Test func refusalSaysWhyAndLeavesNothingBehind() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger(balance: 500))
        defer { rig.close() }
        guard case .refused(let refusal, _) = try await rig.admit(1) else {
            Issue.record("admitted beyond the balance")
            return
        }
        #expect(refusal == .balance(mayComeBack: false))
        await rig.flush()
        #expect(rig.ledger.org.lent == 0)
        #expect(rig.journal.state.withLock { $0.reservedBytes } == 0)
    }

    @Test func releasedRequestCostsNothing() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger(balance: 5_000, limits: Limits(tokensPerMinute: 150)))
        defer { rig.close() }
        for id in 1...UInt64(5) {
            // Only if the tokens come back is there room for the next.
            let hold = try await rig.granted(id)
            try await rig.on { service, transport in
                try service.opened(hold, model: JournalFixture.model, price: JournalFixture.price, promptTokens: 40)
                service.release(hold, on: transport)
            }
            await rig.flush()
        }
        #expect(rig.ledger.org.balance == 5_000 && rig.ledger.org.lent == 0 && rig.ledger.settles.isEmpty)
        rig.close()
        // The opens were taken back: the next start charges nothing.
        let again = try JournalFixture.journal(directory)
        #expect(again.recovery.interruptedStreams == 0 && again.recovery.lastSequences.isEmpty)
        again.close()
    }

    @Test func secondSettleOfAHoldChangesNothing() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        let hold = try await rig.granted(1)
        try await rig.on { service, transport in
            try service.settle(hold, SpendingRig.settlement(), on: transport)
            try service.settle(hold, SpendingRig.settlement(), on: transport)
            service.release(hold, on: transport)
        }
        await rig.flush()
        #expect(rig.ledger.settles.count == 1)
        #expect(rig.service.snapshot.illegalEvents == 2)
        #expect(rig.journal.recovery.lastSequences.isEmpty)
        #expect(try rig.journal.charges(of: JournalFixture.org, in: 1...9).charges.count == 1)
    }

    // MARK: A store that is away

    @Test func unreachableStoreAdmitsNothingAndNothingIsToldWithinTheCall() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        rig.ledger.mode = .unreachable
        let (isWithin, outcome) = try await rig.on { service, transport in
            let promise = transport.eventLoop.makePromise(of: AdmissionOutcome.self)
            var isWithinCall = true
            var wasWithinCall = false
            _ = service.admit(
                Admission(key: JournalFixture.key, hold: NanoUSD(unchecked: 1), tokens: 1), org: JournalFixture.org,
                requestID: RequestID(high: 1, low: 1), on: transport
            ) { outcome in
                wasWithinCall = isWithinCall
                promise.succeed(outcome)
            }
            isWithinCall = false
            return (wasWithinCall, promise.futureResult)
        }
        #expect(try await outcome.get() == .unavailable)
        #expect(!isWithin)
        rig.ledger.mode = .answering
        await rig.flush()
        _ = try await rig.granted(2)
        #expect(rig.service.snapshot.syncFailures >= 1)
    }

    @Test func chargesOfAnAbsentStoreArriveWhenItIsBack() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        var holds: [Hold] = []
        for id in 1...UInt64(6) { holds.append(try await rig.granted(id)) }
        for (index, hold) in holds.enumerated() {
            rig.ledger.mode = index % 2 == 0 ? .unreachable : .losingAnswers
            try await rig.on { service, transport in try service.settle(hold, SpendingRig.settlement(), on: transport) }
        }
        #expect(await rig.flush(within: .milliseconds(200)) > 0)
        rig.ledger.mode = .answering
        #expect(await rig.flush() == 0)
        #expect(rig.ledger.settles.count == 6)
        #expect(Set(rig.ledger.settles.map(\.requestID)).count == 6)
        #expect(rig.ledger.org.lent == 0)
    }

    @Test func abandonedRequestIsNotToldAndGivesItsHoldBack() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        rig.ledger.mode = .holding
        let isTold = Mutex(false)
        let told: @Sendable () -> Void = { isTold.withLock { $0 = true } }
        try await rig.on { service, transport in
            for id in 1...UInt64(2) {
                let ticket = service.admit(
                    Admission(key: JournalFixture.key, hold: NanoUSD(unchecked: 70), tokens: 1),
                    org: JournalFixture.org, requestID: RequestID(high: 1, low: id), on: transport
                ) { _ in told() }
                service.abandon(ticket, on: transport)
                service.abandon(ticket, on: transport)
            }
            transport.ledger.mode = .answering
            transport.resume()
        }
        #expect(rig.ledger.org.lent == 70, "the first was sent, the second never")
        await rig.flush()
        #expect(rig.ledger.org.lent == 0 && !isTold.withLock { $0 })
        #expect(rig.journal.state.withLock { $0.reservedBytes } == 0)
    }

    @Test func verdictGoesToTheLoopOfItsRequest() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        rig.ledger.mode = .holding
        // Loop 0 has a call out; the request of loop 1 joins the next, which goes out through loop 0.
        async let first = rig.admit(1, loop: 0)
        while rig.service.snapshot.syncs == 0 { await Task.yield() }
        let loop = rig.loops[1]
        let second = try await rig.on(loop: 1) { service, transport in
            let promise = loop.makePromise(of: Bool.self)
            _ = service.admit(
                Admission(key: JournalFixture.key, hold: NanoUSD(unchecked: 1), tokens: 1), org: JournalFixture.org,
                requestID: RequestID(high: 1, low: 2), on: transport
            ) { outcome in
                guard case .granted = outcome else { return promise.succeed(false) }
                promise.succeed(loop.inEventLoop)
            }
            #expect(transport.held.isEmpty)
            return promise.futureResult
        }
        try await rig.on { _, transport in
            transport.ledger.mode = .answering
            transport.resume()
        }
        #expect(try await second.get())
        guard case .granted = try await first else {
            Issue.record("the first request was not granted")
            return
        }
    }

    // MARK: Restarts

    @Test func restartBringsEveryJournaledChargeToTheStoreOnce() async throws {
        let directory = JournalTestDirectory()
        let ledger = try FakeLedger()
        for run in 0..<3 {
            let rig = try await SpendingRig(directory, ledger)
            #expect(rig.journal.recovery.interruptedStreams == (run == 0 ? 0 : 1))
            try await rig.replay()
            // The charges of the run before, and its interrupted stream.
            #expect(ledger.settles.count == run * 5)
            #expect(ledger.org.lent == 0)
            var holds: [Hold] = []
            for id in 0..<UInt64(5) { holds.append(try await rig.granted(UInt64(run) * 10 + id)) }
            // Some arrive, some execute without an answer, some never leave.
            for (hold, mode) in zip(holds, [FakeLedger.Mode.answering, .losingAnswers, .unreachable, .unreachable]) {
                ledger.mode = mode
                try await rig.on { service, transport in
                    try service.settle(hold, SpendingRig.settlement(), on: transport)
                }
            }
            let stream = holds[4]
            try await rig.on { service, _ in
                try service.opened(stream, model: JournalFixture.model, price: JournalFixture.price, promptTokens: 7)
                service.progressed(stream, completionTokens: 3)
            }
            ledger.mode = .answering
            rig.close()
        }
        let rig = try await SpendingRig(directory, ledger)
        defer { rig.close() }
        try await rig.replay()
        #expect(ledger.settles.count == 15)
        #expect(Set(ledger.settles.map(\.requestID)).count == 15)
        #expect(ledger.settles.count(where: \.isEstimated) == 3)
        #expect(ledger.org.balance == 1_000_000_000 - 12 * 60 - 3 * 13)
    }

    @Test func storeThatForgetsIsToldAgainFromTheJournal() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        let before = rig.ledger.model.withLock { $0 }
        for id in 1...UInt64(300) {
            let hold = try await rig.granted(id, loop: Int(id) % 2)
            try await rig.on(loop: Int(id) % 2) { service, transport in
                try service.settle(hold, SpendingRig.settlement(), on: transport)
            }
        }
        await rig.flush()
        let balance = rig.ledger.org.balance
        rig.ledger.model.withLock { $0 = before }
        let hold = try await rig.granted(999)
        #expect(rig.ledger.org.balance == balance && rig.ledger.settles.count == 300)
        try await rig.on { service, transport in service.release(hold, on: transport) }
    }

    @Test func lostRecordsAreLearnedFromTheStoreAndTheOrgGoesOn() async throws {
        let directory = JournalTestDirectory()
        let ledger = try FakeLedger()
        let files = LimitedFiles(bytes: 1 << 30)
        let first = try await SpendingRig(directory, ledger, files: files)
        let holds = [try await first.granted(1), try await first.granted(2)]
        try await first.on { service, transport in
            try service.settle(holds[0], SpendingRig.settlement(), on: transport)
        }
        files.failWrites(EIO)
        await #expect(throws: JournalFailure(.write, code: EIO)) {
            try await first.on { service, transport in
                try service.settle(holds[1], SpendingRig.settlement(), isDelivered: true, on: transport)
            }
        }
        await first.flush()
        #expect(ledger.settles.count == 2)
        first.close()
        // The journal has 1 charge, the store 2.
        for run in 0..<3 {
            let rig = try await SpendingRig(directory, ledger)
            #expect(rig.journal.recovery.lastSequences[JournalFixture.org] == Int64(run == 0 ? 1 : run + 2))
            if run == 0 { try await rig.replay() }
            let hold = try await rig.granted(UInt64(10 + run))
            try await rig.on { service, transport in try service.settle(hold, SpendingRig.settlement(), on: transport) }
            #expect(await rig.flush() == 0)
            // Heard of once: the journal knows from then on.
            #expect(rig.service.snapshot.lostRecords == (run == 0 ? 1 : 0))
            #expect(rig.service.snapshot.stoppedOrgs == 0)
            rig.close()
        }
        #expect(ledger.settles.count == 5 && ledger.org.balance == 1_000_000_000 - 5 * 60 && ledger.org.lent == 0)
        #expect(Set(ledger.settles.map(\.requestID)).count == 5)
    }

    @Test func learnedPositionIsInTheJournalBeforeAnyCharge() async throws {
        let directory = JournalTestDirectory()
        let ledger = try FakeLedger()
        let rig = try await SpendingRig(directory, ledger)
        _ = ledger.execute(
            SyncRequest(
                org: JournalFixture.org, journal: rig.journal.id, revision: SyncRevision(incarnation: 0, counter: 1),
                first: 1, charges: [JournalFixture.charge(1)], returns: [], floor: .zero, openHolds: 0, want: .zero,
                slots: [], admissions: []))
        let hold = try await rig.granted(1)
        try await rig.on { service, transport in service.release(hold, on: transport) }
        rig.close()
        let again = try JournalFixture.journal(directory)
        #expect(again.recovery.lastSequences == [JournalFixture.org: 1])
        again.close()
    }

    @Test func chargesOfAnotherProcessStopTheOrgAndSaySo() async throws {
        let directory = JournalTestDirectory()
        let ledger = try FakeLedger()
        let rig = try await SpendingRig(directory, ledger)
        defer { rig.close() }
        let hold = try await rig.granted(9)
        try await rig.on { service, transport in service.release(hold, on: transport) }
        await rig.flush()
        // The store gets more from this journal than this gateway made.
        _ = ledger.execute(
            SyncRequest(
                org: JournalFixture.org, journal: rig.journal.id, revision: SyncRevision(incarnation: 0, counter: 1),
                first: 1, charges: [JournalFixture.charge(1)], returns: [], floor: .zero, openHolds: 0, want: .zero,
                slots: [], admissions: []))
        #expect(try await rig.admit(1) == .unavailable)
        #expect(rig.service.snapshot.stoppedOrgs == 1)
        #expect(try await rig.admit(2) == .unavailable)
        #expect(ledger.settles.count == 1)
    }

    @Test func startWithoutAStoreFailsInTimeAndGoesOnTrying() async throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...3)
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        rig.ledger.mode = .unreachable
        await #expect(throws: ReplayFailure(orgs: 1)) { try await rig.replay(wait: .milliseconds(50)) }
        rig.ledger.mode = .answering
        await rig.flush()
        #expect(rig.ledger.settles.count == 3)
    }

    // MARK: A journal that fails

    @Test func failedJournalAdmitsNothingAndStillDeliversWhatItCould() async throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let rig = try await SpendingRig(directory, FakeLedger(), files: files)
        defer { rig.close() }
        let hold = try await rig.granted(1)
        files.failWrites(ENOSPC)
        await #expect(throws: JournalFailure(.write, code: ENOSPC)) {
            try await rig.on { service, transport in
                try service.settle(hold, SpendingRig.settlement(), isDelivered: true, on: transport)
            }
        }
        await rig.flush()
        #expect(rig.ledger.settles.map(\.amount.nanodollars) == [-60])
        #expect(rig.service.snapshot.unjournaledCharges == 1 && !rig.service.snapshot.isJournalHealthy)
        #expect(try await rig.admit(2) == .unavailable)
        #expect(rig.ledger.org.lent == 0)
    }

    @Test func withheldAnswerCostsNothing() async throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let rig = try await SpendingRig(directory, FakeLedger(), files: files)
        let holds = [try await rig.granted(1), try await rig.granted(2)]
        // A stream that was about to begin, and an answer in one piece.
        try await rig.on { service, _ in
            try service.opened(holds[0], model: JournalFixture.model, price: JournalFixture.price, promptTokens: 7)
        }
        for hold in holds {
            files.failWrites(EIO)
            await #expect(throws: JournalFailure(.write, code: EIO)) {
                try await rig.on { service, transport in
                    defer { files.failWrites(0) }
                    try service.settle(hold, SpendingRig.settlement(), on: transport)
                }
            }
        }
        #expect(await rig.flush() == 0)
        #expect(rig.ledger.settles.isEmpty && rig.ledger.org.lent == 0 && rig.ledger.org.balance == 1_000_000_000)
        #expect(rig.service.snapshot.openHolds == 0 && rig.service.snapshot.unjournaledCharges == 0)
        #expect(rig.journal.state.withLock { $0.reservedBytes } == 0)
        rig.close()
    }

    @Test func chargeThatIsWrittenStandsThoughItsSyncFails() async throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let rig = try await SpendingRig(directory, FakeLedger(), files: files, sync: .fsync)
        defer { rig.close() }
        let hold = try await rig.granted(1)
        files.failSyncs(EIO)
        try await rig.on { service, transport in try service.settle(hold, SpendingRig.settlement(), on: transport) }
        await rig.flush()
        #expect(rig.ledger.settles.map(\.amount.nanodollars) == [-60])
        #expect(!rig.service.snapshot.isJournalHealthy && rig.service.snapshot.unjournaledCharges == 0)
        #expect(try await rig.admit(2) == .unavailable)
    }

    // MARK: Many at once

    @Test func manyRequestsOnTwoLoopsAreEachChargedOnce() async throws {
        let directory = JournalTestDirectory()
        let rig = try await SpendingRig(directory, FakeLedger())
        defer { rig.close() }
        let count = UInt64(400)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for id in 0..<count {
                group.addTask {
                    let loop = Int(id) % 2
                    let hold = try await rig.granted(id, loop: loop)
                    // Settled from the other loop as often as from its own.
                    try await rig.on(loop: Int(id / 2) % 2) { service, transport in
                        if id % 5 == 0 {
                            service.release(hold, on: transport)
                        } else {
                            try service.settle(hold, SpendingRig.settlement(completion: Int(id)), on: transport)
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(await rig.flush() == 0)
        var expected: Int64 = 0
        for id in 0..<count where id % 5 != 0 { expected += 40 + 2 * Int64(id) }
        #expect(rig.ledger.org.balance == 1_000_000_000 - expected && rig.ledger.org.lent == 0)
        #expect(Set(rig.ledger.settles.map(\.requestID)).count == Int(count) * 4 / 5)
        #expect(rig.service.snapshot.illegalEvents == 0 && rig.service.snapshot.shortfalls == 0)
        let sequences = try rig.journal.charges(of: JournalFixture.org, in: 1...Int64(count)).charges.map(\.sequence)
        #expect(sequences == Array(1...Int64(count) * 4 / 5))
        #expect(rig.service.snapshot.syncs < Int(count) * 2)
        #expect(rig.journal.state.withLock { $0.reservedBytes } == 0)
    }
}

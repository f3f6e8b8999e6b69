import Billing
import Domain
import Foundation
import Glibc
import Synchronization
import Testing

@testable import Gateway

@Suite struct JournalRoomTests {
    private let org = JournalFixture.org
    private static let segment = JournalConfiguration.segmentBytesMin

    @Test func fullDiskRefusesNewWorkAndTakesEveryChargeThatItPromised() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: Self.segment)
        let journal = try JournalFixture.journal(directory, segmentBytes: Self.segment, files: files)
        defer { journal.close() }
        var holds = 0
        while journal.reserve() { holds += 1 }
        #expect(holds >= 10 && holds <= Self.segment / Journal.holdBytes)
        #expect(journal.isHealthy)
        let name = String(repeating: "n", count: 64)
        for hold in 1...Int64(holds) {
            // Records of the largest size, opens too, and progress that may not take what is promised.
            var open = JournalFixture.open(UInt64(hold))
            open.org = OrgID(unchecked: name)
            open.key = KeyID(unchecked: name)
            open.model = ModelID(unchecked: name)
            try journal.appendOpen(open)
            for _ in 0..<20 { journal.appendProgress(open.requestID, completionTokens: 1) }
        }
        for hold in 1...Int64(holds) {
            var charge = JournalFixture.charge(hold)
            charge.key = KeyID(unchecked: name)
            charge.model = ModelID(unchecked: name)
            _ = try journal.appendCharge(charge, org: OrgID(unchecked: name))
        }
        #expect(journal.isHealthy)
        // Records are smaller than what is set aside for them: what is left is used up as well.
        while journal.reserve() { _ = try journal.appendCharge(JournalFixture.charge(1), org: org) }
        #expect(throws: JournalFailure(.reserve)) {
            for _ in 0..<100 { _ = try journal.appendCharge(JournalFixture.charge(1), org: org) }
        }
        #expect(journal.isHealthy)
        // Room again: the thread makes the next segment, and work goes on.
        files.free(Self.segment)
        try JournalFixture.append(JournalFixture.charge(1), to: journal)
        #expect(try journal.charges(of: OrgID(unchecked: name), in: 1...Int64(holds)).charges.count == holds)
    }

    @Test func roomThatAHoldDoesNotUseComesBack() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: Self.segment)
        let journal = try JournalFixture.journal(directory, segmentBytes: Self.segment, files: files)
        defer { journal.close() }
        var holds = 0
        while journal.reserve() { holds += 1 }
        for _ in 0..<holds { journal.unreserve() }
        for _ in 0..<1_000 {
            #expect(journal.reserve())
            journal.appendRelease(RequestID(high: 1, low: 1))
        }
    }

    @Test func failedWriteStopsAdmissionAndLeavesNoHole() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let journal = try JournalFixture.journal(directory, files: files)
        _ = try journal.appendCharge(JournalFixture.charge(1), org: org)
        files.failWrites(EIO)
        #expect(throws: JournalFailure(.write, code: EIO)) {
            try journal.appendCharge(JournalFixture.charge(2), org: org)
        }
        #expect(!journal.isHealthy && !journal.reserve())
        files.failWrites(0)
        // Running requests still try; admission stays closed.
        _ = try journal.appendCharge(JournalFixture.charge(2), org: org)
        #expect(!journal.reserve())
        journal.close()
        let again = try JournalFixture.journal(directory)
        #expect(again.recovery.lastSequences == [org: 2] && again.recovery.tornBytes == 0 && again.isHealthy)
        again.close()
    }

    @Test func failedSyncStopsAdmission() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let journal = try JournalFixture.journal(directory, files: files)
        defer { journal.close() }
        files.failSyncs(EIO)
        _ = try journal.appendCharge(JournalFixture.charge(1), org: org)
        #expect(journal.syncRound().isClosed == false)
        // Either this round or the thread's own met the failure.
        while journal.isHealthy { sched_yield() }
        #expect(!journal.reserve())
    }

    @Test func fsyncModeReturnsOnlyWhenTheChargeIsOnTheDisk() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let journal = try JournalFixture.journal(directory, sync: .fsync, files: files)
        defer { journal.close() }
        for sequence in 1...Int64(5) {
            let before = files.syncs
            let position = try journal.appendCharge(JournalFixture.charge(sequence), org: org)
            try journal.wait(for: position)
            #expect(files.syncs > before || journal.state.withLock { !$0.isDirty })
        }
        files.failSyncs(EIO)
        let position = try journal.appendCharge(JournalFixture.charge(6), org: org)
        #expect(throws: JournalFailure.self) { try journal.wait(for: position) }
    }

    @Test func closedJournalTakesNothing() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        journal.close()
        #expect(throws: JournalFailure(.closed)) { try journal.appendCharge(JournalFixture.charge(1), org: org) }
        #expect(!journal.reserve())
    }

    @Test func filesAreClosedOnceWhereTheJournalEndsWhileItCollects() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...3)
        let files = LimitedFiles(bytes: 1 << 30)
        let clock = Mutex<Int64>(WallTime.now().milliseconds)
        let journal = try JournalFixture.journal(
            directory, files: files, wallTime: { WallTime(milliseconds: clock.withLock { $0 }) })
        clock.withLock { $0 += 2 * Journal.keepMilliseconds }
        // Asked in the midst of a collection: the shutdown comes then.
        journal.setAppliedSource { [unowned journal] _ in
            journal.close()
            return 3
        }
        journal.collect()
        #expect(files.openFiles == [0])
    }

    @Test func oldSegmentsGoOnceTheyAreAppliedAndTheirPositionsStay() throws {
        let directory = JournalTestDirectory()
        let clock = Mutex<Int64>(1_000)
        let applied = Mutex<Int64?>(nil)
        func start() throws -> Journal {
            let journal = try JournalFixture.journal(
                directory, wallTime: { WallTime(milliseconds: clock.withLock { $0 }) })
            journal.setAppliedSource { _ in applied.withLock { $0 } }
            return journal
        }
        let first = try start()
        for sequence in 1...Int64(3) { _ = try first.appendCharge(JournalFixture.charge(sequence), org: org) }
        first.close()
        let second = try start()
        applied.withLock { $0 = 3 }
        clock.withLock { $0 += Journal.keepMilliseconds - 1 }
        second.collect()
        #expect(directory.segments.count == 2, "not a day old")
        clock.withLock { $0 += 1 }
        for unapplied in [nil, 2] as [Int64?] {
            applied.withLock { $0 = unapplied }
            second.collect()
            #expect(directory.segments.count == 2, "not applied")
        }
        applied.withLock { $0 = 3 }
        second.collect()
        #expect(directory.segments.count == 1)
        #expect(try second.charges(of: org, in: 1...3).charges.isEmpty)
        second.close()
        // The charges are gone; where they ended is not, however often that segment goes in its turn.
        for _ in 0..<3 {
            let journal = try start()
            #expect(journal.recovery.lastSequences == [org: 3])
            clock.withLock { $0 += Journal.keepMilliseconds }
            journal.collect()
            #expect(directory.segments.count == 1)
            journal.close()
        }
    }

    @Test func segmentOfAnOpenStreamIsKept() throws {
        let directory = JournalTestDirectory()
        let clock = Mutex<Int64>(1_000)
        let journal = try JournalFixture.journal(
            directory, segmentBytes: Self.segment, wallTime: { WallTime(milliseconds: clock.withLock { $0 }) })
        defer { journal.close() }
        journal.setAppliedSource { _ in .max }
        try journal.appendOpen(JournalFixture.open(1))
        for sequence in 1...Int64(500) { try JournalFixture.append(JournalFixture.charge(sequence), to: journal) }
        let count = directory.segments.count
        #expect(count > 2)
        clock.withLock { $0 += 2 * Journal.keepMilliseconds }
        journal.collect()
        #expect(directory.segments.count >= count)
        journal.appendRelease(RequestID(high: 5, low: 1))
        journal.collect()
        #expect(directory.segments.first?.hasSuffix(JournalSegment.fileName(1)) == false)
    }

    /// Two rounds at once: what the second closes, the first is about to sync.
    @Test func aRoundWaitsForTheOneThatIsUnderWay() throws {
        let directory = JournalTestDirectory()
        let files = HookedFiles()
        let journal = try JournalFixture.journal(directory, segmentBytes: Self.segment, files: files)
        defer { journal.close() }
        // Until the thread has made the next segment: from here on a record can end this one.
        var sequence: Int64 = 0
        func append() throws {
            sequence += 1
            try JournalFixture.append(JournalFixture.charge(sequence), to: journal)
        }
        while journal.state.withLock({ $0.next == nil }) { try append() }
        let reached = DispatchSemaphore(value: 0)
        let mayGoOn = DispatchSemaphore(value: 0)
        files.beforeNextSync {
            reached.signal()
            mayGoOn.wait()
        }
        try append()
        reached.wait()
        let number = journal.state.withLock { $0.segment.number }
        while journal.state.withLock({ $0.segment.number == number }) { try append() }
        let other = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            _ = journal.syncRound()
            other.signal()
        }
        // It ends only after the first one: as long as one may wait for what must not come.
        let hasEnded = other.wait(timeout: .now() + .milliseconds(200)) == .success
        #expect(!hasEnded)
        mayGoOn.signal()
        if !hasEnded { other.wait() }
        #expect(journal.isHealthy)
    }

    @Test func appendCostsLittleBesidesItsSystemCall() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory, segmentBytes: 64 << 20, files: UnsyncedFiles())
        defer { journal.close() }
        let charge = JournalFixture.charge(1)
        var buffer = [UInt8](repeating: 0, count: JournalRecord.bytesMax)
        let count = 100_000
        let start = MonotonicTime.now()
        for _ in 0..<count { _ = try journal.appendCharge(charge, org: org) }
        let middle = MonotonicTime.now()
        var bytes = 0
        for _ in 0..<count {
            bytes += buffer.withUnsafeMutableBytes { JournalRecord.charge(org, charge).encode(into: $0) } ?? 0
        }
        let end = MonotonicTime.now()
        print(
            "journal append: \(middle.nanoseconds(since: start) / Int64(count)) ns, of which encoding and checksum",
            "\(end.nanoseconds(since: middle) / Int64(count)) ns, \(bytes / count) bytes")
        #expect(try journal.charges(of: org, in: 1...1).charges == [charge])
    }
}

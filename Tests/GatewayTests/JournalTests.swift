import Billing
import Domain
import Glibc
import Testing

@testable import Gateway

@Suite struct JournalTests {
    private let org = JournalFixture.org

    @Test func chargesComeBackAsTheyWereWritten() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        defer { journal.close() }
        for sequence in 1...Int64(50) {
            _ = try journal.appendCharge(JournalFixture.charge(sequence), org: org)
            _ = try journal.appendCharge(JournalFixture.charge(sequence, amount: 1), org: OrgID(unchecked: "other"))
        }
        let all = try journal.charges(of: org, in: 1...50)
        #expect(all.charges == (1...50).map { JournalFixture.charge($0) })
        #expect(try journal.charges(of: org, in: 20...22).charges.map(\.sequence) == [20, 21, 22])
        #expect(try journal.charges(of: OrgID(unchecked: "acm"), in: 1...1).charges.isEmpty)
        #expect(try journal.charges(of: org, in: 51...51).charges.isEmpty)
    }

    @Test(arguments: [
        JournalRecord.header(
            JournalHeader(
                journal: JournalID(String(repeating: "f", count: 32)), incarnation: .max, number: 7, previousLength: 8,
                previousChain: .max, created: WallTime(milliseconds: -1))),
        .open(JournalFixture.open(1)), .progress(RequestID(high: 1, low: .max), completionTokens: 12),
        .charge(OrgID(unchecked: String(repeating: "o", count: 64)), JournalFixture.charge(.max)),
        .released(RequestID(high: 0, low: 1)), .position(OrgID(unchecked: "a"), lastSequence: 5),
        .mark(durable: 1 << 40),
    ]) func recordsSurviveTheirEncoding(_ record: JournalRecord) throws {
        var buffer = [UInt8](repeating: 0xEE, count: JournalRecord.bytesMax)
        let count = try #require(buffer.withUnsafeMutableBytes { record.encode(into: $0) })
        buffer.withUnsafeBytes { bytes in
            var scanner = JournalScanner(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
            let body = scanner.next(limit: count)
            #expect(body.flatMap { JournalRecord(body: $0) } == record)
            #expect(scanner.offset == count)
            // Not one byte less is a record.
            for short in 0..<count {
                var scanner = JournalScanner(UnsafeRawBufferPointer(rebasing: bytes[..<short]))
                #expect(scanner.next(limit: short) == nil)
            }
        }
    }

    @Test func nameLongerThanAnIdentifierIsRefused() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        defer { journal.close() }
        #expect(throws: JournalFailure(.encode)) {
            try journal.appendCharge(JournalFixture.charge(1), org: OrgID(unchecked: String(repeating: "x", count: 65)))
        }
        #expect(journal.isHealthy)
        _ = try journal.appendCharge(JournalFixture.charge(1), org: org)
        #expect(try journal.charges(of: org, in: 1...1).charges.count == 1)
    }

    @Test func checksumIsCRC32C() {
        func checksum(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
            bytes.withUnsafeBytes { JournalChecksum.checksum($0, seed: seed) }
        }
        #expect(checksum(Array("123456789".utf8)) == 0xE306_9283)
        #expect(checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        for count in 0..<40 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 37) }
            #expect(checksum(bytes) == CRC32C.checksum(of: bytes))
            // In parts as in one.
            let half = count / 2
            #expect(checksum(Array(bytes[half...]), seed: checksum(Array(bytes[..<half]))) == checksum(bytes))
        }
    }

    @Test func directoryKeepsItsIdAndEachStartRaisesTheIncarnation() throws {
        let directory = JournalTestDirectory()
        var ids: Set<String> = []
        for incarnation in 1...Int64(4) {
            let journal = try JournalFixture.journal(directory)
            #expect(journal.incarnation == incarnation)
            ids.insert(journal.id.rawValue)
            journal.close()
        }
        #expect(ids.count == 1 && ids.first?.utf8.count == 32)
        let other = JournalTestDirectory()
        let journal = try JournalFixture.journal(other)
        #expect(!ids.contains(journal.id.rawValue))
        journal.close()
    }

    @Test func secondGatewayOnOneDirectoryIsRefused() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        let refusal = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
        #expect(refusal == .locked(directory: directory.path))
        #expect(refusal?.description.contains("in use by another process") == true)
        journal.close()
        try JournalFixture.journal(directory).close()
    }

    @Test func missingIdIsNotReplacedByANewOne() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...1)
        unlink(directory.path + "/id")
        #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
    }

    @Test func recordsGoOnInTheNextSegmentAndAllOfThemComeBack() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory, segmentBytes: JournalConfiguration.segmentBytesMin)
        for sequence in 1...Int64(1_000) { try JournalFixture.append(JournalFixture.charge(sequence), to: journal) }
        #expect(directory.segments.count > 5)
        #expect(try journal.charges(of: org, in: 1...1_000).charges.count == 1_000)
        journal.close()
        let again = try JournalFixture.journal(directory)
        defer { again.close() }
        #expect(again.recovery.lastSequences == [org: 1_000])
        #expect(try again.charges(of: org, in: 998...1_000).charges == (998...1_000).map { JournalFixture.charge($0) })
        #expect(again.recovery.tornBytes == 0)
    }

    @Test func readingBackStopsAtItsBoundAndSumsTheRest() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory, segmentBytes: 4 << 20)
        defer { journal.close() }
        let count = Int64(Journal.chargesPerReadMax + 10)
        for sequence in 1...count { _ = try journal.appendCharge(JournalFixture.charge(sequence, amount: 3), org: org) }
        let found = try journal.charges(of: org, in: 1...count)
        #expect(found.charges.count == Journal.chargesPerReadMax)
        #expect(found.unread.nanodollars == 30)
    }

    @Test func holeEndsWhatIsReadBack() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        defer { journal.close() }
        for sequence in [1, 2, 4, 5] as [Int64] {
            _ = try journal.appendCharge(JournalFixture.charge(sequence), org: org)
        }
        #expect(try journal.charges(of: org, in: 1...5).charges.map(\.sequence) == [1, 2])
        #expect(try journal.charges(of: org, in: 3...5).charges.isEmpty)
    }

    // MARK: Streams that were open

    @Test func openStreamIsChargedForItsPromptAndWhatItDelivered() throws {
        let directory = JournalTestDirectory()
        let journal = try JournalFixture.journal(directory)
        _ = try journal.appendCharge(JournalFixture.charge(1), org: org)
        for id in 1...UInt64(4) { try journal.appendOpen(JournalFixture.open(id, hold: id == 4 ? 50 : 1_000)) }
        journal.appendProgress(RequestID(high: 5, low: 1), completionTokens: 10)
        journal.appendProgress(RequestID(high: 5, low: 1), completionTokens: 25)
        var ended = JournalFixture.charge(2)
        ended.requestID = RequestID(high: 5, low: 2)
        _ = try journal.appendCharge(ended, org: org)
        journal.appendRelease(RequestID(high: 5, low: 3))
        journal.close()

        for start in 1...3 {
            let again = try JournalFixture.journal(directory)
            // Charged by the first start, and not again by the next.
            #expect(again.recovery.interruptedStreams == (start == 1 ? 2 : 0))
            #expect(again.recovery.lastSequences == [org: 4])
            let charges = try again.charges(of: org, in: 3...4).charges
            #expect(charges.map(\.requestID) == [RequestID(high: 5, low: 1), RequestID(high: 5, low: 4)])
            #expect(charges.map(\.isEstimated) == [true, true])
            #expect(charges[0].usage == TokenUsage(promptTokens: 40, cachedTokens: 0, completionTokens: 25))
            // 40 x 1 + 25 x 2 nano-dollars; the second is capped by its hold, and its 40 by nothing.
            #expect(charges.map(\.amount.nanodollars) == [90, 40])
            #expect(charges.map(\.unusedTokens) == [35, 60])
            #expect(charges[0].booking == JournalFixture.booking && charges[0].priceVersion == 3)
            again.close()
        }
    }

    // MARK: Damage

    @Test func tornLastRecordIsCutWhereverItIsTorn() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...3)
        let path = directory.segments[0]
        let whole = JournalTestDirectory.read(path)
        let length = recordLength(JournalFixture.charge(3))
        let start = try #require(places(of: 3...3, in: whole).first)
        for torn in start..<(start + length) {
            for isShortened in [false, true] {
                let copy = JournalTestDirectory()
                JournalTestDirectory.write(JournalTestDirectory.read(directory.path + "/id"), to: copy.path + "/id")
                var bytes = Array(whole[..<torn])
                if !isShortened { bytes += [UInt8](repeating: 0, count: whole.count - torn) }
                JournalTestDirectory.write(bytes, to: copy.path + "/" + JournalSegment.fileName(1))
                let journal = try JournalFixture.journal(copy, files: UnsyncedFiles())
                let expected: Int64 = whole[torn..<(start + length)].contains { $0 != 0 } || isShortened ? 2 : 3
                #expect(journal.recovery.lastSequences == [org: expected], "torn at \(torn)")
                // What follows takes the place of what was cut.
                _ = try journal.appendCharge(JournalFixture.charge(expected + 1), org: org)
                journal.close()
                let again = try JournalFixture.journal(copy, files: UnsyncedFiles())
                #expect(try again.charges(of: org, in: 1...expected + 1).charges.count == Int(expected) + 1)
                again.close()
            }
        }
    }

    @Test func damageBeforeTheEndStopsTheStartAndNamesThePlace() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...20)
        let path = directory.segments[0]
        let whole = JournalTestDirectory.read(path)
        let length = recordLength(JournalFixture.charge(1))
        let places = places(of: 1...20, in: whole)
        // The last too: a mark after it tells that it was on the disk.
        for (record, offset) in [(0, 0), (0, 9), (5, 4), (10, 30), (18, length - 1), (3, 1), (19, 5)] {
            var bytes = whole
            bytes[places[record] + offset] ^= 0x40
            JournalTestDirectory.write(bytes, to: path)
            let failure = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
            guard case .corrupt(let file, let place, _)? = failure else {
                Issue.record("\(String(describing: failure))")
                continue
            }
            #expect(file == path && place == places[record], "record \(record)")
            #expect(failure?.description.contains("\(path) at offset \(place)") == true)
        }
        // Nothing was changed by the refusals: the sound file starts.
        JournalTestDirectory.write(whole, to: path)
        let journal = try JournalFixture.journal(directory)
        #expect(journal.recovery.lastSequences == [org: 20])
        journal.close()
    }

    @Test func recordsAfterATearAreCutWithItUnlessAMarkProvesThatItWasOnTheDisk() throws {
        let origin = JournalTestDirectory()
        try JournalFixture.closed(origin, charges: 1...1)
        let whole = JournalTestDirectory.read(origin.segments[0])
        let start = encoded(.header(try #require(header(of: whole)))).count
        let length = recordLength(JournalFixture.charge(1))
        let torn = start + JournalRecord.markBytes + 2 * length
        // A later page came to the disk and charge 3 did not. The last mark is of a sync before the tear, up to it, or
        // one byte beyond.
        for (marked, isTorn) in [(nil, true), (start, true), (torn, true), (torn + 1, false), (torn + length, false)] {
            var bytes = Array(whole[..<start]) + encoded(.mark(durable: start))
            for sequence in 1...Int64(2) { bytes += encoded(.charge(org, JournalFixture.charge(sequence))) }
            #expect(bytes.count == torn)
            bytes += [UInt8](repeating: 0, count: length)
            for sequence in 4...Int64(40) { bytes += encoded(.charge(org, JournalFixture.charge(sequence))) }
            if let marked { bytes += encoded(.mark(durable: marked)) }
            let written = bytes.count
            let directory = JournalTestDirectory()
            JournalTestDirectory.write(JournalTestDirectory.read(origin.path + "/id"), to: directory.path + "/id")
            let path = directory.path + "/" + JournalSegment.fileName(1)
            JournalTestDirectory.write(bytes + [UInt8](repeating: 0, count: whole.count - written), to: path)
            guard isTorn else {
                let failure = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
                guard case .corrupt(path, torn, _)? = failure else {
                    Issue.record("\(String(describing: failure))")
                    continue
                }
                continue
            }
            let journal = try JournalFixture.journal(directory)
            #expect(journal.recovery.lastSequences == [org: 2])
            #expect(journal.recovery.tornBytes > 36 * length)
            journal.close()
        }
    }

    @Test func syncedRecordsAreMarkedOnceAndAQuietJournalWritesNothing() throws {
        let directory = JournalTestDirectory()
        let files = LimitedFiles(bytes: 1 << 30)
        let journal = try JournalFixture.journal(directory, files: files)
        _ = try journal.appendCharge(JournalFixture.charge(1), org: org)
        while journal.state.withLock({ $0.isDirty || $0.isUnmarked }) { sched_yield() }
        let length = journal.state.withLock { $0.segment.length }
        for _ in 0..<5 { _ = journal.syncRound() }
        #expect(journal.state.withLock { $0.segment.length } == length)
        journal.close()
        let bytes = JournalTestDirectory.read(directory.segments[0])
        let place = try #require(places(of: 1...1, in: bytes).first)
        let marks = records(in: bytes).compactMap { record -> Int? in
            if case .mark(let durable) = record.record { durable } else { nil }
        }
        #expect(try #require(marks.last) >= place + recordLength(JournalFixture.charge(1)))
        #expect(marks.count <= 2)
    }

    @Test func damageInAnEarlierSegmentStopsTheStartEvenAtItsEnd() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...3)
        try JournalFixture.closed(directory, charges: 4...6)
        let path = directory.segments[0]
        let whole = JournalTestDirectory.read(path)
        // Ended by the second start, so cut to its length.
        for bytes in [Array(whole.dropLast(5)), Array(whole[..<(whole.count - 1)]) + [whole[whole.count - 1] ^ 1]] {
            JournalTestDirectory.write(bytes, to: path)
            let failure = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
            guard case .corrupt(let file, let offset, _)? = failure else { continue }
            #expect(file == path && offset == whole.count - JournalRecord.markBytes)
        }
    }

    @Test func missingAndForeignSegmentsStopTheStart() throws {
        let directory = JournalTestDirectory()
        for part in 0..<3 { try JournalFixture.closed(directory, charges: Int64(part * 3 + 1)...Int64(part * 3 + 3)) }
        let middle = directory.segments[1]
        let bytes = JournalTestDirectory.read(middle)
        unlink(middle)
        let missing = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
        #expect(missing == .corrupt(file: middle, offset: 0, reason: "the segment is missing"))

        // Sound records, but not those that the next segment says were here.
        let other = JournalTestDirectory()
        JournalTestDirectory.write(JournalTestDirectory.read(directory.path + "/id"), to: other.path + "/id")
        let first = directory.segments[0]
        let elsewhere = other.path + "/" + JournalSegment.fileName(1)
        let replaced = try JournalFixture.journal(other)
        for sequence in 1...Int64(3) {
            _ = try replaced.appendCharge(JournalFixture.charge(sequence, amount: 18), org: org)
        }
        replaced.close()
        try JournalFixture.journal(other).close()
        JournalTestDirectory.write(bytes, to: middle)
        JournalTestDirectory.write(JournalTestDirectory.read(elsewhere), to: first)
        let failure = #expect(throws: JournalStartFailure.self) { try JournalFixture.journal(directory) }
        guard case .corrupt(let file, _, let reason)? = failure else { return }
        #expect(file == first && reason == "its records are not those that were written")
    }

    @Test func segmentThatWasMadeAheadAndNeverUsedIsNoDamage() throws {
        let directory = JournalTestDirectory()
        try JournalFixture.closed(directory, charges: 1...3)
        JournalTestDirectory.write(
            [UInt8](repeating: 0, count: 16 << 10), to: directory.path + "/" + JournalSegment.fileName(2))
        let journal = try JournalFixture.journal(directory)
        #expect(journal.recovery.lastSequences == [org: 3])
        journal.close()
        // A header that was being written when the power went.
        let last = directory.path + "/" + JournalSegment.fileName(3)
        JournalTestDirectory.write([61, 0, 0, 0, 1, 2, 3, 4, 1] + [UInt8](repeating: 0, count: 16 << 10), to: last)
        let again = try JournalFixture.journal(directory)
        #expect(again.recovery.lastSequences == [org: 3])
        again.close()
    }

    private func recordLength(_ charge: Charge) -> Int {
        var buffer = [UInt8](repeating: 0, count: JournalRecord.bytesMax)
        return buffer.withUnsafeMutableBytes { JournalRecord.charge(org, charge).encode(into: $0) } ?? 0
    }

    private func encoded(_ record: JournalRecord) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: JournalRecord.bytesMax)
        let count = buffer.withUnsafeMutableBytes { record.encode(into: $0) }
        return Array(buffer[..<(count ?? 0)])
    }

    private func records(in bytes: [UInt8]) -> [(place: Int, record: JournalRecord)] {
        bytes.withUnsafeBytes { bytes in
            var scanner = JournalScanner(bytes)
            var result: [(Int, JournalRecord)] = []
            var place = 0
            while let body = scanner.next(limit: bytes.count), let record = JournalRecord(body: body) {
                result.append((place, record))
                place = scanner.offset
            }
            return result
        }
    }

    private func header(of bytes: [UInt8]) -> JournalHeader? {
        if case .header(let header)? = records(in: bytes).first?.record { header } else { nil }
    }

    /// Where the charges with these sequences stand; marks may lie between them.
    private func places(of sequences: ClosedRange<Int64>, in bytes: [UInt8]) -> [Int] {
        records(in: bytes).compactMap { place, record in
            guard case .charge(_, let charge) = record, sequences.contains(charge.sequence) else { return nil }
            return place
        }
    }
}

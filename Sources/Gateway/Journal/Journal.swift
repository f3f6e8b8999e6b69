import Billing
import Domain
import Glibc
import Logging
import Synchronization

package struct JournalConfiguration: Sendable {
    package enum SyncMode: String, Sendable {
        /// The journal's thread syncs each 10 ms: a host that loses power loses at most that.
        case interval
        /// Every append waits until it is on the disk.
        case fsync
    }

    package static let segmentBytesDefault = 64 << 20
    /// Segments hold at least this much, so that a few holds fit with the waste at a segment's end.
    package static let segmentBytesMin = 16 << 10

    package var directory: String
    package var sync: SyncMode
    package var segmentBytes: Int
    package var files: any JournalFiles
    package var wallTime: @Sendable () -> WallTime

    package init(
        directory: String, sync: SyncMode = .interval, segmentBytes: Int = segmentBytesDefault,
        files: any JournalFiles = SystemJournalFiles(), wallTime: @escaping @Sendable () -> WallTime = { .now() }
    ) {
        self.directory = directory
        self.sync = sync
        self.segmentBytes = max(segmentBytes, Self.segmentBytesMin)
        self.files = files
        self.wallTime = wallTime
    }
}

/// What the start found.
package struct JournalRecovery: Sendable {
    /// The last sequence of every org that the journal knows.
    package var lastSequences: [OrgID: Int64]
    /// Streams that the last run left open, charged for what they had delivered.
    package var interruptedStreams: Int
    /// Bytes of a torn record that were cut off the end.
    package var tornBytes: Int
}

/// The gateway's own record of what it owes the ledger, written before the client has the bytes that it pays for.
///
/// Segments of fixed size are allocated ahead of need, so that a write into them cannot run out of space, and each open
/// hold sets aside room for its records (``reserve()``): a full disk refuses new work and never loses a charge. An
/// append encodes into a reused buffer and makes one `pwrite` on the calling thread, under one lock; a thread of the
/// journal's own does what may take long: `fdatasync` each 10 ms, making segments, ending them, deleting old ones.
///
/// A failed write or sync is never forgotten: ``isHealthy`` becomes false for good and nothing new is admitted, while
/// charges of running requests are still tried. After a failed `fdatasync` the kernel may drop the pages and report
/// success next time, so trying again would prove nothing.
package final class Journal: Sendable {
    /// Set aside for one hold: its Open and its Charge.
    package static let holdBytes = 2 * JournalRecord.bytesMax
    /// How long an append waits for the disk in `fsync` mode, in nanoseconds.
    package static let syncWaitMax: Int64 = 5_000_000_000

    package let id: JournalID
    package let incarnation: Int64
    package let recovery: JournalRecovery

    let configuration: JournalConfiguration
    let directory: JournalDirectory
    let logger: Logger
    let state: Mutex<State>
    /// Raised when the thread has something to do before its next round.
    let wake = JournalGate()
    /// Bytes on the disk, counted over all segments of this run; past the end of time once syncing failed.
    let durable = JournalGate()
    /// Raised once the thread has ended.
    let ended = JournalGate()
    /// One round at a time: a round closes the files of ended segments, which another may be about to sync.
    let rounds = Mutex<Void>(())
    private let healthy = Atomic<Bool>(true)
    private let appliedSource = Mutex<(@Sendable (OrgID) -> Int64?)?>(nil)

    struct State: Sendable {
        let incarnation: Int64
        var file: Int32
        var segment: JournalSegment
        /// Made ahead of need; its header is not written yet.
        var next: (number: Int64, file: Int32)?
        /// Ended segments that the thread has yet to sync, cut and close.
        var ending: [(file: Int32, length: Int)] = []
        /// All segments before the current one, oldest first.
        var older: [JournalSegment]
        /// Streams with an Open and nothing after it, and the segment of the Open.
        var opens: [RequestID: Int64] = [:]
        var reservedBytes = 0
        var writtenBytes: UInt64 = 0
        var isDirty = true
        /// Records were written that no mark tells to be on the disk.
        var isUnmarked = true
        var isParked = false
        var isClosed = false
        var buffer = [UInt8](repeating: 0, count: JournalRecord.bytesMax)
    }

    /// Reads what is there, ends it cleanly, and starts a segment of its own.
    ///
    /// The thread keeps the journal alive until ``close()``.
    package init(_ configuration: JournalConfiguration, logger: Logger) throws(JournalStartFailure) {
        let directory = try JournalDirectory(configuration.directory)
        do throws(JournalStartFailure) {
            let scan = try JournalScan(
                directory: directory.path, journal: directory.id, numbers: directory.segments)
            let started = try Self.start(scan, directory, configuration)
            self.state = Mutex(started)
            self.recovery = JournalRecovery(
                lastSequences: scan.lastSequences.merging(started.segment.lastSequences) { max($0, $1) },
                interruptedStreams: scan.interrupted.count, tornBytes: scan.cut?.bytes ?? 0)
            self.incarnation = scan.incarnation + 1
        } catch {
            directory.unlock()
            throw error
        }
        self.id = directory.id
        self.configuration = configuration
        self.directory = directory
        self.logger = logger
        guard JournalThread.start(self) else {
            directory.unlock()
            throw .system(path: configuration.directory, operation: "start a thread for", code: EAGAIN)
        }
    }

    /// False once a write or a sync failed: admit nothing.
    package var isHealthy: Bool { healthy.load(ordering: .relaxed) }

    /// Tells what the store has applied of an org, so that old segments may go. nil: unknown.
    package func setAppliedSource(_ source: @escaping @Sendable (OrgID) -> Int64?) {
        appliedSource.withLock { $0 = source }
    }

    func appliedSequence(of org: OrgID) -> Int64? {
        appliedSource.withLock { $0 }?(org)
    }

    // MARK: Room

    /// Sets room aside for a hold.
    /// - Returns: false where there is none, or the journal failed: refuse the request.
    package func reserve() -> Bool {
        guard isHealthy else { return false }
        let (isReserved, isWanted) = state.withLock { state -> (Bool, Bool) in
            guard !state.isClosed, state.reservedBytes + Self.holdBytes <= room(state) else { return (false, true) }
            state.reservedBytes += Self.holdBytes
            return (true, wantsNext(state) && state.isParked)
        }
        if isWanted { wake.raise() }
        return isReserved
    }

    /// Gives a hold's room back: it will write nothing more.
    package func unreserve() {
        state.withLock { $0.reservedBytes = max(0, $0.reservedBytes - Self.holdBytes) }
    }

    /// Bytes that records may still fill in space that is allocated. A record is never split, so the end of a segment
    /// may be lost to one that does not fit.
    func room(_ state: borrowing State) -> Int {
        let perSegment = configuration.segmentBytes - JournalRecord.bytesMax
        let here = max(0, perSegment - state.segment.length)
        return here + (state.next == nil ? 0 : perSegment - JournalRecord.bytesMax)
    }

    /// Half of what is allocated is used or promised.
    func wantsNext(_ state: borrowing State) -> Bool {
        state.next == nil && state.segment.length + state.reservedBytes > configuration.segmentBytes / 2
    }

    // MARK: Records

    /// A stream's first byte is about to go down.
    /// - Throws: The record is not there: send nothing.
    func appendOpen(_ open: JournalOpen) throws(JournalFailure) {
        let position = try state.withLock { state throws(JournalFailure) in
            let position = try append(.open(open), &state)
            state.opens[open.requestID] = state.segment.number
            return position
        }
        try wait(for: position)
    }

    /// Best effort: skipped where the room belongs to holds. A failed write still counts.
    func appendProgress(_ id: RequestID, completionTokens: Int) {
        state.withLock { state in
            guard state.opens[id] != nil, state.reservedBytes + JournalRecord.bytesMax <= room(state) else { return }
            _ = try? append(.progress(id, completionTokens: completionTokens), &state)
        }
    }

    /// Writes the charge into the room that its hold set aside, which is given back.
    ///
    /// Appends of one org have to come in the order of their sequences.
    /// - Returns: What ``wait(for:)`` takes.
    func appendCharge(_ charge: Charge, org: OrgID) throws(JournalFailure) -> UInt64 {
        try state.withLock { state throws(JournalFailure) in
            state.reservedBytes = max(0, state.reservedBytes - Self.holdBytes)
            let position = try append(.charge(org, charge), &state)
            state.opens[charge.requestID] = nil
            state.segment.lastSequences[org] = charge.sequence
            return position
        }
    }

    /// A hold ended without a charge: its room is given back, and its Open, if it has one, is taken back.
    func appendRelease(_ id: RequestID) {
        state.withLock { state in
            if state.opens.removeValue(forKey: id) != nil { _ = try? append(.released(id), &state) }
            state.reservedBytes = max(0, state.reservedBytes - Self.holdBytes)
        }
    }

    /// The hold's charge failed, which gave its room back: its Open, if it has one, is taken back. Best effort.
    func takeBackOpen(_ id: RequestID) {
        state.withLock { state in
            if state.opens.removeValue(forKey: id) != nil { _ = try? append(.released(id), &state) }
        }
    }

    /// Writes an org's last sequence where the journal's own is before it. Best effort: what is not written is learned
    /// from the store again at the next start.
    func appendPosition(_ sequence: Int64, org: OrgID) {
        state.withLock { state in
            guard state.reservedBytes + JournalRecord.bytesMax <= room(state),
                (try? append(.position(org, lastSequence: sequence), &state)) != nil
            else { return }
            state.segment.lastSequences[org] = max(sequence, state.segment.lastSequences[org] ?? 0)
        }
    }

    /// In `fsync` mode, until everything up to `position` is on the disk; else not at all.
    func wait(for position: UInt64) throws(JournalFailure) {
        guard configuration.sync == .fsync else { return }
        wake.raise()
        guard durable.wait(for: position, nanoseconds: Self.syncWaitMax) >= position, isHealthy else {
            throw JournalFailure(.sync, code: EIO)
        }
    }

    /// Encodes and writes one record, in the next segment where it does not fit. The caller holds the lock.
    func append(_ record: JournalRecord, _ state: inout State) throws(JournalFailure) -> UInt64 {
        guard !state.isClosed else { throw JournalFailure(.closed) }
        do throws(JournalFailure) {
            try Self.write(record, &state, configuration, directory, mayCreate: false)
        } catch {
            // The others are about this record, not about the disk.
            if error.operation == .write { fail(error) }
            throw error
        }
        state.isDirty = true
        state.isUnmarked = true
        if state.isParked {
            state.isParked = false
            wake.raise()
        }
        return state.writtenBytes
    }

    /// - Parameter mayCreate: Nobody else makes segments yet.
    static func write(
        _ record: JournalRecord, _ state: inout State, _ configuration: JournalConfiguration,
        _ directory: JournalDirectory, mayCreate: Bool
    ) throws(JournalFailure) {
        guard let count = state.buffer.withUnsafeMutableBytes({ record.encode(into: $0) }) else {
            throw JournalFailure(.encode)
        }
        if state.segment.length + count > configuration.segmentBytes {
            try turn(&state, configuration, directory, mayCreate: mayCreate)
        }
        try put(count, &state, configuration)
    }

    /// Writes what stands in the buffer to the end of the current segment.
    private static func put(
        _ count: Int, _ state: inout State, _ configuration: JournalConfiguration
    ) throws(JournalFailure) {
        let (code, frame) = state.buffer.withUnsafeBytes { bytes in
            let record = UnsafeRawBufferPointer(rebasing: bytes[..<count])
            return (
                configuration.files.write(state.file, record, at: state.segment.length),
                UInt64(littleEndian: record.loadUnaligned(as: UInt64.self))
            )
        }
        // The next record goes to the same place: a failed one leaves no hole.
        guard code == 0 else { throw JournalFailure(.write, code: code) }
        state.segment.length += count
        state.segment.chain = JournalSegment.chained(state.segment.chain, frame: frame)
        state.writtenBytes += UInt64(count)
    }

    /// Goes on in the next segment; where that fails, the current one stays.
    private static func turn(
        _ state: inout State, _ configuration: JournalConfiguration, _ directory: JournalDirectory, mayCreate: Bool
    ) throws(JournalFailure) {
        let previous = state.segment
        let number = previous.number + 1
        if state.next == nil, mayCreate {
            state.next = (
                number,
                try configuration.files.create(
                    directory.path + "/" + JournalSegment.fileName(number), bytes: configuration.segmentBytes)
            )
        }
        // Every record has its room set aside, so one is there whenever this one is full.
        guard let file = state.next?.file else { throw JournalFailure(.reserve) }
        let segment = try begin(number, in: file, after: previous, state.incarnation, configuration, directory)
        state.next = nil
        state.ending.append((state.file, previous.length))
        state.older.append(previous)
        state.file = file
        state.segment = segment
        state.writtenBytes += UInt64(segment.length)
    }

    /// Writes a header into an empty file.
    static func begin(
        _ number: Int64, in file: Int32, after previous: JournalSegment?, _ incarnation: Int64,
        _ configuration: JournalConfiguration, _ directory: JournalDirectory
    ) throws(JournalFailure) -> JournalSegment {
        let header = JournalHeader(
            journal: directory.id, incarnation: incarnation, number: number,
            previousLength: Int64(previous?.length ?? 0), previousChain: previous?.chain ?? 0,
            created: configuration.wallTime())
        var bytes = [UInt8](repeating: 0, count: JournalRecord.bytesMax)
        guard let count = bytes.withUnsafeMutableBytes({ JournalRecord.header(header).encode(into: $0) }) else {
            throw JournalFailure(.encode)
        }
        let (code, frame) = bytes.withUnsafeBytes { bytes in
            (
                configuration.files.write(file, UnsafeRawBufferPointer(rebasing: bytes[..<count]), at: 0),
                UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
            )
        }
        guard code == 0 else { throw JournalFailure(.write, code: code) }
        return JournalSegment(
            number: number, length: count, chain: JournalSegment.chained(0, frame: frame), created: header.created)
    }

    func fail(_ failure: JournalFailure) {
        guard healthy.exchange(false, ordering: .relaxed) else { return }
        durable.raise(to: .max)
        logger.critical("journal failed: nothing new is admitted until a restart", metadata: ["error": "\(failure)"])
    }

    /// Syncs what is written and ends the thread. Later appends fail.
    package func close() {
        let isFirst = state.withLock { state in
            defer { state.isClosed = true }
            return !state.isClosed
        }
        guard isFirst else { return }
        wake.raise()
        ended.wait(for: 1, nanoseconds: .max / 2)
        directory.unlock()
    }
}

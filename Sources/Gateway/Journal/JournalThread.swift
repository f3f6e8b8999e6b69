import Domain
import Glibc

/// The journal's own thread: everything that may wait for the disk.
enum JournalThread {
    /// How often written records are brought to the disk, in nanoseconds.
    static let syncInterval: Int64 = 10_000_000
    /// After this many quiet rounds the thread sleeps until an append wakes it.
    static let quietRoundsMax = 100
    /// How long it sleeps then, and how often it looks for old segments and tries again to make one, in nanoseconds.
    static let parkedInterval: Int64 = 1_000_000_000
    static let collectInterval: Int64 = 60_000_000_000

    /// - Returns: false where the system gives no thread.
    static func start(_ journal: Journal) -> Bool {
        // SAFETY: retained for the thread, which takes it back once.
        let argument = Unmanaged.passRetained(journal).toOpaque()
        var thread = pthread_t()
        let code = pthread_create(&thread, nil, journalThreadMain, argument)
        guard code == 0 else {
            Unmanaged<Journal>.fromOpaque(argument).release()
            return false
        }
        pthread_detach(thread)
        return true
    }

    fileprivate static func run(_ journal: Journal) {
        var wakes: UInt64 = 0
        var quietRounds = 0
        var triedAt: MonotonicTime?
        var collectedAt = MonotonicTime.now()
        while true {
            let interval = quietRounds > quietRoundsMax ? parkedInterval : syncInterval
            wakes = journal.wake.wait(for: wakes + 1, nanoseconds: interval)
            let (wroteAny, isClosed) = journal.syncRound()
            if isClosed { break }
            quietRounds = wroteAny ? 0 : quietRounds + 1
            let now = MonotonicTime.now()
            if triedAt.map({ now.nanoseconds(since: $0) >= parkedInterval }) ?? true {
                triedAt = journal.prepareNext() ? nil : now
            }
            if now.nanoseconds(since: collectedAt) >= collectInterval {
                collectedAt = now
                journal.collect()
            }
            if quietRounds > quietRoundsMax, !journal.park() { quietRounds = 0 }
        }
        // What was written since the last round, and the mark that says that it is there.
        _ = journal.syncRound()
        journal.closeFiles()
        journal.ended.raise()
    }
}

/// What `pthread_create` calls.
private func journalThreadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    // SAFETY: the pointer that `start` made.
    if let argument { JournalThread.run(Unmanaged<Journal>.fromOpaque(argument).takeRetainedValue()) }
    return nil
}

extension Journal {
    /// How long an ended segment is kept, in milliseconds.
    package static let keepMilliseconds: Int64 = 24 * 3_600 * 1_000

    /// Syncs what was written since the last round.
    func syncRound() -> (wroteAny: Bool, isClosed: Bool) {
        rounds.withLock { _ in syncOnce() }
    }

    private func syncOnce() -> (wroteAny: Bool, isClosed: Bool) {
        let (file, segment, ending, position, isDirty, isClosed) = state.withLock { state in
            defer {
                state.ending.removeAll()
                state.isDirty = false
            }
            return (state.file, state.segment, state.ending, state.writtenBytes, state.isDirty, state.isClosed)
        }
        // Older segments first: nothing may be on the disk before what precedes it.
        var code: Int32 = 0
        for (file, length) in ending {
            let synced = configuration.files.sync(file)
            code = code == 0 ? synced : code
            // A segment that could not be cut only wastes space.
            _ = configuration.files.truncate(file, bytes: length)
            configuration.files.close(file)
        }
        if isDirty {
            let synced = configuration.files.sync(file)
            code = code == 0 ? synced : code
        }
        if code != 0 {
            fail(JournalFailure(.sync, code: code))
        } else {
            durable.raise(to: position)
            mark(segment)
        }
        return (isDirty || !ending.isEmpty, isClosed)
    }

    /// Writes how much of `segment` is on the disk, which the next round brings there. Skipped where the room belongs to
    /// holds, and where appends have gone on to another segment: the next round says more.
    private func mark(_ segment: JournalSegment) {
        state.withLock { state in
            guard state.isUnmarked, isHealthy, state.segment.number == segment.number,
                state.reservedBytes + JournalRecord.bytesMax <= room(state),
                state.segment.length + JournalRecord.bytesMax <= configuration.segmentBytes
            else { return }
            do throws(JournalFailure) {
                try Self.write(
                    .mark(durable: segment.length), &state, configuration, directory, mayCreate: false)
                state.isDirty = true
                state.isUnmarked = state.segment.length > segment.length + JournalRecord.markBytes
            } catch {
                fail(error)
            }
        }
    }

    /// After the last round, and nowhere else: a number that is closed twice may be someone else's by then.
    func closeFiles() {
        let files = state.withLock { state in
            defer { state.next = nil }
            return [state.file] + (state.next.map { [$0.file] } ?? [])
        }
        for file in files { configuration.files.close(file) }
    }

    /// Makes the next segment once it is wanted.
    /// - Returns: false where it is wanted and cannot be made.
    @discardableResult
    func prepareNext() -> Bool {
        let wanted = state.withLock { wantsNext($0) && !$0.isClosed ? $0.segment.number + 1 : nil }
        guard let wanted else { return true }
        do throws(JournalFailure) {
            let file = try configuration.files.create(
                directory.path + "/" + JournalSegment.fileName(wanted), bytes: configuration.segmentBytes)
            let isTaken = state.withLock { state in
                guard state.next == nil, state.segment.number + 1 == wanted else { return false }
                state.next = (wanted, file)
                return true
            }
            if !isTaken { configuration.files.close(file) }
            return true
        } catch {
            logger.error(
                "journal cannot allocate its next segment: new requests are refused as space runs out",
                metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Lets appends wake the thread.
    /// - Returns: false where something was written meanwhile.
    func park() -> Bool {
        state.withLock { state in
            guard !state.isDirty, !state.isClosed else { return false }
            state.isParked = true
            return true
        }
    }

    /// Deletes segments that ended long ago and whose charges are applied.
    ///
    /// What they tell of an org's last sequence is first repeated in the current segment, so that a journal whose
    /// charges were deleted is not taken for one whose charges were lost.
    package func collect() {
        while let oldest = oldestEnded(), isApplied(oldest) {
            let isRepeated = oldest.lastSequences.allSatisfy { org, sequence in
                state.withLock { state in
                    let isTold =
                        state.older.contains { $0.number > oldest.number && $0.lastSequences[org] != nil }
                        || state.segment.lastSequences[org] != nil
                    if isTold { return true }
                    guard state.reservedBytes + JournalRecord.bytesMax <= room(state),
                        (try? append(.position(org, lastSequence: sequence), &state)) != nil
                    else { return false }
                    state.segment.lastSequences[org] = sequence
                    return true
                }
            }
            _ = syncRound()
            guard isRepeated, isHealthy else { return }
            let path = directory.path + "/" + JournalSegment.fileName(oldest.number)
            let code = configuration.files.remove(path)
            guard code == 0 else {
                logger.warning(
                    "journal cannot delete an old segment",
                    metadata: ["file": "\(path)", "error": "\(JournalFailure(.allocate, code: code))"])
                return
            }
            state.withLock { state in _ = state.older.removeFirst() }
        }
    }

    /// The oldest segment, where it was ended long enough ago and no stream of it is open.
    private func oldestEnded() -> JournalSegment? {
        let now = configuration.wallTime().milliseconds
        return state.withLock { state in
            guard let oldest = state.older.first else { return nil }
            let ended = state.older.count > 1 ? state.older[1].created : state.segment.created
            guard now - ended.milliseconds >= Self.keepMilliseconds, !state.opens.values.contains(oldest.number) else {
                return nil
            }
            return oldest
        }
    }

    /// Asked without the journal's lock: whoever answers may hold a lock of its own while it appends.
    private func isApplied(_ segment: JournalSegment) -> Bool {
        segment.lastSequences.allSatisfy { org, sequence in (appliedSequence(of: org) ?? -1) >= sequence }
    }
}

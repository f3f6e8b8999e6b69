import Dispatch
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The access log: one line a request, written by a thread of its own.
///
/// A loop encodes its record, takes a short lock and appends the bytes: it never waits for the sink. The thread is
/// woken once for the first line, lets more gather for `gatherMilliseconds` or until `wakeBytes` are there, swaps the
/// buffer and writes. While the sink is slow lines gather up to `bufferBytesMax`; what comes then is dropped and
/// counted: telemetry fails open. Lines are never written in part, but where the sink itself breaks off.
///
/// Safe from any thread.
package final class AccessLog: Sendable {
    package enum Sink: Hashable, Sendable {
        case standardOutput
        /// Owned by the caller, and open until `close` returns.
        case descriptor(Int32)
        /// Appended to; created if absent, with mode 0640.
        case file(String)
    }

    /// Lines that wait for the writer. As many again may be at the writer.
    package static let bufferBytesMax = 4 * 1024 * 1024
    /// The writer is woken early when this much waits.
    package static let wakeBytes = 64 * 1024
    /// Memory kept for the next batch.
    static let spareBytesMax = 256 * 1024
    /// How long lines may gather.
    package static let gatherMilliseconds = 20

    private struct State: ~Copyable {
        var pending: [UInt8] = []
        /// What the writer has done with: the next `pending`, so that memory is not grown anew each time.
        var spare: [UInt8] = []
        /// Whether the writer was told of the first line, and of many.
        var isAnnounced = false
        var isUrgent = false
        var isReopening = false
        var isClosing = false
        var isClosed = false
        var dropped = 0
        var flushes: [DispatchSemaphore] = []
    }

    private struct Batch {
        var bytes: [UInt8]
        var flushes: [DispatchSemaphore]
        var isReopening: Bool
        var isClosing: Bool
    }

    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let isAbandoned = Atomic<Bool>(false)
    private let sink: Sink
    private let bufferBytesMax: Int

    /// Opens the sink and starts the writer.
    /// - Throws: ``AccessLogFailure`` where the file cannot be opened or no thread can be started.
    package init(sink: Sink, bufferBytesMax: Int = AccessLog.bufferBytesMax) throws {
        self.sink = sink
        self.bufferBytesMax = bufferBytesMax
        let descriptor = try Self.open(sink)
        let failure = startThread { [self] in
            var writer = LineWriter(descriptor: descriptor)
            while drain(into: &writer) {}
            if case .file = sink { _ = Glibc.close(writer.descriptor) }
        }
        if let failure { throw AccessLogFailure.thread(errno: failure) }
    }

    /// Lines lost so far: buffer full, or the sink refused them.
    package var droppedCount: Int { state.withLock { $0.dropped } }

    /// Takes a record. Never waits for the sink; drops and counts when the buffer is full or the log is closed.
    package func append(_ record: borrowing AccessLogRecord) {
        // Nearly every line fits memory that lives on the stack; the heap is for the rest.
        if encode(record, memoryBytes: JSONLine.usualBytes) { return }
        if encode(record, memoryBytes: JSONLine.bytesMax) { return }
        state.withLock { $0.dropped += 1 }
    }

    /// - Returns: False where the line does not fit.
    private func encode(_ record: borrowing AccessLogRecord, memoryBytes: Int) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: memoryBytes, alignment: 1) { memory in
            // SAFETY: the line borrows memory that lives to the end of this closure, and does not leave it.
            var line = JSONLine(memory: memory)
            record.encode(to: &line)
            if line.isTruncated { return false }
            append(line.bytes)
            return true
        }
    }

    private func append(_ line: UnsafeRawBufferPointer) {
        let signals = state.withLock { state in
            guard !state.isClosed, state.pending.count + line.count <= bufferBytesMax else {
                state.dropped += 1
                return false
            }
            state.pending.append(contentsOf: line)
            if !state.isAnnounced {
                state.isAnnounced = true
                return true
            }
            if !state.isUrgent, state.pending.count >= Self.wakeBytes {
                state.isUrgent = true
                return true
            }
            return false
        }
        if signals { wake.signal() }
    }

    /// Opens a `.file` sink anew before the next line is written, after its file was moved away. Nothing for others.
    package func reopen() {
        state.withLock { state in
            state.isReopening = true
            state.isAnnounced = true
            state.isUrgent = true
        }
        wake.signal()
    }

    /// Waits until what was appended before has reached the sink. Blocks: not for an event loop.
    /// - Returns: False where the sink took longer than `timeout`.
    @discardableResult
    package func flush(timeout: Duration = .seconds(2)) -> Bool {
        let done = DispatchSemaphore(value: 0)
        let isClosed = state.withLock { state in
            guard !state.isClosed else { return true }
            state.flushes.append(done)
            state.isAnnounced = true
            state.isUrgent = true
            return false
        }
        guard !isClosed else { return true }
        wake.signal()
        return done.wait(timeout: .now() + .milliseconds(Int(timeout.milliseconds))) == .success
    }

    /// Flushes and ends the writer. Lines that come later are dropped. Blocks: not for an event loop.
    /// - Returns: False where the sink took longer than `timeout`: the rest is lost.
    @discardableResult
    package func close(timeout: Duration = .seconds(2)) -> Bool {
        state.withLock { $0.isClosing = true }
        let isFlushed = flush(timeout: timeout)
        isAbandoned.store(true, ordering: .relaxed)
        return isFlushed
    }

    // MARK: - The writer's thread

    /// Waits for lines, writes them.
    /// - Returns: False when the log is closed and everything is written.
    private func drain(into writer: inout LineWriter) -> Bool {
        wake.wait()
        if !state.withLock({ $0.isUrgent }) { _ = wake.wait(timeout: .now() + .milliseconds(Self.gatherMilliseconds)) }
        var batch = state.withLock { state in
            let batch = Batch(
                bytes: state.pending, flushes: state.flushes, isReopening: state.isReopening,
                isClosing: state.isClosing)
            state.pending = state.spare
            state.spare = []
            state.flushes = []
            (state.isAnnounced, state.isUrgent, state.isReopening) = (false, false, false)
            if state.isClosing { state.isClosed = true }
            return batch
        }
        if batch.isReopening, case .file = sink, let descriptor = try? Self.open(sink) {
            _ = Glibc.close(writer.descriptor)
            writer = LineWriter(descriptor: descriptor)
        }
        let lost = writer.write(batch.bytes) { isAbandoned.load(ordering: .relaxed) }
        batch.bytes.removeAll(keepingCapacity: batch.bytes.capacity <= Self.spareBytesMax)
        state.withLock { state in
            state.dropped += lost
            state.spare = batch.bytes
        }
        for flush in batch.flushes { flush.signal() }
        return !batch.isClosing
    }

    private static func open(_ sink: Sink) throws -> Int32 {
        switch sink {
        case .standardOutput: return STDOUT_FILENO
        case .descriptor(let descriptor): return descriptor
        case .file(let path):
            let descriptor = Glibc.open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
            guard descriptor >= 0 else { throw AccessLogFailure.open(path: path, errno: errno) }
            return descriptor
        }
    }
}

package enum AccessLogFailure: Error, Hashable, Sendable, CustomStringConvertible {
    case open(path: String, errno: Int32)
    case thread(errno: Int32)

    package var description: String {
        switch self {
        case .open(let path, let errno): "access log \(path) cannot be opened: \(String(cString: strerror(errno)))"
        case .thread(let errno): "access log writer cannot be started: \(String(cString: strerror(errno)))"
        }
    }
}

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Writes whole lines to a descriptor, whatever that makes of it: short writes go on, `EAGAIN` waits for room, and after
/// an error the rest of the batch is lost and counted.
struct LineWriter {
    /// How long one wait for room may take before the caller is asked whether to go on.
    static let pollMilliseconds: Int32 = 100

    let descriptor: Int32
    /// The sink broke off within a line: the next one must not continue it.
    private var isWithinLine = false

    init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    /// - Parameter isAbandoned: Whether to stop waiting for a sink that takes nothing.
    /// - Returns: How many lines were lost, in part or whole.
    mutating func write(_ bytes: [UInt8], isAbandoned: () -> Bool) -> Int {
        guard !bytes.isEmpty else { return 0 }
        if isWithinLine {
            guard writeAll([0x0A], isAbandoned) == 1 else { return Self.lines(bytes[...]) }
            isWithinLine = false
        }
        let written = writeAll(bytes, isAbandoned)
        guard written < bytes.count else { return 0 }
        isWithinLine = written > 0 && bytes[written - 1] != 0x0A
        return Self.lines(bytes[written...])
    }

    private func writeAll(_ bytes: [UInt8], _ isAbandoned: () -> Bool) -> Int {
        bytes.withUnsafeBytes { raw in
            var written = 0
            while written < raw.count, let base = raw.baseAddress {
                // SAFETY: `written` is below the count of memory that lives for this closure.
                let result = Glibc.write(descriptor, base + written, raw.count - written)
                if result > 0 {
                    written += result
                    continue
                }
                switch errno {
                case EINTR: continue
                case EAGAIN, EWOULDBLOCK:
                    guard !isAbandoned() else { return written }
                    var poll = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = Glibc.poll(&poll, 1, Self.pollMilliseconds)
                default: return written
                }
            }
            return written
        }
    }

    private static func lines(_ bytes: ArraySlice<UInt8>) -> Int {
        bytes.reduce(0) { $1 == 0x0A ? $0 + 1 : $0 }
    }
}

/// Runs `body` on a new detached thread that takes no signals: a broken pipe is an `EPIPE` there.
/// - Returns: The error where there is no thread.
func startThread(_ body: @escaping @Sendable () -> Void) -> Int32? {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let box = Unmanaged.passRetained(Box(body))
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    defer { pthread_attr_destroy(&attributes) }
    var thread = pthread_t()
    // SAFETY: the thread takes over the retain of the box; where none starts, it is released here.
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            var signals = sigset_t()
            sigfillset(&signals)
            pthread_sigmask(SIG_BLOCK, &signals, nil)
            guard let argument else { return nil }
            Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    guard result == 0 else {
        box.release()
        return result
    }
    return nil
}

import Glibc

/// The system calls that can fail for want of space or a broken disk, so that tests can make them fail.
///
/// All but `create` return errno, 0 where they worked.
package protocol JournalFiles: Sendable {
    /// Makes a file of `bytes` zeros whose blocks are allocated, durably, its name too.
    func create(_ path: String, bytes: Int) throws(JournalFailure) -> Int32
    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32
    /// fdatasync
    func sync(_ file: Int32) -> Int32
    /// Cuts a file to what was written, durably.
    func truncate(_ file: Int32, bytes: Int) -> Int32
    func remove(_ path: String) -> Int32
    func close(_ file: Int32)
}

extension JournalFiles {
    package func close(_ file: Int32) { Glibc.close(file) }
}

package struct SystemJournalFiles: JournalFiles {
    package init() {}

    package func create(_ path: String, bytes: Int) throws(JournalFailure) -> Int32 {
        let file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw JournalFailure(.allocate, code: errno) }
        // Where the file system cannot allocate, glibc writes the zeros.
        var code = posix_fallocate(file, 0, off_t(bytes))
        if code == 0, fsync(file) != 0 { code = errno }
        if code == 0 { code = Self.syncDirectory(of: path) }
        guard code == 0 else {
            Glibc.close(file)
            unlink(path)
            throw JournalFailure(.allocate, code: code)
        }
        return file
    }

    package func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        var done = 0
        while done < bytes.count {
            // SAFETY: `done` is below `count`, so the base address is there and the range inside it.
            let written = pwrite(file, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            if written < 0 {
                if errno == EINTR { continue }
                return errno
            }
            done += written
        }
        return 0
    }

    package func sync(_ file: Int32) -> Int32 { fdatasync(file) == 0 ? 0 : errno }

    package func truncate(_ file: Int32, bytes: Int) -> Int32 {
        guard ftruncate(file, off_t(bytes)) == 0 else { return errno }
        return fsync(file) == 0 ? 0 : errno
    }

    package func remove(_ path: String) -> Int32 {
        guard unlink(path) == 0 else { return errno }
        return Self.syncDirectory(of: path)
    }

    /// Makes names durable: a file that a crash forgets the name of is a file lost.
    static func syncDirectory(of path: String) -> Int32 {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        let directory = open(parent.isEmpty ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { return errno }
        defer { Glibc.close(directory) }
        return fsync(directory) == 0 ? 0 : errno
    }
}

/// A file's bytes, mapped read-only.
///
/// Only what is known to have been written is ever read: a segment is cut at that point and never before it, so no read
/// can meet a page that is gone.
final class MappedFile {
    let bytes: UnsafeRawBufferPointer

    /// - Throws: errno as `JournalStartFailure.system`.
    init(_ path: String) throws(JournalStartFailure) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw .system(path: path, operation: "open", code: errno) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw .system(path: path, operation: "read", code: errno) }
        guard status.st_size > 0 else {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        let base = mmap(nil, Int(status.st_size), PROT_READ, MAP_PRIVATE, file, 0)
        guard base != MAP_FAILED, let base else { throw .system(path: path, operation: "map", code: errno) }
        bytes = UnsafeRawBufferPointer(start: base, count: Int(status.st_size))
    }

    deinit {
        // SAFETY: mapped in init with this length, and nobody keeps the buffer longer than this object.
        if let base = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: base), bytes.count) }
    }
}

/// A number that only grows and that a thread can wait for.
///
/// SAFETY: `@unchecked Sendable` holds since `value` is only touched with `mutex` held, and both primitives live as
/// long as this does.
final class JournalGate: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var value: UInt64 = 0

    init() {
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func raise(to target: UInt64) {
        pthread_mutex_lock(mutex)
        if target > value { value = target }
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Adds one.
    func raise() {
        pthread_mutex_lock(mutex)
        value += 1
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Waits until the number is at least `target`, at most this long.
    /// - Returns: The number.
    @discardableResult
    func wait(for target: UInt64, nanoseconds: Int64) -> UInt64 {
        var until = timespec()
        clock_gettime(CLOCK_MONOTONIC, &until)
        let total = Int64(until.tv_nsec) + nanoseconds
        until.tv_sec += Int(total / 1_000_000_000)
        until.tv_nsec = Int(total % 1_000_000_000)
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while value < target, pthread_cond_timedwait(condition, mutex, &until) == 0 {}
        return value
    }
}

import Billing
import Domain
import Glibc
import Logging
import Synchronization

@testable import Gateway

/// A directory that goes when the test does.
final class JournalTestDirectory: Sendable {
    let path: String

    init() {
        var generator = SystemRandomNumberGenerator()
        let root = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        path = root + "/tollgate-journal-" + String(generator.next() as UInt64, radix: 36)
        mkdir(path, 0o700)
    }

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }

    var names: [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    var segments: [String] { names.filter { $0.hasSuffix(".journal") }.map { path + "/" + $0 } }

    static func read(_ path: String) -> [UInt8] {
        let file = open(path, O_RDONLY)
        defer { close(file) }
        var status = stat()
        fstat(file, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                pread(file, $0.baseAddress! + done, $0.count - done, off_t(done))
            }
            guard count > 0 else { break }
            done += count
        }
        return bytes
    }

    static func write(_ bytes: [UInt8], to path: String) {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        defer { close(file) }
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { pwrite(file, $0.baseAddress! + done, $0.count - done, off_t(done)) }
            guard count > 0 else { break }
            done += count
        }
    }
}

/// Real files over a disk of so many bytes, whose writes and syncs can be made to fail.
final class LimitedFiles: JournalFiles {
    private let system = SystemJournalFiles()
    private let state: Mutex<(free: Int, writeCode: Int32, syncCode: Int32, syncs: Int, open: [Int32: Int])>

    init(bytes: Int) { state = Mutex((bytes, 0, 0, 0, [:])) }

    /// How often each of the files that are made was made and not closed: below 0 where one was closed twice.
    var openFiles: [Int] { state.withLock { Array($0.open.values) } }

    func free(_ bytes: Int) { state.withLock { $0.free += bytes } }
    func failWrites(_ code: Int32) { state.withLock { $0.writeCode = code } }
    func failSyncs(_ code: Int32) { state.withLock { $0.syncCode = code } }
    var syncs: Int { state.withLock { $0.syncs } }

    func create(_ path: String, bytes: Int) throws(JournalFailure) -> Int32 {
        let fits = state.withLock { state in
            guard state.free >= bytes else { return false }
            state.free -= bytes
            return true
        }
        guard fits else { throw JournalFailure(.allocate, code: ENOSPC) }
        let file = try system.create(path, bytes: bytes)
        state.withLock { $0.open[file, default: 0] += 1 }
        return file
    }

    func close(_ file: Int32) {
        state.withLock { $0.open[file, default: 0] -= 1 }
        system.close(file)
    }

    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        let code = state.withLock { $0.writeCode }
        return code == 0 ? system.write(file, bytes, at: offset) : code
    }

    func sync(_ file: Int32) -> Int32 {
        let code = state.withLock { state in
            state.syncs += 1
            return state.syncCode
        }
        return code == 0 ? system.sync(file) : code
    }

    func truncate(_ file: Int32, bytes: Int) -> Int32 { system.truncate(file, bytes: bytes) }
    func remove(_ path: String) -> Int32 { system.remove(path) }
}

/// Real files, with something that happens before a sync.
final class HookedFiles: JournalFiles {
    private let system = SystemJournalFiles()
    private let hook = Mutex<(@Sendable () -> Void)?>(nil)

    /// Calls `hook` before the next sync, once.
    func beforeNextSync(_ hook: @escaping @Sendable () -> Void) { self.hook.withLock { $0 = hook } }

    func create(_ path: String, bytes: Int) throws(JournalFailure) -> Int32 { try system.create(path, bytes: bytes) }
    func close(_ file: Int32) { system.close(file) }
    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        system.write(file, bytes, at: offset)
    }

    func sync(_ file: Int32) -> Int32 {
        let hook = hook.withLock { hook in
            defer { hook = nil }
            return hook
        }
        hook?()
        return system.sync(file)
    }

    func truncate(_ file: Int32, bytes: Int) -> Int32 { system.truncate(file, bytes: bytes) }
    func remove(_ path: String) -> Int32 { system.remove(path) }
}

/// Real files that are never synced, for tests that start hundreds of journals.
struct UnsyncedFiles: JournalFiles {
    func create(_ path: String, bytes: Int) throws(JournalFailure) -> Int32 {
        let file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0, ftruncate(file, off_t(bytes)) == 0 else { throw JournalFailure(.allocate, code: errno) }
        return file
    }

    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        SystemJournalFiles().write(file, bytes, at: offset)
    }

    func sync(_ file: Int32) -> Int32 { 0 }
    func truncate(_ file: Int32, bytes: Int) -> Int32 { ftruncate(file, off_t(bytes)) == 0 ? 0 : errno }
    func remove(_ path: String) -> Int32 { unlink(path) == 0 ? 0 : errno }
}

enum JournalFixture {
    static let org = OrgID(unchecked: "acme")
    static let key = KeyID(unchecked: "0123456789ab")
    static let model = ModelID(unchecked: "llama-3.1-8b")
    static let price = Price(version: 3, input: 1_000_000, cachedInput: 500_000, output: 2_000_000)
    static let booking = RateBooking(second: 1_790_000_000, tokens: 100)
    static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    static func charge(_ sequence: Int64, amount: Int64 = 17) -> Charge {
        Charge(
            sequence: sequence, requestID: RequestID(high: 9, low: UInt64(sequence)), key: key, model: model,
            priceVersion: 3, usage: TokenUsage(promptTokens: 11, cachedTokens: 3, completionTokens: 5),
            amount: NanoUSD(unchecked: amount), isEstimated: sequence % 2 == 0,
            at: WallTime(milliseconds: 1_790_000_000_123), booking: booking, unusedTokens: 84)
    }

    static func open(_ id: UInt64, hold: Int64 = 1_000) -> JournalOpen {
        JournalOpen(
            requestID: RequestID(high: 5, low: id), org: org, key: key, model: model, price: price, promptTokens: 40,
            hold: NanoUSD(unchecked: hold), booking: booking)
    }

    static func journal(
        _ directory: JournalTestDirectory, segmentBytes: Int = 64 << 10,
        sync: JournalConfiguration.SyncMode = .interval,
        files: any JournalFiles = SystemJournalFiles(), wallTime: @escaping @Sendable () -> WallTime = { .now() }
    ) throws -> Journal {
        try Journal(
            JournalConfiguration(
                directory: directory.path, sync: sync, segmentBytes: segmentBytes, files: files, wallTime: wallTime),
            logger: logger)
    }

    /// Sets room aside as an admission does, waiting for the journal's thread where it has to make a segment first.
    static func append(_ charge: Charge, to journal: Journal) throws {
        while !journal.reserve() { sched_yield() }
        _ = try journal.appendCharge(charge, org: org)
    }

    /// A journal that was closed after these charges.
    static func closed(_ directory: JournalTestDirectory, charges: ClosedRange<Int64>) throws {
        let journal = try journal(directory)
        for sequence in charges { _ = try journal.appendCharge(charge(sequence), org: org) }
        journal.close()
    }
}

import Billing
import Glibc

/// The journal's directory: who may use it, whose it is, which segments it holds.
struct JournalDirectory: Sendable {
    let path: String
    let id: JournalID
    let segments: [Int64]
    /// Held locked until the process ends or the journal is closed.
    let lock: Int32

    /// Makes the directory where there is none, takes its lock, and reads or draws the journal's id.
    init(_ path: String) throws(JournalStartFailure) {
        try Self.make(path)
        let lockPath = path + "/lock"
        let lock = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw .system(path: lockPath, operation: "open", code: errno) }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(lock)
            if code == EWOULDBLOCK { throw .locked(directory: path) }
            throw .system(path: lockPath, operation: "lock", code: code)
        }
        do throws(JournalStartFailure) {
            segments = try Self.list(path)
            id = try Self.identify(path, hasSegments: !segments.isEmpty)
        } catch {
            close(lock)
            throw error
        }
        self.path = path
        self.lock = lock
    }

    func unlock() { close(lock) }

    private static func make(_ path: String) throws(JournalStartFailure) {
        var prefix = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            prefix += part + "/"
            guard mkdir(prefix, 0o700) == 0 || errno == EEXIST else {
                // A parent on a read-only file system that exists all the same reports another error.
                var status = stat()
                let code = errno
                guard stat(prefix, &status) == 0 else { throw .system(path: prefix, operation: "create", code: code) }
                continue
            }
        }
    }

    private static func list(_ path: String) throws(JournalStartFailure) -> [Int64] {
        guard let directory = opendir(path) else { throw .system(path: path, operation: "list", code: errno) }
        defer { closedir(directory) }
        var numbers: [Int64] = []
        while let entry = readdir(directory) {
            // SAFETY: the entry lives until the next readdir; its name is NUL-terminated.
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(".journal"), let number = Int64(name.dropLast(8)) { numbers.append(number) }
        }
        return numbers.sorted()
    }

    private static func identify(_ path: String, hasSegments: Bool) throws(JournalStartFailure) -> JournalID {
        let file = path + "/id"
        let found = open(file, O_RDONLY | O_CLOEXEC)
        if found >= 0 {
            defer { close(found) }
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = read(found, &bytes, bytes.count)
            let text = String(decoding: bytes.prefix(max(0, count)).prefix { $0 != 0x0A }, as: UTF8.self)
            let isHexadecimal = text.utf8.allSatisfy {
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
            }
            guard text.utf8.count == 32, isHexadecimal else {
                throw .corrupt(file: file, offset: 0, reason: "it is not 32 hexadecimal digits")
            }
            return JournalID(text)
        }
        guard errno == ENOENT else { throw .system(path: file, operation: "open", code: errno) }
        guard !hasSegments else {
            throw .corrupt(file: file, offset: 0, reason: "it is missing, but the directory has segments")
        }
        let id = draw()
        try write(id.rawValue + "\n", to: file)
        return id
    }

    /// Under another name first, so that a crash leaves the whole file or none.
    private static func write(_ text: String, to path: String) throws(JournalStartFailure) {
        let draft = path + ".new"
        let file = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw .system(path: draft, operation: "create", code: errno) }
        defer { close(file) }
        let code = Array(text.utf8).withUnsafeBytes { SystemJournalFiles().write(file, $0, at: 0) }
        guard code == 0 else { throw .system(path: draft, operation: "write", code: code) }
        guard fsync(file) == 0, rename(draft, path) == 0 else {
            throw .system(path: path, operation: "write", code: errno)
        }
        let synced = SystemJournalFiles.syncDirectory(of: path)
        guard synced == 0 else { throw .system(path: path, operation: "sync", code: synced) }
    }

    private static func draw() -> JournalID {
        var generator = SystemRandomNumberGenerator()
        let digits = (0..<32).map { _ in "0123456789abcdef".randomElement(using: &generator) ?? "0" }
        return JournalID(String(digits))
    }
}

import Domain
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A `tollgate` process that cannot outlive the tests: a shell beside it reads from a pipe whose only writing end this
/// process holds, and kills it when the pipe closes, in whatever way the tests end.
final class TollgateProcess: Sendable {
    struct SpawnFailure: Error {
        let errno: Int32
    }

    /// How a process ended: its exit status, or minus the signal that killed it.
    struct Exit: Hashable, Sendable {
        let code: Int32
    }

    let processID: pid_t
    let outputFile: String
    let errorFile: String
    private let guardian: pid_t
    private let lifeline: Int32
    private let exit = Mutex<Exit?>(nil)
    private let isReleased = Atomic<Bool>(false)

    /// The binary stands beside the test bundle that `swift test` runs.
    static let binary: String = {
        let executable = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        let beside = executable.deletingLastPathComponent().appending(path: "tollgate").path
        if FileManager.default.isExecutableFile(atPath: beside) { return beside }
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        return root.appending(path: ".build/debug/tollgate").path
    }()

    /// - Parameter environment: All of it: nothing is inherited but PATH.
    init(arguments: [String], environment: [String: String], directory: String, name: String) throws {
        outputFile = "\(directory)/\(name).out"
        errorFile = "\(directory)/\(name).err"
        var variables = environment
        variables["PATH"] = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        let pairs = variables.map { "\($0.key)=\($0.value)" }
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)
        let flags = O_WRONLY | O_CREAT | O_APPEND
        posix_spawn_file_actions_addopen(&files, 1, outputFile, flags, 0o600)
        posix_spawn_file_actions_addopen(&files, 2, errorFile, flags, 0o600)
        processID = try Self.spawn([Self.binary] + arguments, environment: pairs, files: &files)

        var ends: [Int32] = [0, 0]
        // A socket pair is made close-on-exec in one step, unseen by a child that another thread spawns meanwhile.
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            kill(processID, SIGKILL)
            throw SpawnFailure(errno: errno)
        }
        lifeline = ends[1]
        var guardianFiles = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&guardianFiles)
        defer { posix_spawn_file_actions_destroy(&guardianFiles) }
        posix_spawn_file_actions_adddup2(&guardianFiles, ends[0], 0)
        let script = "trap '' INT TERM HUP; read -r word || { kill -9 $1; rm -rf -- \"$2\"; }"
        guardian = try Self.spawn(
            ["/bin/sh", "-c", script, "sh", "\(processID)", directory], environment: pairs, files: &guardianFiles)
        Glibc.close(ends[0])
    }

    deinit { end(SIGKILL) }

    var isRunning: Bool { poll() == nil }

    func signal(_ signal: Int32) { if isRunning { kill(processID, signal) } }

    /// Waits for the end of the process.
    /// - Throws: ``NotInTime``, with the last of its log.
    func wait(within limit: Duration = .seconds(20)) async throws -> Exit {
        do {
            return try await eventually("the end of tollgate", within: limit) { self.poll() }
        } catch let error as NotInTime {
            throw NotInTime("\(error); its log ends: \(Self.text(of: errorFile).suffix(2_000))")
        }
    }

    /// Sends the signal and reaps the process; used where nobody waits for it any more.
    func end(_ signal: Int32) {
        if poll() == nil {
            kill(processID, signal)
            exit.withLock { exit in
                var status: Int32 = 0
                while waitpid(processID, &status, 0) == -1, errno == EINTR {}
                exit = Self.exit(status)
            }
        }
        release()
    }

    /// The guardian ends without killing anybody: the number may belong to another process by now.
    private func release() {
        guard isReleased.exchange(true, ordering: .relaxed) == false else { return }
        _ = send(lifeline, "done\n", 5, Int32(MSG_NOSIGNAL))
        Glibc.close(lifeline)
        var status: Int32 = 0
        while waitpid(guardian, &status, 0) == -1, errno == EINTR {}
    }

    private func poll() -> Exit? {
        exit.withLock { exit in
            if let exit { return exit }
            var status: Int32 = 0
            guard waitpid(processID, &status, WNOHANG) == processID else { return nil }
            exit = Self.exit(status)
            return exit
        }
    }

    private static func exit(_ status: Int32) -> Exit {
        Exit(code: status & 0x7F == 0 ? (status >> 8) & 0xFF : -(status & 0x7F))
    }

    static func text(of file: String) -> String {
        (FileManager.default.contents(atPath: file)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    var output: String { Self.text(of: outputFile) }
    var errors: String { Self.text(of: errorFile) }

    /// Resident memory now, in bytes.
    var residentBytes: Int {
        let statm = Self.text(of: "/proc/\(processID)/statm").split(separator: " ")
        return statm.count > 1 ? (Int(statm[1]) ?? 0) * Int(getpagesize()) : 0
    }

    private static func spawn(
        _ command: [String], environment: [String], files: inout posix_spawn_file_actions_t
    ) throws -> pid_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let words = command.map { strdup($0) } + [nil]
        let variables = environment.map { strdup($0) } + [nil]
        defer { for pointer in words + variables { free(pointer) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, command[0], &files, &attributes, words, variables)
        guard code == 0 else { throw SpawnFailure(errno: code) }
        return process
    }
}

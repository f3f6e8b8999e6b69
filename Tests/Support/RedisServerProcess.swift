import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A real redis-server for one test: a private directory, a free port, nothing left behind.
///
/// Each server has a shell as its parent that reads from a pipe whose only writing end this process holds. When the pipe
/// closes, by ``stop()``, by `deinit` or because the test process died in whatever way, the shell kills the server and
/// removes the directory.
package final class RedisServerProcess: Sendable {
    package enum StartError: Error, CustomStringConvertible {
        case system(call: String, errno: Int32)
        case notReady(port: Int, log: String)

        package var description: String {
            switch self {
            case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
            case .notReady(let port, let log): "redis-server on port \(port) did not get ready:\n\(log)"
            }
        }
    }

    private struct Running {
        let watchdog: pid_t
        let server: pid_t
        /// The writing end of the pipe.
        let lifeline: Int32
    }

    /// The port is free when chosen, but another process may take it before Redis does.
    private static let portAttemptsMax = 5
    private static let readyTimeoutMilliseconds = 10_000
    private static let pollMilliseconds = 5

    package let port: Int
    package let directory: String
    private let arguments: [String]
    private let running: Mutex<Running?>

    package var url: String { "redis://127.0.0.1:\(port)/0" }
    package var socketPath: String { "\(directory)/s" }
    package var unixURL: String { "unix://\(socketPath)" }
    /// nil while there is none.
    package var processID: Int32? { running.withLock { $0?.server } }

    /// Starts a server and returns when it answers.
    ///
    /// - Parameters:
    ///   - appendOnly: Keep an append-only file, flushed by every write: what was acknowledged survives ``kill9()``.
    ///   - extra: Arguments of redis-server, such as `["--requirepass", "secret"]`. `DEBUG` is enabled.
    package static func start(appendOnly: Bool = true, extra: [String] = []) throws -> RedisServerProcess {
        var attempt = 1
        while true {
            let server = try RedisServerProcess(appendOnly: appendOnly, extra: extra)
            do {
                try server.launch(extra: [], waitForReady: true)
                return server
            } catch StartError.notReady where attempt < portAttemptsMax {
                attempt += 1
            }
        }
    }

    private init(appendOnly: Bool, extra: [String]) throws {
        port = try Self.freePort()
        directory = try Self.temporaryDirectory()
        arguments =
            [
                "--port", "\(port)", "--bind", "127.0.0.1", "--dir", directory, "--unixsocket", "\(directory)/s",
                "--logfile", "\(directory)/log", "--save", "", "--appendonly", appendOnly ? "yes" : "no",
                "--appendfsync", "always", "--enable-debug-command", "yes", "--daemonize", "no",
            ] + extra
        running = Mutex(nil)
    }

    deinit {
        stop()
    }

    /// Ends the server as a power cut would: no farewell, no last write. Returns when it is gone.
    package func kill9() {
        end(keepDirectory: true)
    }

    /// Starts it again on the same port and directory, after ``kill9()``; a running one is killed first.
    ///
    /// - Parameters:
    ///   - extra: Arguments for this start only.
    ///   - waitForReady: False returns at once, to watch it load.
    package func restart(extra: [String] = [], waitForReady: Bool = true) throws {
        kill9()
        try launch(extra: extra, waitForReady: waitForReady)
    }

    /// Kills the server and removes its directory. Calling it again does nothing.
    package func stop() {
        end(keepDirectory: false)
        // After a kill9 there is no watchdog left to do it.
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// What the server wrote to its log.
    package var log: String {
        guard let file = fopen("\(directory)/log", "r") else { return "" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    // MARK: Launching

    /// `$1` is the directory, the rest the server's command line. Whoever holds the pipe's end decides by a line or by
    /// dying whether the directory stays.
    private static let watchdogScript = """
        directory=$1; shift
        trap '' INT TERM HUP
        "$@" </dev/null >/dev/null 2>&1 3>&- &
        server=$!
        echo $server >&3; exec 3>&-
        read -r word || word=remove
        kill -9 $server 2>/dev/null; wait $server 2>/dev/null
        [ "$word" = keep ] || rm -rf -- "$directory"
        """

    private func launch(extra: [String], waitForReady: Bool) throws {
        // Close-on-exec, so that no other child of the test process keeps the lifeline open.
        let (lifelineRead, lifelineWrite) = try Self.pipe()
        let (reportRead, reportWrite) = try Self.pipe()
        defer { for descriptor in [lifelineRead, reportRead] { close(descriptor) } }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, lifelineRead, 0)
        posix_spawn_file_actions_adddup2(&actions, reportWrite, 3)
        // Threads of the test process may block signals; a shell with SIGCHLD blocked would wait for ever.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let command =
            ["sh", "-c", Self.watchdogScript, "sh", directory, "redis-server"] + arguments + extra
        var watchdog: pid_t = 0
        let status = Self.withCStrings(command) {
            posix_spawn(&watchdog, "/bin/sh", &actions, &attributes, $0, environ)
        }
        close(reportWrite)
        guard status == 0 else {
            close(lifelineWrite)
            throw StartError.system(call: "posix_spawn", errno: status)
        }
        let server = pid_t(Self.readLine(from: reportRead)) ?? 0
        running.withLock { $0 = Running(watchdog: watchdog, server: server, lifeline: lifelineWrite) }
        guard waitForReady else { return }
        for _ in 0..<(Self.readyTimeoutMilliseconds / Self.pollMilliseconds) {
            if isAnswering() { return }
            usleep(UInt32(Self.pollMilliseconds) * 1_000)
            if Self.hasExited(server) { break }
        }
        let error = StartError.notReady(port: port, log: log)
        stop()
        throw error
    }

    private func end(keepDirectory: Bool) {
        guard let process = running.withLock({ running in running.take() }) else { return }
        if process.server > 0 { kill(process.server, SIGKILL) }
        let word = keepDirectory ? "keep\n" : "remove\n"
        // MSG_NOSIGNAL: a watchdog that somebody killed must not end the tests with SIGPIPE.
        _ = send(process.lifeline, word, word.utf8.count, Int32(MSG_NOSIGNAL))
        close(process.lifeline)
        var status: Int32 = 0
        while waitpid(process.watchdog, &status, 0) == -1, errno == EINTR {}
    }

    /// Asks over the Unix socket in the private directory: nobody else answers there, and Redis opens it only after it
    /// has got the TCP port. A server that wants a password is ready, too.
    private func isAnswering() -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: socketPath.utf8) }
        let connected = withUnsafeBytes(of: address) { bytes in
            connect(
                descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
        guard connected == 0, write(descriptor, "PING\r\n", 6) == 6 else { return false }
        let line = Self.readLine(from: descriptor)
        return line == "+PONG" || line.hasPrefix("-NOAUTH")
    }

    // MARK: System calls

    /// A socket pair, because it can be made close-on-exec in one step, unseen by a child that another thread spawns.
    private static func pipe() throws -> (read: Int32, write: Int32) {
        var descriptors: [Int32] = [0, 0]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &descriptors) == 0 else {
            throw StartError.system(call: "socketpair", errno: errno)
        }
        return (descriptors[0], descriptors[1])
    }

    private static func readLine(from descriptor: Int32) -> String {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < 1_024, read(descriptor, &byte, 1) == 1, byte != UInt8(ascii: "\n") { line.append(byte) }
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        return String(decoding: line, as: UTF8.self)
    }

    /// A dead child of the watchdog stays a zombie until that waits for it, so its state is read rather than probed.
    private static func hasExited(_ process: pid_t) -> Bool {
        guard let file = fopen("/proc/\(process)/stat", "r") else { return true }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = fread(&bytes, 1, bytes.count, file)
        let afterName = bytes.prefix(count).lastIndex(of: UInt8(ascii: ")")).map { $0 + 2 } ?? 0
        return afterName < count && bytes[afterName] == UInt8(ascii: "Z")
    }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw StartError.system(call: "socket", errno: errno) }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutableBytes(of: &address) { bytes in
            let pointer = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self)
            return bind(descriptor, pointer, length) == 0 ? getsockname(descriptor, pointer, &length) : -1
        }
        guard status == 0 else { throw StartError.system(call: "bind", errno: errno) }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    private static func temporaryDirectory() throws -> String {
        var template = Array("/tmp/tollgate-redis-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw StartError.system(call: "mkdtemp", errno: errno) }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func withCStrings<Result>(
        _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
    ) -> Result {
        let pointers = strings.map { strdup($0) }
        defer { for pointer in pointers { free(pointer) } }
        return body(pointers + [nil])
    }
}

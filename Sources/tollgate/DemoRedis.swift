import ControlPlane
import Domain
import Gateway

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Random text for tokens and peppers.
enum DemoSecret {
    /// 48 hexadecimal digits from the system's generator.
    static func random() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<3).map { _ in
            let digits = String(generator.next() as UInt64, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

/// Where a demo keeps what outlives it; for its owner's eyes only.
struct DemoDirectory {
    let path: String

    var journal: String { path + "/journal" }
    var redis: String { path + "/redis" }
    var accessLog: String { path + "/access.log" }
    private var pepperFile: String { path + "/pepper" }

    init(path given: String?) throws(CommandFailure) {
        let environment = ProcessInfo.processInfo.environment
        let state = environment["XDG_STATE_HOME"] ?? (environment["HOME"].map { "\($0)/.local/state" } ?? "/tmp")
        path = given ?? "\(state)/tollgate/demo"
        for directory in [path, redis] {
            do {
                try FileManager.default.createDirectory(
                    atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            } catch {
                throw CommandFailure(
                    "cannot make \(directory): \(error.localizedDescription); choose another with --data")
            }
        }
    }

    /// Made once: keys that the user created must work after a restart.
    func pepper() throws(CommandFailure) -> String {
        if let text = try? String(contentsOfFile: pepperFile, encoding: .utf8), !text.isEmpty { return text }
        let text = "demo:\(DemoSecret.random())"
        let descriptor = open(pepperFile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure("cannot write \(pepperFile); choose another --data") }
        defer { close(descriptor) }
        guard write(descriptor, text, text.utf8.count) == text.utf8.count, fsync(descriptor) == 0 else {
            throw CommandFailure("cannot write \(pepperFile): the disk may be full")
        }
        return text
    }
}

/// The demo's own Redis: a child process on a free loopback port, its appended file under the demo's directory.
///
/// In a process group of its own, so that Ctrl-C in the terminal reaches the gateway alone, which stops Redis last. A
/// watchdog ends it where the gateway was killed and could not.
final class DemoRedis: Sendable {
    /// Ends Redis when the pipe from the gateway closes, however the gateway went.
    ///
    /// A shell gives its background jobs /dev/null to read, whatever `<&0` says: hence the descriptor of its own. A
    /// signal ends the first `wait`; the second one waits until Redis has written everything.
    private static let watchdog = """
        exec 3<&0
        redis-server "$@" 3<&- &
        child=$!
        trap 'kill -TERM $child 2>/dev/null' TERM
        ( cat <&3 >/dev/null; kill -TERM $child 2>/dev/null ) &
        wait $child
        wait $child
        """

    let url: String
    private let process: pid_t
    /// The watchdog's standard input: closing it ends Redis.
    private let lifeline: Int32

    private init(url: String, process: pid_t, lifeline: Int32) {
        self.url = url
        self.process = process
        self.lifeline = lifeline
    }

    static func start(directory: DemoDirectory) async throws(CommandFailure) -> DemoRedis {
        let port = try freePort()
        let password = DemoSecret.random()
        let configuration = directory.redis + "/redis.conf"
        let text = """
            bind 127.0.0.1
            port \(port)
            requirepass \(password)
            dir \(directory.redis)
            appendonly yes
            appendfsync everysec
            save ""
            maxmemory-policy noeviction
            logfile \(directory.redis)/redis.log

            """
        do {
            try text.write(toFile: configuration, atomically: true, encoding: .utf8)
        } catch {
            throw CommandFailure("cannot write \(configuration): \(error.localizedDescription)")
        }
        chmod(configuration, 0o600)
        var pipe: [Int32] = [-1, -1]
        guard Glibc.pipe(&pipe) == 0, pipe.allSatisfy({ fcntl($0, F_SETFD, FD_CLOEXEC) == 0 }) else {
            throw CommandFailure("no more files can be opened: raise ulimit -n")
        }
        let process = try spawn(["sh", "-c", watchdog, "redis", configuration], standardInput: pipe[0])
        close(pipe[0])
        let redis = DemoRedis(url: "redis://:\(password)@127.0.0.1:\(port)/0", process: process, lifeline: pipe[1])
        do throws(CommandFailure) {
            try await redis.waitUntilListening(port: port, log: directory.redis + "/redis.log")
        } catch {
            redis.stop()
            throw error
        }
        return redis
    }

    /// Ends Redis and waits until it has written everything.
    func stop() {
        close(lifeline)
        kill(process, SIGTERM)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
    }

    private func waitUntilListening(port: Int, log: String) async throws(CommandFailure) {
        let deadline = MonotonicTime.now().advanced(by: .seconds(10))
        while MonotonicTime.now() < deadline {
            if Self.isListening(port) { return }
            var status: Int32 = 0
            if waitpid(process, &status, WNOHANG) == process { break }
            try? await Task.sleep(for: .milliseconds(20))
        }
        throw CommandFailure("redis-server did not start; is it installed? Its log is \(log)")
    }

    // MARK: System calls

    private static func address(port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        return address
    }

    private static func withAddress(_ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        withUnsafePointer(to: address(port: port)) { pointer in
            // SAFETY: sockaddr_in begins as sockaddr does; the kernel reads by the length given.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private static func isListening(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return withAddress(port) { connect(descriptor, $0, $1) } == 0
    }

    private static func freePort() throws(CommandFailure) -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0, withAddress(0, { bind(descriptor, $0, $1) }) == 0 else {
            throw CommandFailure("no loopback port is free for Redis")
        }
        defer { close(descriptor) }
        var bound = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &bound) { pointer in
            // SAFETY: as in withAddress; the kernel writes at most `length` bytes.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else { throw CommandFailure("no loopback port is free for Redis") }
        return Int(in_port_t(bigEndian: bound.sin_port))
    }

    private static func spawn(_ arguments: [String], standardInput: Int32) throws(CommandFailure) -> pid_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        posix_spawnattr_setpgroup(&attributes, 0)
        // The thread that spawns may block signals, and a child that inherits that could not be stopped.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, standardInput, STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let code = posix_spawnp(&process, "/bin/sh", &actions, &attributes, words, environ)
        guard code == 0 else { throw CommandFailure("cannot start a process: \(String(cString: strerror(code)))") }
        return process
    }
}

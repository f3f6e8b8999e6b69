import ArgumentParser
import ControlPlane
import Domain
import Gateway
import Logging
import NIOCore
import ServiceLifecycle
import UnixSignals

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

/// `tollgate serve`: the gateway and its control plane until SIGINT or SIGTERM.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run the gateway.",
        discussion: """
            Reads its configuration from --config or TOLLGATE_CONFIG, and the secret of key hashes from TOLLGATE_PEPPER \
            (ID:SECRET[,ID:SECRET], the current one first). SIGHUP, or a changed file, reloads it; a bad file keeps \
            the last good one. SIGTERM drains. The access log goes to standard output, everything else to standard \
            error.

            EXAMPLES
              TOLLGATE_PEPPER=p1:$(cat pepper) tollgate serve --config tollgate.yaml
              tollgate config check tollgate.yaml
            """)

    @Option(help: "The configuration file; default is what TOLLGATE_CONFIG names.")
    var config: String?

    mutating func run() async throws {
        // Until the reloader listens there is nothing to reload, and a SIGHUP must not end the start.
        signal(SIGHUP, SIG_IGN)
        let environment = ProcessInfo.processInfo.environment
        guard let file = config ?? environment["TOLLGATE_CONFIG"] else {
            throw CommandFailure("no configuration: give --config FILE, or set TOLLGATE_CONFIG")
        }
        let peppers = try Self.peppers(environment)
        let configuration = try Self.load(file, environment)
        let logger = GatewayLog.logger(try GatewayLog.level(environment))
        let server = try await Self.start(configuration, peppers, logger)
        let reloader = ConfigurationReloader(file: file, environment: environment, server: server, logger: logger)
        try await GatewayProcess(server: server, configuration: configuration, logger: logger, extra: [reloader]).run()
    }

    static func load(_ file: String, _ environment: [String: String]) throws(CommandFailure) -> GatewayConfiguration {
        do throws(ConfigurationFailure) {
            return try ConfigurationLoader.load(file: file, environment: environment)
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    static func peppers(_ environment: [String: String]) throws(CommandFailure) -> Peppers {
        guard let text = environment["TOLLGATE_PEPPER"], !text.isEmpty else {
            throw CommandFailure(
                "TOLLGATE_PEPPER is not set: key hashes need a secret; set it to ID:SECRET, the secret from "
                    + "'openssl rand -hex 32'")
        }
        do throws(PepperFailure) {
            return try Peppers(text)
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    static func start(
        _ configuration: GatewayConfiguration, _ peppers: Peppers, _ logger: Logger
    ) async throws(CommandFailure) -> GatewayServer {
        do {
            return try await GatewayServer.start(configuration: configuration, peppers: peppers, logger: logger)
        } catch {
            throw CommandFailure("\(error)")
        }
    }
}

/// A gateway with its control plane under one group of services: the control plane outlives the drain, so that
/// `/readyz` says what goes on.
struct GatewayProcess {
    let server: GatewayServer
    let configuration: GatewayConfiguration
    let logger: Logger
    var extra: [any Service] = []
    var onListening: @Sendable (Int) async -> Void = { _ in }

    func run() async throws {
        // Only the control plane uses it, and one loop is plenty for that.
        NIOSingletons.groupLoopCountSuggestion = 1
        guard let token = AdminToken(configuration.admin.token.reveal()) else {
            throw CommandFailure("admin.token is empty or longer than \(AdminToken.bytesMax) bytes")
        }
        let admin = AdminServer(
            host: configuration.admin.listen.host, port: configuration.admin.listen.port, token: token,
            joinToken: configuration.joinToken.flatMap { AdminToken($0.reveal()) },
            store: server.operators, gateway: server, orgDefaults: configuration.orgDefaults, logger: logger,
            onListening: onListening)
        // Services stop in the reverse order of this list.
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: ([admin] as [any Service] + extra + [DataPlaneService(server: server)]).map {
                    .init(
                        service: $0, successTerminationBehavior: .gracefullyShutdownGroup,
                        failureTerminationBehavior: .gracefullyShutdownGroup)
                },
                gracefulShutdownSignals: [.sigterm, .sigint], logger: GatewayLog.quiet))
        do {
            try await group.run()
        } catch {
            throw CommandFailure(
                "the control plane at \(configuration.admin.listen) stopped: \(error); is another server running there?"
            )
        }
    }
}

/// The data plane in the group: drains when the group stops.
private struct DataPlaneService: Service {
    let server: GatewayServer

    func run() async throws {
        try await gracefulShutdown()
        await server.shutDown()
    }
}

/// Reloads on SIGHUP and when the file changes, or one that was read for it (a certificate, its key, a node's authority, a tokenizer); a
/// bad one keeps the last good configuration and says so.
private struct ConfigurationReloader: Service {
    static let pollInterval = Duration.seconds(1)

    let file: String
    let environment: [String: String]
    let server: GatewayServer
    let logger: Logger

    func run() async throws {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.watchSignal() }
            group.addTask { await self.watchFile() }
            try? await gracefulShutdown()
            group.cancelAll()
        }
    }

    private func watchSignal() async {
        for await _ in await UnixSignalsSequence(trapping: .sighup) {
            server.reopenAccessLog()
            await reload()
        }
    }

    private func watchFile() async {
        var known: [String: FileStamp?] = [:]
        for name in [file] + server.watchedFiles { known[name] = .some(FileStamp(name)) }
        while (try? await Task.sleep(for: Self.pollInterval)) != nil {
            // A reload may name other files: those were just read.
            let names = [file] + server.watchedFiles
            var hasChanged = false
            for name in names {
                let stamp = FileStamp(name)
                if let before = known[name], stamp != before, stamp != nil { hasChanged = true }
                known[name] = .some(stamp)
            }
            if hasChanged { await reload() }
        }
    }

    private func reload() async {
        do {
            let configuration = try ConfigurationLoader.load(file: file, environment: environment)
            for warning in configuration.warnings { logger.warning("\(warning)") }
            let restart = try await server.reload(configuration)
            logger.info("configuration reloaded")
            for key in restart {
                logger.warning("\(key) changed: it needs a restart, and keeps its old value until then")
            }
        } catch {
            logger.error("the configuration was not reloaded, the last good one stays", metadata: ["error": "\(error)"])
        }
    }
}

/// What tells one version of a file from the next.
private struct FileStamp: Equatable {
    let device, inode, size, seconds, nanoseconds: Int64

    init?(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        device = Int64(status.st_dev)
        inode = Int64(status.st_ino)
        size = Int64(status.st_size)
        seconds = Int64(status.st_mtim.tv_sec)
        nanoseconds = Int64(status.st_mtim.tv_nsec)
    }
}

/// Where the gateway's own log goes: standard error, one line an event.
enum GatewayLog {
    static func logger(_ level: Logger.Level = .info) -> Logger {
        var logger = Logger(label: "tollgate", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = level
        return logger
    }

    /// `TOLLGATE_LOG_LEVEL`, else `info`. `debug` says of each request why it went to its node.
    static func level(_ environment: [String: String]) throws(CommandFailure) -> Logger.Level {
        guard let name = environment["TOLLGATE_LOG_LEVEL"], !name.isEmpty else { return .info }
        guard let level = Logger.Level(rawValue: name) else {
            let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw CommandFailure("TOLLGATE_LOG_LEVEL is no level: set it to one of \(known)")
        }
        return level
    }

    /// For libraries that tell of their own start and stop.
    static var quiet: Logger { logger(.error) }
}

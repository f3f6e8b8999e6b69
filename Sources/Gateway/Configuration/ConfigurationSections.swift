import Billing
import Domain
import NIOCore
import Redis
import Routing

/// The sections of the file, each read by one function. Where a value is a problem its default stands in, so that
/// reading goes on to the next problem; the loader drops the result then.
struct ConfigurationSections {
    private typealias Units = ConfigurationUnits

    let root: ConfigurationSection
    let findings: ConfigurationFindings

    /// nil only where a problem was found.
    func read() -> GatewayConfiguration? {
        root.notBuiltYet(["webhooks"], "sending webhooks is")

        let listen = root.value("listen", Units.listenAddress) ?? ListenAddress(host: "0.0.0.0", port: 8080)
        let admin = readAdmin(dataPlane: listen)
        let redisURL = readRedisURL()
        let journal = readJournal()
        let limits = readLimits()
        let timeouts = readTimeouts()
        let listener = ListenerSections(root: root, findings: findings).read()
        let retry = readRetry()
        let stream = readStream()
        let queue = readQueue(timeouts)
        readLeases()
        let (authorities, tokenizers) = (NodeAuthorities(), TokenizerFiles())
        let fleet = FleetSections(root: root, file: findings.file, authorities: authorities, tokenizers: tokenizers)
        let models = fleet.readModels()
        let sites = fleet.readSites()
        let nodes = fleet.readNodes(models: Set(models.map(\.id)), sites: Set(sites.map(\.id)))
        let joinToken = fleet.readJoinToken(admin: admin?.token)
        let joinNetworks = fleet.readJoinNetworks()
        let discovery = fleet.readDiscovery(models: Set(models.map(\.id)), sites: Set(sites.map(\.id)))
        let routing = readRouting()
        let orgDefaults = readOrgDefaults()
        let eventLoops =
            root.value("event_loops", Units.integer(in: 1...GatewayConfiguration.eventLoopsMax))
            ?? min(System.coreCount, GatewayConfiguration.eventLoopsMax)
        let accessLog = root.value("access_log", Units.accessLog) ?? .standardOutput
        root.finish()

        guard let admin else { return nil }
        var configuration = GatewayConfiguration(
            listen: listen, listener: listener, admin: admin, redisURL: redisURL, journal: journal, limits: limits,
            timeouts: timeouts, retry: retry, stream: stream, models: models, sites: sites, nodes: nodes,
            routing: routing,
            orgDefaults: orgDefaults,
            eventLoops: eventLoops, accessLog: accessLog)
        configuration.queue = queue
        configuration.joinToken = joinToken
        configuration.joinNetworks = joinNetworks
        configuration.discovery = discovery
        configuration.filesRead =
            authorities.files + tokenizers.files + (listener.tls.map { [$0.certificateFile, $0.keyFile] } ?? [])
        return configuration
    }

    private func readAdmin(dataPlane: ListenAddress) -> AdminConfiguration? {
        let section = root.section("admin")
        section.notBuiltYet(["tls"], "TLS on the control plane is")
        let listen = section.value("listen", Units.listenAddress) ?? ListenAddress(host: "127.0.0.1", port: 8081)
        if !listen.isLoopback {
            section.problem(
                "listen", "off loopback the control plane needs TLS, which is not built yet: listen on 127.0.0.1")
        }
        if listen.port == dataPlane.port, listen.port != 0 {
            section.problem("listen", "has the port of the data plane's listener: choose another")
        }
        let token = section.required("token", isSecret: true) { text throws(UnitFailure) in
            guard text.utf8.count >= AdminConfiguration.tokenBytesMin else {
                throw UnitFailure(
                    "is shorter than \(AdminConfiguration.tokenBytesMin) bytes: make one with 'openssl rand -hex 32'")
            }
            guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw UnitFailure("must be printable ASCII without spaces, since it travels in a header")
            }
            return Secret(text)
        }
        section.finish()
        return token.map { AdminConfiguration(listen: listen, token: $0) }
    }

    private func readRedisURL() -> Secret {
        let section = root.section("redis")
        defer { section.finish() }
        let standard = Secret("redis://127.0.0.1:6379/0")
        let named = section.value("url", isSecret: true, Self.redisURL)
        guard let override = findings.environment[ConfigurationLoader.redisURLVariable] else {
            return named ?? standard
        }
        do throws(UnitFailure) {
            return try Self.redisURL(override)
        } catch {
            findings.problem(variable: ConfigurationLoader.redisURLVariable, error.message)
            return standard
        }
    }

    private static func redisURL(_ text: String) throws(UnitFailure) -> Secret {
        do throws(RedisURLError) {
            _ = try RedisURL(text)
            return Secret(text)
        } catch {
            throw UnitFailure(error.description)
        }
    }

    private func readJournal() -> JournalSettings {
        let section = root.section("journal")
        defer { section.finish() }
        let standard = JournalSettings()
        return JournalSettings(
            directory: section.value("directory", Units.text) ?? standard.directory,
            sync: section.value("sync", Units.word(JournalSettings.Sync.self)) ?? standard.sync)
    }

    private func readLimits() -> LimitsConfiguration {
        let section = root.section("limits")
        defer { section.finish() }
        var limits = LimitsConfiguration()
        section.value("body_bytes", Units.bytes(in: 1_024...LimitsConfiguration.bodyBytesMax))
            .map { limits.bodyBytes = $0 }
        section.value("header_bytes", Units.bytes(in: 1_024...LimitsConfiguration.headerBytesMax))
            .map { limits.headerBytes = $0 }
        section.value("buffered_bytes", Units.bytes(in: 1_024...LimitsConfiguration.bufferedBytesMax))
            .map { limits.bufferedBytes = $0 }
        section.value("connections", Units.integer(in: 1...LimitsConfiguration.connectionsMax))
            .map { limits.connections = $0 }
        if limits.bufferedBytes < limits.bodyBytes {
            section.problem(
                section.has("buffered_bytes") ? "buffered_bytes" : "body_bytes",
                "a body of body_bytes would never fit into buffered_bytes: raise buffered_bytes or lower body_bytes")
        }
        return limits
    }

    private func readTimeouts() -> TimeoutsConfiguration {
        let section = root.section("timeouts")
        defer { section.finish() }
        var timeouts = TimeoutsConfiguration()
        func read(_ key: String, _ field: WritableKeyPath<TimeoutsConfiguration, Duration>, from minimum: Duration) {
            section.value(key, Units.duration(in: minimum...TimeoutsConfiguration.durationMax))
                .map { timeouts[keyPath: field] = $0 }
        }
        read("header", \.header, from: .milliseconds(10))
        read("body", \.body, from: .milliseconds(10))
        read("idle", \.idle, from: .milliseconds(10))
        read("connect", \.connect, from: .milliseconds(10))
        read("first_byte", \.firstByte, from: .milliseconds(10))
        read("stream_idle", \.streamIdle, from: .milliseconds(10))
        read("request", \.request, from: .milliseconds(10))
        read("drain", \.drain, from: .zero)
        return timeouts
    }

    private func readRetry() -> RetryConfiguration {
        let section = root.section("retry")
        defer { section.finish() }
        let standard = RetryConfiguration()
        return RetryConfiguration(
            attempts: section.value("attempts", Units.integer(in: 1...NodeSet.capacity)) ?? standard.attempts,
            budgetPermille: section.value("budget", Units.permille) ?? standard.budgetPermille)
    }

    private func readStream() -> StreamConfiguration {
        let section = root.section("stream")
        defer { section.finish() }
        var stream = StreamConfiguration()
        section.value("ping_after", Units.duration(in: .milliseconds(100)...TimeoutsConfiguration.durationMax))
            .map { stream.pingAfter = $0 }
        return stream
    }

    private func readLeases() {
        let section = root.section("leases")
        defer { section.finish() }
        if section.value("enabled", Units.boolean) == true {
            section.problem("enabled", "leases are not built yet: write false")
        }
    }

    private func readRouting() -> RoutingConfiguration {
        let section = root.section("routing")
        defer { section.finish() }
        var routing = RoutingConfiguration()
        section.value("policy", Units.word(RoutingPolicy.self)).map { routing.policy = $0 }
        section.value("explain_header", Units.boolean).map { routing.explainsInHeader = $0 }
        let objective = section.section("objective")
        objective.value("ttft", Units.duration(in: .milliseconds(10)...TimeoutsConfiguration.durationMax))
            .map { routing.objective.firstToken = $0 }
        objective.value("tpot", Units.duration(in: .milliseconds(1) ... .seconds(10)))
            .map { routing.objective.perOutputToken = $0 }
        objective.finish()
        return routing
    }

    private func readQueue(_ timeouts: TimeoutsConfiguration) -> QueueConfiguration {
        let section = root.section("queue")
        defer { section.finish() }
        var queue = QueueConfiguration()
        section.value("requests", Units.integer(in: 0...QueueConfiguration.requestsMax)).map { queue.requests = $0 }
        section.value("deadline", Units.duration(in: .milliseconds(10)...TimeoutsConfiguration.durationMax))
            .map { queue.deadline = $0 }
        if section.has("priority_orgs") {
            queue.priorityOrgs = section.values(
                "priority_orgs", countMax: QueueConfiguration.priorityOrgsMax, Units.identifier(OrgID.self))
        }
        if section.has("deadline"), queue.deadline >= timeouts.request {
            section.warning("deadline", "is not below timeouts.request, which ends every request before")
        }
        return queue
    }

    private func readOrgDefaults() -> OrgDefaults {
        let section = root.section("org_defaults")
        defer { section.finish() }
        var defaults = OrgDefaults()
        func limit(_ key: String, max: Int, _ field: WritableKeyPath<Limits, Int?>) {
            let parsed: Int?? = section.value(key) { text throws(UnitFailure) in
                text == "unlimited" ? nil : try Units.integer(in: 1...max)(text)
            }
            if let parsed { defaults.limits[keyPath: field] = parsed }
        }
        limit("rpm", max: 1_000_000_000, \.requestsPerMinute)
        limit("tpm", max: 1_000_000_000_000, \.tokensPerMinute)
        limit("concurrency", max: 1_000_000, \.concurrency)
        section.value("keys", Units.integer(in: 1...100_000)).map { defaults.keysMax = $0 }
        return defaults
    }
}

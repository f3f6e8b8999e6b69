import Billing
import Domain
import Routing

/// Everything that the configuration file says: typed, validated once, immutable. A reload makes a new one.
package struct GatewayConfiguration: Sendable {
    /// The data plane's listener. Port 0 asks the kernel for a free one.
    package var listen: ListenAddress
    /// How that listener meets its clients.
    package var listener: ListenerConfiguration
    package var admin: AdminConfiguration
    /// `redis://` or `unix://`. A secret, since it may carry a password.
    package var redisURL: Secret
    package var journal: JournalSettings
    package var limits: LimitsConfiguration
    package var timeouts: TimeoutsConfiguration
    package var retry: RetryConfiguration
    package var stream: StreamConfiguration
    package var queue = QueueConfiguration()
    /// In the order of the file; ids are unique.
    package var models: [ModelConfiguration]
    /// In the order of the file; ids are unique.
    package var sites: [SiteConfiguration]
    /// In the order of the file; ids are unique, and every site and model that a node names exists.
    package var nodes: [NodeConfiguration]
    package var routing: RoutingConfiguration
    /// What nodes register themselves with; nil where none may. At least ``AdminConfiguration/tokenBytesMin`` bytes.
    package var joinToken: Secret?
    /// Where such nodes may be; empty for anywhere that ``JoinRules`` allow.
    package var joinNetworks: [IPNetwork] = []
    package var discovery: [DNSDiscovery] = []
    package var orgDefaults: OrgDefaults
    /// Event loops of the data plane, 1 to ``eventLoopsMax``.
    package var eventLoops: Int
    package var accessLog: AccessLogDestination
    /// Files that were read for this configuration, besides its own: a changed one asks for a reload.
    package var filesRead: [String] = []
    /// What is allowed but probably not meant, each `file:line: key: what`.
    package var warnings: [String]

    package static let eventLoopsMax = 256
    package static let nodesMax = 4_096
    package static let modelsMax = 1_024
    package static let sitesMax = 1_024
    package static let joinNetworksMax = 256

    package init(
        listen: ListenAddress = ListenAddress(host: "0.0.0.0", port: 8080),
        listener: ListenerConfiguration = ListenerConfiguration(),
        admin: AdminConfiguration,
        redisURL: Secret = Secret("redis://127.0.0.1:6379/0"),
        journal: JournalSettings = JournalSettings(),
        limits: LimitsConfiguration = LimitsConfiguration(),
        timeouts: TimeoutsConfiguration = TimeoutsConfiguration(),
        retry: RetryConfiguration = RetryConfiguration(),
        stream: StreamConfiguration = StreamConfiguration(),
        models: [ModelConfiguration] = [],
        sites: [SiteConfiguration] = [],
        nodes: [NodeConfiguration] = [],
        routing: RoutingConfiguration = RoutingConfiguration(),
        orgDefaults: OrgDefaults = OrgDefaults(),
        eventLoops: Int,
        accessLog: AccessLogDestination = .standardOutput,
        warnings: [String] = []
    ) {
        self.listen = listen
        self.listener = listener
        self.admin = admin
        self.redisURL = redisURL
        self.journal = journal
        self.limits = limits
        self.timeouts = timeouts
        self.retry = retry
        self.stream = stream
        self.models = models
        self.sites = sites
        self.nodes = nodes
        self.routing = routing
        self.orgDefaults = orgDefaults
        self.eventLoops = eventLoops
        self.accessLog = accessLog
        self.warnings = warnings
    }

    /// This configuration, with what ``needsRestart(comparedTo:)`` names as it was.
    package func keepingWhatNeedsRestart(of old: GatewayConfiguration) -> GatewayConfiguration {
        var kept = self
        kept.listen = old.listen
        if (listener.tls == nil) != (old.listener.tls == nil) { kept.listener.tls = old.listener.tls }
        kept.admin = old.admin
        kept.joinToken = old.joinToken
        kept.redisURL = old.redisURL
        kept.journal = old.journal
        kept.limits.headerBytes = old.limits.headerBytes
        kept.eventLoops = old.eventLoops
        kept.routing.policy = old.routing.policy
        kept.accessLog = old.accessLog
        return kept
    }

    /// The keys whose change only a restart can honour, in the order of the file: a reload keeps the old values of
    /// these and says 'needs a restart'.
    package func needsRestart(comparedTo old: GatewayConfiguration) -> [String] {
        var keys: [String] = []
        if listen != old.listen { keys.append("listen") }
        // On or off only: another certificate, and other files, are taken by a reload.
        if (listener.tls == nil) != (old.listener.tls == nil) { keys.append("tls") }
        if admin.listen != old.admin.listen { keys.append("admin.listen") }
        if admin.token != old.admin.token { keys.append("admin.token") }
        if joinToken != old.joinToken { keys.append("join_token") }
        if redisURL != old.redisURL { keys.append("redis.url") }
        if journal != old.journal { keys.append("journal") }
        if limits.headerBytes != old.limits.headerBytes { keys.append("limits.header_bytes") }
        if routing.policy != old.routing.policy { keys.append("routing.policy") }
        if eventLoops != old.eventLoops { keys.append("event_loops") }
        if accessLog != old.accessLog { keys.append("access_log") }
        return keys
    }

    /// The model that customers call `id`; nil where none is configured. Linear: for the control plane, not the hot
    /// path.
    package func model(_ id: ModelID) -> ModelConfiguration? { models.first { $0.id == id } }
}

/// A host and a port to bind. The host is an IP literal or a name, without the brackets of IPv6.
package struct ListenAddress: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `127.0.0.0/8`, `::1` and `localhost`: what only this machine reaches.
    package var isLoopback: Bool {
        host == "localhost" || host == "::1" || Self.isLoopbackIPv4(host)
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// A name such as `127.evil.example` must not pass for an address.
    private static func isLoopbackIPv4(_ host: String) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}

package struct AdminConfiguration: Hashable, Sendable {
    package static let tokenBytesMin = 32

    package var listen: ListenAddress
    /// At least ``tokenBytesMin`` bytes.
    package var token: Secret

    package init(listen: ListenAddress = ListenAddress(host: "127.0.0.1", port: 8081), token: Secret) {
        self.listen = listen
        self.token = token
    }
}

package struct JournalSettings: Hashable, Sendable {
    package enum Sync: String, Hashable, Sendable, CaseIterable {
        /// Synced each interval: a power cut can lose the last of it.
        case interval
        /// Synced before a charge counts as kept.
        case fsync
    }

    package var directory: String
    package var sync: Sync

    package init(directory: String = "/var/lib/tollgate/journal", sync: Sync = .interval) {
        self.directory = directory
        self.sync = sync
    }
}

package struct LimitsConfiguration: Hashable, Sendable {
    package static let bodyBytesMax = 1 << 30
    package static let headerBytesMax = 1 << 20
    package static let bufferedBytesMax = 1 << 40
    package static let connectionsMax = 1_000_000

    /// One request's body.
    package var bodyBytes: Int
    /// One request's line and headers together.
    package var headerBytes: Int
    /// All request bodies together. At least ``bodyBytes``.
    package var bufferedBytes: Int
    /// Downstream connections open at once.
    package var connections: Int

    package init(
        bodyBytes: Int = 8 << 20, headerBytes: Int = 32 << 10, bufferedBytes: Int = 256 << 20, connections: Int = 20_000
    ) {
        self.bodyBytes = bodyBytes
        self.headerBytes = headerBytes
        self.bufferedBytes = bufferedBytes
        self.connections = connections
    }
}

package struct TimeoutsConfiguration: Hashable, Sendable {
    package static let durationMax = Duration.seconds(24 * 3_600)

    /// From the first byte of a request to the end of its headers.
    package var header: Duration
    /// From the end of the headers to the end of the body.
    package var body: Duration
    /// A kept-alive connection without a request.
    package var idle: Duration
    /// Connecting to a node.
    package var connect: Duration
    /// From dispatch to the node's first byte. A model may override it.
    package var firstByte: Duration
    /// Between two pieces of a stream. A model may override it.
    package var streamIdle: Duration
    /// The whole request.
    package var request: Duration
    /// What SIGTERM leaves to running requests.
    package var drain: Duration

    package init(
        header: Duration = .seconds(10), body: Duration = .seconds(60), idle: Duration = .seconds(75),
        connect: Duration = .seconds(1), firstByte: Duration = .seconds(120), streamIdle: Duration = .seconds(60),
        request: Duration = .seconds(600), drain: Duration = .seconds(30)
    ) {
        self.header = header
        self.body = body
        self.idle = idle
        self.connect = connect
        self.firstByte = firstByte
        self.streamIdle = streamIdle
        self.request = request
        self.drain = drain
    }
}

package struct StreamConfiguration: Hashable, Sendable {
    /// A client whose open stream is silent for so long gets a comment.
    package var pingAfter: Duration

    package init(pingAfter: Duration = .seconds(10)) {
        self.pingAfter = pingAfter
    }
}

package struct RetryConfiguration: Hashable, Sendable {
    /// Attempts in all, the first included: 1 to ``NodeSet/capacity``.
    package var attempts: Int
    /// Retries per thousand requests; 1,000 is every request.
    package var budgetPermille: Int

    package init(attempts: Int = 2, budgetPermille: Int = 100) {
        self.attempts = attempts
        self.budgetPermille = budgetPermille
    }
}

package struct RoutingConfiguration: Hashable, Sendable {
    package static let policyDefault = RoutingPolicy.predictedCost

    package var policy: RoutingPolicy
    package var objective = RoutingObjective()
    /// Whether answers say why they came from where they did.
    package var explainsInHeader = false

    package init(policy: RoutingPolicy = Self.policyDefault) {
        self.policy = policy
    }
}

package enum AccessLogDestination: Hashable, Sendable {
    case standardOutput
    case off
    case file(path: String)
}

/// A text that must not reach a log, an error or a dump: every description of it is redacted.
package struct Secret: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private let text: String

    package init(_ text: String) {
        self.text = text
    }

    /// The text itself, for the one place that sends it.
    package func reveal() -> String { text }

    package var description: String { "<redacted>" }
    package var debugDescription: String { "<redacted>" }
    package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

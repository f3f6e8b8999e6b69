import Billing
import Domain
import JSON
import NIOCore
import Redis
import Routing

/// How the gateway came to know a node.
package enum NodeOrigin: String, Hashable, Sendable, CaseIterable {
    /// From the configuration's `nodes`.
    case file
    /// By an operator (`tollgate node add`).
    case added
    /// By itself, with the join token; it leaves when its heartbeat stops.
    case registered
    /// From the configuration's `discovery`.
    case dns
}

/// A node as somebody describes it to the control plane, not checked yet.
package struct NodeProposal: Hashable, Sendable {
    package var id: NodeID
    package var site: SiteID
    package var url: String
    package var engine: String
    package var speedClass: String?
    /// Public id or alias to the node's name.
    package var models: [String: String]
    package var maxConcurrency: Int?
    package var apiKey: String?
    /// Between two of its heartbeats; nil for a node that has none.
    package var heartbeat: Duration?

    package init(
        id: NodeID, site: SiteID, url: String, engine: String, speedClass: String? = nil, models: [String: String],
        maxConcurrency: Int? = nil, apiKey: String? = nil, heartbeat: Duration? = nil
    ) {
        self.id = id
        self.site = site
        self.url = url
        self.engine = engine
        self.speedClass = speedClass
        self.models = models
        self.maxConcurrency = maxConcurrency
        self.apiKey = apiKey
        self.heartbeat = heartbeat
    }
}

/// A node that is kept in the store rather than in the file, so that every replica has it.
struct StoredNode: Hashable, Sendable {
    /// A node whose heartbeat is missed so often has gone.
    static let heartbeatsMissedMax = 3
    static let heartbeatDefault = Duration.seconds(10)
    static let heartbeats = Duration.seconds(1)...Duration.seconds(300)
    static let modelsMax = 64

    /// ``NodeOrigin/added`` or ``NodeOrigin/registered``.
    var origin: NodeOrigin
    var id: NodeID
    var site: SiteID
    var url: NodeURL
    var engine: Engine
    var speedClass: String
    var models: [ServedModel]
    var maxConcurrency: Int
    var apiKey: Secret?

    /// - Throws: `invalid`, `alreadyExists` for an id that the file or DNS gave to another node.
    init(
        _ proposal: NodeProposal, origin: NodeOrigin, in configuration: GatewayConfiguration, taken: Set<NodeID>
    ) throws(OperatorFailure) {
        guard !taken.contains(proposal.id) else {
            throw OperatorFailure(
                .alreadyExists, "\(proposal.id) is a node of the configuration: choose another id, or change it there")
        }
        guard configuration.sites.contains(where: { $0.id == proposal.site }) else {
            let known = configuration.sites.map(\.id.rawValue).joined(separator: ", ")
            throw OperatorFailure(
                .invalid, "'site': there is no site \(proposal.site); configured are \(known.isEmpty ? "none" : known)")
        }
        url = try Self.read("url", proposal.url, ConfigurationUnits.nodeURL)
        guard let engine = Engine(rawValue: proposal.engine) else {
            let known = Engine.allCases.map(\.rawValue).joined(separator: ", ")
            throw OperatorFailure(.invalid, "'engine' is unknown: write one of \(known)")
        }
        if origin == .registered { try JoinRules.check(url, in: configuration) }
        self.origin = origin
        self.engine = engine
        id = proposal.id
        site = proposal.site
        speedClass = proposal.speedClass ?? "default"
        models = try Self.models(proposal.models, in: configuration)
        maxConcurrency = proposal.maxConcurrency ?? NodeConfiguration.maxConcurrencyDefault
        let bounds = 1...NodeConfiguration.maxConcurrencyMax
        guard bounds.contains(maxConcurrency) else {
            throw OperatorFailure(
                .invalid, "'max_concurrency' must be from \(bounds.lowerBound) to \(bounds.upperBound)")
        }
        if let key = proposal.apiKey {
            guard !key.isEmpty, key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw OperatorFailure(.invalid, "'api_key' must be printable ASCII without spaces")
            }
            apiKey = Secret(key)
        }
    }

    private static func read<Value>(
        _ name: String, _ text: String, _ parse: (String) throws(UnitFailure) -> Value
    ) throws(OperatorFailure) -> Value {
        do throws(UnitFailure) {
            return try parse(text)
        } catch {
            throw OperatorFailure(.invalid, "'\(name)' \(error.message)")
        }
    }

    private static func models(
        _ proposed: [String: String], in configuration: GatewayConfiguration
    ) throws(OperatorFailure) -> [ServedModel] {
        guard (1...modelsMax).contains(proposed.count) else {
            throw OperatorFailure(
                .invalid, "'models' must have 1 to \(modelsMax) entries: public id to the node's name for it")
        }
        var models: [ServedModel] = []
        for (name, upstream) in proposed.sorted(by: { $0.key < $1.key }) {
            guard
                let model = configuration.models.first(where: { known in
                    known.id.rawValue == name || known.aliases.contains { $0.rawValue == name }
                })
            else {
                let shown = String(name.unicodeScalars.filter { $0.isASCII && $0.value >= 0x20 }.prefix(64))
                throw OperatorFailure(
                    .invalid, "'models': \(shown) is not in the configuration's models: add it there")
            }
            let name = try read("models", upstream, ConfigurationUnits.upstreamModelName)
            if !models.contains(where: { $0.model == model.id }) {
                models.append(ServedModel(model: model.id, upstreamName: name))
            }
        }
        return models
    }

    // MARK: In the store

    /// JSON; the node's key in the clear, as the store is trusted.
    var encoded: [UInt8] {
        var members: [JSONValue.Member] = [
            .init(key: "origin", value: .string(origin.rawValue)), .init(key: "site", value: .string(site.rawValue)),
            .init(key: "url", value: .string(url.description)), .init(key: "engine", value: .string(engine.rawValue)),
            .init(key: "class", value: .string(speedClass)),
            .init(
                key: "models",
                value: .object(models.map { .init(key: $0.model.rawValue, value: .string($0.upstreamName)) })),
            .init(key: "max_concurrency", value: .integer(Int64(maxConcurrency))),
        ]
        if let apiKey { members.append(.init(key: "api_key", value: .string(apiKey.reveal()))) }
        return JSONValue.object(members).bytes
    }

    /// - Returns: nil for what this version did not write.
    init?(id: NodeID, encoded: [UInt8]) {
        guard let json = try? JSONValue(parsing: encoded),
            let origin = json["origin"]?.string.flatMap(NodeOrigin.init), origin == .added || origin == .registered,
            let site = json["site"]?.string.flatMap({ SiteID($0) }),
            let url = json["url"]?.string.flatMap({ try? ConfigurationUnits.nodeURL($0) }),
            let engine = json["engine"]?.string.flatMap(Engine.init), let speedClass = json["class"]?.string,
            let models = json["models"]?.object, let maxConcurrency = json["max_concurrency"]?.integer,
            (1...NodeConfiguration.maxConcurrencyMax).contains(maxConcurrency)
        else { return nil }
        self.origin = origin
        self.id = id
        self.site = site
        self.url = url
        self.engine = engine
        self.speedClass = speedClass
        self.models = models.compactMap { member in
            guard let model = ModelID(member.key), let name = member.value.string else { return nil }
            return ServedModel(model: model, upstreamName: name)
        }
        self.maxConcurrency = maxConcurrency
        apiKey = json["api_key"]?.string.map { Secret($0) }
    }
}

/// Where a node that registers itself may be: whoever has the join token must not be able to turn the gateway's requests
/// to what is no model server.
///
/// - An IP literal, or a name behind `https://`, whose certificate proves it: a plain name could mean another address by
///   the time that it is used.
/// - No path, so that nothing but `/v1`, `/health` and `/metrics` is asked for.
/// - Not an unspecified, link-local (cloud metadata), multicast or reserved address; not the gateway itself, at any of
///   this machine's addresses, nor its Redis.
/// - Within `join_networks`, where those are given.
enum JoinRules {
    private static let forbidden = [
        "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128",
    ].compactMap { IPNetwork($0) }

    static func check(_ url: NodeURL, in configuration: GatewayConfiguration) throws(OperatorFailure) {
        guard url.basePath.isEmpty else {
            throw OperatorFailure(
                .invalid, "'url' must have no path: nodes that register themselves serve /v1 at its root")
        }
        guard let address = IPAddress(url.host) else {
            guard url.isSecure, configuration.joinNetworks.isEmpty else {
                throw OperatorFailure(
                    .invalid,
                    "'url' must name an IP address: nodes that register themselves may have names at https:// only, and none where join_networks is set"
                )
            }
            return
        }
        guard !forbidden.contains(where: { $0.contains(address) }) else {
            throw OperatorFailure(.invalid, "'url': \(address) is no address of a node: it is link-local or reserved")
        }
        if !configuration.joinNetworks.isEmpty, !configuration.joinNetworks.contains(where: { $0.contains(address) }) {
            throw OperatorFailure(.invalid, "'url': \(address) is not within the configuration's join_networks")
        }
        let ownPorts = [configuration.listen.port, configuration.admin.listen.port]
        if ownPorts.contains(url.port) && isHere(address) || isRedis(address, url.port, configuration) {
            throw OperatorFailure(.invalid, "'url': \(url.authority) is or may be the gateway itself or its Redis")
        }
    }

    /// A Redis that the configuration names by a host name may be at any address: its port is refused everywhere.
    private static func isRedis(_ address: IPAddress, _ port: Int, _ configuration: GatewayConfiguration) -> Bool {
        guard let redis = try? RedisURL(configuration.redisURL.reveal()), case .tcp(let host, port) = redis.address
        else { return false }
        guard let known = host == "localhost" ? IPAddress("127.0.0.1") : IPAddress(host) else { return true }
        return known == address || isHere(known) && isHere(address)
    }

    /// Whether it is one of this machine's.
    private static func isHere(_ address: IPAddress) -> Bool {
        if isLoopback(address) { return true }
        let devices = (try? System.enumerateDevices()) ?? []
        return devices.contains { $0.address?.ipAddress.flatMap { IPAddress($0) } == address }
    }

    private static func isLoopback(_ address: IPAddress) -> Bool {
        IPNetwork("127.0.0.0/8")?.contains(address) == true || address == IPAddress("::1")
    }
}

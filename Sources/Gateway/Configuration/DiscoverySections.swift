import Domain
import NIOCore
import Routing

// How nodes that are not in the file come into the fleet: `join_token`, `join_networks`, `discovery`.
extension FleetSections {
    private typealias Units = ConfigurationUnits

    /// What nodes register themselves with.
    func readJoinToken(admin: Secret?) -> Secret? {
        let token = root.value("join_token", isSecret: true) { text throws(UnitFailure) in
            guard text.utf8.count >= AdminConfiguration.tokenBytesMin else {
                throw UnitFailure(
                    "is shorter than \(AdminConfiguration.tokenBytesMin) bytes: make one with 'openssl rand -hex 32'")
            }
            guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw UnitFailure("must be printable ASCII without spaces, since it travels in a header")
            }
            return Secret(text)
        }
        if let token, token == admin {
            root.problem("join_token", "is the same as admin.token: every node would be an operator; make another")
        }
        return token
    }

    func readJoinNetworks() -> [IPNetwork] {
        root.values("join_networks", countMax: GatewayConfiguration.joinNetworksMax) { text throws(UnitFailure) in
            guard let network = IPNetwork(text) else {
                throw UnitFailure("is no address or block of addresses: write 10.0.0.0/8 or 2001:db8::/32")
            }
            return network
        }
    }

    func readDiscovery(models: Set<ModelID>, sites: Set<SiteID>) -> [DNSDiscovery] {
        let section = root.section("discovery")
        defer { section.finish() }
        var seen: Set<String> = []
        return section.sections("dns", countMax: DNSDiscovery.entriesMax).compactMap { entry in
            let found = readEntry(entry, models: models, sites: sites)
            entry.finish()
            guard let found else { return nil }
            guard seen.insert("\(found.name):\(found.port)").inserted else {
                entry.problem("name", "\"\(found.name)\" at this port is taken by an earlier entry: remove one")
                return nil
            }
            return found
        }
    }

    private func readEntry(
        _ section: ConfigurationSection, models: Set<ModelID>, sites: Set<SiteID>
    ) -> DNSDiscovery? {
        let name = section.required("name") { text throws(UnitFailure) in
            let url = try? Units.nodeURL("http://\(text):1")
            guard let url, url.host == text, url.basePath.isEmpty else {
                throw UnitFailure("is no host name: write it as gpu.internal, without scheme and port")
            }
            return text
        }
        let port = section.required("port", Units.integer(in: 1...65_535))
        let site = section.required("site", Units.identifier(SiteID.self))
        if let site, !sites.contains(site) {
            section.problem("site", "\"\(site)\" is not in sites: add it there")
        }
        let engine = section.required("engine", Units.word(Engine.self))
        let speedClass = section.value("class", Units.identifier(SiteID.self))
        let served = section.has("models") ? readServedModels(section, models: models) : []
        let maxConcurrency = section.value(
            "max_concurrency", Units.integer(in: 1...NodeConfiguration.maxConcurrencyMax))
        let apiKey = readAPIKey(section)
        let interval = section.value("interval", Units.duration(in: .seconds(1)...TimeoutsConfiguration.durationMax))
        guard let name, let port, let site, let engine else { return nil }
        var entry = DNSDiscovery(name: name, port: port, site: site, engine: engine)
        speedClass.map { entry.speedClass = $0.rawValue }
        entry.models = served
        maxConcurrency.map { entry.maxConcurrency = $0 }
        entry.apiKey = apiKey
        interval.map { entry.interval = $0 }
        return entry
    }
}

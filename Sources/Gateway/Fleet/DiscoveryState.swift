import Domain
import JSON
import Routing

/// A name whose addresses are nodes: an entry of `discovery.dns`.
package struct DNSDiscovery: Hashable, Sendable {
    package static let entriesMax = 64
    /// Of one name. More are left out.
    package static let addressesMax = 256
    package static let intervalDefault = Duration.seconds(10)

    package var name: String
    package var port: Int
    package var site: SiteID
    package var engine: Engine
    package var speedClass = "default"
    /// Empty where each node is asked at `/v1/models`.
    package var models: [ServedModel] = []
    package var maxConcurrency = NodeConfiguration.maxConcurrencyDefault
    package var apiKey: Secret?
    /// Between two resolutions.
    package var interval = DNSDiscovery.intervalDefault

    package init(name: String, port: Int, site: SiteID, engine: Engine) {
        self.name = name
        self.port = port
        self.site = site
        self.engine = engine
    }

    /// The node at one address: named by it, so that every replica names it alike.
    ///
    /// - Returns: nil for an address that makes no name: one with a zone.
    func node(at address: String, serving models: [ServedModel]) -> NodeConfiguration? {
        // A name begins with a digit or letter: `::1` is also `0::1`.
        let shown = address.hasPrefix(":") ? "0" + address : address
        guard let id = NodeID(address.contains(":") ? "\(shown)/\(port)" : "\(shown):\(port)") else { return nil }
        var node = NodeConfiguration(
            id: id, site: site, url: NodeURL(host: address, port: port), engine: engine, speedClass: speedClass,
            models: models, maxConcurrency: maxConcurrency, apiKey: apiKey)
        node.origin = .dns
        return node
    }
}

/// What DNS has said so far, and whom to ask next. Pure: does no I/O.
///
/// A name that does not resolve changes nothing. An address leaves once ``missesMax`` answers in a row were without it:
/// servers that rotate through many addresses give some of them each time.
struct DiscoveryState: Sendable {
    static let missesMax = 3
    /// After a name did not resolve.
    static let retry = Duration.seconds(5)
    /// Names resolved at once: each may hold a thread of the process for as long as its servers are silent.
    static let runningMax = 2
    /// How often a node is asked again for its models.
    static let listingInterval = Duration.seconds(60)

    private struct Address: Sendable {
        var misses = 0
        /// nil until it said which.
        var models: [ServedModel]?
        var listedAt: MonotonicTime?
    }

    private struct Entry: Sendable {
        var addresses: [String: Address] = [:]
        var dueAt: MonotonicTime
        var isRunning = false
        var isFailing = false
    }

    private var order: [DNSDiscovery] = []
    private var entries: [DNSDiscovery: Entry] = [:]

    /// Entries that stay as they were keep what is known.
    mutating func configured(_ discovery: [DNSDiscovery], now: MonotonicTime) {
        guard discovery != order else { return }
        let old = entries
        order = discovery
        entries = [:]
        for entry in discovery { entries[entry] = old[entry] ?? Entry(dueAt: now) }
    }

    /// The entries to resolve now, those that waited longest first.
    mutating func take(now: MonotonicTime) -> [DNSDiscovery] {
        let running = entries.values.count { $0.isRunning }
        let waiting = order.compactMap { entry in
            entries[entry].flatMap { $0.isRunning || $0.dueAt > now ? nil : (entry: entry, since: $0.dueAt) }
        }
        let due = waiting.sorted { $0.since < $1.since }.prefix(max(0, Self.runningMax - running)).map(\.entry)
        for entry in due { entries[entry]?.isRunning = true }
        return due
    }

    /// - Parameter answer: The name's addresses; nil where it does not resolve.
    /// - Returns: Whether failing began or ended.
    mutating func resolved(_ entry: DNSDiscovery, _ answer: [String]?, now: MonotonicTime) -> Bool {
        guard var held = entries[entry] else { return false }
        defer { entries[entry] = held }
        let isNews = held.isFailing != (answer == nil)
        held.isFailing = answer == nil
        held.isRunning = false
        held.dueAt = now.advanced(by: answer == nil ? min(Self.retry, entry.interval) : entry.interval)
        guard let answer else { return isNews }
        let present = Set(answer.prefix(DNSDiscovery.addressesMax))
        for (address, known) in held.addresses where !present.contains(address) {
            held.addresses[address] = known.misses + 1 < Self.missesMax ? known : nil
            held.addresses[address]?.misses += 1
        }
        for address in present { held.addresses[address, default: Address()].misses = 0 }
        return isNews
    }

    /// The addresses of an entry to ask for their models now; none where the entry names the models.
    func unlisted(_ entry: DNSDiscovery, now: MonotonicTime) -> [String] {
        guard entry.models.isEmpty, let held = entries[entry] else { return [] }
        return held.addresses.filter { _, address in
            address.listedAt.map { now.nanoseconds(since: $0) >= Self.listingInterval.nanoseconds } ?? true
        }.keys.sorted()
    }

    /// - Parameter models: Those that it serves; nil where it did not answer, and what is known stays.
    /// - Returns: Whether it is known now to serve none.
    mutating func listed(
        _ entry: DNSDiscovery, _ address: String, _ models: [ServedModel]?, now: MonotonicTime
    ) -> Bool {
        guard let models, entries[entry]?.addresses[address] != nil else { return false }
        let isNews = entries[entry]?.addresses[address]?.models != models
        entries[entry]?.addresses[address]?.models = models
        entries[entry]?.addresses[address]?.listedAt = now
        return isNews && models.isEmpty
    }

    /// In the order of the configuration, then of addresses; of several with one name, the first.
    var nodes: [NodeConfiguration] {
        var seen: Set<NodeID> = []
        return order.flatMap { entry in
            (entries[entry]?.addresses ?? [:]).sorted { $0.key < $1.key }.compactMap { address, known in
                let models = entry.models.isEmpty ? known.models ?? [] : entry.models
                guard !models.isEmpty, let node = entry.node(at: address, serving: models),
                    seen.insert(node.id).inserted
                else { return nil }
                return node
            }
        }
    }

    /// Which of the configuration's models a node serves that lists these names at `/v1/models`: those called so, by id
    /// or alias, or that some node of the file calls so.
    static func served(_ listing: [String], in configuration: GatewayConfiguration) -> [ServedModel] {
        let listed = Set(listing)
        return configuration.models.compactMap { model in
            let names =
                [model.id.rawValue] + model.aliases.map(\.rawValue)
                + configuration.nodes.flatMap { $0.models.filter { $0.model == model.id }.map(\.upstreamName) }
            return names.first(where: listed.contains).map { ServedModel(model: model.id, upstreamName: $0) }
        }
    }

    /// The ids in an answer of `/v1/models`; nil where it is none.
    static func listing(_ body: [UInt8]) -> [String]? {
        guard let data = (try? JSONValue(parsing: body))?["data"]?.array else { return nil }
        return data.compactMap { $0["id"]?.string }
    }
}

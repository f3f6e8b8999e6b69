import Domain
import NIOCore

/// What ``FleetService`` keeps under its lock: the configured nodes, their addresses, and what is due. Does no I/O.
struct FleetState: Sendable {
    private struct Host: Sendable {
        /// At port 0; the last good answer.
        var addresses: [SocketAddress]
        var dueAt: MonotonicTime
        var isLiteral: Bool
        var hasFailed = false
    }

    private(set) var nodes: [NodeID: NodeConfiguration] = [:]
    private(set) var order: [NodeID] = []
    /// In the order of the configuration.
    var sites: [SiteConfiguration] = []
    var words = WordKeeper()
    private(set) var roundTrips = SiteRoundTrips()
    var schedule = ProbeSchedule()
    private var hosts: [String: Host] = [:]
    private var failingStore = false
    /// Which of a node's addresses its next probe uses.
    private var probeTurns: [NodeID: Int] = [:]

    /// - Returns: The nodes whose server is another than before.
    mutating func configured(_ configurations: [NodeConfiguration], now: MonotonicTime) -> [NodeID] {
        let old = nodes
        let oldHosts = hosts
        nodes = Dictionary(configurations.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        order = configurations.map(\.id)
        hosts = [:]
        for node in configurations where hosts[node.url.host] == nil {
            let literal = HostResolver.literal(node.url.host)
            hosts[node.url.host] =
                oldHosts[node.url.host]
                ?? Host(addresses: literal.map { [$0] } ?? [], dueAt: now, isLiteral: literal != nil)
        }
        probeTurns = probeTurns.filter { nodes[$0.key] != nil }
        roundTrips.keep(
            { nodes[$0] != nil && nodes[$0]?.url == old[$0]?.url }, sites: Set(configurations.map(\.site)))
        let unresolved = configurations.filter { hosts[$0.url.host]?.addresses.isEmpty ?? true }
        schedule.nodesReplaced(order, needsAddress: Set(unresolved.map(\.id)), now: now)
        return order.filter { id in
            guard let before = old[id], let after = nodes[id] else { return false }
            return before.url != after.url || before.engine != after.engine
        }
    }

    // MARK: Addresses

    func addresses(of node: NodeID) -> [SocketAddress] {
        guard let url = nodes[node]?.url else { return [] }
        return (hosts[url.host]?.addresses ?? []).map { $0.at(port: url.port) }
    }

    /// The address for the node's next probe: each of its addresses in turn.
    mutating func probeAddress(of node: NodeID) -> SocketAddress? {
        let addresses = addresses(of: node)
        guard !addresses.isEmpty else { return nil }
        let turn = probeTurns[node, default: 0]
        probeTurns[node] = (turn + 1) % addresses.count
        return addresses[turn % addresses.count]
    }

    /// The name that has waited longest to be resolved; nil where none is due.
    ///
    /// - Parameter lease: How long nobody else is given the name, should ``resolved(_:_:next:)`` not come.
    mutating func takeHost(now: MonotonicTime, lease: Duration) -> String? {
        let due = hosts.filter { !$0.value.isLiteral && $0.value.dueAt <= now }
        guard let host = due.min(by: { $0.value.dueAt < $1.value.dueAt })?.key else { return nil }
        hosts[host]?.dueAt = now.advanced(by: lease)
        return host
    }

    /// - Returns: The nodes behind the name whose addresses changed, and whether its failing began or ended.
    mutating func resolved(
        _ host: String, _ answer: [SocketAddress]?, next: MonotonicTime
    ) -> (changed: [NodeID], failureChanged: Bool) {
        guard var entry = hosts[host] else { return ([], false) }
        let behind = order.filter { nodes[$0]?.url.host == host }
        schedule.addressesAsked(behind)
        let failureChanged = entry.hasFailed != (answer == nil)
        // An answer in another order is the same answer: resolvers rotate.
        let isNew = answer.map { Set($0) != Set(entry.addresses) } ?? false
        entry.hasFailed = answer == nil
        entry.dueAt = next
        if let answer, isNew { entry.addresses = answer }
        hosts[host] = entry
        return (isNew ? behind : [], failureChanged)
    }

    // MARK: Round trips

    /// - Returns: What to tell the router of which nodes.
    mutating func measured(_ node: NodeID, _ sample: Int64, now: MonotonicTime) -> [(NodeID, Int64)] {
        guard let site = nodes[node]?.site else { return [] }
        let beside = nodes.values.lazy.filter { $0.site == site }.map(\.id)
        guard let rtt = roundTrips.measured(node, at: site, sample, nodes: beside, now: now) else { return [] }
        return beside.map { ($0, rtt) }
    }

    /// What the router was told of the nodes' round trips: a new fleet begins with those configured.
    var toldRoundTrips: [(NodeID, Int64)] {
        nodes.values.compactMap { node in roundTrips.told[node.site].map { (node.id, $0) } }
    }

    // MARK: Operators' words

    /// The nodes that stand otherwise than the router was told. Nodes that left are forgotten: a node that comes again
    /// is a new one to the router.
    mutating func reconcileWords(now: MonotonicTime) -> [WordKeeper.Change] {
        words.reconcile(order.compactMap { id in nodes[id].map { (id, $0.site) } }, now: now)
    }

    /// - Returns: Whether that is news.
    mutating func storeFailing(_ isFailing: Bool) -> Bool {
        defer { failingStore = isFailing }
        return failingStore != isFailing
    }
}

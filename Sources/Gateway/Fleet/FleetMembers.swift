import Billing
import Domain
import Routing

/// The nodes of one gateway, from wherever it knows them: the file, the store, DNS. Pure.
///
/// Where two have the same id the file's counts, then the store's, then DNS'. A stored node whose site or models this
/// gateway's file does not have is left out, or serves what is left of them: replicas may be configured differently, and
/// in the middle of a rollout they are.
struct FleetMembers: Sendable {
    var stored: [StoredNode] = []
    /// In the order of the configuration's entries, then of addresses.
    var discovered: [NodeConfiguration] = []
    /// One for all nodes at `https://` that name no authority of their own; made with the first.
    private var systemTrust: NodeTrust?

    /// What every part of the gateway works with.
    mutating func merged(into configuration: GatewayConfiguration) -> GatewayConfiguration {
        guard !stored.isEmpty || !discovered.isEmpty else { return configuration }
        let sites = Set(configuration.sites.map(\.id))
        let models = Set(configuration.models.map(\.id))
        var taken = Set(configuration.nodes.map(\.id))
        var merged = configuration
        for node in stored {
            guard sites.contains(node.site), !taken.contains(node.id) else { continue }
            let served = node.models.filter { models.contains($0.model) }
            guard !served.isEmpty, let found = self.configuration(of: node, serving: served) else { continue }
            taken.insert(node.id)
            merged.nodes.append(found)
        }
        for node in discovered where sites.contains(node.site) && taken.insert(node.id).inserted {
            merged.nodes.append(node)
        }
        if merged.nodes.count > GatewayConfiguration.nodesMax {
            merged.nodes.removeLast(merged.nodes.count - GatewayConfiguration.nodesMax)
        }
        return merged
    }

    private mutating func configuration(of node: StoredNode, serving models: [ServedModel]) -> NodeConfiguration? {
        if node.url.isSecure, systemTrust == nil { systemTrust = try? NodeTrust(pem: nil) }
        guard !node.url.isSecure || systemTrust != nil else { return nil }
        var found = NodeConfiguration(
            id: node.id, site: node.site, url: node.url, engine: node.engine, speedClass: node.speedClass,
            models: models, maxConcurrency: node.maxConcurrency, apiKey: node.apiKey,
            trust: node.url.isSecure ? systemTrust : nil)
        found.origin = node.origin
        return found
    }
}

/// What became of a node that somebody put into the fleet.
package struct NodeAdmission: Hashable, Sendable {
    package var id: NodeID
    package var origin: NodeOrigin
    /// It was not there before.
    package var isNew: Bool
    /// How often it has to say that it is there; nil where it need not.
    package var heartbeat: Duration?

    package init(id: NodeID, origin: NodeOrigin, isNew: Bool, heartbeat: Duration?) {
        self.id = id
        self.origin = origin
        self.isNew = isNew
        self.heartbeat = heartbeat
    }
}

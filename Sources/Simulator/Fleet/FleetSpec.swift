import Domain
import Routing

/// The nodes of a run, where they stand, and how far that is from each gateway.
package struct FleetSpec: Sendable {
    package struct Node: Hashable, Sendable {
        package var id: NodeID
        /// Into ``siteRTTs``: sites stand in a row.
        package var site: Int
        package var profile: NodeProfile
    }

    package enum Kind: String, Hashable, Sendable, CaseIterable {
        /// H100s only.
        case homogeneous = "hom"
        /// H100, A100 and L40 mixed: of eight nodes four, two and two.
        case heterogeneous = "het"
    }

    /// Round trips between sites so many places apart, seconds: same metro, region, continent, ocean.
    package static let siteRTTs = [0.001, 0.012, 0.035, 0.080]
    package static let siteNames = ["austin", "reykjavik", "lulea", "quebec"]
    /// The one model that every node serves.
    package static let model = ModelID(unchecked: "llama-3.1-8b")
    package static let nodesMax = 4_096
    /// The simulated gateway sets no bound of its own on a node's requests: the policies are compared, not the bound.
    private static let concurrencyMax = 1 << 20

    package var kind: Kind
    package var nodes: [Node]

    package init(_ kind: Kind, nodes count: Int) {
        self.kind = kind
        self.nodes = (0..<count).map { Self.node(kind, index: $0) }
    }

    /// The node that stands at an index of a fleet of the kind, and would if the fleet were longer.
    package static func node(_ kind: Kind, index: Int) -> Node {
        let profile: NodeProfile
        switch kind {
        case .homogeneous: profile = .h100
        case .heterogeneous: profile = index % 4 == 3 ? .h100 : NodeProfile.all[index % 3]
        }
        return Node(id: NodeID(unchecked: "node-\(index)"), site: index % siteRTTs.count, profile: profile)
    }

    package func index(of id: String) -> Int? { nodes.firstIndex { $0.id.rawValue == id } }

    /// Gateway `g` stands at site `g`, and so around.
    package func rttSeconds(gateway: Int, node: Int) -> Double {
        Self.siteRTTs[abs(nodes[node].site - gateway % Self.siteRTTs.count)]
    }

    /// What a gateway is told of the nodes at `indexes`.
    package func nodeSpecs(_ indexes: some Sequence<Int>, gateway: Int) -> [NodeSpec] {
        indexes.map { index in
            let node = nodes[index]
            return NodeSpec(
                id: node.id, site: SiteID(unchecked: Self.siteNames[node.site]), engine: .vllm,
                speedClass: node.profile.name,
                models: [ServedModel(model: Self.model, upstreamName: Self.model.rawValue)],
                maxConcurrency: Self.concurrencyMax,
                rttNanoseconds: Int64(rttSeconds(gateway: gateway, node: index) * 1e9),
                kvCapacityTokens: node.profile.kvTokensCapacity)
        }
    }
}

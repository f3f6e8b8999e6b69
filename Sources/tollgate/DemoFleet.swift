import Domain
import Gateway
import NIOCore
import NIOPosix
import Simulator

/// The nodes of a demo: simulated ones of three speeds at two sites, or real servers.
struct DemoFleet {
    struct Server {
        let url: NodeURL
        let model: ModelID
        let engine: Engine
    }

    /// What simulated nodes serve.
    static let model = ModelID(unchecked: "llama-3.1-8b")
    static let upstreamModel = "meta-llama/Llama-3.1-8B-Instruct"
    private static let near = SiteConfiguration(id: SiteID(unchecked: "austin"), region: "us-tx", rtt: .milliseconds(1))
    private static let far = SiteConfiguration(
        id: SiteID(unchecked: "montreal"), region: "ca-qc", rtt: .milliseconds(45))
    private static let profiles = [NodeProfile.h100, .a100, .l40]

    let models: [ModelConfiguration]
    let sites: [SiteConfiguration]
    private(set) var nodes: [NodeConfiguration]

    static func simulate(_ count: Int, on group: MultiThreadedEventLoopGroup) async throws -> [SimulatedNode] {
        var nodes: [SimulatedNode] = []
        for index in 0..<count {
            var configuration = SimulatedNode.Configuration(model: upstreamModel)
            configuration.profile = profiles[index % profiles.count]
            configuration.seed = UInt64(index + 1)
            nodes.append(try await SimulatedNode.start(configuration: configuration, group: group))
        }
        return nodes
    }

    /// Every third node is at the far site, so that a fleet of three has two near and one far.
    init(simulated: [SimulatedNode]) {
        models = [
            ModelConfiguration(
                id: Self.model, contextTokens: 131_072,
                price: ConfiguredPrice(input: 50_000_000, cachedInput: 10_000_000, output: 80_000_000))
        ]
        sites = [Self.near, Self.far]
        nodes = simulated.enumerated().map { index, node in
            let site = index % 3 == 2 ? Self.far : Self.near
            return NodeConfiguration(
                id: NodeID(unchecked: "\(site.id)-\(index + 1)"), site: site.id,
                url: NodeURL(host: "127.0.0.1", port: node.port), engine: .vllm,
                speedClass: Self.profiles[index % Self.profiles.count].name,
                model: Self.model, upstreamName: Self.upstreamModel)
        }
    }

    /// - Throws: The system's certificate authorities, for a server at https://, cannot be read.
    init(servers: [Server]) throws(UnitFailure) {
        var seen: Set<ModelID> = []
        models = servers.filter { seen.insert($0.model).inserted }.map {
            ModelConfiguration(
                id: $0.model, price: ConfiguredPrice(input: 50_000_000, cachedInput: 10_000_000, output: 80_000_000))
        }
        sites = [Self.near]
        nodes = []
        for (index, server) in servers.enumerated() {
            var node = NodeConfiguration(
                id: NodeID(unchecked: "backend-\(index + 1)"), site: Self.near.id, url: server.url,
                engine: server.engine,
                model: server.model, upstreamName: server.model.rawValue)
            if server.url.isSecure { node.trust = try NodeTrust(pem: nil) }
            nodes.append(node)
        }
    }
}

import Domain
import NIOCore
import NIOHTTP1
import Routing

/// Asks a node for its metrics (`GET /metrics`): what runs and waits there, and how full its KV cache is.
package struct MetricsProbe: Sendable {
    /// vLLM with every histogram on has some 200 kB; what lies beyond is not read.
    static let bodyBytesMax = 1 << 20

    private let query: NodeQuery

    /// - Parameter timeout: Bounds the whole exchange, connecting included.
    package init(eventLoop: any EventLoop, timeout: Duration) {
        query = NodeQuery(eventLoop: eventLoop, timeout: timeout, bodyBytesMax: Self.bodyBytesMax) { $0 == .ok }
    }

    /// Whether nodes of the engine have metrics that are understood.
    static func reads(_ engine: Engine) -> Bool { engine != .openai }

    /// - Returns: nil where the node does not answer with metrics: llama.cpp has none unless it is told to.
    package func run(_ node: NodeConfiguration, at address: SocketAddress) async -> NodeMetricsReader.Reading? {
        guard Self.reads(node.engine) else { return nil }
        guard case .answered(.ok, let body) = await query.get("/metrics", from: node, at: address) else { return nil }
        return body.withUnsafeReadableBytes { text in
            NodeMetricsReader.read(text, engine: node.engine, models: Set(node.models.map(\.upstreamName)))
        }
    }
}

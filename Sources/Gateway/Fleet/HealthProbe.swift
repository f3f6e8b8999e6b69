import NIOCore
import NIOHTTP1
import Routing

/// What one probe found, and why, in words for the log.
package struct ProbeFinding: Hashable, Sendable {
    package var result: ProbeResult
    package var reason: String
}

/// Asks a node whether it is well.
///
/// `GET /health`, or `GET /v1/models` where the node is some OpenAI-compatible service, which promises no `/health`.
/// Any 2xx is well; a 503 that speaks of loading is a model still being loaded; all else is a failure.
package struct HealthProbe: Sendable {
    /// How much of a 503's body is read. What a 2xx says in its body changes nothing, and a list of models can be long.
    static let bodyBytesMax = 1_024

    private let query: NodeQuery

    /// - Parameter timeout: Bounds the whole exchange, connecting included.
    package init(eventLoop: any EventLoop, timeout: Duration) {
        query = NodeQuery(eventLoop: eventLoop, timeout: timeout, bodyBytesMax: Self.bodyBytesMax) {
            $0 == .serviceUnavailable
        }
    }

    package func run(_ node: NodeConfiguration, at address: SocketAddress) async -> ProbeFinding {
        await measured(node, at: address).finding
    }

    /// - Returns: Also the time from the request to the head of its answer; nil where none came.
    package func measured(
        _ node: NodeConfiguration, at address: SocketAddress
    ) async -> (finding: ProbeFinding, roundTripNanoseconds: Int64?) {
        let path = node.engine == .openai ? "/v1/models" : "/health"
        let outcome = await query.exchange(path, from: node, at: address)
        return (finding(outcome.answer), outcome.roundTripNanoseconds)
    }

    private func finding(_ answer: NodeQuery.Answer) -> ProbeFinding {
        switch answer {
        case .failed(let reason): return ProbeFinding(result: .failed, reason: reason)
        case .answered(let status, let body):
            if (200..<300).contains(status.code) {
                return ProbeFinding(result: .healthy, reason: "status \(status.code)")
            }
            let isLoading = status == .serviceUnavailable && String(buffer: body).lowercased().contains("loading")
            return isLoading
                ? ProbeFinding(result: .loading, reason: "it is loading its model")
                : ProbeFinding(result: .failed, reason: "status \(status.code)")
        }
    }
}

import Domain
import OpenAIProtocol

/// What a request asked for, as a metric label. A closed set: an unknown path is `.other`.
package struct MetricEndpoint: Hashable, Sendable, CaseIterable {
    /// nil for what is none of ours.
    private let endpoint: Endpoint?

    package init(_ endpoint: Endpoint) {
        // One card or all of them: the same work.
        self.endpoint = endpoint == .model ? .models : endpoint
    }

    private init() { endpoint = nil }

    package static let other = MetricEndpoint()
    package static let allCases: [MetricEndpoint] =
        Endpoint.allCases.filter { $0 != .model }.map(MetricEndpoint.init) + [other]

    package var label: String { endpoint?.label ?? "other" }

    /// Below ``indexCount``, its own.
    var index: Int { endpoint?.rawValue ?? Endpoint.allCases.count }
    static let indexCount = Endpoint.allCases.count + 1

    /// OpenTelemetry's `gen_ai.operation.name`.
    var operation: MetricOperation {
        switch endpoint {
        case .chatCompletions, .responses, .messages: .chat
        case .completions: .textCompletion
        case .embeddings: .embeddings
        case .rerank, .score, .tokenize, .detokenize, .models, .model, .description, nil: .other
        }
    }
}

enum MetricOperation: Int, CaseIterable {
    case chat, textCompletion, embeddings, other

    var label: String {
        switch self {
        case .chat: "chat"
        case .textCompletion: "text_completion"
        case .embeddings: "embeddings"
        case .other: "other"
        }
    }
}

/// How a request ended, beside its status.
package enum RequestOutcome: UInt8, Hashable, Sendable, CaseIterable {
    /// The whole answer was delivered, whatever its status.
    case completed
    /// Never dispatched: bad input, no key, no money, no room.
    case refused
    /// Dispatched, and the node gave no whole answer.
    case upstreamFailed
    /// The client left first.
    case clientClosed
    /// A defect of the gateway, or its end.
    case gatewayFailed

    package var label: String {
        switch self {
        case .completed: "completed"
        case .refused: "refused"
        case .upstreamFailed: "upstream_failed"
        case .clientClosed: "client_closed"
        case .gatewayFailed: "gateway_failed"
        }
    }
}

/// Things counted one by one.
package enum MetricCounter: Int, Hashable, Sendable, CaseIterable {
    case connectionsAccepted
    /// Closed at once: `limits.connections` were open.
    case connectionsOverLimit
    /// A trusted proxy's connection that did not begin with a PROXY header.
    case proxyHeadersMissing
    /// TLS that did not come about, or not in time.
    case handshakesFailed
    case upstreamConnects
    /// The same request again because a kept connection turned out to be closed.
    case upstreamStaleRetries
    /// Another node was tried before the first byte.
    case upstreamNodeRetries
    /// A model was down, or all of its nodes had failed, and another took over.
    case fallbacks
    case illegalEvents
    case bytesReceived
    case bytesSent
    case costNanousd
    case estimatedCharges
    /// A node's usage could not be true, or it generated past its bound.
    case usageDistrusted
    /// Not let wait for room at the nodes, or not any longer: too many wait; it would be, or was, too late.
    case queueRefusedFull
    case queueRefusedLate
}

/// Things that go up and down, each loop's share of them.
package enum MetricGauge: Int, Hashable, Sendable, CaseIterable {
    case connectionsOpen
    case requestsOpen
    case bufferedBytes
    /// For room at the nodes.
    case requestsWaiting
}

/// Bucket bounds. OpenTelemetry's are those that its `gen_ai` conventions specify.
enum MetricBounds {
    static let requestDuration = [
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    ]
    static let timeToFirstToken = [
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    ]
    static let timePerOutputToken = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
    static let tokenUsage: [Double] = [
        1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864,
    ]
    static let overhead = [
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 1,
    ]
    static let redisLatency = [
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1,
    ]
    static let queueWait = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60]
    static let admissionWait = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30]
}

extension Failure.Code {
    private static let labels = allCases.map { snakeCase(String(describing: $0)) }

    /// The name in logs and metrics: the case in snake case, `rate_limit_requests`.
    package var label: String { Self.labels[rawValue] }

    private static func snakeCase(_ name: String) -> String {
        var result = ""
        var afterLower = false
        for character in name {
            if character.isUppercase {
                if afterLower { result += "_" }
                afterLower = false
            } else {
                afterLower = true
            }
            result += character.lowercased()
        }
        return result
    }
}

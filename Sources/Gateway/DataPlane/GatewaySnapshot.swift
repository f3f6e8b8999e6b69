import Billing
import Domain
import NIOCore
import OpenAIProtocol
import Routing
import Tokenization

/// What every loop reads and nobody changes: configuration, models with their prices, and the nodes as a request sees
/// them. A change publishes a new snapshot; requests in flight keep the one that they began with.
package final class GatewaySnapshot: Sendable {
    package let configuration: GatewayConfiguration
    package let limits: LimitsConfiguration
    package let timeouts: TimeoutNanoseconds
    /// After how long a silence of an open stream its client gets a comment.
    package let pingNanoseconds: Int64
    package let fleet: FleetSnapshot
    package let models: [ModelEntry]
    package let nodes: [NodeID: NodeEntry]
    /// When the configuration was taken, in Unix seconds: `created` of the models listed.
    package let createdAtSeconds = WallTime.now().milliseconds / 1_000
    private let modelIndex: [String: Int]

    /// A younger snapshot has a higher one.
    package let version: Int64

    /// - Parameters:
    ///   - prices: The store's; a model without one is not served.
    ///   - learning: Outlives the snapshot.
    package init(
        version: Int64 = 0, configuration: GatewayConfiguration, fleet: FleetSnapshot, prices: PriceBook,
        learning: PromptLearning
    ) {
        self.version = version
        self.configuration = configuration
        self.fleet = fleet
        limits = configuration.limits
        timeouts = TimeoutNanoseconds(configuration.timeouts)
        pingNanoseconds = configuration.stream.pingAfter.nanoseconds
        var engines: [ModelID: Set<Engine>] = [:]
        for node in configuration.nodes {
            for served in node.models { engines[served.model, default: []].insert(node.engine) }
        }
        models = configuration.models.enumerated().map { index, model in
            ModelEntry(
                index: index, configuration: model, engines: engines[model.id] ?? [], price: prices.price(of: model.id),
                timeouts: configuration.timeouts, promptLearning: learning.model(model.id))
        }
        let names = models.flatMap { model in
            ([model.id] + model.configuration.aliases).map { ($0.rawValue, model.index) }
        }
        modelIndex = Dictionary(names, uniquingKeysWith: { first, _ in first })
        nodes = Dictionary(
            configuration.nodes.map { ($0.id, NodeEntry($0)) }, uniquingKeysWith: { first, _ in first })
    }

    /// The model that a request names by its id or an alias, where this gateway knows it.
    package func model(named name: String) -> ModelEntry? {
        modelIndex[name].map { models[$0] }
    }
}

/// A model as requests need it. A class: a request hands it around, and each copy of its lists would cost.
package final class ModelEntry: Sendable {
    /// Its place in the configuration: the index of its metrics.
    package let index: Int
    package let configuration: ModelConfiguration
    /// Of every node that serves it: a field is refused where any of them would obey it.
    package let engines: Set<Engine>
    package let price: Price?
    package let connect: Duration
    /// Of the configuration, as the patcher takes them.
    let defaults: [(key: String, json: [UInt8])]
    /// What they add to a body at most: a part of the bound that the hold stands on.
    let defaultsBytes: Int
    package let firstByteNanoseconds: Int64
    package let streamIdleNanoseconds: Int64
    /// The same through all reloads.
    let promptLearning: ModelPromptLearning

    package var id: ModelID { configuration.id }
    package var tokenizer: Tokenizer? { configuration.tokenizer?.tokenizer }
    /// ``engines`` as a set of bits.
    package let engineSet: EngineSet

    init(
        index: Int, configuration: ModelConfiguration, engines: Set<Engine>, price: Price?,
        timeouts: TimeoutsConfiguration, promptLearning: ModelPromptLearning
    ) {
        self.promptLearning = promptLearning
        self.index = index
        self.configuration = configuration
        self.engines = engines
        engineSet = engines.reduce(into: []) { $0.insert(EngineSet($1)) }
        self.price = price
        connect = configuration.connect ?? timeouts.connect
        defaults = configuration.defaults.map { ($0.key, $0.json) }
        defaultsBytes = configuration.defaults.reduce(0) { $0 + $1.key.utf8.count + $1.json.count }
        firstByteNanoseconds = (configuration.firstByte ?? timeouts.firstByte).nanoseconds
        streamIdleNanoseconds = (configuration.streamIdle ?? timeouts.streamIdle).nanoseconds
    }
}

/// A node as dispatch needs it: what to call a model there, and the head's constant parts.
package final class NodeEntry: Sendable {
    package let id: NodeID
    package let site: SiteID
    package let engine: Engine
    package let names: [ModelID: String]
    package let maxConcurrency: Int
    /// nil where it speaks plain HTTP.
    package let tls: NodeTLS?
    /// ` HTTP/1.1`, Host, Content-Type and the node's key: everything between the path and the request's own fields.
    let headTail: ByteBuffer
    /// What a request's head nearly always fits.
    private static let headBytesUsual = 512
    let basePath: String

    init(_ node: NodeConfiguration) {
        id = node.id
        site = node.site
        engine = node.engine
        maxConcurrency = node.maxConcurrency
        tls = node.tls
        names = Dictionary(node.models.map { ($0.model, $0.upstreamName) }, uniquingKeysWith: { first, _ in first })
        basePath = node.url.basePath
        var tail = ByteBuffer()
        tail.writeStaticString(" HTTP/1.1\r\nhost: ")
        tail.writeString(node.url.authority)
        tail.writeStaticString("\r\ncontent-type: application/json\r\nuser-agent: tollgate\r\n")
        if let key = node.apiKey { tail.writeString("authorization: Bearer \(key.reveal())\r\n") }
        headTail = tail
    }

    /// The whole head of a request to this node.
    package func requestHead(
        endpoint: Endpoint, contentLength: Int, requestID: String, trace: TraceContext?, tracestate: String?,
        allocator: ByteBufferAllocator
    ) -> ByteBuffer {
        var head = allocator.buffer(capacity: Self.headBytesUsual)
        head.writePieces(usually: Self.headBytesUsual) { cursor in
            cursor.raw("POST ")
            cursor.text(basePath)
            cursor.text(endpoint.path)
            headTail.withUnsafeReadableBytes { cursor.bytes($0) }
            cursor.raw("x-request-id: ")
            cursor.text(requestID)
            if let trace {
                cursor.raw("\r\ntraceparent: ")
                cursor.text(trace.description)
                if let tracestate {
                    cursor.raw("\r\ntracestate: ")
                    cursor.text(tracestate)
                }
            }
            cursor.raw("\r\ncontent-length: ")
            cursor.decimal(Int64(contentLength))
            cursor.raw("\r\n\r\n")
        }
        return head
    }
}

/// The configured timeouts, as the timer wheel takes them.
package struct TimeoutNanoseconds: Sendable {
    package let header, body, idle, request: Int64

    init(_ timeouts: TimeoutsConfiguration) {
        header = timeouts.header.nanoseconds
        body = timeouts.body.nanoseconds
        idle = timeouts.idle.nanoseconds
        request = timeouts.request.nanoseconds
    }
}

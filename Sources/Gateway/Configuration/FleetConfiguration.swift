import Domain
import OpenAIProtocol
import Routing

/// A model as customers ask for it.
package struct ModelConfiguration: Hashable, Sendable {
    package static let tokensMax = 100_000_000
    package static let attentionTokensMin = 1_000
    package static let maxOutputTokensDefault = 8_192
    package static let aliasesMax = 64
    package static let fallbacksMax = 8
    package static let defaultsMax = 64
    /// All defaults of a model together, as JSON.
    package static let defaultsBytesMax = 16 << 10
    package static let defaultsDepthMax = 16

    package var id: ModelID
    /// Prompt and output together; nil where the node is left to judge.
    package var contextTokens: Int?
    /// Sent to the node and reserved where the client names none. At most ``contextTokens``.
    package var maxOutputTokens: Int
    /// Reserved for each image part.
    package var imageTokensMax: Int
    /// Reserved for the chat template, a conversation.
    package var templateTokensMax: Int
    /// Context at which attention costs a token as much as the rest of the model does; smaller for smaller models.
    package var attentionTokens = Int(RoutingRequest.attentionTokensDefault)
    /// Other names for it; no other model has them as id or alias.
    package var aliases: [ModelID] = []
    /// Models that serve in its place while no node of its own takes requests, in this order. They exist, and lead back
    /// to it in no way.
    package var fallbacks: [ModelID] = []
    /// Sent where the client is silent, on endpoints that generate; in the order of the file.
    package var defaults: [ModelDefault] = []
    /// Above what a client's values are lowered. `maxTokens` is at least ``maxOutputTokens``.
    package var clamps = RequestClamps.none
    /// Counts its tokens exactly; nil where the gateway estimates.
    package var tokenizer: ModelTokenizer?
    /// Overrides `timeouts.connect`.
    package var connect: Duration?
    /// Overrides `timeouts.first_byte`.
    package var firstByte: Duration?
    /// Overrides `timeouts.stream_idle`.
    package var streamIdle: Duration?
    /// Seeds the store once; from then on the store is the truth.
    package var price: ConfiguredPrice?

    package init(
        id: ModelID, contextTokens: Int? = nil, maxOutputTokens: Int = Self.maxOutputTokensDefault,
        imageTokensMax: Int = 1_500, templateTokensMax: Int = 64, firstByte: Duration? = nil,
        streamIdle: Duration? = nil, price: ConfiguredPrice? = nil
    ) {
        self.id = id
        self.contextTokens = contextTokens
        self.maxOutputTokens = maxOutputTokens
        self.imageTokensMax = imageTokensMax
        self.templateTokensMax = templateTokensMax
        self.firstByte = firstByte
        self.streamIdle = streamIdle
        self.price = price
    }
}

/// A request field that a model's configuration sets where the client is silent.
package struct ModelDefault: Hashable, Sendable {
    package var key: String
    /// The value, as it goes into the body.
    package var json: [UInt8]

    package init(key: String, json: [UInt8]) {
        self.key = key
        self.json = json
    }
}

/// Nano-dollars per million tokens, each 0 to ``Price/rateMax``.
package struct ConfiguredPrice: Hashable, Sendable {
    package var input: Int64
    package var cachedInput: Int64
    package var output: Int64

    package init(input: Int64, cachedInput: Int64, output: Int64) {
        self.input = input
        self.cachedInput = cachedInput
        self.output = output
    }
}

/// A physical place with power and a network path.
package struct SiteConfiguration: Hashable, Sendable {
    package var id: SiteID
    package var region: String?
    /// What a round trip from here takes; breaks ties between nodes.
    package var rtt: Duration

    package init(id: SiteID, region: String? = nil, rtt: Duration = .zero) {
        self.id = id
        self.region = region
        self.rtt = rtt
    }
}

/// One model server as the gateway addresses it.
package struct NodeConfiguration: Hashable, Sendable {
    package static let maxConcurrencyDefault = 64
    package static let maxConcurrencyMax = 100_000

    package var id: NodeID
    package var site: SiteID
    package var url: NodeURL
    package var engine: Engine
    /// Groups nodes of equal speed.
    package var speedClass: String
    /// In the order of the file; never empty, models are unique.
    package var models: [ServedModel]
    package var maxConcurrency: Int
    /// Sent as a bearer token to the node.
    package var apiKey: Secret?
    /// Whom to trust where ``url`` is `https://`; nil where it is not.
    package var trust: NodeTrust?
    package var origin = NodeOrigin.file

    package init(
        id: NodeID, site: SiteID, url: NodeURL, engine: Engine, speedClass: String = "default", models: [ServedModel],
        maxConcurrency: Int = Self.maxConcurrencyDefault, apiKey: Secret? = nil, trust: NodeTrust? = nil
    ) {
        self.id = id
        self.site = site
        self.url = url
        self.engine = engine
        self.speedClass = speedClass
        self.models = models
        self.maxConcurrency = maxConcurrency
        self.apiKey = apiKey
        self.trust = trust
    }
}

/// Where a node's HTTP server listens: `http://host:port/base`, or `https://`.
package struct NodeURL: Hashable, Sendable, CustomStringConvertible {
    /// A name or an IP literal, without the brackets of IPv6.
    package var host: String
    package var port: Int
    /// Empty, or begins with a slash and does not end with one: `/v1` is appended to it.
    package var basePath: String
    /// `https://`.
    package var isSecure: Bool

    package init(host: String, port: Int, basePath: String = "", isSecure: Bool = false) {
        self.host = host
        self.port = port
        self.basePath = basePath
        self.isSecure = isSecure
    }

    /// What the `Host` header says.
    package var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    package var description: String { "\(isSecure ? "https" : "http")://\(authority)\(basePath)" }
}

extension NodeConfiguration {
    /// A node that serves one model.
    package init(
        id: NodeID, site: SiteID, url: NodeURL, engine: Engine, speedClass: String = "default", model: ModelID,
        upstreamName: String
    ) {
        self.init(
            id: id, site: site, url: url, engine: engine, speedClass: speedClass,
            models: [ServedModel(model: model, upstreamName: upstreamName)])
    }
}

extension GatewayConfiguration {
    /// What the router needs to know of the nodes, in the order of the file.
    package var nodeSpecs: [NodeSpec] {
        let sites = Dictionary(sites.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        return nodes.map { node in
            NodeSpec(
                id: node.id, site: node.site, engine: node.engine, speedClass: node.speedClass, models: node.models,
                maxConcurrency: node.maxConcurrency, rttNanoseconds: (sites[node.site]?.rtt ?? .zero).nanoseconds,
                region: sites[node.site]?.region)
        }
    }
}

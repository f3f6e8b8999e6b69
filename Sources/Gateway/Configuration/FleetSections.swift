import Domain
import Routing

/// The sections that name models, sites and nodes, and the checks between them.
struct FleetSections {
    private typealias Units = ConfigurationUnits

    let root: ConfigurationSection
    /// The file's own name: other files are named relative to it.
    let file: String
    let authorities: NodeAuthorities
    let tokenizers: TokenizerFiles

    // MARK: Models

    func readModels() -> [ModelConfiguration] {
        var seen: Set<ModelID> = []
        let models = root.sections("models", countMax: GatewayConfiguration.modelsMax).compactMap { section in
            let model = readModel(section)
            section.finish()
            return unique(model, in: section, id: \.id, seen: &seen).map { (section: section, model: $0) }
        }
        checkNames(models)
        return models.map(\.model)
    }

    private func readModel(_ section: ConfigurationSection) -> ModelConfiguration? {
        let tokens = Units.integer(in: 1...ModelConfiguration.tokensMax)
        let id = section.required("id", Units.identifier(ModelID.self))
        let contextTokens = section.value("context_tokens", tokens)
        let namedOutputTokens = section.value("max_output_tokens", tokens)
        if let contextTokens, let namedOutputTokens, namedOutputTokens > contextTokens {
            section.problem("max_output_tokens", "is more than context_tokens, \(contextTokens): lower it")
        }
        let imageTokensMax = section.value("image_tokens_max", Units.integer(in: 0...ModelConfiguration.tokensMax))
        let templateTokensMax = section.value(
            "template_tokens_max", Units.integer(in: 0...ModelConfiguration.tokensMax))
        let attentionTokens = section.value(
            "attention_tokens", Units.integer(in: ModelConfiguration.attentionTokensMin...ModelConfiguration.tokensMax))

        let timeouts = section.section("timeouts")
        let duration = Units.duration(in: .milliseconds(10)...TimeoutsConfiguration.durationMax)
        let connect = timeouts.value("connect", duration)
        let firstByte = timeouts.value("first_byte", duration)
        let streamIdle = timeouts.value("stream_idle", duration)
        timeouts.finish()

        let clamps = readClamps(section, maxOutputTokens: namedOutputTokens)
        let aliases = section.values("aliases", countMax: ModelConfiguration.aliasesMax, Units.identifier(ModelID.self))
        let fallbacks = section.values(
            "fallbacks", countMax: ModelConfiguration.fallbacksMax, Units.identifier(ModelID.self))
        let defaults = readDefaults(section)
        let tokenizer = readTokenizer(section)

        let price = section.has("price") ? readPrice(section.section("price")) : nil
        guard let id else { return nil }
        var model = ModelConfiguration(
            id: id, contextTokens: contextTokens, firstByte: firstByte, streamIdle: streamIdle, price: price)
        model.maxOutputTokens =
            namedOutputTokens
            ?? min(ModelConfiguration.maxOutputTokensDefault, contextTokens ?? .max, clamps.maxTokens ?? .max)
        model.aliases = aliases
        model.fallbacks = fallbacks
        model.defaults = defaults
        model.clamps = clamps
        model.tokenizer = tokenizer
        model.connect = connect
        imageTokensMax.map { model.imageTokensMax = $0 }
        templateTokensMax.map { model.templateTokensMax = $0 }
        attentionTokens.map { model.attentionTokens = $0 }
        if !section.has("price") {
            section.warning("price", "\(id) has no price here: 'tollgate price set' must have given it one")
        }
        return model
    }

    private func readPrice(_ section: ConfigurationSection) -> ConfiguredPrice? {
        let input = section.required("input", Units.rate)
        let cachedInput = section.value("cached_input", Units.rate)
        let output = section.required("output", Units.rate)
        section.finish()
        guard let input, let output else { return nil }
        if let cachedInput, cachedInput > input {
            section.warning("cached_input", "is dearer than input, which is what holds then reserve")
        }
        // Silence means that the cache earns no discount, never that it is free.
        return ConfiguredPrice(input: input, cachedInput: cachedInput ?? input, output: output)
    }

    // MARK: Sites

    func readSites() -> [SiteConfiguration] {
        var seen: Set<SiteID> = []
        return root.sections("sites", countMax: GatewayConfiguration.sitesMax).compactMap { section in
            let id = section.required("id", Units.identifier(SiteID.self))
            let region = section.value("region", Units.text)
            let rtt = section.value("rtt", Units.duration(in: .zero ... .seconds(10)))
            section.finish()
            let site = id.map { SiteConfiguration(id: $0, region: region, rtt: rtt ?? .zero) }
            return unique(site, in: section, id: \.id, seen: &seen)
        }
    }

    // MARK: Nodes

    func readNodes(models: Set<ModelID>, sites: Set<SiteID>) -> [NodeConfiguration] {
        var seen: Set<NodeID> = []
        var served: Set<ModelID> = []
        let nodes = root.sections("nodes", countMax: GatewayConfiguration.nodesMax).compactMap { section in
            let node = readNode(section, models: models, sites: sites)
            section.finish()
            served.formUnion(node?.models.map(\.model) ?? [])
            return unique(node, in: section, id: \.id, seen: &seen)
        }
        if models.isEmpty {
            root.warning("models", "no model is configured: nothing can be asked for")
        } else if root.has("join_token") || root.has("discovery") {
            // Who will serve what is not known before it is there.
        } else if nodes.isEmpty {
            root.warning("nodes", "no node is configured: every request is refused until `tollgate node add` names one")
        } else {
            for model in models.subtracting(served).sorted() {
                root.warning("models", "\(model) is served by no node: requests for it will be refused")
            }
        }
        return nodes
    }

    private func readNode(
        _ section: ConfigurationSection, models: Set<ModelID>, sites: Set<SiteID>
    ) -> NodeConfiguration? {
        let id = section.required("id", Units.identifier(NodeID.self))
        let site = section.required("site", Units.identifier(SiteID.self))
        if let site, !sites.contains(site) {
            section.problem("site", "\"\(site)\" is not in sites: add it there")
        }
        let url = section.required("url", Units.nodeURL)
        let trust = readTrust(section, url: url)
        let engine = section.required("engine", Units.word(Engine.self))
        let speedClass = section.value("class", Units.identifier(NodeClass.self))
        let maxConcurrency = section.value(
            "max_concurrency", Units.integer(in: 1...NodeConfiguration.maxConcurrencyMax))
        let apiKey = readAPIKey(section)
        let servedModels = readServedModels(section, models: models)
        guard let id, let site, let url, let engine else { return nil }
        return NodeConfiguration(
            id: id, site: site, url: url, engine: engine, speedClass: speedClass?.rawValue ?? "default",
            models: servedModels, maxConcurrency: maxConcurrency ?? NodeConfiguration.maxConcurrencyDefault,
            apiKey: apiKey, trust: trust)
    }

    func readAPIKey(_ section: ConfigurationSection) -> Secret? {
        section.value("api_key", isSecret: true) { text throws(UnitFailure) in
            guard !text.isEmpty, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
                throw UnitFailure("must be printable ASCII without spaces, since it travels in a header")
            }
            return Secret(text)
        }
    }

    func readServedModels(_ section: ConfigurationSection, models: Set<ModelID>) -> [ServedModel] {
        guard section.has("models") else {
            _ = section.section("models")
            section.problem("models", "is missing: write { public-id: name-on-the-node }")
            return []
        }
        let mapping = section.section("models")
        let names = mapping.names()
        if names.isEmpty { section.problem("models", "is empty: write { public-id: name-on-the-node }") }
        return names.compactMap { name in
            guard let model = ModelID(name), models.contains(model) else {
                mapping.problem(name, "is not in models: add it there")
                return nil
            }
            guard let upstreamName = mapping.value(name, Units.upstreamModelName) else { return nil }
            return ServedModel(model: model, upstreamName: upstreamName)
        }
    }

    // MARK: Inside

    private enum NodeClassKind {}
    private typealias NodeClass = Identifier<NodeClassKind>

    private func unique<Element, ID: Hashable>(
        _ element: Element?, in section: ConfigurationSection, id: (Element) -> ID, seen: inout Set<ID>
    ) -> Element? {
        guard let element else { return nil }
        guard seen.insert(id(element)).inserted else {
            section.problem("id", "\"\(id(element))\" is taken by an earlier entry: choose another")
            return nil
        }
        return element
    }
}

import Domain
import OpenAIProtocol

/// What a model's section says of names, fields and bounds, and the checks between models.
extension FleetSections {
    private typealias Units = ConfigurationUnits

    /// - Parameter maxOutputTokens: As the section names it.
    func readClamps(_ section: ConfigurationSection, maxOutputTokens: Int?) -> RequestClamps {
        guard section.has("clamps") else {
            _ = section.section("clamps")
            return .none
        }
        let clamps = section.section("clamps")
        for name in clamps.names() where !RequestClamps.names.contains(name) {
            clamps.problem(name, "cannot be clamped: \(RequestClamps.names.joined(separator: " and ")) can")
        }
        let maxTokens = clamps.value("max_tokens", Units.integer(in: 1...ModelConfiguration.tokensMax))
        let n = clamps.value("n", Units.integer(in: 1...RequestLimits.choicesPerPromptMax))
        if let maxTokens, let maxOutputTokens, maxOutputTokens > maxTokens {
            section.problem(
                "max_output_tokens", "is more than clamps.max_tokens, \(maxTokens): lower it, or raise the clamp")
        }
        return RequestClamps(maxTokens: maxTokens, n: n)
    }

    func readDefaults(_ section: ConfigurationSection) -> [ModelDefault] {
        let defaults = section.section("defaults")
        let names = defaults.names()
        guard names.count <= ModelConfiguration.defaultsMax else {
            section.problem(
                "defaults", "has \(names.count) fields; at most \(ModelConfiguration.defaultsMax) are allowed")
            return []
        }
        var bytesLeft = ModelConfiguration.defaultsBytesMax
        return names.compactMap { name in
            if PatchPlan.isReserved(defaultKey: name) {
                defaults.problem(name, Self.hint(ofReserved: name))
                return nil
            }
            guard
                let json = defaults.json(
                    name, bytesMax: max(0, bytesLeft), depthMax: ModelConfiguration.defaultsDepthMax)
            else { return nil }
            bytesLeft -= json.count + name.utf8.count
            return ModelDefault(key: name, json: json)
        }
    }

    private static func hint(ofReserved name: String) -> String {
        switch name {
        case "max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens", "num_predict":
            "is no default: the gateway writes the token limit itself; set max_output_tokens"
        case "stream", "stream_options", "model", "messages", "prompt", "input":
            "is no default: it is the client's to say; remove it"
        default: "is no default: the field steers the engine, and the gateway counts or writes it; remove it"
        }
    }

    /// Every name means one model; fallbacks exist and lead nowhere in a circle.
    func checkNames(_ models: [(section: ConfigurationSection, model: ModelConfiguration)]) {
        let ids = Set(models.map(\.model.id))
        var owners: [ModelID: ModelID] = [:]
        for (section, model) in models {
            for alias in model.aliases {
                if ids.contains(alias) {
                    section.problem("aliases", "\"\(alias)\" is a model's id: choose another alias")
                } else if let owner = owners[alias] {
                    section.problem("aliases", "\"\(alias)\" is an alias of \(owner) already: choose another")
                } else {
                    owners[alias] = model.id
                }
            }
        }
        let next = Dictionary(
            models.map { ($0.model.id, $0.model.fallbacks) }, uniquingKeysWith: { first, _ in first })
        for (section, model) in models {
            for fallback in model.fallbacks where !ids.contains(fallback) {
                section.problem(
                    "fallbacks",
                    owners[fallback].map { "\"\(fallback)\" is an alias: write \($0)" }
                        ?? "\"\(fallback)\" is not in models: add it there")
            }
            if let circle = Self.circle(from: model.id, next) {
                let way = (circle + [model.id]).map(\.rawValue).joined(separator: " -> ")
                section.problem("fallbacks", "lead back to the model itself (\(way)): remove one of them")
            }
        }
    }

    /// The models on a way from `start` back to it, `start` first; nil where there is none.
    private static func circle(from start: ModelID, _ next: [ModelID: [ModelID]]) -> [ModelID]? {
        var cameFrom: [ModelID: ModelID] = [:]
        var open = [start]
        while let model = open.popLast() {
            for following in next[model] ?? [] {
                if following == start {
                    var way = [model]
                    while let last = way.last, last != start, let before = cameFrom[last] { way.append(before) }
                    return way.reversed()
                }
                guard cameFrom[following] == nil else { continue }
                cameFrom[following] = model
                open.append(following)
            }
        }
        return nil
    }
}

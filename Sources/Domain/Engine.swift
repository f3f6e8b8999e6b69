/// What a node runs: decides which fields it obeys and what its metrics are called.
package enum Engine: String, Hashable, Sendable, CaseIterable {
    case vllm, sglang, llamacpp, openai
}

/// Some of the engines.
package struct EngineSet: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    package init(_ engine: Engine) {
        switch engine {
        case .vllm: self = .vllm
        case .sglang: self = .sglang
        case .llamacpp: self = .llamacpp
        case .openai: self = .openai
        }
    }

    package static let vllm = EngineSet(rawValue: 1)
    package static let sglang = EngineSet(rawValue: 2)
    package static let llamacpp = EngineSet(rawValue: 4)
    /// Some server that speaks OpenAI's protocol.
    package static let openai = EngineSet(rawValue: 8)
    package static let all: EngineSet = [.vllm, .sglang, .llamacpp, .openai]

    package func contains(_ engine: Engine) -> Bool { contains(EngineSet(engine)) }
}

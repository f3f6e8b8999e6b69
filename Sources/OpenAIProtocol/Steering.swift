import Domain
import JSON

/// A field that makes an engine generate more, share state, run something, or serve one request before another.
///
/// Closed: a field outside this set passes unread. The raw value is the key in the body.
package enum SteeringKey: String, Hashable, Sendable, CaseIterable {
    // More tokens than max_tokens x n says.
    case n
    case bestOf = "best_of"
    case useBeamSearch = "use_beam_search"
    case nPredict = "n_predict"
    case nCmpl = "n_cmpl"
    case numPredict = "num_predict"
    case maxNewTokens = "max_new_tokens"
    case minTokens = "min_tokens"
    case minNewTokens = "min_new_tokens"
    case ignoreEOS = "ignore_eos"
    case samplingParams = "sampling_params"
    case prediction
    case webSearchOptions = "web_search_options"
    // A prompt that the body does not bound.
    case chatTemplate = "chat_template"
    case chatTemplateKwargs = "chat_template_kwargs"
    case mmProcessorKwargs = "mm_processor_kwargs"
    case maxDynamicPatch = "max_dynamic_patch"
    case minDynamicPatch = "min_dynamic_patch"
    case promptEmbeds = "prompt_embeds"
    case inputEmbeds = "input_embeds"
    case inputIDs = "input_ids"
    case imageData = "image_data"
    case audioData = "audio_data"
    case videoData = "video_data"
    case sessionParams = "session_params"
    case messages
    // Work and answers out of proportion.
    case echo
    case promptLogprobs = "prompt_logprobs"
    case returnHiddenStates = "return_hidden_states"
    case returnRoutedExperts = "return_routed_experts"
    case responseFields = "response_fields"
    case verbose = "__verbose"
    // Code of the client's in the engine.
    case customLogitProcessor = "custom_logit_processor"
    case customParams = "custom_params"
    case logitsProcessors = "logits_processors"
    case vllmXargs = "vllm_xargs"
    // One tenant's place among the others.
    case cacheSalt = "cache_salt"
    case extraKey = "extra_key"
    case idSlot = "id_slot"
    case slotID = "slot_id"
    case priority
    case requestID = "request_id"
    case rid
    case lora
    case loraPath = "lora_path"
    case kvTransferParams = "kv_transfer_params"
    case ecTransferParams = "ec_transfer_params"
    case bootstrapHost = "bootstrap_host"
    case bootstrapPort = "bootstrap_port"
    case bootstrapRoom = "bootstrap_room"
    case dataParallelRank = "data_parallel_rank"
    case routedDPRank = "routed_dp_rank"
    case disaggPrefillDPRank = "disagg_prefill_dp_rank"
    case serviceTier = "service_tier"
    case nvext
}

package enum SteeringValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case string(String)
    case emptyArray
    /// An object, of which this member is refused.
    case harmfulMember(String)
    case other
}

package struct SteeringField: Hashable, Sendable {
    package let key: SteeringKey
    package let value: SteeringValue

    package init(key: SteeringKey, value: SteeringValue) {
        self.key = key
        self.value = value
    }
}

/// Which steering fields an engine may see: counted in the hold, set by the gateway, or refused.
package enum Steering {
    enum Rule: Hashable {
        /// The hold covers it (``ScannedRequest/choices``), or it stays within max tokens.
        case counted
        /// The gateway writes this field; what a client says is refused.
        case setByGateway
        /// Refused unless it says what silence says.
        case refused(unless: [SteeringValue])
        /// The engine does not read it: it passes like any unknown field.
        case ignored
    }

    /// - Parameter engines: Of all nodes that may get the request: a retry may go from one to another.
    /// - Throws: `.invalidRequest` naming the first field at fault and what to do.
    package static func check(_ scanned: ScannedRequest, engines: Set<Engine>) throws(Failure) {
        for field in scanned.steering where field.value != .null {
            for engine in Engine.allCases where engines.contains(engine) {
                try check(field, rule(for: field.key, engine))
            }
        }
    }

    private static func check(_ field: SteeringField, _ rule: Rule) throws(Failure) {
        let name = field.key.rawValue
        switch rule {
        case .counted, .ignored:
            return
        case .refused(let harmless) where harmless.contains(field.value):
            return
        case .setByGateway:
            throw Failure(
                .invalidRequest, "'\(name)' is set by the gateway. Leave it out.", parameter: name)
        case .refused:
            if case .harmfulMember(let member) = field.value {
                throw Failure(
                    .invalidRequest, "'\(name).\(member)' is not supported. Leave it out.",
                    parameter: "\(name).\(member)")
            }
            throw Failure(
                .invalidRequest, "'\(name)' is not supported. \(hint(field.key))", parameter: name)
        }
    }

    private static func hint(_ key: SteeringKey) -> String {
        switch key {
        case .nPredict, .numPredict, .maxNewTokens: "Use 'max_tokens' instead."
        case .nCmpl: "Use 'n' instead."
        case .messages: "Use 'input' or 'prompt' instead."
        default: "Leave it out."
        }
    }

    /// The table. `.openai` stands for a server that we do not know, so it gets what any engine would be refused.
    static func rule(for key: SteeringKey, _ engine: Engine) -> Rule {
        let refused = Rule.refused(unless: [])
        func only(_ readers: Engine..., unless harmless: [SteeringValue] = []) -> Rule {
            engine == .openai || readers.contains(engine) ? .refused(unless: harmless) : .ignored
        }
        return switch key {
        case .n, .bestOf: .counted
        // Both stay within max tokens, which is always written.
        case .minTokens, .minNewTokens, .ignoreEOS: .counted
        // A text completion that repeats its prompt generates nothing for it.
        case .echo: .counted
        case .cacheSalt: .setByGateway
        // Refused everywhere: no engine serves what they ask for under this name, or which do changes by version.
        case .useBeamSearch: .refused(unless: [.bool(false)])
        case .nPredict, .nCmpl, .numPredict, .maxNewTokens, .samplingParams: refused
        case .chatTemplate, .chatTemplateKwargs, .mmProcessorKwargs: refused
        case .promptEmbeds, .inputEmbeds, .inputIDs, .messages: refused
        case .imageData, .audioData, .videoData: .refused(unless: [.emptyArray])
        case .customLogitProcessor, .customParams, .logitsProcessors, .vllmXargs: refused
        case .kvTransferParams, .ecTransferParams, .bootstrapHost, .bootstrapPort, .bootstrapRoom: refused
        case .dataParallelRank, .routedDPRank, .disaggPrefillDPRank: refused
        case .priority: .refused(unless: [.integer(0)])
        case .promptLogprobs: refused
        case .returnHiddenStates, .returnRoutedExperts: .refused(unless: [.bool(false)])
        case .extraKey, .loraPath, .sessionParams: refused
        case .lora: .refused(unless: [.emptyArray])
        // Read by one engine only.
        case .requestID: only(.vllm)
        case .rid: only(.sglang)
        case .maxDynamicPatch, .minDynamicPatch: only(.sglang)
        case .idSlot, .slotID: only(.llamacpp, unless: [.integer(-1)])
        case .responseFields: only(.llamacpp, unless: [.emptyArray])
        case .verbose: only(.llamacpp, unless: [.bool(false)])
        case .serviceTier: only(unless: [.string("auto"), .string("default")])
        case .prediction, .webSearchOptions, .nvext: only()
        }
    }

    /// Switches that templates of the known model families read. Everything else could replace the template, blow up
    /// what it renders, or reach the tokenizer's own arguments.
    static func isHarmless(templateArgument name: String, kind: JSONKind, bytes: Int) -> Bool {
        switch name {
        case "enable_thinking", "thinking", "clear_thinking", "preserve_thinking":
            switch kind {
            case .bool, .null: true
            default: false
            }
        case "reasoning_effort", "thinking_mode":
            (kind == .string && bytes <= 18) || kind == .null
        case "thinking_budget":
            (kind == .number && bytes <= 10) || kind == .null
        default: false
        }
    }
}

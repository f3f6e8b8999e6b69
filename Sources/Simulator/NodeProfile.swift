/// The speeds of a GPU with one model on it: everything that the engine model knows about hardware.
///
/// All rates are of an 8-billion-parameter model with an fp8 KV cache on one GPU. They are roofline estimates, not
/// measurements of ours; the constants and their relation to each other come from the routing design ("Node constants"),
/// whose reference simulator uses the same ones, so that results of the two can be held against each other.
package struct NodeProfile: Hashable, Sendable {
    /// What `--profile` takes.
    package var name: String
    /// Prompt tokens a second while nothing else runs and contexts are short.
    package var prefillTokensPerSecond: Double
    /// Attention of one new prompt token over one token of context, in seconds: the quadratic part of prefill.
    package var attentionSecondsPerTokenPair: Double
    /// A decode step with nothing in the batch: reading the weights once.
    package var stepSeconds: Double
    /// What each sequence of the batch adds to a step.
    package var stepSecondsPerSequence: Double
    /// What each token of the batch's contexts adds to a step: reading its keys and values.
    package var stepSecondsPerKVToken: Double
    /// The most tokens (prompt and decode together) that one step takes: vLLM's `max_num_batched_tokens`.
    package var stepTokensMax: Int
    /// The most sequences at once: vLLM's `max_num_seqs`.
    package var sequencesMax: Int
    /// Tokens whose keys and values fit the memory that the weights leave.
    package var kvTokensCapacity: Int

    /// H100 80 GB. Prefill 25,000 tokens/s: 2 x 8e9 FLOP a token at about 40 % of 989 TFLOP/s (dense bf16, NVIDIA's
    /// H100 data sheet). Step 7 ms: 16 GB of weights over 3.35 TB/s (same sheet) at about 70 %. 24 ns per KV token:
    /// 64 kB (32 layers x 8 heads x 128 x 2, fp8) over the same memory. 768k tokens: about 50 GB of it.
    package static let h100 = NodeProfile(
        name: "h100-8b", prefillTokensPerSecond: 25_000, attentionSecondsPerTokenPair: 1.31e-9, stepSeconds: 7e-3,
        stepSecondsPerSequence: 50e-6, stepSecondsPerKVToken: 24e-9, stepTokensMax: 2_048, sequencesMax: 256,
        kvTokensCapacity: 768_000)

    /// A100 80 GB: 0.6 of an H100 (2.0 TB/s against 3.35, NVIDIA's A100 data sheet), 512k KV tokens.
    package static let a100 = h100.scaled(by: 0.6, name: "a100-8b", kvTokensCapacity: 512_000)

    /// L40 48 GB: 0.3 of an H100 (0.86 TB/s against 3.35, NVIDIA's L40 data sheet), 256k KV tokens.
    package static let l40 = h100.scaled(by: 0.3, name: "l40-8b", kvTokensCapacity: 256_000)

    package static let all = [h100, a100, l40]

    /// - Returns: nil for a name that is none of ``all``.
    package static func named(_ name: String) -> NodeProfile? { all.first { $0.name == name } }

    func scaled(by factor: Double, name: String, kvTokensCapacity: Int) -> NodeProfile {
        NodeProfile(
            name: name, prefillTokensPerSecond: prefillTokensPerSecond * factor,
            attentionSecondsPerTokenPair: attentionSecondsPerTokenPair / factor, stepSeconds: stepSeconds / factor,
            stepSecondsPerSequence: stepSecondsPerSequence / factor,
            stepSecondsPerKVToken: stepSecondsPerKVToken / factor, stepTokensMax: stepTokensMax,
            sequencesMax: sequencesMax, kvTokensCapacity: kvTokensCapacity)
    }
}

/// How much faster than its profile a node runs.
package enum NodeSpeed: Hashable, Sendable {
    /// All of the engine's times are divided by this; finite and above zero.
    case times(Double)
    /// No delays at all: answers are produced as the request is read. For benchmarks of what stands in front.
    case instant

    /// Parses what `--speed` takes: a number above zero, or `0` or `inf` for ``instant``.
    package init?(_ text: String) {
        if text == "inf" {
            self = .instant
            return
        }
        guard let value = Double(text), value.isFinite, value >= 0 else { return nil }
        self = value == 0 ? .instant : .times(value)
    }
}

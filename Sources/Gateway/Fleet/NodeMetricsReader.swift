import Domain
import Routing

/// Reads what a node says of itself at `/metrics`, in Prometheus' text format, by the names of its engine.
///
/// | engine | requests | KV cache |
/// |---|---|---|
/// | vLLM | `vllm:num_requests_running`, `_waiting` | `vllm:kv_cache_usage_perc` or `vllm:gpu_cache_usage_perc`, `vllm:cache_config_info` |
/// | SGLang | `sglang:num_running_reqs`, `sglang:num_queue_reqs` | `sglang:token_usage`, `sglang:max_total_num_tokens` |
/// | llama.cpp | `llamacpp:requests_processing`, `_deferred` | `llamacpp:kv_cache_usage_ratio` |
///
/// A server with several engines has a line for each: requests and capacities are summed, usages averaged. Lines that say
/// which model they are about count only where it is one that this node serves. Numbers are passed on as they came, NaN
/// and negative ones too: the router judges them (``NodeReport/isPlausible``).
package struct NodeMetricsReader {
    /// What a `/metrics` comes to.
    package enum Reading: Hashable, Sendable {
        case report(NodeReport)
        /// Nothing that the engine is known to say is there.
        case silent
        /// Its metrics are those of other models than the node is configured with.
        case otherModel(String)
    }

    private enum Figure {
        case running, waiting, usage, capacity, cacheConfiguration, start
    }

    /// A label longer than this is none that is looked for.
    private static let labelBytesMax = 256

    private let engine: Engine
    private let models: Set<String>
    private var running: Double?
    private var waiting: Double?
    private var usages: (sum: Double, count: Double) = (0, 0)
    private var capacity: Double?
    private var start: UInt64?
    private var other: String?

    /// - Parameter models: What the node calls the models that it serves.
    package static func read(_ text: UnsafeRawBufferPointer, engine: Engine, models: Set<String>) -> Reading {
        var reader = NodeMetricsReader(engine: engine, models: models)
        for line in text.split(separator: UInt8(ascii: "\n")) { reader.line(line) }
        return reader.reading
    }

    private init(engine: Engine, models: Set<String>) {
        self.engine = engine
        self.models = models
    }

    private var reading: Reading {
        guard let running, let waiting else { return other.map { .otherModel($0) } ?? .silent }
        return .report(
            NodeReport(
                runningRequests: running, waitingRequests: waiting,
                kvUsage: usages.count > 0 ? usages.sum / usages.count : nil, kvCapacityTokens: capacity,
                serverStart: start))
    }

    private mutating func line(_ line: Slice<UnsafeRawBufferPointer>) {
        guard let first = line.first, first != UInt8(ascii: "#") else { return }
        let name = line.prefix { $0 != UInt8(ascii: "{") && $0 != UInt8(ascii: " ") }
        guard let figure = figure(named: name) else { return }
        var rest = line[name.endIndex...]
        var labels: [String: String] = [:]
        if rest.first == UInt8(ascii: "{") {
            guard let (found, end) = Self.labels(rest) else { return }
            labels = found
            rest = rest[end...]
        }
        if let model = labels["model_name"], !models.contains(model) {
            other = model
            return
        }
        // A time may follow the value.
        let value = rest.drop { $0 == UInt8(ascii: " ") }.prefix { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\r") }
        guard let value = Self.number(value) else { return }
        take(value, as: figure, labels)
    }

    private mutating func take(_ value: Double, as figure: Figure, _ labels: [String: String]) {
        switch figure {
        case .running: running = (running ?? 0) + value
        case .waiting: waiting = (waiting ?? 0) + value
        case .usage: usages = (usages.sum + value, usages.count + 1)
        case .capacity: capacity = (capacity ?? 0) + value
        case .cacheConfiguration:
            guard let size = labels["block_size"].flatMap(Double.init),
                let blocks = labels["num_gpu_blocks"].flatMap(Double.init)
            else { return }
            capacity = (capacity ?? 0) + size * blocks
        case .start: start = value.bitPattern
        }
    }

    private func figure(named name: Slice<UnsafeRawBufferPointer>) -> Figure? {
        if name.elementsEqual("process_start_time_seconds".utf8) { return .start }
        for (known, figure) in Self.names(engine) where name.elementsEqual(known.utf8) { return figure }
        return nil
    }

    private static func names(_ engine: Engine) -> [(String, Figure)] {
        switch engine {
        case .vllm: vllm
        case .sglang: sglang
        case .llamacpp: llamacpp
        // Nothing is promised.
        case .openai: []
        }
    }

    private static let vllm: [(String, Figure)] = [
        ("vllm:num_requests_running", .running), ("vllm:num_requests_waiting", .waiting),
        ("vllm:kv_cache_usage_perc", .usage), ("vllm:gpu_cache_usage_perc", .usage),
        ("vllm:cache_config_info", .cacheConfiguration),
    ]
    private static let sglang: [(String, Figure)] = [
        ("sglang:num_running_reqs", .running), ("sglang:num_queue_reqs", .waiting), ("sglang:token_usage", .usage),
        ("sglang:max_total_num_tokens", .capacity),
    ]
    private static let llamacpp: [(String, Figure)] = [
        ("llamacpp:requests_processing", .running), ("llamacpp:requests_deferred", .waiting),
        ("llamacpp:kv_cache_usage_ratio", .usage),
    ]

    /// - Returns: The labels, and where they end; nil where the braces do not close.
    private static func labels(
        _ text: Slice<UnsafeRawBufferPointer>
    ) -> (labels: [String: String], end: Int)? {
        var labels: [String: String] = [:]
        var at = text.startIndex + 1
        while at < text.endIndex {
            if text[at] == UInt8(ascii: "}") { return (labels, at + 1) }
            let name = text[at...].prefix { $0 != UInt8(ascii: "=") }
            at = name.endIndex + 1
            guard at < text.endIndex, text[at] == UInt8(ascii: "\"") else { return nil }
            at += 1
            var value: [UInt8] = []
            while at < text.endIndex, text[at] != UInt8(ascii: "\"") {
                if text[at] == UInt8(ascii: "\\") { at += 1 }
                guard at < text.endIndex else { return nil }
                if value.count < labelBytesMax { value.append(text[at]) }
                at += 1
            }
            guard at < text.endIndex else { return nil }
            labels[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
            at += 1
            if at < text.endIndex, text[at] == UInt8(ascii: ",") { at += 1 }
        }
        return nil
    }

    /// As Prometheus writes numbers: `NaN`, `+Inf` and `-Inf` too.
    private static func number(_ text: Slice<UnsafeRawBufferPointer>) -> Double? {
        guard text.count <= labelBytesMax else { return nil }
        return Double(String(decoding: text, as: UTF8.self))
    }
}

import Domain

/// What a simulated node has seen and done since its start.
package struct NodeStatistics: Sendable {
    /// An inference request as it arrived, byte for byte.
    package struct RecordedRequest: Sendable {
        package var method: String
        package var uri: String
        /// In order of arrival, names as they were spelt.
        package var headers: [(name: String, value: String)]
        package var body: [UInt8]

        /// The values of a header, whatever its spelling.
        package func values(of name: String) -> [String] {
            headers.filter { $0.name.lowercased() == name.lowercased() }.map(\.value)
        }
    }

    /// The most requests that ``recorded`` keeps: the last ones.
    package static let recordedMax = 256

    /// Inference requests whose end has arrived, refused ones and those that met a fault included.
    package var requests = 0
    /// Inference requests that were answered to the end, whatever the status.
    package var answered = 0
    /// Inference requests whose client went away before the answer's end.
    package var aborted = 0
    /// Sequences that the engine works on; prompts that a fault holds still included.
    package var running = 0
    /// Sequences that wait for the engine; prompts that a fault delays included.
    package var waiting = 0
    package var connections = 0
    package var connectionsTotal = 0
    /// Prompt tokens of the works that the engine has begun.
    package var promptTokens = 0
    package var cachedTokens = 0
    /// Tokens that the engine generated, whether or not anybody read them.
    package var generatedTokens = 0
    /// Share of the KV memory in use, 0 to 1.
    package var kvUsage = 0.0
    /// The last requests; empty unless the node's configuration asks for them.
    package var recorded: [RecordedRequest] = []

    /// The statistics as `/metrics` gives them: vLLM's names, and two of our own.
    func metrics(model: String, engine: String, profile: NodeProfile, startedSeconds: Double) -> String {
        let name = model.split(separator: "\"").joined().split(separator: "\\").joined()
        let labels = "engine=\"\(engine)\",model_name=\"\(name)\""
        var text = ""
        func metric(_ metric: String, _ type: String, _ help: String, _ value: some CustomStringConvertible) {
            text += "# HELP \(metric) \(help)\n# TYPE \(metric) \(type)\n\(metric){\(labels)} \(value)\n"
        }
        metric("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", running)
        metric("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", waiting)
        metric("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", kvUsage)
        metric("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", promptTokens)
        metric("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", generatedTokens)
        metric("vllm:prefix_cache_queries_total", "counter", "Prefix cache queries, in tokens.", promptTokens)
        metric("vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.", cachedTokens)
        metric("simulator:requests_total", "counter", "Inference requests received.", requests)
        metric("simulator:aborted_requests_total", "counter", "Inference requests whose client went away.", aborted)
        let blocks = profile.kvTokensCapacity / NodeEngine.blockTokens
        text += "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
        text += "# TYPE vllm:cache_config_info gauge\n"
        text += "vllm:cache_config_info{block_size=\"\(NodeEngine.blockTokens)\",enable_prefix_caching=\"True\","
        text += "engine=\"\(engine)\",num_gpu_blocks=\"\(blocks)\"} 1.0\n"
        text += "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n"
        text += "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds \(startedSeconds)\n"
        return text
    }
}

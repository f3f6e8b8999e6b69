import Domain
import Routing
import Support
import Testing

@testable import Gateway

struct NodeMetricsReaderTests {
    private func read(_ text: String, _ engine: Engine = .vllm, models: Set<String> = ["m"])
        -> NodeMetricsReader.Reading
    {
        Array(text.utf8).withUnsafeBytes { NodeMetricsReader.read($0, engine: engine, models: models) }
    }

    @Test func vllmIsRead() {
        let text = """
            # HELP vllm:num_requests_running Number of requests in model execution batches.
            # TYPE vllm:num_requests_running gauge
            vllm:num_requests_running{engine="0",model_name="m"} 3.0
            vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
            vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
            vllm:cache_config_info{block_size="16",cache_dtype="fp8",engine="0",num_gpu_blocks="1000"} 1.0
            vllm:num_requests_running_total{engine="0",model_name="m"} 900
            process_start_time_seconds 1.7e+09
            """
        let expected = NodeReport(
            runningRequests: 3, waitingRequests: 2, kvUsage: 0.25, kvCapacityTokens: 16_000,
            serverStart: 1.7e9.bitPattern)
        #expect(read(text) == .report(expected))
        #expect(read(text.replacing("\n", with: "\r\n")) == .report(expected))
    }

    @Test func enginesOfOneServerAreTakenTogether() {
        let text = """
            vllm:num_requests_running{engine="0",model_name="m"} 3
            vllm:num_requests_running{engine="1",model_name="m"} 4
            vllm:num_requests_waiting{engine="0",model_name="m"} 0
            vllm:num_requests_waiting{engine="1",model_name="m"} 1
            vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.2
            vllm:gpu_cache_usage_perc{engine="1",model_name="m"} 0.4 1700000000000
            """
        guard case .report(let report) = read(text) else { return #expect(Bool(false), "no report") }
        #expect(report.runningRequests == 7 && report.waitingRequests == 1)
        #expect(abs((report.kvUsage ?? 0) - 0.3) < 1e-9)
        #expect(report.kvCapacityTokens == nil && report.serverStart == nil)
    }

    @Test func sglangAndLlamaAreRead() {
        let sglang = """
            sglang:num_running_reqs{model_name="m"} 5
            sglang:num_queue_reqs{model_name="m"} 6
            sglang:token_usage{model_name="m"} 0.5
            sglang:max_total_num_tokens{model_name="m"} 100000
            """
        #expect(
            read(sglang, .sglang)
                == .report(
                    NodeReport(runningRequests: 5, waitingRequests: 6, kvUsage: 0.5, kvCapacityTokens: 100_000)))
        let llama = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n"
        #expect(read(llama, .llamacpp) == .report(NodeReport(runningRequests: 1, waitingRequests: 0)))
        #expect(read(llama, .vllm) == .silent)
        #expect(read(llama, .openai) == .silent)
    }

    @Test func anotherModelsMetricsAreNamed() {
        let text = """
            vllm:num_requests_running{model_name="other"} 3
            vllm:num_requests_waiting{model_name="other"} 2
            """
        #expect(read(text) == .otherModel("other"))
        #expect(read(text, models: ["m", "other"]) == .report(NodeReport(runningRequests: 3, waitingRequests: 2)))
    }

    @Test func nonsenseIsPassedOnToBeJudged() {
        let text = "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1e300\nvllm:kv_cache_usage_perc +Inf\n"
        guard case .report(let report) = read(text) else { return #expect(Bool(false), "no report") }
        #expect(report.runningRequests.isNaN && report.waitingRequests == -1e300 && report.kvUsage == .infinity)
        #expect(!report.isPlausible)
    }

    @Test func brokenLinesAreNone() {
        for line in [
            "vllm:num_requests_running{", "vllm:num_requests_running{a", "vllm:num_requests_running{a=",
            "vllm:num_requests_running{a=\"", "vllm:num_requests_running{a=\"\\", "vllm:num_requests_running",
            "vllm:num_requests_running ", "vllm:num_requests_running x", "{} 1", "", "\u{0}",
        ] {
            #expect(read(line + "\nvllm:num_requests_waiting 1") == .silent, "\(line)")
        }
    }

    @Test func anyBytesAreRead() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        let parts = [
            "vllm:num_requests_running", "{", "}", "\"", "\\", "=", ",", " ", "1", "\n", "#", "model_name", "é",
        ]
        for _ in 0..<3_000 {
            let text = (0..<random.below(40)).map { _ in random.pick(parts) }.joined()
            if case .report(let report) = read(text + "\nvllm:num_requests_waiting 1\n") {
                #expect(report.waitingRequests >= 1, "seed \(seed): \(text)")
            }
        }
    }
}

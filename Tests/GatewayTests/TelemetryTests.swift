import Domain
import Gateway
import NIOCore
import NIOPosix
import Testing

/// One line of the exposition format, taken apart.
private struct MetricSample: Hashable {
    var name: String
    var labels: [String: String]
    var value: Double
}

private struct Exposition {
    var samples: [MetricSample] = []
    var types: [String: String] = [:]
    var problems: [String] = []

    subscript(_ name: String, _ labels: [String: String]) -> Double? {
        samples.first { $0.name == name && $0.labels == labels }?.value
    }

    /// Follows the grammar of text format 0.0.4 and its rules for families.
    init(_ text: String) {
        var family = ""
        var seen: Set<Substring> = []
        if !text.hasSuffix("\n") { problems.append("no line feed at the end") }
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# HELP ") {
                family = String(line.split(separator: " ", maxSplits: 3)[2])
                if types[family] != nil { problems.append("\(family) twice") }
            } else if line.hasPrefix("# TYPE ") {
                let parts = line.split(separator: " ")
                if parts[2] != family { problems.append("TYPE without HELP: \(line)") }
                types[family] = String(parts[3])
            } else if let sample = Self.sample(line) {
                let suffixes = types[family] == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
                if !suffixes.contains(where: { sample.name == family + $0 }) {
                    problems.append("outside of its family: \(line)")
                }
                if !seen.insert(line[..<(line.lastIndex(of: " ") ?? line.endIndex)]).inserted {
                    problems.append("twice: \(line)")
                }
                samples.append(sample)
            } else {
                problems.append("no sample: \(line)")
            }
        }
    }

    private static func sample(_ line: Substring) -> MetricSample? {
        let pattern = /([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? ([^ ]+)/
        guard let match = line.wholeMatch(of: pattern), let value = Double(String(match.4)) else { return nil }
        var labels: [String: String] = [:]
        var rest = match.3 ?? ""
        while !rest.isEmpty {
            guard let label = rest.prefixMatch(of: /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(,|$)/) else {
                return nil
            }
            labels[String(label.1)] = String(label.2)
            rest = rest[label.range.upperBound...]
        }
        return MetricSample(name: String(match.1), labels: labels, value: value)
    }

    /// Buckets must not fall, and the last one must be the count.
    mutating func checkHistograms() {
        for (family, type) in types where type == "histogram" {
            let counts = samples.filter { $0.name == family + "_count" }
            for count in counts {
                let buckets = samples.filter { sample in
                    var labels = sample.labels
                    labels["le"] = nil
                    return sample.name == family + "_bucket" && labels == count.labels
                }
                let bounds = buckets.compactMap { $0.labels["le"].flatMap(Double.init) }
                if bounds.count != buckets.count || bounds != bounds.sorted() { problems.append("bounds of \(family)") }
                if buckets.map(\.value) != buckets.map(\.value).sorted() { problems.append("\(family) falls") }
                if buckets.last?.value != count.value || buckets.last?.labels["le"] != "+Inf" {
                    problems.append("+Inf of \(family)")
                }
            }
        }
    }
}

private func render(_ shards: [MetricsShard], _ gauges: MetricsGauges = MetricsGauges()) -> Exposition {
    var exposition = Exposition(MetricsRegistry.render(shards: shards.map { $0.snapshot() }, gauges: gauges))
    exposition.checkHistograms()
    return exposition
}

@Test func renderedMetricsFollowTheExpositionFormat() {
    let shard = MetricsShard(models: ["llama-3.1-8b", "weird\"model\\\n"])
    for endpoint in MetricEndpoint.allCases {
        for model in [0, 1, nil, 99] as [Int?] {
            shard.requestFinished(endpoint: endpoint, status: 200, outcome: .completed)
            shard.requestDuration(seconds: 0.3, endpoint: endpoint, model: model)
            shard.requestDuration(seconds: 1e6, endpoint: endpoint, model: model, failure: .upstreamTimeout)
            shard.timeToFirstToken(seconds: 0.05, endpoint: endpoint, model: model)
            shard.timePerOutputToken(seconds: 0.02, endpoint: endpoint, model: model)
            shard.tokensUsed(
                TokenUsage(promptTokens: 10, cachedTokens: 4, completionTokens: 7), endpoint: endpoint, model: model)
        }
    }
    for code in Failure.Code.allCases { shard.refused(code) }
    for counter in MetricCounter.allCases { shard.count(counter) }
    for gauge in MetricGauge.allCases { shard.add(2, to: gauge) }
    shard.overhead(seconds: 0.000_02)
    shard.redisAnswered(seconds: 0.000_3)
    shard.admissionWaited(seconds: 0.5)
    let node = NodeStatus(
        id: NodeID(unchecked: "austin-01"), site: SiteID(unchecked: "austin"), engine: .vllm, models: [],
        state: .ready, inflightRequests: 3, inflightTokens: 4_000, prefillTokensPerSecond: nil,
        firstTokenSeconds: nil)
    var spending = SpendingSnapshot()
    spending.stoppedOrgs = 1
    spending.unjournaledCharges = 2
    spending.shortfalls = 3
    spending.shortfallNanoUSD = 4_000
    spending.syncFailures = 5
    spending.waitingAdmissions = 6
    spending.illegalEvents = 7
    spending.lostRecords = 8
    let exposition = render(
        [shard],
        MetricsGauges(
            nodes: [node], reservationsOpen: 5, journalUnsyncedCharges: 6, accessLogDropped: 7, isReady: false,
            spending: spending))
    #expect(exposition.problems == [])
    #expect(exposition.types.count == 41)
    #expect(exposition["tollgate_orgs_stopped", [:]] == 1)
    #expect(exposition["tollgate_charges_unjournaled_total", [:]] == 2)
    #expect(exposition["tollgate_charge_shortfalls_total", [:]] == 3)
    #expect(exposition["tollgate_charge_shortfall_nanousd_total", [:]] == 4_000)
    #expect(exposition["tollgate_sync_failures_total", [:]] == 5)
    #expect(exposition["tollgate_admissions_waiting", [:]] == 6)
    #expect(exposition["tollgate_journal_records_lost_total", [:]] == 8)
    // The loops' one and the service's.
    #expect(exposition["tollgate_illegal_events_total", [:]] == 8)
    let place = ["node": "austin-01", "site": "austin"]
    #expect(exposition["tollgate_inflight_requests", place] == 3)
    #expect(exposition["tollgate_inflight_tokens", place] == 4_000)
    #expect(exposition["tollgate_node_state", place.merging(["state": "ready"]) { $1 }] == 1)
    #expect(exposition["tollgate_reservations_open", [:]] == 5)
    #expect(exposition["tollgate_journal_unsynced_charges", [:]] == 6)
    #expect(exposition["tollgate_access_log_dropped_total", [:]] == 7)
    #expect(exposition["tollgate_ready", [:]] == 0)
    #expect(
        exposition["tollgate_tokens_total", ["model": "weird\\\"model\\\\\\n", "type": "cached"]]
            == Double(4 * MetricEndpoint.allCases.count))
}

@Test func bucketsHoldWhatIsAtMostTheirBound() {
    let shard = MetricsShard(models: ["m"])
    for seconds in [0.01, 0.010_000_1, 81.92, 82] {
        shard.requestDuration(seconds: seconds, endpoint: MetricEndpoint(.chatCompletions), model: 0)
    }
    shard.requestDuration(seconds: .nan, endpoint: MetricEndpoint(.chatCompletions), model: 0)
    let exposition = render([shard])
    let labels = ["gen_ai_operation_name": "chat", "gen_ai_request_model": "m"]
    func bucket(_ bound: String) -> Double? {
        exposition["gen_ai_server_request_duration_seconds_bucket", labels.merging(["le": bound]) { $1 }]
    }
    #expect(bucket("0.01") == 1)
    #expect(bucket("0.02") == 2)
    #expect(bucket("40.96") == 2)
    #expect(bucket("81.92") == 3)
    #expect(bucket("+Inf") == 4)
    #expect(exposition["gen_ai_server_request_duration_seconds_count", labels] == 4)
    let sum = exposition["gen_ai_server_request_duration_seconds_sum", labels] ?? 0
    #expect(abs(sum - 163.940_000_1) < 1e-9)
}

@Test func shardsAreSummedModelByName() {
    let first = MetricsShard(models: ["a", "b"])
    let second = MetricsShard(models: ["b", "a", "c"])
    let usage = TokenUsage(promptTokens: 1, cachedTokens: 0, completionTokens: 2)
    first.tokensUsed(usage, endpoint: MetricEndpoint(.completions), model: 1)
    second.tokensUsed(usage, endpoint: MetricEndpoint(.completions), model: 0)
    second.tokensUsed(usage, endpoint: MetricEndpoint(.completions), model: 2)
    first.refused(.rateLimitRequests)
    second.refused(.rateLimitRequests)
    first.add(5, to: .connectionsOpen)
    second.add(-2, to: .connectionsOpen)
    let exposition = render([first, second])
    #expect(exposition.problems == [])
    #expect(exposition["tollgate_tokens_total", ["model": "a", "type": "completion"]] == 0)
    #expect(exposition["tollgate_tokens_total", ["model": "b", "type": "completion"]] == 4)
    #expect(exposition["tollgate_tokens_total", ["model": "c", "type": "completion"]] == 2)
    #expect(exposition["tollgate_refusals_total", ["reason": "rate_limit_requests"]] == 2)
    #expect(exposition["tollgate_refusals_total", ["reason": "insufficient_quota"]] == 0)
    #expect(exposition["tollgate_connections_open", [:]] == 3)
    let labels = [
        "gen_ai_operation_name": "text_completion", "gen_ai_request_model": "b", "gen_ai_token_type": "output",
    ]
    #expect(exposition["gen_ai_client_token_usage_count", labels] == 2)
    #expect(exposition["gen_ai_client_token_usage_sum", labels] == 4)
}

@Test func reloadKeepsWhatAModelHasCounted() {
    let shard = MetricsShard(models: ["a", "b"])
    let usage = TokenUsage(promptTokens: 1, cachedTokens: 0, completionTokens: 0)
    shard.tokensUsed(usage, endpoint: MetricEndpoint(.embeddings), model: 0)
    shard.publish(models: ["c", "a"])
    shard.tokensUsed(usage, endpoint: MetricEndpoint(.embeddings), model: 0)
    shard.tokensUsed(usage, endpoint: MetricEndpoint(.embeddings), model: 1)
    shard.tokensUsed(usage, endpoint: MetricEndpoint(.embeddings), model: 2)
    let exposition = render([shard])
    #expect(exposition["tollgate_tokens_total", ["model": "a", "type": "prompt"]] == 2)
    #expect(exposition["tollgate_tokens_total", ["model": "c", "type": "prompt"]] == 1)
    #expect(exposition["tollgate_tokens_total", ["model": "other", "type": "prompt"]] == 1)
}

@Test func modelLabelsAreBounded() {
    let shard = MetricsShard(models: (0..<MetricsShard.modelsMax + 10).map { "m\($0)" })
    #expect(shard.snapshot().modelNames.count == MetricsShard.modelsMax - 1)
    let usage = TokenUsage(promptTokens: 3, cachedTokens: 0, completionTokens: 0)
    shard.tokensUsed(usage, endpoint: MetricEndpoint(.embeddings), model: MetricsShard.modelsMax + 5)
    let exposition = Exposition(MetricsRegistry.render(shards: [shard.snapshot()], gauges: MetricsGauges()))
    #expect(exposition["tollgate_tokens_total", ["model": "other", "type": "prompt"]] == 3)
}

@Test func snapshotIsACopy() {
    let shard = MetricsShard(models: [])
    shard.count(.illegalEvents)
    let before = shard.snapshot()
    shard.count(.illegalEvents)
    let text = MetricsRegistry.render(shards: [before], gauges: MetricsGauges())
    #expect(Exposition(text)["tollgate_illegal_events_total", [:]] == 1)
}

@Test func snapshotsAreTakenOnEachLoop() async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
    var entries: [(eventLoop: any EventLoop, shard: NIOLoopBound<MetricsShard>)] = []
    for loop in group.makeIterator() {
        let shard = try await loop.submit {
            let shard = MetricsShard(models: [])
            shard.count(.upstreamConnects, by: 3)
            return NIOLoopBound(shard, eventLoop: loop)
        }.get()
        entries.append((loop, shard))
    }
    let text = MetricsRegistry.render(shards: try await MetricsRegistry(entries).snapshots(), gauges: MetricsGauges())
    #expect(Exposition(text)["tollgate_upstream_connects_total", [:]] == 6)
    try await group.shutdownGracefully()
}

@Test func failureCodesHaveSnakeCaseLabels() {
    #expect(Failure.Code.rateLimitRequests.label == "rate_limit_requests")
    #expect(Failure.Code.invalidJSON.label == "invalid_json")
    #expect(Set(Failure.Code.allCases.map(\.label)).count == Failure.Code.allCases.count)
}

import Domain
import NIOCore

/// What is not counted on a loop: read from its owner at the scrape.
package struct MetricsGauges: Sendable {
    package var nodes: [NodeStatus]
    /// Holds that are running.
    package var reservationsOpen: Int
    /// Charges in the journal that Redis has not applied yet.
    package var journalUnsyncedCharges: Int
    package var accessLogDropped: Int
    /// Whether `/readyz` says yes.
    package var isReady: Bool
    /// nil: the families that come from it are left out.
    package var spending: SpendingSnapshot?

    package init(
        nodes: [NodeStatus] = [], reservationsOpen: Int = 0, journalUnsyncedCharges: Int = 0,
        accessLogDropped: Int = 0, isReady: Bool = true, spending: SpendingSnapshot? = nil
    ) {
        self.nodes = nodes
        self.reservationsOpen = reservationsOpen
        self.journalUnsyncedCharges = journalUnsyncedCharges
        self.accessLogDropped = accessLogDropped
        self.isReady = isReady
        self.spending = spending
    }
}

/// Every loop's shard: collects copies and renders their sum.
package struct MetricsRegistry: Sendable {
    private let shards: [(eventLoop: any EventLoop, shard: NIOLoopBound<MetricsShard>)]

    package init(_ shards: [(eventLoop: any EventLoop, shard: NIOLoopBound<MetricsShard>)]) {
        self.shards = shards
    }

    /// Takes each shard's copy on its loop.
    /// - Throws: `EventLoopError` where a loop is shut down.
    package func snapshots() async throws -> [MetricsSnapshot] {
        let futures = shards.map { entry in
            let shard = entry.shard
            return entry.eventLoop.submit { shard.value.snapshot() }
        }
        var result: [MetricsSnapshot] = []
        for future in futures { result.append(try await future.get()) }
        return result
    }

    /// Prometheus's text format 0.0.4: `Content-Type: text/plain; version=0.0.4; charset=utf-8`.
    package static func render(shards: [MetricsSnapshot], gauges: MetricsGauges) -> String {
        var sum = MetricsSnapshot()
        for shard in shards { sum.add(shard) }
        var text = PrometheusText()
        renderGenAI(sum, &text)
        renderRequests(sum, &text)
        renderTokens(sum, &text)
        renderCounters(sum, gauges, &text)
        renderState(sum, gauges, &text)
        if let spending = gauges.spending { renderSpending(spending, &text) }
        return text.text
    }

    private static func renderGenAI(_ sum: MetricsSnapshot, _ text: inout PrometheusText) {
        text.family(
            "gen_ai_server_request_duration_seconds", .histogram, "Request accepted to its last byte, by model.")
        for (model, name) in sum.models.enumerated() {
            for operation in MetricOperation.allCases {
                let labels = [("gen_ai_operation_name", operation.label), ("gen_ai_request_model", name)]
                let none = MetricsSnapshot.durationSeries(model, operation, nil)
                text.histogram(labels, sum.requestDuration, series: none)
                for failure in Failure.Code.allCases {
                    let series = MetricsSnapshot.durationSeries(model, operation, failure)
                    text.histogram(labels + [("error_type", failure.label)], sum.requestDuration, series: series)
                }
            }
        }
        text.family(
            "gen_ai_server_time_to_first_token_seconds", .histogram, "Request accepted to its first token, by model.")
        eachModel(sum) { text.histogram($0, sum.timeToFirstToken, series: $1) }
        text.family(
            "gen_ai_server_time_per_output_token_seconds", .histogram, "Mean gap after the first token, by model.")
        eachModel(sum) { text.histogram($0, sum.timePerOutputToken, series: $1) }
        text.family("gen_ai_client_token_usage", .histogram, "Tokens a request was charged for, by model and type.")
        eachModel(sum) { labels, series in
            text.histogram(labels + [("gen_ai_token_type", "input")], sum.tokenUsage, series: series * 2)
            text.histogram(labels + [("gen_ai_token_type", "output")], sum.tokenUsage, series: series * 2 + 1)
        }
    }

    private static func eachModel(_ sum: MetricsSnapshot, _ body: ([(String, String)], Int) -> Void) {
        for (model, name) in sum.models.enumerated() {
            for operation in MetricOperation.allCases {
                body(
                    [("gen_ai_operation_name", operation.label), ("gen_ai_request_model", name)],
                    MetricsSnapshot.modelSeries(model, operation))
            }
        }
    }

    private static func renderRequests(_ sum: MetricsSnapshot, _ text: inout PrometheusText) {
        text.family("tollgate_requests_total", .counter, "Requests ended, by endpoint, status class and outcome.")
        for endpoint in MetricEndpoint.allCases {
            for statusClass in 1...MetricsSnapshot.statusClasses {
                for outcome in RequestOutcome.allCases {
                    let series = MetricsSnapshot.requestSeries(endpoint, statusClass: statusClass, outcome)
                    guard sum.requests[series] != 0 else { continue }
                    text.sample(
                        [
                            ("endpoint", endpoint.label), ("status_class", "\(statusClass)xx"),
                            ("outcome", outcome.label),
                        ], sum.requests[series])
                }
            }
        }
        // All reasons, those at 0 too: an alert's rate needs the series to exist before the first refusal.
        text.family("tollgate_refusals_total", .counter, "Requests that ended with an error of the gateway, by reason.")
        for code in Failure.Code.allCases { text.sample([("reason", code.label)], sum.refusals[code.rawValue]) }
        text.family(
            "tollgate_overhead_seconds", .histogram,
            "The request's whole body here to its dispatch to a node, without the wait for the ledger.")
        text.histogram([], sum.overhead, series: 0)
        text.family("tollgate_admission_wait_seconds", .histogram, "Asking for admission to having it.")
        text.histogram([], sum.admissionWait, series: 0)
        text.family(
            "tollgate_queue_wait_seconds", .histogram,
            "How long requests that found no room at the nodes waited for it, served in the end or not.")
        text.histogram([], sum.queueWait, series: 0)
        text.family(
            "tollgate_redis_latency_seconds", .histogram, "A SYNC or admission call: command sent to answer read.")
        text.histogram([], sum.redisLatency, series: 0)
    }

    private static func renderTokens(_ sum: MetricsSnapshot, _ text: inout PrometheusText) {
        text.family("tollgate_tokens_total", .counter, "Tokens charged, by model; cached ones are a part of prompt.")
        for (model, name) in sum.models.enumerated() {
            for (kind, label) in ["prompt", "cached", "completion"].enumerated() {
                text.sample([("model", name), ("type", label)], sum.tokens[model * 3 + kind])
            }
        }
    }

    private static func renderCounters(_ sum: MetricsSnapshot, _ gauges: MetricsGauges, _ text: inout PrometheusText) {
        func value(_ counter: MetricCounter) -> Int64 { sum.counters[counter.rawValue] }
        text.family("tollgate_upstream_retries_total", .counter, "Requests sent again before the first byte.")
        text.sample([("reason", "stale_connection")], value(.upstreamStaleRetries))
        text.sample([("reason", "other_node")], value(.upstreamNodeRetries))
        text.counter("tollgate_upstream_connects_total", "Connections to nodes opened.", value(.upstreamConnects))
        text.counter("tollgate_connections_accepted_total", "Client connections.", value(.connectionsAccepted))
        text.family("tollgate_connections_refused_total", .counter, "Client connections that came to no request.")
        text.sample([("reason", "limit")], value(.connectionsOverLimit))
        text.sample([("reason", "proxy_header")], value(.proxyHeadersMissing))
        text.sample([("reason", "handshake")], value(.handshakesFailed))
        text.counter("tollgate_received_bytes_total", "Request body bytes from clients.", value(.bytesReceived))
        text.counter(
            "tollgate_sent_bytes_total", "Response bytes to clients, heads and framing included.", value(.bytesSent))
        text.counter("tollgate_cost_nanousd_total", "Charged, in billionths of a US dollar.", value(.costNanousd))
        text.family("tollgate_queue_refused_total", .counter, "Requests refused for want of room at the nodes.")
        text.sample([("reason", "full")], value(.queueRefusedFull))
        text.sample([("reason", "late")], value(.queueRefusedLate))
        text.counter("tollgate_fallbacks_total", "Requests that another model took over.", value(.fallbacks))
        text.counter("tollgate_estimated_charges_total", "Charges without a node's usage.", value(.estimatedCharges))
        text.counter(
            "tollgate_usage_distrusted_total", "Answers whose usage could not be true.", value(.usageDistrusted))
        text.counter(
            "tollgate_illegal_events_total", "Events that a state machine does not allow: defects.",
            value(.illegalEvents) + Int64(gauges.spending?.illegalEvents ?? 0))
    }

    /// What a person should hear of where money is concerned.
    private static func renderSpending(_ spending: SpendingSnapshot, _ text: inout PrometheusText) {
        text.gauge(
            "tollgate_orgs_stopped", "Orgs that admit nothing until an operator acts.", Int64(spending.stoppedOrgs))
        text.counter(
            "tollgate_charges_unjournaled_total", "Charges that the journal did not take: they went out from memory.",
            Int64(spending.unjournaledCharges))
        text.counter(
            "tollgate_journal_records_lost_total", "Charges that Redis had at the start and the journal had lost.",
            Int64(spending.lostRecords))
        text.counter(
            "tollgate_charge_shortfalls_total", "Requests that cost more than their hold.", Int64(spending.shortfalls))
        text.counter(
            "tollgate_charge_shortfall_nanousd_total", "What those did not pay, in billionths of a US dollar.",
            spending.shortfallNanoUSD)
        text.counter(
            "tollgate_sync_failures_total", "SYNC calls without an answer.", Int64(spending.syncFailures))
        text.gauge(
            "tollgate_admissions_waiting", "Requests that wait for the ledger's verdict.",
            Int64(spending.waitingAdmissions))
    }

    private static func renderState(
        _ sum: MetricsSnapshot, _ gauges: MetricsGauges, _ text: inout PrometheusText
    ) {
        func value(_ gauge: MetricGauge) -> Int64 { sum.gauges[gauge.rawValue] }
        text.counter(
            "tollgate_access_log_dropped_total", "Access-log lines lost because the sink was behind.",
            Int64(gauges.accessLogDropped))
        text.gauge("tollgate_connections_open", "Client connections open.", value(.connectionsOpen))
        text.gauge("tollgate_requests_open", "Requests between accept and their last byte.", value(.requestsOpen))
        text.gauge("tollgate_queue_length", "Requests that wait for room at the nodes.", value(.requestsWaiting))
        text.gauge("tollgate_buffered_bytes", "Request bodies held in memory.", value(.bufferedBytes))
        text.gauge("tollgate_reservations_open", "Holds that are running.", Int64(gauges.reservationsOpen))
        text.gauge(
            "tollgate_journal_unsynced_charges", "Charges that Redis has not applied yet.",
            Int64(gauges.journalUnsyncedCharges))
        text.gauge("tollgate_ready", "Whether the gateway can serve.", gauges.isReady ? 1 : 0)
        func eachNode(_ name: String, _ help: String, _ value: (NodeStatus) -> Int) {
            text.family(name, .gauge, help)
            for node in gauges.nodes {
                text.sample([("node", node.id.rawValue), ("site", node.site.rawValue)], Int64(value(node)))
            }
        }
        eachNode("tollgate_inflight_requests", "Requests that a node works on for this gateway.", \.inflightRequests)
        eachNode("tollgate_inflight_tokens", "Tokens of those requests, as routing counts them.", \.inflightTokens)
        text.family("tollgate_node_state", .gauge, "1 for the state that a node is in.")
        for node in gauges.nodes {
            text.sample(
                [("node", node.id.rawValue), ("site", node.site.rawValue), ("state", node.state.rawValue)], 1)
        }
    }
}

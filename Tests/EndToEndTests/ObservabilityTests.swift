import Domain
import Foundation
import JSON
import Simulator
import Testing

/// What an operator sees: access log, metrics, traces, and the command line.
@Suite(.serialized) struct ObservabilityTests {
    private func shared() async throws -> (GatewayUnderTest, SharedGateway, Customer) {
        let shared = try await SharedGateway.get()
        return (shared.gateway, shared, try await Customer.create(on: shared.gateway))
    }

    private static let fields: Set<String> = [
        "time", "request_id", "org", "key_id", "method", "path", "model", "node", "site", "status", "failure",
        "streamed",
        "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nanousd", "estimated", "queue_seconds",
        "ttft_seconds", "duration_seconds", "bytes_in", "bytes_out", "attempts", "client", "trace_id",
    ]

    @Test func eachRequestLeavesOneLineThatAgreesWithTheLedger() async throws {
        let (gateway, _, customer) = try await shared()
        let ask = Ask.chat("fast", key: customer.key, stream: true, tokens: 6)
        let answer = try await gateway.ask(ask)
        let entry = try await customer.onlySettle()
        let line = try await gateway.accessLine(of: answer.requestID)
        #expect(Set(line.object?.map(\.key) ?? []) == Self.fields)
        #expect(line["org"]?.string == customer.org)
        #expect(line["key_id"]?.string == customer.keyID)
        #expect(line["method"]?.string == "POST")
        #expect(line["path"]?.string == "/v1/chat/completions")
        #expect(line["model"]?.string == "fast")
        #expect(line["node"]?.string == "node-fast")
        #expect(line["site"]?.string == "here")
        #expect(line["status"]?.integer == 200)
        #expect(line["failure"]?.isNull == true)
        #expect(line["streamed"]?.bool == true)
        #expect(line["prompt_tokens"]?.integer == entry.prompt)
        #expect(line["completion_tokens"]?.integer == 6)
        #expect(line["cost_nanousd"]?.integer == -entry.amount)
        #expect(line["estimated"]?.bool == false)
        #expect(line["bytes_in"]?.integer == ask.body?.count)
        #expect((line["bytes_out"]?.integer ?? 0) >= answer.body.count)
        #expect(line["attempts"]?.integer == 1)
        #expect(line["client"]?.string == "127.0.0.1")
        let duration = try #require(line["duration_seconds"]?.double)
        let first = try #require(line["ttft_seconds"]?.double)
        let queue = try #require(line["queue_seconds"]?.double)
        #expect(0 < queue && queue <= first && first <= duration && duration < 10)
        #expect(line["time"]?.string?.firstMatch(of: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) != nil)
        #expect(gateway.accessLines.count { $0["request_id"]?.string == answer.requestID } == 1)
    }

    @Test func refusalsLeaveALineWithTheirReason() async throws {
        let (gateway, _, customer) = try await shared()
        let cases: [(Ask, Int, String)] = [
            (.chat("fast"), 401, "missing_key"), (.get("/v1/nothing", key: customer.key), 404, "route_not_found"),
            (.chat("nobody", key: customer.key), 404, "model_not_found"),
            (.post("/v1/chat/completions", "{", key: customer.key), 400, "invalid_json"),
        ]
        for (ask, status, failure) in cases {
            let answer = try await gateway.ask(ask)
            let line = try await gateway.accessLine(of: answer.requestID)
            #expect(line["status"]?.integer == status)
            #expect(line["failure"]?.string == failure)
            #expect(line["cost_nanousd"]?.isNull == true)
            #expect(Set(line.object?.map(\.key) ?? []) == Self.fields)
        }
    }

    @Test func metricsParseAndCount() async throws {
        let (gateway, _, customer) = try await shared()
        let before = try await Metrics(gateway.metrics())
        for _ in 0..<3 { _ = try await gateway.ask(.chat("counted", key: customer.key, stream: true, tokens: 4)) }
        _ = try await gateway.ask(.get("/v1/nothing"))
        _ = try await customer.books(settles: 3)
        let after = try await Metrics(gateway.metrics())
        func grown(_ name: String, _ labels: [String: String] = [:]) -> Double {
            (after.value(name, labels) ?? 0) - (before.value(name, labels) ?? 0)
        }
        let counted = ["gen_ai_request_model": "counted"]
        #expect(grown("gen_ai_server_request_duration_seconds_count", counted) == 3)
        #expect(grown("gen_ai_server_time_to_first_token_seconds_count", counted) == 3)
        #expect(grown("gen_ai_client_token_usage_sum", counted.merging(["gen_ai_token_type": "output"]) { $1 }) == 12)
        #expect(grown("tollgate_tokens_total", ["model": "counted", "type": "completion"]) == 12)
        #expect(grown("tollgate_requests_total", ["endpoint": "chat_completions", "outcome": "completed"]) >= 3)
        #expect(grown("tollgate_refusals_total", ["reason": "route_not_found"]) >= 1)
        #expect(grown("tollgate_cost_nanousd_total") > 0)
        #expect(grown("tollgate_overhead_seconds_count") >= 3)
        #expect(grown("tollgate_admission_wait_seconds_count") >= 3)
        #expect(grown("tollgate_redis_latency_seconds_count") >= 3)
        #expect(grown("tollgate_connections_accepted_total") >= 4)
        #expect(after.value("tollgate_ready") == 1)
        #expect(after.value("tollgate_node_state", ["node": "node-counted", "state": "ready"]) == 1)
        #expect(after.value("tollgate_illegal_events_total") == 0)
        #expect(after.value("tollgate_access_log_dropped_total") == 0)
    }

    @Test func histogramsAreCumulativeAndEndAtTheirCount() async throws {
        let (gateway, _, customer) = try await shared()
        _ = try await gateway.ask(.chat("fast", key: customer.key, stream: true))
        let metrics = try await Metrics(gateway.metrics())
        let histograms = metrics.types.filter { $0.value == "histogram" }.keys
        #expect(histograms.count >= 6)
        var checked = 0
        for name in histograms {
            var series: [[String: String]: [(Double, Double)]] = [:]
            for sample in metrics.samples where sample.name == name + "_bucket" {
                var labels = sample.labels
                let bound = labels.removeValue(forKey: "le") ?? ""
                series[labels, default: []].append((bound == "+Inf" ? .infinity : Double(bound) ?? .nan, sample.value))
            }
            for (labels, buckets) in series {
                checked += 1
                #expect(zip(buckets, buckets.dropFirst()).allSatisfy { $0.0 < $1.0 && $0.1 <= $1.1 }, "\(name)")
                #expect(buckets.last?.0 == .infinity)
                let count = metrics.samples.first { $0.name == name + "_count" && $0.labels == labels }
                #expect(count?.value == buckets.last?.1, "\(name) \(labels)")
            }
        }
        #expect(checked >= 6)
    }

    @Test func openConnectionsAndRequestsAreGauged() async throws {
        let (gateway, shared, customer) = try await shared()
        let wire = try gateway.connect()
        let before = shared.node("prefill-gauged").stats.requests
        try wire.send(Ask.chat("prefill-gauged", key: customer.key))
        _ = try await shared.node("prefill-gauged").stats { $0.requests > before }
        let metrics = try await Metrics(gateway.metrics())
        #expect(metrics.value("tollgate_requests_open") ?? 0 >= 1)
        #expect(metrics.value("tollgate_connections_open") ?? 0 >= 1)
        #expect(metrics.value("tollgate_reservations_open") ?? 0 >= 1)
        #expect(metrics.value("tollgate_inflight_requests", ["node": "node-prefill-gauged"]) ?? 0 >= 1)
        wire.close()
        _ = try await customer.onlySettle()
        try await until("the gauges to fall") {
            try await Metrics(gateway.metrics()).value("tollgate_inflight_requests", ["node": "node-prefill-gauged"])
                == 0
        }
    }

    @Test func traceparentIsPassedOnWithTheSameTraceAndANewSpan() async throws {
        let (gateway, shared, customer) = try await shared()
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        // As long as it may be: the head is longer than heads usually are.
        let state = "vendor=" + String(repeating: "v", count: 505)
        let answer = try await gateway.ask(
            Ask.chat("recorded", key: customer.key, fields: "\"user\":\"u-trace\",")
                .with("traceparent", "00-\(trace)-00f067aa0ba902b7-01").with("tracestate", state))
        #expect(answer.status == 200)
        let record = try await shared.node("recorded").recorded("u-trace")
        let passed = try #require(record.values(of: "traceparent").first?.split(separator: "-").map(String.init))
        #expect(passed.count == 4)
        #expect(passed[1] == trace)
        #expect(passed[2] != "00f067aa0ba902b7")
        #expect(passed[3] == "01")
        #expect(record.values(of: "tracestate") == [state])
        #expect(try await gateway.accessLine(of: answer.requestID)["trace_id"]?.string == trace)
        for broken in [
            "00-xyz-00f067aa0ba902b7-01", "00-\(String(repeating: "0", count: 32))-00f067aa0ba902b7-01", "ff",
        ] {
            let other = try await gateway.ask(.chat("fast", key: customer.key).with("traceparent", broken))
            #expect(other.status == 200)
            #expect(try await gateway.accessLine(of: other.requestID)["trace_id"]?.isNull == true)
        }
    }

    // MARK: The command line

    @Test func theCommandLineDoesWhatAnOperatorNeedsFromOrgToVerification() async throws {
        let (gateway, _, _) = try await shared()
        func tollgate(_ arguments: String..., code: Int32 = 0) async throws -> JSONValue {
            let process = try TollgateProcess(
                arguments: arguments + ["--json"],
                environment: [
                    "TOLLGATE_ADMIN_URL": "http://127.0.0.1:\(gateway.adminPort)",
                    "TOLLGATE_ADMIN_TOKEN": GatewayUnderTest.adminToken,
                ], directory: gateway.directory, name: "cli-\(UUID().uuidString)")
            #expect(try await process.wait().code == code, "\(arguments): \(process.errors)")
            return (try? JSONValue(parsing: process.output)) ?? .null
        }
        #expect(
            try await tollgate("org", "create", "cli-org", "--credit", "5")["balance_nanousd"]?.integer == 5_000_000_000
        )
        let key = try await tollgate("key", "create", "--org", "cli-org", "--rpm", "50")
        let secret = try #require(key["key"]?.string)
        #expect(secret.hasSuffix(key["last4"]?.string ?? "-"))
        let answer = try await gateway.ask(.chat("fast", key: secret, tokens: 3))
        #expect(answer.status == 200)
        #expect(answer.header("x-ratelimit-limit-requests") == "50")
        let customer = Customer(gateway: gateway, org: "cli-org", key: secret, keyID: key["id"]?.string ?? "")
        let entry = try await customer.onlySettle()
        let ledger = try await tollgate("ledger", "list", "--org", "cli-org").array ?? []
        #expect(ledger.map { $0["type"]?.string } == ["credit", "settle"])
        #expect(ledger.last?["request_id"]?.string == answer.requestID)
        #expect(ledger.last?["amount_nanousd"]?.integer == entry.amount)
        let verified = try await tollgate("ledger", "verify", "--org", "cli-org")
        #expect(verified["drift_nanousd"]?.integer == 0)
        #expect(verified["open_reservations"]?.integer == 0)
        #expect(verified["entries"]?.integer == 2)
        let usage = try await tollgate("usage", "--org", "cli-org", "--by", "model")
        #expect(usage[0]?["model"]?.string == "fast")
        #expect(usage[0]?["completion_tokens"]?.integer == 3)
        let keys = try await tollgate("key", "list", "--org", "cli-org")
        #expect(keys[0]?["key"] == nil)
        #expect(keys[0]?["status"]?.string == "active")
        let nodes = try await tollgate("node", "list").array ?? []
        #expect(nodes.contains { $0["id"]?.string == "node-fast" && $0["state"]?.string == "ready" })
        #expect(try await tollgate("node", "cordon", "node-spare")["state"]?.string == "cordoned")
        #expect(try await tollgate("node", "uncordon", "node-spare")["state"]?.string != "cordoned")
        #expect(
            try await tollgate("price", "set", "fast", "--input", "1", "--cached-input", "0.5", "--output", "2")[
                "model"]?.string == "fast")
        _ = try await tollgate("key", "revoke", customer.keyID)
        try await until("the revoked key's refusal") { try await gateway.ask(.chat("fast", key: secret)).status == 401 }
        _ = try await tollgate("org", "show", "nobody", code: 1)
        _ = try await tollgate("org", "create", code: 64)
    }

    @Test func aNewPriceHoldsForTheNextRequestsAndOldEntriesKeepTheirs() async throws {
        let node = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        _ = try await gateway.ask(.chat("m", key: customer.key, tokens: 4))
        let first = try await customer.onlySettle()
        try await gateway.admin(
            "PUT", "/admin/v1/prices/m", #"{"input_usd":"10","cached_input_usd":"5","output_usd":"20"}"#)
        try await until("the new price", within: .seconds(5)) {
            _ = try await gateway.ask(.chat("m", key: customer.key, tokens: 4))
            // Ten times the price: the newest entry is the dearest.
            return try await customer.entries().contains { $0.type == "settle" && $0.amount == -10 * $0.cost }
        }
        let entries = try await customer.entries().filter { $0.type == "settle" }
        #expect(entries.first?.amount == first.amount)
        let versions =
            try await gateway.admin("GET", "/admin/v1/orgs/\(customer.org)/ledger").array?
            .compactMap { $0["price_version"]?.integer } ?? []
        #expect(Set(versions).count == 2)
        #expect(versions == versions.sorted())
        #expect(
            try await gateway.admin("GET", "/admin/v1/orgs/\(customer.org)/ledger/verify")["drift_nanousd"]?.integer
                == 0)
    }
}

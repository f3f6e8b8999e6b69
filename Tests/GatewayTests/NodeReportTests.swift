import Domain
import Logging
import NIOCore
import NIOPosix
import Routing
import Testing

@testable import Gateway

/// What a node says of itself, as operators see it.
struct NodeReportTests {
    private let group = NIOSingletons.posixEventLoopGroup
    private let id = NodeID(unchecked: "a")

    private func withService(
        _ metrics: String, policy: RoutingPolicy = .predictedCost, engine: Engine = .vllm,
        _ body: (FleetService, FakeHealthNode) async throws -> Void
    ) async throws {
        let node = try await FakeHealthNode.start(.init(body: metrics), group: group)
        var configuration = fleetConfiguration([fleetNode("a", port: node.port, engine: engine)])
        configuration.routing.policy = policy
        var timings = FleetTimings()
        timings.probeInterval = .milliseconds(10)
        timings.probeIntervalUnready = .milliseconds(5)
        timings.wordInterval = .milliseconds(5)
        timings.tick = .milliseconds(2)
        timings.tickQuiet = .milliseconds(2)
        let service = FleetService(
            configuration: configuration, eventLoop: group.any(), words: FakeOperatorWordStore(),
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), timings: timings, seed: 1
        ) { _, _ in }
        let task = Task { await service.run() }
        defer { task.cancel() }
        try await body(service, node)
        task.cancel()
        await task.value
        await node.stop()
    }

    private static func metrics(running: String, waiting: String = "0", model: String = "up") -> String {
        let labels = "{engine=\"0\",model_name=\"\(model)\"}"
        return """
            vllm:num_requests_running\(labels) \(running)
            vllm:num_requests_waiting\(labels) \(waiting)
            vllm:kv_cache_usage_perc\(labels) 0.25

            """
    }

    @Test(arguments: [
        (Self.metrics(running: "-5"), "implausible"), (Self.metrics(running: "NaN"), "implausible"),
        (Self.metrics(running: "1e300"), "implausible"), (Self.metrics(running: "+Inf"), "implausible"),
        (Self.metrics(running: "1", waiting: "-0.5"), "implausible"),
        (Self.metrics(running: "1", model: "another"), "other_model"),
    ])
    func aNodeThatReportsNonsenseIsDistrustedAndSaidToBe(metrics: String, distrust: String) async throws {
        try await withService(metrics) { service, node in
            #expect(await eventually { service.detail(of: id)?.report.state == .distrusted })
            let report = try #require(service.detail(of: id)?.report)
            #expect(report.distrust == distrust)
            #expect(report.reason?.isEmpty == false)
            #expect(report.runningRequests == nil)
            // None the worse for it.
            #expect(service.nodes().map(\.state) == [.ready])
            #expect(service.router.servableModels() == [fleetModel])
            node.answer(.init(body: Self.metrics(running: "2")))
            #expect(await eventually { service.detail(of: id)?.report.state == .trusted })
            #expect(service.detail(of: id)?.report.runningRequests == 2)
            #expect(service.detail(of: id)?.report.kvUsage == 0.25)
        }
    }

    @Test func aNodeWithoutMetricsAndAPolicyWithoutUseForThemAreToldApart() async throws {
        try await withService("{}") { service, _ in
            #expect(await eventually { service.nodes().map(\.state) == [.ready] })
            #expect(service.detail(of: id)?.report.state == NodeReportStatus.State.none)
        }
        try await withService(Self.metrics(running: "1"), policy: .leastTokens) { service, _ in
            #expect(service.detail(of: id)?.report.state == .unread)
        }
        try await withService(Self.metrics(running: "1"), engine: .openai) { service, _ in
            #expect(service.detail(of: id)?.report.state == .unread)
        }
    }

    @Test func aMeasuredRoundTripTakesTheConfiguredOnesPlaceThroughAReload() async throws {
        try await withService("{}") { service, node in
            var configuration = fleetConfiguration([fleetNode("a", port: node.port)])
            configuration.routing.policy = .predictedCost
            configuration.sites[0].rtt = .milliseconds(80)
            service.replace(configuration)
            #expect(await eventually { service.detail(of: id)?.rttMeasured != nil })
            func check() {
                let detail = service.detail(of: id)
                #expect(detail?.rttConfigured == 0.08)
                #expect((detail?.rttUsed ?? 1) < 0.05, "\(String(describing: detail?.rttUsed))")
                #expect((service.sites().first?.rttMeasured ?? 1) < 0.05)
            }
            #expect(await eventually { (service.detail(of: id)?.rttUsed ?? 1) < 0.05 })
            check()
            service.replace(configuration)
            check()
        }
    }
}

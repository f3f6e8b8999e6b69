import Foundation
import Routing
import Simulator
import Testing

@Suite struct ReportTests {
    private static let trace = Trace.sessions(40, turns: 4, seed: 5)

    private func results(hasLoad: Bool = true) async -> [Sweep.Result] {
        var runs: [RunConfiguration] = []
        for rate in [4.0, 8.0] {
            for policy in [RoutingPolicy.lmetric, .roundRobin] {
                for seed in 1...2 {
                    runs.append(
                        RunConfiguration(
                            policy: policy, fleet: FleetSpec(.homogeneous, nodes: 4), rate: rate,
                            load: hasLoad ? rate / 10 : nil,
                            seed: UInt64(seed)))
                }
            }
        }
        return await Sweep.run(runs, on: Self.trace)
    }

    @Test func sweepsKeepTheOrderAndTheFiguresOfSingleRuns() async {
        let results = await results()
        #expect(results.map(\.configuration.seed) == [1, 2, 1, 2, 1, 2, 1, 2])
        for result in results { #expect(result.statistics == result.configuration.run(Self.trace)) }
    }

    /// What does not exist is null, and named all the same.
    @Test(arguments: [true, false])
    func jsonHasTheAgreedFieldsForEveryRun(hasLoad: Bool) async throws {
        let text = SweepReport(await results(hasLoad: hasLoad)).json()
        let rows = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [[String: Any]])
        #expect(rows.count == 8)
        for field in [
            "policy", "fleet", "load", "gateways", "seed", "ttft_mean_seconds", "ttft_p50_seconds", "ttft_p90_seconds",
            "ttft_p99_seconds", "tpot_p99_seconds", "prefix_hit_ratio", "goodput", "requests_per_second",
        ] {
            #expect(rows.allSatisfy { $0[field] != nil }, "\(field)")
        }
        #expect(rows.allSatisfy { ($0["load"] is NSNull) == !hasLoad })
        #expect(rows.allSatisfy { $0["gossip_seconds"] is NSNull })
    }

    @Test func theTableHasALineForEachPolicyAndLoad() async {
        let lines = SweepReport(await results()).table().split(separator: "\n")
        #expect(lines.count == 5)
        #expect(Set(lines.map(\.count)).count == 1)
        #expect(lines[1].hasPrefix("lmetric "))
    }

    @Test func thePlotIsWellFormedAndDrawsEveryPolicyTwice() async {
        let report = SweepReport(await results())
        let svg = SVGPlot.draw(title: "a < b & c", cells: report.cells, rate: 8)
        for line in svg.split(separator: "\n").dropFirst().dropLast() {
            let isClosed = line.hasSuffix("/>") || (line.hasPrefix("<text ") && line.hasSuffix("</text>"))
            #expect(isClosed && line.filter { $0 == "\"" }.count.isMultiple(of: 2), "\(line)")
        }
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        #expect(svg.contains("a &lt; b &amp; c"))
        // A distribution, a goodput line and the legend's, for two policies.
        #expect(svg.components(separatedBy: "<polyline").count - 1 == 6)
        #expect(!svg.contains("nan"))
    }

    @Test func percentilesAreThoseOfTheReference() {
        let values = (1...10).map(Double.init)
        #expect(RunStatistics.percentile(values, 0.5) == 6)
        #expect(RunStatistics.percentile(values, 0.99) == 10)
        #expect(RunStatistics.percentile([], 0.5).isNaN)
    }

    @Test func saturationIsTheReferencesWhereItHasOneAndMeasuredElsewhere() async {
        let named = Trace(name: "mooncake_conversation_trace.jsonl", requests: Self.trace.requests)
        #expect(Saturation.referenceRate(named, FleetSpec(.heterogeneous, nodes: 8)) == 6.6)
        #expect(Saturation.referenceRate(named, FleetSpec(.heterogeneous, nodes: 4)) == nil)
        #expect(Saturation.referenceRate(Self.trace, FleetSpec(.heterogeneous, nodes: 8)) == nil)
    }

    @Test func twiceTheNodesHaveAboutTwiceTheSaturation() async {
        let trace = Trace.sessions(150, turns: 4, seed: 5)
        let four = await Saturation.measure(trace, FleetSpec(.homogeneous, nodes: 4))
        let two = await Saturation.measure(trace, FleetSpec(.homogeneous, nodes: 2))
        #expect((1.5...2.5).contains(four / two), "\(two) \(four)")
    }
}

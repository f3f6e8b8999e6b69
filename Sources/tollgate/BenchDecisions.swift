import ArgumentParser
import Foundation
import Routing
import Simulator

/// `tollgate bench decisions`: what picking a node costs, by the fleet's size, the index and the policy.
struct BenchDecisions: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decisions", abstract: "Measure what picking a node costs.",
        discussion: """
            The gateway's own router on one thread, each call timed by itself: predicted_cost with the prefix index cold \
            and warm, the other policies with it warm. The reading of the clock is taken off; what the machine adds to \
            one hundredth of such readings is printed below the table.

            Examples:
              tollgate bench decisions
              tollgate bench decisions --nodes 1000 --policies predicted_cost,lmetric --json
            """)

    @Option(help: "Sizes of the fleet, commas between.")
    var nodes = "10,100,1000"

    @Option(help: "Policies, commas between; all by default.")
    var policies: String?

    @Option(help: "Decisions measured in each case.")
    var count = DecisionTiming.countDefault

    @OptionGroup var output: OutputOptions

    private struct Row: Encodable {
        var policy: String
        var nodes: Int
        var index: String
        var figures: DecisionTiming.Figures
        var clock: DecisionTiming.Clock

        enum CodingKeys: String, CodingKey {
            case policy, nodes, index
            case median = "decision_p50_nanoseconds"
            case p99 = "decision_p99_nanoseconds"
            case mean = "decision_mean_nanoseconds"
            case startedP99 = "started_p99_nanoseconds"
            case restMean = "rest_mean_nanoseconds"
            case clock = "clock_nanoseconds"
            case clockP99 = "clock_p99_nanoseconds"
        }

        func encode(to encoder: any Encoder) throws {
            var row = encoder.container(keyedBy: CodingKeys.self)
            try row.encode(policy, forKey: .policy)
            try row.encode(nodes, forKey: .nodes)
            try row.encode(index, forKey: .index)
            try row.encode(figures.median.rounded(), forKey: .median)
            try row.encode(figures.p99.rounded(), forKey: .p99)
            try row.encode(figures.mean.rounded(), forKey: .mean)
            try row.encode(figures.startedP99.rounded(), forKey: .startedP99)
            try row.encode(figures.restMean.rounded(), forKey: .restMean)
            try row.encode(clock.least, forKey: .clock)
            try row.encode(clock.p99, forKey: .clockP99)
        }

        var cells: [String] {
            func text(_ nanoseconds: Double) -> String { String(format: "%.2f us", nanoseconds / 1_000) }
            return [
                policy, String(nodes), index, text(figures.median), text(figures.p99), text(figures.mean),
                text(figures.startedP99), text(figures.restMean),
            ]
        }
    }

    func validate() throws {
        guard (100...10_000_000).contains(count) else { throw ValidationError("--count must be 100 to 10000000.") }
        _ = try sizes()
        _ = try chosen()
    }

    private func sizes() throws -> [Int] {
        try nodes.split(separator: ",").map { text in
            guard let size = Int(text), (1...FleetSpec.nodesMax).contains(size) else {
                throw ValidationError("--nodes '\(text)' must be 1 to \(FleetSpec.nodesMax).")
            }
            return size
        }
    }

    private func chosen() throws -> [RoutingPolicy] {
        guard let policies else { return RoutingPolicy.allCases }
        return try policies.split(separator: ",").map { name in
            guard let policy = RoutingPolicy(rawValue: String(name)) else {
                let known = RoutingPolicy.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("there is no policy '\(name)': use some of \(known).")
            }
            return policy
        }
    }

    func run() throws {
        let clock = DecisionTiming.clock()
        var rows: [Row] = []
        for policy in try chosen() {
            for index in DecisionWorkload.Index.allCases where index == .warm || policy == .predictedCost {
                for size in try sizes() {
                    let figures = DecisionTiming.measure(policy, nodes: size, index: index, count: count)
                    rows.append(
                        Row(policy: policy.rawValue, nodes: size, index: index.rawValue, figures: figures, clock: clock)
                    )
                }
            }
        }
        guard !output.json else { return try Output.json(rows) }
        let header = ["policy", "nodes", "index", "p50", "p99", "mean", "started p99", "rest mean"]
        Output.line(SweepReport.aligned([header] + rows.map(\.cells)))
        Output.line("")
        Output.line("nothing at all, timed alike: \(Int(clock.least)) ns taken off; p99 \(Int(clock.p99)) ns")
    }
}

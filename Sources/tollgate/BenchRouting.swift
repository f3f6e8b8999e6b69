import ArgumentParser
import Foundation
import Routing
import Simulator

/// `tollgate bench routing`: every policy against every other in virtual time, and whether ours keeps its limits.
struct BenchRouting: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "routing", abstract: "Judge the routing policies on traces, in virtual time.",
        discussion: """
            Prints the figures that the balancer is judged by, what they must and should be, and each cell beside its best \
            peer; exits 1 where one that must be met is not. Takes some ten minutes with five seeds.

            EXAMPLES
              tollgate bench routing --traces traces
              tollgate bench routing --traces traces --cells conversation-het --seeds 1 --limit 2000
            """)

    private struct Known {
        let name: String
        /// nil for the synthetic trace of sessions.
        let file: String?
        let kind: FleetSpec.Kind
        let isAgentic: Bool
        /// Named in routing.md; others come with `--all`.
        let isNamed: Bool
    }

    private static let conversation = "mooncake_conversation_trace.jsonl"
    private static let agentic = "agentic_dev_mooncake_fmt.jsonl"
    private static let sessions = 600
    private static let turns = 8
    private static let known = [
        Known(name: "conversation-hom", file: conversation, kind: .homogeneous, isAgentic: false, isNamed: true),
        Known(name: "conversation-het", file: conversation, kind: .heterogeneous, isAgentic: false, isNamed: true),
        Known(name: "agentic-het", file: agentic, kind: .heterogeneous, isAgentic: true, isNamed: true),
        Known(name: "agentic-hom", file: agentic, kind: .homogeneous, isAgentic: true, isNamed: false),
        Known(
            name: "azure-conv-het", file: "AzureLLMInferenceTrace_conv.csv", kind: .heterogeneous, isAgentic: false,
            isNamed: false),
        Known(
            name: "azure-code-het", file: "AzureLLMInferenceTrace_code.csv", kind: .heterogeneous, isAgentic: false,
            isNamed: false),
        Known(name: "sessions-hom", file: nil, kind: .homogeneous, isAgentic: false, isNamed: false),
        Known(name: "sessions-het", file: nil, kind: .heterogeneous, isAgentic: false, isNamed: false),
    ]

    @Option(help: "The directory of the traces.", completion: .directory)
    var traces: String

    @Option(help: "Runs of each cell.")
    var seeds = 5

    @Option(help: "Only a trace's first requests, so many.")
    var limit: Int?

    @Option(help: "Only these cells, commas between.")
    var cells: String?

    @Flag(help: "Further traces than those that the table names.")
    var all = false

    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard (1...100).contains(seeds) else { throw ValidationError("--seeds must be 1 to 100.") }
        if let limit, limit < 2 { throw ValidationError("--limit must be at least 2.") }
        _ = try chosen()
    }

    private func chosen() throws -> [Known] {
        guard let cells else { return Self.known.filter { all || $0.isNamed } }
        return try cells.split(separator: ",").map { name in
            guard let cell = Self.known.first(where: { $0.name == name }) else {
                let known = Self.known.map(\.name).joined(separator: ", ")
                throw ValidationError("there is no cell '\(name)': use some of \(known).")
            }
            return cell
        }
    }

    func run() async throws {
        var judgement = Judgement()
        var first: Trace?
        for cell in try chosen() {
            let made = "sessions:\(Self.sessions)x\(Self.turns)"
            let trace = try FleetTrace.read(cell.file.map { "\(traces)/\($0)" } ?? made, limit: limit)
            first = first ?? trace
            let fleet = FleetSpec(cell.kind, nodes: 8)
            var saturation = Saturation.referenceRate(trace, fleet)
            if saturation == nil { saturation = await FleetTrace.saturation(of: trace, fleet) }
            let setting = JudgingPlan.Setting(
                name: cell.name, trace: trace, fleet: fleet, saturation: saturation ?? 1, isAgentic: cell.isAgentic)
            judgement.add(setting)
            await Self.run(setting, seeds: seeds, into: &judgement)
        }
        Progress.end()
        let timing = first.map { DecisionTiming.measure($0) }
        let rows = judgement.rows(decisionSeconds: timing.map { $0.p99 / 1e9 })
        Output.line(
            output.json ? Self.json(rows) : Self.table(rows) + "\n\n" + Self.table(judgement.comparisons()))
        guard rows.allSatisfy(\.isMet) else { throw ExitCode.failure }
    }

    private static func run(_ setting: JudgingPlan.Setting, seeds: Int, into judgement: inout Judgement) async {
        var plan: [(JudgingPlan.Case, RoutingPolicy)] = []
        var runs: [RunConfiguration] = []
        for (judged, policies) in JudgingPlan.cases(setting) {
            for policy in policies {
                for seed in 1...seeds {
                    plan.append((judged, policy))
                    runs.append(JudgingPlan.configuration(setting, judged, policy: policy, seed: UInt64(seed)))
                }
            }
        }
        let results = await Sweep.run(runs, on: setting.trace) { done, count in
            Progress.show("\(setting.name): \(done) of \(count) runs")
        }
        for ((judged, policy), result) in zip(plan, results) {
            judgement.add(result.statistics, of: setting.name, judged, policy)
        }
    }

    private static func table(_ rows: [Judgement.Row]) -> String {
        SweepReport.aligned(
            [["figure", "must", "aim", "measured", "met", "cell"]]
                + rows.map { row in
                    [
                        row.figure, row.must, row.aim, SweepReport.text(row.value, 3),
                        row.isAimMet ? "aim" : row.isMet ? "must" : "NO", row.cell,
                    ]
                })
    }

    private static func table(_ comparisons: [Judgement.Comparison]) -> String {
        SweepReport.aligned(
            [["cell", "load", "gateways", "TTFT", "best peer", "its TTFT", "ratio", "goodput", "best peer's", "ratio"]]
                + comparisons.map { cell in
                    [
                        cell.name, SweepReport.text(cell.load, 2), String(cell.gateways),
                        SweepReport.seconds(cell.ttft),
                        cell.bestPeer.rawValue, SweepReport.seconds(cell.bestPeerTTFT),
                        SweepReport.text(cell.ttftRatio, 3), SweepReport.text(cell.goodput, 3),
                        SweepReport.text(cell.bestPeerGoodput, 3), SweepReport.text(cell.goodputRatio, 3),
                    ]
                })
    }

    private static func json(_ rows: [Judgement.Row]) -> String {
        struct Line: Encodable {
            let figure: String
            let must: String
            let aim: String
            let measured: Double?
            let met: Bool
            let aimMet: Bool
            let cell: String
        }
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let lines = rows.map {
            Line(
                figure: $0.figure, must: $0.must, aim: $0.aim, measured: $0.value.isFinite ? $0.value : nil,
                met: $0.isMet, aimMet: $0.isAimMet, cell: $0.cell)
        }
        return (try? encoder.encode(lines)).map { String(decoding: $0, as: UTF8.self) } ?? "[]"
    }
}

import ArgumentParser
import ControlPlane
import Foundation
import Routing
import Simulator

extension Simulate {
    /// `tollgate simulate fleet`: policies on a trace, in virtual time.
    struct Fleet: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "fleet",
            abstract: "Compare routing policies on a trace, in virtual time.",
            discussion: """
                Nodes are modelled (continuous batching, chunked prefill, prefix caches, preemption), the router is the \
                gateway's own. Traces are Mooncake's JSON lines or Azure's CSV, or sessions:150x8 for made-up chats of so \
                many sessions and turns. Seeds and policies run on all cores.

                EXAMPLES
                  tollgate simulate fleet --trace conversation.jsonl --policies predicted_cost,lmetric --fleet het --load 0.8
                  tollgate simulate fleet --trace t.jsonl --policies all --rate 5 --seeds 5 --plot policies.svg
                  tollgate simulate fleet --trace sessions:150x8 --policies all --events outage.txt --json

                EVENTS (a file, a line each: a time and what happens; # begins a comment)
                  60s kill node-3
                  90s join node-3
                  120s churn 30% every 30s for 5m
                  120s curtail austin to 35% for 10m
                  900s restore austin
                  200s freeze node-0,node-1 for 30s
                  240s thaw all
                  300s surge org-2 x10 for 2m
                """)

        /// Loads at which the plot's goodput is drawn besides those asked for, as shares of the first.
        private static let plotLoads = [0.5, 0.75, 1.2, 1.4]

        @Option(help: "The trace.", completion: .file())
        var trace: String

        @Option(help: "Policies with commas between, or all.", transform: Self.policies)
        var policies: [RoutingPolicy]

        @Option(help: "How many nodes.")
        var nodes = 8

        @Option(help: "hom: H100s only; het: H100, A100 and L40 mixed.", transform: Self.kind)
        var fleet = FleetSpec.Kind.homogeneous

        @Option(help: "Requests a second, or several with commas between: the trace's times are stretched to it.")
        var rate: String?

        @Option(help: "The same as a share of what saturates the fleet (0.8 unless --rate is given).")
        var load: String?

        @Option(help: "Gateways that route side by side.")
        var gateways = 1

        @Option(help: "How often gateways tell one another what they do, as 100ms, or off.")
        var gossip = "100ms"

        @Option(help: "Runs of each, with arrivals of seeds 1, 2 and so on.")
        var seeds = 5

        @Option(help: "Customers that the trace's sessions are dealt to.")
        var orgs = 10

        @Option(help: "Only the trace's first requests, so many.")
        var limit: Int?

        @Option(help: "A file of events.", completion: .file())
        var events: String?

        @Option(help: "Draw the result into this file, an SVG.", completion: .file())
        var plot: String?

        @Flag(help: "Let requests wait in the gateway while the fleet is saturated.")
        var admission = false

        @OptionGroup var output: OutputOptions

        func validate() throws {
            try Self.check(nodes, "--nodes", 1...FleetSpec.nodesMax)
            try Self.check(gateways, "--gateways", 1...64)
            try Self.check(seeds, "--seeds", 1...1_000)
            try Self.check(orgs, "--orgs", 1...10_000)
            if let limit { try Self.check(limit, "--limit", 2...Int.max) }
            guard rate == nil || load == nil else { throw ValidationError("--rate and --load exclude each other.") }
            _ = try Self.numbers(rate ?? "", "--rate", Self.rates)
            _ = try Self.numbers(load ?? "", "--load", Self.loads)
            _ = try gossipSeconds()
        }

        func run() async throws {
            let spec = FleetSpec(fleet, nodes: nodes)
            let trace = try FleetTrace.read(self.trace, limit: limit)
            let rates = try await rates(trace, spec)
            let asked = try runs(rates, spec, seeds: seeds)
            var extra: [RunConfiguration] = []
            if plot != nil, rates.count == 1, let rate = rates.first {
                extra = try runs(Self.plotLoads.map { rate.scaled(by: $0) }, spec, seeds: 1)
            }
            let results = await Sweep.run(asked + extra, on: trace) { done, count in
                Progress.show("\(done) of \(count) runs")
            }
            Progress.end()
            let report = SweepReport(Array(results.prefix(asked.count)))
            Output.line(output.json ? report.json() : report.table())
            if let plot, let rate = rates.first {
                let title = "\(trace.name), \(nodes) nodes (\(fleet.rawValue)), \(gateways) gateway(s)"
                let svg = SVGPlot.draw(title: title, cells: SweepReport(results).cells, rate: rate.perSecond)
                do {
                    try Data(svg.utf8).write(to: URL(fileURLWithPath: plot))
                } catch {
                    throw CommandFailure("cannot write \(plot): \(error.localizedDescription)")
                }
            }
        }

        // MARK: Runs

        private struct Rate {
            var perSecond: Double
            var load: Double?

            func scaled(by factor: Double) -> Rate {
                Rate(perSecond: perSecond * factor, load: load.map { $0 * factor })
            }
        }

        private func rates(_ trace: Trace, _ spec: FleetSpec) async throws -> [Rate] {
            let known = Saturation.referenceRate(trace, spec)
            if let rate {
                return try Self.numbers(rate, "--rate", Self.rates).map { rate in
                    Rate(perSecond: rate, load: known.map { rate / $0 })
                }
            }
            let saturation = if let known { known } else { await FleetTrace.saturation(of: trace, spec) }
            return try Self.numbers(load ?? "0.8", "--load", Self.loads).map {
                Rate(perSecond: $0 * saturation, load: $0)
            }
        }

        private func runs(_ rates: [Rate], _ spec: FleetSpec, seeds: Int) throws -> [RunConfiguration] {
            var script: [ScriptedEvent] = []
            var surges: [Surge] = []
            if let events {
                let file = try EventFile.read(events, fleet: spec, orgs: orgs)
                (script, surges) = (file.script, file.surges)
            }
            let gossip = try gossipSeconds()
            return rates.flatMap { rate in
                policies.flatMap { policy in
                    (1...seeds).map { seed -> RunConfiguration in
                        var run = RunConfiguration(
                            policy: policy, fleet: spec, rate: rate.perSecond, load: rate.load, gateways: gateways,
                            gossipSeconds: gossip, seed: UInt64(seed), script: script, surges: surges, orgs: orgs)
                        run.isAdmitting = admission
                        return run
                    }
                }
            }
        }

        // MARK: Arguments

        private static func policies(_ text: String) throws -> [RoutingPolicy] {
            if text == "all" { return RoutingPolicy.allCases }
            var policies: [RoutingPolicy] = []
            for name in text.split(separator: ",") {
                guard let policy = RoutingPolicy(rawValue: String(name)) else {
                    let known = RoutingPolicy.allCases.map(\.rawValue).joined(separator: ", ")
                    throw ValidationError("there is no policy '\(name)': use all, or some of \(known).")
                }
                if !policies.contains(policy) { policies.append(policy) }
            }
            guard !policies.isEmpty else { throw ValidationError("--policies names none.") }
            return policies
        }

        private static func kind(_ text: String) throws -> FleetSpec.Kind {
            guard let kind = FleetSpec.Kind(rawValue: text) else {
                throw ValidationError("'\(text)' is no fleet: use hom or het.")
            }
            return kind
        }

        /// Slower, nodes are asked for their metrics for days between two requests.
        private static let rates = 0.01...1e6
        private static let loads = 0.01...10.0

        private static func numbers(
            _ text: String, _ name: String, _ range: ClosedRange<Double>
        ) throws -> [Double] {
            try text.split(separator: ",").map { part in
                guard let number = Double(part), range.contains(number) else {
                    throw ValidationError(
                        "\(name) '\(part)' is not a number from \(range.lowerBound) to \(range.upperBound).")
                }
                return number
            }
        }

        private static func check(_ value: Int, _ name: String, _ range: ClosedRange<Int>) throws {
            guard range.contains(value) else {
                throw ValidationError(
                    range.upperBound == .max
                        ? "\(name) must be at least \(range.lowerBound)."
                        : "\(name) must be \(range.lowerBound) to \(range.upperBound).")
            }
        }

        /// nil for silence.
        private func gossipSeconds() throws -> Double? {
            guard gossip != "off" else { return nil }
            guard let seconds = SimulationDuration.seconds(gossip), seconds >= 0.001 else {
                throw ValidationError("--gossip '\(gossip)' is neither off nor a time such as 100ms.")
            }
            return seconds
        }
    }
}

/// Traces as commands name them.
enum FleetTrace {
    private static let madeUp = "sessions:"
    private static let countMax = 100_000

    /// - Parameter name: A file, or `sessions:150x8` for made-up chats of so many sessions and turns.
    static func read(_ name: String, limit: Int?) throws -> Trace {
        let trace: Trace
        if name.hasPrefix(madeUp) {
            let counts = name.dropFirst(madeUp.count).split(separator: "x").compactMap { Int($0) }
            guard counts.count == 2, counts.allSatisfy({ (1...countMax).contains($0) }) else {
                throw CommandFailure("'\(name)' is no trace: write sessions:150x8 for 150 sessions of 8 turns")
            }
            trace = Trace.sessions(counts[0], turns: counts[1], seed: 7)
        } else {
            trace = try TraceReader.read(name)
        }
        if trace.skippedCount > 0 {
            Output.note("\(trace.skippedCount) prompts over \(Trace.promptTokensMax) tokens are left out")
        }
        return limit.map { trace.prefix($0) } ?? trace
    }

    /// Measured, with progress: requests a second that saturate the fleet.
    static func saturation(of trace: Trace, _ fleet: FleetSpec) async -> Double {
        let rate = await Saturation.measure(trace, fleet) { rate in
            Progress.show("measuring saturation: \(SweepReport.text(rate, 2)) requests/s")
        }
        Progress.end()
        Output.note("saturation, measured: \(SweepReport.text(rate, 2)) requests/s")
        return rate
    }
}

/// A line on a terminal's standard error that overwrites itself; nothing elsewhere.
enum Progress {
    private static let isTerminal = isatty(STDERR_FILENO) == 1

    static func show(_ text: String) { if isTerminal { write("\r\u{1B}[K\(text)") } }

    static func end() { if isTerminal { write("\r\u{1B}[K") } }

    private static func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}

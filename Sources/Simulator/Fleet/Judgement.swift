import Routing

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The judging table of routing.md, filled from runs.
package struct Judgement {
    /// One row of the table.
    package struct Row: Sendable {
        package var figure: String
        package var must: String
        package var aim: String
        package var value: Double
        /// The cell that decides, where a worst one does.
        package var cell: String
        package var isMet: Bool
        package var isAimMet: Bool
    }

    /// One policy in one case of one setting: means over the seeds.
    private struct Key: Hashable {
        var setting: String
        var judged: JudgingPlan.Case
        var policy: RoutingPolicy
    }

    /// A case in which `predicted_cost` stands beside its peers.
    package struct Comparison: Sendable {
        package var name: String
        package var load: Double
        package var gateways: Int
        package var ttft: Double
        package var bestPeer: RoutingPolicy
        package var bestPeerTTFT: Double
        package var goodput: Double
        package var bestPeerGoodput: Double

        package var ttftRatio: Double { ttft / bestPeerTTFT }
        package var goodputRatio: Double { goodput / bestPeerGoodput }
        package var title: String { "\(name) \(SweepReport.text(load, 2)) x\(gateways)" }
    }

    /// Below this nobody's answers are good, and ratios of goodput say nothing.
    private static let goodputMin = 0.05

    private var runs: [Key: [RunStatistics]] = [:]
    private var settings: [JudgingPlan.Setting] = []

    package init() {}

    package mutating func add(_ setting: JudgingPlan.Setting) { settings.append(setting) }

    package mutating func add(
        _ statistics: RunStatistics, of setting: String, _ judged: JudgingPlan.Case, _ policy: RoutingPolicy
    ) {
        runs[Key(setting: setting, judged: judged, policy: policy), default: []].append(statistics)
    }

    private func mean(
        _ setting: String, _ judged: JudgingPlan.Case, _ policy: RoutingPolicy, _ figure: (RunStatistics) -> Double
    ) -> Double {
        RunStatistics.mean((runs[Key(setting: setting, judged: judged, policy: policy)] ?? []).map(figure))
    }

    private func aCase(_ load: Double, gateways: Int = 1, isGossiping: Bool? = nil) -> JudgingPlan.Case {
        JudgingPlan.Case(
            load: load, gateways: gateways, isGossiping: isGossiping ?? (gateways > 1), isCurtailed: false)
    }

    // MARK: Beside the peers

    package func comparisons() -> [Comparison] {
        var comparisons: [Comparison] = []
        for setting in settings {
            for gateways in [1, JudgingPlan.gatewayCount] {
                for load in JudgingPlan.loads {
                    let judged = aCase(load, gateways: gateways)
                    let ttfts = JudgingPlan.peers.map { ($0, mean(setting.name, judged, $0, \.ttftMean)) }
                    guard let best = ttfts.min(by: { $0.1 < $1.1 }) else { continue }
                    comparisons.append(
                        Comparison(
                            name: setting.name, load: load, gateways: gateways,
                            ttft: mean(setting.name, judged, .predictedCost, \.ttftMean), bestPeer: best.0,
                            bestPeerTTFT: best.1, goodput: mean(setting.name, judged, .predictedCost, \.goodput),
                            bestPeerGoodput: JudgingPlan.peers.map { mean(setting.name, judged, $0, \.goodput) }.max()
                                ?? 0))
                }
            }
        }
        return comparisons
    }

    // MARK: The table

    /// - Parameter decisionSeconds: 99th percentile of a decision over 1,000 nodes; nil where not measured.
    package func rows(decisionSeconds: Double?) -> [Row] {
        let compared = comparisons().filter { $0.load <= JudgingPlan.comparedLoadMax }
        var rows: [Row] = []
        if let worst = compared.max(by: { $0.ttftRatio < $1.ttftRatio }) {
            rows.append(
                atMost("mean TTFT / best peer's, worst cell to 0.95", worst.ttftRatio, 1.05, 0.90, worst.title))
            let logs = compared.map { log($0.ttftRatio) }
            rows.append(atMost("geometric mean of that over the cells", exp(RunStatistics.mean(logs)), 0.90, 0.80))
        }
        rows += heterogeneousRows()
        let good = compared.filter { $0.bestPeerGoodput >= Self.goodputMin }
        if let worst = good.min(by: { $0.goodputRatio < $1.goodputRatio }) {
            rows.append(
                atLeast("goodput / best peer's, worst cell to 0.95", worst.goodputRatio, 0.97, 1.10, worst.title))
            rows.append(
                atLeast(
                    "goodput / best peer's, mean of the cells to 0.95", RunStatistics.mean(good.map(\.goodputRatio)),
                    1.05, 1.10))
        }
        rows += overloadRows()
        rows += gatewayRows()
        rows += curtailedRows()
        rows += surgeRows()
        rows += predictionRows()
        if let decisionSeconds {
            rows.append(atMost("decision over 1,000 nodes, p99, us", decisionSeconds * 1e6, 2, 1))
        }
        return rows
    }

    /// Beyond what the fleet can do, every request let in at once, as no gateway of ours would.
    private func overloadRows() -> [Row] {
        let over = comparisons().filter { $0.load > JudgingPlan.comparedLoadMax }
        let good = over.filter { $0.bestPeerGoodput >= Self.goodputMin }
        var rows: [Row] = []
        if let worst = over.max(by: { $0.ttftRatio < $1.ttftRatio }) {
            rows.append(atMost("mean TTFT / best peer's, worst cell at 1.1", worst.ttftRatio, 1.05, 0.90, worst.title))
        }
        if let worst = good.min(by: { $0.goodputRatio < $1.goodputRatio }) {
            rows.append(
                atLeast("goodput / best peer's, worst cell at 1.1", worst.goodputRatio, 0.97, 1.10, worst.title))
        }
        return rows
    }

    private func heterogeneousRows() -> [Row] {
        var rows: [Row] = []
        for setting in settings where setting.fleet.kind == .heterogeneous && !setting.isAgentic {
            func ratio(_ peer: RoutingPolicy) -> Double {
                mean(setting.name, aCase(0.8), .predictedCost, \.ttftMean)
                    / mean(setting.name, aCase(0.8), peer, \.ttftMean)
            }
            rows.append(atMost("mean TTFT / least requests', het 0.8", ratio(.leastRequests), 0.40, 0.33, setting.name))
            rows.append(atMost("mean TTFT / SGLang's, het 0.8", ratio(.sglangCacheAware), 0.55, 0.40, setting.name))
        }
        return rows
    }

    private func gatewayRows() -> [Row] {
        var gossiping: [(Double, String)] = []
        var silent: [(Double, String)] = []
        for setting in settings {
            for load in JudgingPlan.loads where load <= JudgingPlan.comparedLoadMax {
                let one = mean(setting.name, aCase(load), .predictedCost, \.ttftMean)
                let title = "\(setting.name) \(SweepReport.text(load, 2))"
                let four = aCase(load, gateways: JudgingPlan.gatewayCount)
                gossiping.append((mean(setting.name, four, .predictedCost, \.ttftMean) / one, title))
                let alone = aCase(load, gateways: JudgingPlan.gatewayCount, isGossiping: false)
                if setting.isAgentic {
                    silent.append((mean(setting.name, alone, .predictedCost, \.ttftMean) / one, title))
                }
            }
        }
        var rows: [Row] = []
        if let worst = gossiping.max(by: { $0.0 < $1.0 }) {
            rows.append(
                atMost("four gateways with 100 ms gossip / one, worst cell to 0.95", worst.0, 1.15, 1.08, worst.1))
        }
        if let worst = silent.max(by: { $0.0 < $1.0 }) {
            rows.append(
                atMost("four gateways without gossip, agentic / one, worst to 0.95", worst.0, 2.5, 1.5, worst.1))
        }
        return rows
    }

    private func curtailedRows() -> [Row] {
        let judged = JudgingPlan.Case(
            load: JudgingPlan.curtailedLoad, gateways: 1, isGossiping: false, isCurtailed: true)
        let ratios = settings.map { setting in
            let lmetric = mean(setting.name, judged, .lmetric, \.ttftMean)
            return (mean(setting.name, judged, .predictedCost, \.ttftMean) / lmetric, setting.name)
        }
        guard let worst = ratios.max(by: { $0.0 < $1.0 }) else { return [] }
        return [atMost("two nodes curtailed to 35 % / LMetric, worst cell", worst.0, 1.05, 0.90, worst.1)]
    }

    private func surgeRows() -> [Row] {
        func p90(_ setting: String, isSurging: Bool) -> Double {
            let judged = JudgingPlan.Case(
                load: JudgingPlan.surgeLoad, gateways: 1, isGossiping: false, isCurtailed: false, isSurging: isSurging)
            return mean(setting, judged, .predictedCost) { $0.ttftP90(without: JudgingPlan.surge.org) }
        }
        let ratios = settings.map { setting in
            (p90(setting.name, isSurging: true) / p90(setting.name, isSurging: false), setting.name)
        }
        guard let worst = ratios.max(by: { $0.0 < $1.0 }) else { return [] }
        return [atMost("an org at ten times its share: the others' p90, worst cell", worst.0, 1.3, 1.3, worst.1)]
    }

    private func predictionRows() -> [Row] {
        var ratios: [(Double, String)] = []
        for setting in settings {
            for load in JudgingPlan.loads where load <= JudgingPlan.comparedLoadMax {
                let ratio = mean(setting.name, aCase(load), .predictedCost) { $0.predictionRatio ?? .nan }
                ratios.append((ratio, "\(setting.name) \(SweepReport.text(load, 2))"))
            }
        }
        guard let worst = ratios.max(by: { abs(log($0.0)) < abs(log($1.0)) }) else { return [] }
        return [
            Row(
                figure: "predicted / actual TTFT, works over 2,000, median, worst cell", must: "0.90-1.10",
                aim: "0.95-1.05", value: worst.0, cell: worst.1, isMet: (0.9...1.1).contains(worst.0),
                isAimMet: (0.95...1.05).contains(worst.0))
        ]
    }

    private func atMost(
        _ figure: String, _ value: Double, _ must: Double, _ aim: Double, _ cell: String = ""
    ) -> Row {
        Row(
            figure: figure, must: "<= " + SweepReport.text(must, 2), aim: "<= " + SweepReport.text(aim, 2),
            value: value, cell: cell, isMet: value <= must, isAimMet: value <= aim)
    }

    private func atLeast(
        _ figure: String, _ value: Double, _ must: Double, _ aim: Double, _ cell: String = ""
    ) -> Row {
        Row(
            figure: figure, must: ">= " + SweepReport.text(must, 2), aim: ">= " + SweepReport.text(aim, 2),
            value: value, cell: cell, isMet: value >= must, isAimMet: value >= aim)
    }
}

import Foundation

/// What a sweep found, for people and for programs.
package struct SweepReport {
    private let results: [Sweep.Result]

    package init(_ results: [Sweep.Result]) {
        self.results = results
    }

    // MARK: For programs

    /// A figure that may not exist, such as the mean of nothing: null then, where an optional would leave its name out.
    private struct Figure: Encodable {
        var value: Double?

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            if let value, value.isFinite { try container.encode(value) } else { try container.encodeNil() }
        }
    }

    /// One run.
    private struct Row: Encodable {
        let policy: String
        let fleet: String
        let nodes: Int
        let load: Figure
        let rate: Double
        let gateways: Int
        let gossipSeconds: Figure
        let seed: UInt64
        let ttftMeanSeconds: Figure
        let ttftP50Seconds: Figure
        let ttftP90Seconds: Figure
        let ttftP99Seconds: Figure
        let tpotMeanSeconds: Figure
        let tpotP50Seconds: Figure
        let tpotP99Seconds: Figure
        let prefixHitRatio: Double
        let goodput: Double
        let requestsPerSecond: Double
        let requests: Int
        let completed: Int
        let refused: Int
        let failed: Int
        let preemptions: Int
        let ttftP90SecondsByOrg: [Double?]

        init(_ result: Sweep.Result) {
            let (run, figures) = (result.configuration, result.statistics)
            policy = run.policy.rawValue
            fleet = run.fleet.kind.rawValue
            nodes = run.fleet.nodes.count
            load = Figure(value: run.load)
            rate = run.rate
            gateways = run.gateways
            gossipSeconds = Figure(value: run.gateways > 1 ? run.gossipSeconds : nil)
            seed = run.seed
            ttftMeanSeconds = Figure(value: figures.ttftMean)
            ttftP50Seconds = Figure(value: figures.ttftP50)
            ttftP90Seconds = Figure(value: figures.ttftP90)
            ttftP99Seconds = Figure(value: figures.ttftP99)
            tpotMeanSeconds = Figure(value: figures.tpotMean)
            tpotP50Seconds = Figure(value: figures.tpotP50)
            tpotP99Seconds = Figure(value: figures.tpotP99)
            prefixHitRatio = figures.prefixHitRatio
            goodput = figures.goodput
            requestsPerSecond = figures.requestsPerSecond
            requests = figures.completed + figures.refused + figures.failed
            completed = figures.completed
            refused = figures.refused
            failed = figures.failed
            preemptions = figures.preemptions
            ttftP90SecondsByOrg = figures.ttftP90ByOrg
        }
    }

    /// One array, an object for each run: the names of interfaces.md and a few more.
    package func json() -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        guard let data = try? encoder.encode(results.map(Row.init)) else { return "[]" }
        return String(decoding: data, as: UTF8.self)
    }

    // MARK: For people

    /// Runs that differ in nothing but the seed.
    package struct Cell: Sendable {
        package var configuration: RunConfiguration
        package var runs: [RunStatistics]

        package func mean(_ figure: (RunStatistics) -> Double) -> Double { RunStatistics.mean(runs.map(figure)) }

        /// Half the distance between the best and the worst seed.
        package func spread(_ figure: (RunStatistics) -> Double) -> Double {
            let values = runs.map(figure)
            return ((values.max() ?? .nan) - (values.min() ?? .nan)) / 2
        }
    }

    /// In the order in which their first runs were asked for.
    package var cells: [Cell] {
        var cells: [Cell] = []
        for result in results {
            let run = result.configuration
            if let known = cells.firstIndex(where: {
                let other = $0.configuration
                return other.policy == run.policy && other.rate == run.rate && other.gateways == run.gateways
                    && other.gossipSeconds == run.gossipSeconds && other.fleet.kind == run.fleet.kind
            }) {
                cells[known].runs.append(result.statistics)
            } else {
                cells.append(Cell(configuration: run, runs: [result.statistics]))
            }
        }
        return cells
    }

    /// A line for each policy and load: means over the seeds.
    package func table() -> String {
        let hasSpread = cells.contains { $0.runs.count > 1 }
        var rows: [[String]] = [
            ["policy", "load", "req/s", "TTFT mean"] + (hasSpread ? ["+-"] : [])
                + ["p50", "p90", "p99", "TPOT p99", "hits", "goodput", "lost"]
        ]
        for cell in cells {
            let run = cell.configuration
            var row = [run.policy.rawValue, run.load.map { Self.text($0, 2) } ?? "-", Self.text(run.rate, 2)]
            row.append(Self.seconds(cell.mean(\.ttftMean)))
            if hasSpread { row.append(Self.seconds(cell.spread(\.ttftMean))) }
            row += [cell.mean(\.ttftP50), cell.mean(\.ttftP90), cell.mean(\.ttftP99), cell.mean(\.tpotP99)].map(
                Self.seconds)
            row += [
                Self.text(cell.mean(\.prefixHitRatio) * 100, 1) + " %", Self.text(cell.mean(\.goodput) * 100, 1) + " %",
                String(cell.runs.reduce(0) { $0 + $1.refused + $1.failed }),
            ]
            rows.append(row)
        }
        return Self.aligned(rows)
    }

    /// The first column to the left, the others to the right.
    package static func aligned(_ rows: [[String]]) -> String {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            row.enumerated().map { column, text in
                let space = String(repeating: " ", count: widths[column] - text.count)
                return column == 0 ? text + space : space + text
            }.joined(separator: "  ")
        }.joined(separator: "\n")
    }

    package static func text(_ value: Double, _ digits: Int) -> String {
        value.isFinite ? String(format: "%.\(digits)f", value) : "-"
    }

    /// With a unit that leaves three digits or so.
    package static func seconds(_ value: Double) -> String {
        guard value.isFinite else { return "-" }
        if value < 0.9995 { return text(value * 1_000, value < 0.01 ? 1 : 0) + " ms" }
        return text(value, value < 100 ? 2 : 0) + " s"
    }
}

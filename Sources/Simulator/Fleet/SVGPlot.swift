import Foundation
import Routing

/// Draws a sweep: on the left how TTFT is distributed, on the right goodput against load, a line for each policy.
///
/// Plain SVG 1.1 without scripts or fonts of its own, readable on light and dark pages since it brings its background.
package struct SVGPlot {
    private static let width = 1_120.0
    private static let height = 460.0
    private static let panelTop = 56.0
    private static let panelHeight = 320.0
    private static let left = (x: 64.0, width: 400.0)
    private static let right = (x: 540.0, width: 360.0)
    private static let legendX = 930.0
    /// TTFT's axis, seconds, logarithmic.
    private static let ttftDecades = (-2, 3)

    /// Okabe and Ito's colours, which the colour-blind tell apart; the policies with the most to say have the strongest.
    private static let colours: [RoutingPolicy: String] = [
        .predictedCost: "#d55e00", .lmetric: "#0072b2", .smetric: "#009e73", .gie: "#cc79a7", .dynamo: "#e69f00",
        .sglangCacheAware: "#56b4e9", .leastRequests: "#7f7f7f", .leastTokens: "#a6a6a6", .roundRobin: "#c9b458",
        .p2c: "#b0b0b0",
    ]

    private let title: String
    private let cells: [SweepReport.Cell]
    /// The load whose distribution is drawn.
    private let rate: Double
    private var body = ""

    /// - Parameters:
    ///   - cells: Of one fleet and one number of gateways.
    ///   - rate: The one of the cells' rates at which TTFT's distribution is drawn.
    package static func draw(title: String, cells: [SweepReport.Cell], rate: Double) -> String {
        var plot = SVGPlot(title: title, cells: cells, rate: rate)
        plot.drawAll()
        return plot.body
    }

    private init(title: String, cells: [SweepReport.Cell], rate: Double) {
        self.title = title
        self.cells = cells
        self.rate = rate
    }

    private var policies: [RoutingPolicy] {
        var seen: [RoutingPolicy] = []
        for cell in cells where !seen.contains(cell.configuration.policy) { seen.append(cell.configuration.policy) }
        return seen
    }

    private mutating func drawAll() {
        body =
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" "
            + "font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#222\">\n"
            + "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        text(Self.left.x, 24, title, size: 15)
        drawDistributionAxes()
        drawGoodputAxes()
        // The first policy is drawn last, over the others.
        for policy in policies.reversed() {
            drawDistribution(policy)
            drawGoodput(policy)
        }
        drawLegend()
        body += "</svg>\n"
    }

    // MARK: TTFT's distribution

    private func distributionX(_ seconds: Double) -> Double {
        let (low, high) = (Double(Self.ttftDecades.0), Double(Self.ttftDecades.1))
        let place = (log10(max(seconds, 1e-6)) - low) / (high - low)
        return Self.left.x + Self.left.width * min(1, max(0, place))
    }

    private func shareY(_ share: Double) -> Double { Self.panelTop + Self.panelHeight * (1 - share) }

    private mutating func drawDistributionAxes() {
        let load = cells.first { $0.configuration.rate == rate }?.configuration.load
        let at = load.map { "load " + Self.number($0) } ?? Self.number(rate) + " requests/s"
        text(Self.left.x, Self.panelTop - 10, "Requests with TTFT below, at \(at)", size: 13)
        frame(x: Self.left.x, width: Self.left.width)
        for decade in Self.ttftDecades.0...Self.ttftDecades.1 {
            let x = distributionX(pow(10, Double(decade)))
            gridLine(x, Self.panelTop, x, Self.panelTop + Self.panelHeight)
            let label = decade < 0 ? "\(Int(pow(10, Double(decade + 3)))) ms" : "\(Int(pow(10, Double(decade)))) s"
            text(x, Self.panelTop + Self.panelHeight + 18, label, anchor: "middle")
        }
        shareLabels(x: Self.left.x, width: Self.left.width)
        text(
            Self.left.x + Self.left.width / 2, Self.panelTop + Self.panelHeight + 38, "time to first token (log)",
            anchor: "middle")
    }

    private mutating func drawDistribution(_ policy: RoutingPolicy) {
        guard let cell = cells.first(where: { $0.configuration.policy == policy && $0.configuration.rate == rate })
        else { return }
        let points = (0..<RunStatistics.quantileCount).compactMap { rank -> (Double, Double)? in
            let values = cell.runs.compactMap { $0.ttftQuantiles.indices.contains(rank) ? $0.ttftQuantiles[rank] : nil }
            guard !values.isEmpty else { return nil }
            let share = Double(rank) / Double(RunStatistics.quantileCount - 1)
            return (distributionX(RunStatistics.mean(values)), shareY(share))
        }
        polyline(points, policy)
    }

    // MARK: Goodput

    private func load(_ cell: SweepReport.Cell) -> Double { cell.configuration.load ?? cell.configuration.rate }

    private func goodputX(_ load: Double) -> Double {
        let loads = cells.map(self.load)
        let (low, high) = (loads.min() ?? 0, loads.max() ?? 1)
        guard high > low else { return Self.right.x + Self.right.width / 2 }
        return Self.right.x + Self.right.width * (load - low) / (high - low)
    }

    private mutating func drawGoodputAxes() {
        let limits =
            "TTFT < \(Self.number(RunStatistics.goodTTFTSeconds)) s, "
            + "TPOT < \(Self.number(RunStatistics.goodTPOTSeconds * 1_000)) ms"
        text(Self.right.x, Self.panelTop - 10, "Goodput: share with \(limits)", size: 13)
        frame(x: Self.right.x, width: Self.right.width)
        for load in Set(cells.map(load)).sorted() {
            let x = goodputX(load)
            gridLine(x, Self.panelTop, x, Self.panelTop + Self.panelHeight)
            text(x, Self.panelTop + Self.panelHeight + 18, Self.number(load), anchor: "middle")
        }
        shareLabels(x: Self.right.x, width: Self.right.width)
        let axis = cells.contains { $0.configuration.load != nil } ? "load, of saturation" : "requests/s"
        text(
            Self.right.x + Self.right.width / 2, Self.panelTop + Self.panelHeight + 38, axis, anchor: "middle")
    }

    private mutating func drawGoodput(_ policy: RoutingPolicy) {
        let points = cells.filter { $0.configuration.policy == policy }.map {
            (x: goodputX(load($0)), y: shareY($0.mean(\.goodput)))
        }.sorted { $0.x < $1.x }
        polyline(points.map { ($0.x, $0.y) }, policy)
        for point in points {
            body +=
                "<circle cx=\"\(Self.number(point.x))\" cy=\"\(Self.number(point.y))\" r=\"3\" "
                + "fill=\"\(Self.colour(policy))\"/>\n"
        }
    }

    // MARK: Pieces

    private mutating func drawLegend() {
        for (line, policy) in policies.enumerated() {
            let y = Self.panelTop + 12 + Double(line) * 22
            polyline([(Self.legendX, y - 4), (Self.legendX + 22, y - 4)], policy)
            text(Self.legendX + 30, y, policy.rawValue, isBold: policy == .predictedCost)
        }
    }

    private mutating func frame(x: Double, width: Double) {
        body +=
            "<rect x=\"\(Self.number(x))\" y=\"\(Self.number(Self.panelTop))\" width=\"\(Self.number(width))\" "
            + "height=\"\(Self.number(Self.panelHeight))\" fill=\"none\" stroke=\"#999\"/>\n"
    }

    private mutating func shareLabels(x: Double, width: Double) {
        for percent in stride(from: 0, through: 100, by: 25) {
            let y = shareY(Double(percent) / 100)
            gridLine(x, y, x + width, y)
            text(x - 8, y + 4, "\(percent) %", anchor: "end")
        }
    }

    private mutating func gridLine(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) {
        body +=
            "<line x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\" x2=\"\(Self.number(x2))\" "
            + "y2=\"\(Self.number(y2))\" stroke=\"#e4e4e4\"/>\n"
    }

    private mutating func polyline(_ points: [(Double, Double)], _ policy: RoutingPolicy) {
        let path = points.map { Self.number($0.0) + "," + Self.number($0.1) }.joined(separator: " ")
        body +=
            "<polyline points=\"\(path)\" fill=\"none\" stroke=\"\(Self.colour(policy))\" "
            + "stroke-width=\"\(policy == .predictedCost ? 3 : 1.6)\" stroke-linejoin=\"round\"/>\n"
    }

    private mutating func text(
        _ x: Double, _ y: Double, _ content: String, anchor: String = "start", size: Int = 12, isBold: Bool = false
    ) {
        let escaped = content.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
        body +=
            "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\" font-size=\"\(size)\""
            + (isBold ? " font-weight=\"bold\"" : "") + ">\(escaped)</text>\n"
    }

    private static func colour(_ policy: RoutingPolicy) -> String { colours[policy] ?? "#000" }

    /// Up to two digits after the point, none where they are zero.
    private static func number(_ value: Double) -> String {
        let rounded = (value * 100).rounded() / 100
        return rounded == rounded.rounded() ? String(Int(rounded)) : String(rounded)
    }
}

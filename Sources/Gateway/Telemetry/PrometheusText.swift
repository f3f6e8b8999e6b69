/// Writes Prometheus's text exposition format 0.0.4.
struct PrometheusText {
    enum Kind: String {
        case counter, gauge, histogram
    }

    private(set) var text = ""
    private var name = ""

    /// Starts a family; the samples that follow are its.
    mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        self.name = name
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    mutating func sample(_ labels: [(String, String)], _ value: Int64) {
        line(name, labels, String(value))
    }

    mutating func counter(_ name: String, _ help: String, _ value: Int64) {
        family(name, .counter, help)
        sample([], value)
    }

    mutating func gauge(_ name: String, _ help: String, _ value: Int64) {
        family(name, .gauge, help)
        sample([], value)
    }

    /// Nothing where nothing was observed.
    mutating func histogram(_ labels: [(String, String)], _ histograms: HistogramFamily, series: Int) {
        guard let values = histograms.values(of: series) else { return }
        var cumulated: Int64 = 0
        for (count, bound) in zip(values.buckets, histograms.bounds) {
            cumulated += count
            line(name + "_bucket", labels + [("le", Self.number(bound))], String(cumulated))
        }
        cumulated += values.buckets.last ?? 0
        line(name + "_bucket", labels + [("le", "+Inf")], String(cumulated))
        line(name + "_sum", labels, Self.number(values.sum))
        line(name + "_count", labels, String(cumulated))
    }

    private mutating func line(_ name: String, _ labels: [(String, String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            for (index, label) in labels.enumerated() {
                if index > 0 { text += "," }
                text += label.0
                text += "=\""
                text += Self.escaped(label.1)
                text += "\""
            }
            text += "}"
        }
        text += " "
        text += value
        text += "\n"
    }

    /// Whole numbers without a point, as other exporters write bounds.
    static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
    }

    private static func escaped(_ value: String) -> String {
        guard value.utf8.contains(where: { $0 == 0x5C || $0 == 0x22 || $0 == 0x0A }) else { return value }
        var result = ""
        for character in value.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}

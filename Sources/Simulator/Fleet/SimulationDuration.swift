/// Times as people write them.
package enum SimulationDuration {
    private static let units: [(suffix: String, seconds: Double)] = [("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3_600)]
    private static let secondsMax = 1e7

    /// `100ms`, `90s`, `5m`, `1h`, or a number of seconds; nil for anything else, negatives included.
    package static func seconds(_ text: String) -> Double? {
        let unit = units.first { text.hasSuffix($0.suffix) }
        guard let number = Double(text.dropLast(unit?.suffix.count ?? 0)), number >= 0 else { return nil }
        let seconds = number * (unit?.seconds ?? 1)
        return seconds <= secondsMax ? seconds : nil
    }
}

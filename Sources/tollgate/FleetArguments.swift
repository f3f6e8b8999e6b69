import ArgumentParser
import ControlPlane

/// A time with its unit: `250ms`, `30s`, `5m`, `2h`, `1d`.
struct TimeArgument: ExpressibleByArgument {
    let milliseconds: Int64

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        let units: [Substring: Int64] = ["ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]
        guard let number = Int64(digits), let unit = units[argument.dropFirst(digits.count)] else { return nil }
        let (product, isTooLarge) = number.multipliedReportingOverflow(by: unit)
        guard !isTooLarge else { return nil }
        milliseconds = product
    }

    /// As the control plane takes it: seconds.
    var value: JSONValue {
        milliseconds.isMultiple(of: 1_000) ? .integer(milliseconds / 1_000) : .number(Double(milliseconds) / 1_000)
    }
}

/// A share: `40%`, `2.5%`.
struct ShareArgument: ExpressibleByArgument {
    /// Thousandths.
    let permille: Int64

    init?(argument: String) {
        guard argument.hasSuffix("%") else { return nil }
        let parts = argument.dropLast().split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let whole = Self.number(parts[0]), whole <= 100 else { return nil }
        let tenth = parts.count == 2 ? Self.number(parts[1]) : 0
        guard let tenth, tenth <= 9, whole * 10 + tenth <= 1_000 else { return nil }
        permille = whole * 10 + tenth
    }

    private static func number(_ digits: Substring) -> Int64? {
        digits.allSatisfy { $0.isASCII && $0.isNumber } ? Int64(digits) : nil
    }

    var value: JSONValue { .integer(permille) }
}

/// An amount of money in billionths of a US dollar.
///
/// Magnitudes stay below 2^53 ($9.0 million): Redis's scripts compute in doubles, and an amount that they cannot hold
/// exactly is refused where it enters rather than rounded later. Arithmetic that would pass the bound throws.
package struct NanoUSD: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The largest magnitude: 2^53 - 1.
    package static let magnitudeMax: Int64 = (1 << 53) - 1
    package static let zero = NanoUSD(unchecked: 0)

    package let nanodollars: Int64

    package init(unchecked nanodollars: Int64) {
        self.nanodollars = nanodollars
    }

    /// - Returns: nil where the magnitude passes 2^53 - 1.
    package init?(_ nanodollars: Int64) {
        guard nanodollars.magnitude <= UInt64(Self.magnitudeMax) else { return nil }
        self.nanodollars = nanodollars
    }

    /// Parses dollars as people write them: `5`, `-0.25`, `12.000000001`. At most nine decimals; no exponent, no sign
    /// but `-`, no separators.
    ///
    /// - Returns: nil for any other text and for magnitudes past the bound. Never rounds.
    package init?(dollars text: some StringProtocol) {
        guard let value = DecimalText.scaled(text, decimals: 9) else { return nil }
        self.init(value)
    }

    /// - Throws: `.overflow`; never wraps or clamps.
    package func adding(_ other: NanoUSD) throws(ArithmeticFailure) -> NanoUSD {
        // Both magnitudes are below 2^53, so the sum of the two cannot leave Int64.
        guard let sum = NanoUSD(nanodollars + other.nanodollars) else { throw .overflow }
        return sum
    }

    /// - Throws: `.overflow`; never wraps or clamps.
    package func subtracting(_ other: NanoUSD) throws(ArithmeticFailure) -> NanoUSD {
        guard let difference = NanoUSD(nanodollars - other.nanodollars) else { throw .overflow }
        return difference
    }

    package static prefix func - (amount: NanoUSD) -> NanoUSD { NanoUSD(unchecked: -amount.nanodollars) }

    package static func < (left: NanoUSD, right: NanoUSD) -> Bool { left.nanodollars < right.nanodollars }

    /// Dollars with as many decimals as needed, at least two: `5.00`, `-0.000000123`.
    package var description: String {
        let magnitude = nanodollars.magnitude
        var fraction = String(magnitude % 1_000_000_000)
        fraction = String(repeating: "0", count: 9 - fraction.count) + fraction
        while fraction.count > 2, fraction.hasSuffix("0") { fraction.removeLast() }
        return "\(nanodollars < 0 ? "-" : "")\(magnitude / 1_000_000_000).\(fraction)"
    }
}

/// What exact arithmetic on money and prices can fail with.
package enum ArithmeticFailure: Error, Equatable {
    case overflow
}

/// Decimal text to a scaled integer, without floating point.
package enum DecimalText {
    /// `scaled("0.05", decimals: 9)` is 50,000,000. Accepts `-`, digits, one point, at most `decimals` places.
    package static func scaled(_ text: some StringProtocol, decimals: Int) -> Int64? {
        var value: Int64 = 0
        var digits = 0
        var places: Int?
        var negative = false
        for (index, byte) in text.utf8.enumerated() {
            switch byte {
            case UInt8(ascii: "-") where index == 0:
                negative = true
            case UInt8(ascii: ".") where places == nil && digits > 0:
                places = 0
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                if let seen = places {
                    guard seen < decimals else { return nil }
                    places = seen + 1
                }
                digits += 1
                let (product, overflow) = value.multipliedReportingOverflow(by: 10)
                let (sum, carry) = product.addingReportingOverflow(Int64(byte - UInt8(ascii: "0")))
                guard !overflow, !carry else { return nil }
                value = sum
            default:
                return nil
            }
        }
        guard digits > 0, places != 0 else { return nil }
        for _ in (places ?? 0)..<decimals {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            guard !overflow else { return nil }
            value = product
        }
        return negative ? -value : value
    }
}

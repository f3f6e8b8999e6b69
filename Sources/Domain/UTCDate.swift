/// A day of the proleptic Gregorian calendar, in UTC: what aggregates are kept by.
package struct UTCDate: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// Days since 1970-01-01.
    package let daysSinceEpoch: Int64

    /// Years that print with four digits.
    private static let first = Self.days(year: 1, month: 1, day: 1)
    private static let last = Self.days(year: 9999, month: 12, day: 31)

    package init(_ time: WallTime) {
        let day: Int64 = 86_400_000
        let floored = time.milliseconds >= 0 ? time.milliseconds / day : (time.milliseconds - day + 1) / day
        daysSinceEpoch = min(max(floored, Self.first), Self.last)
    }

    private init(daysSinceEpoch: Int64) {
        self.daysSinceEpoch = min(max(daysSinceEpoch, Self.first), Self.last)
    }

    /// Parses `2026-11-22`.
    ///
    /// - Returns: nil for any other form and for days that the calendar does not have.
    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard bytes.count == 10, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-") else { return nil }
        func number(_ range: Range<Int>) -> Int64? {
            var value: Int64 = 0
            for byte in bytes[range] {
                guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
                value = value * 10 + Int64(byte - UInt8(ascii: "0"))
            }
            return value
        }
        guard let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), year >= 1,
            (1...12).contains(month), day >= 1
        else { return nil }
        daysSinceEpoch = Self.days(year: year, month: month, day: day)
        // A 31st of a month of 30 days lands in the next month.
        guard self.day == day, self.month == month else { return nil }
    }

    package var year: Int { Int(parts.year) }
    package var month: Int { Int(parts.month) }
    package var day: Int { Int(parts.day) }

    package func advanced(byDays days: Int64) -> UTCDate { UTCDate(daysSinceEpoch: daysSinceEpoch + days) }

    package var firstOfNextMonth: UTCDate {
        let (year, month, _) = parts
        return UTCDate(
            daysSinceEpoch: month == 12
                ? Self.days(year: year + 1, month: 1, day: 1) : Self.days(year: year, month: month + 1, day: 1))
    }

    /// `2026-11`.
    package var monthText: String { String(description.prefix(7)) }

    /// `2026-11-22`.
    package var description: String {
        func padded(_ value: Int64, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let (year, month, day) = parts
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
    }

    package static func < (left: Self, right: Self) -> Bool { left.daysSinceEpoch < right.daysSinceEpoch }

    // Howard Hinnant's civil calendar algorithms: years begin in March, so that the leap day is a year's last.

    private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private var parts: (year: Int64, month: Int64, day: Int64) {
        let shifted = daysSinceEpoch + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
    }
}

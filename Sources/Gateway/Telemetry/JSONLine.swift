import Domain

/// Writes one line of JSON into memory that it borrows.
///
/// Strings are cut at `fieldBytesMax`, so a line of known fields has a known bound; a line that would pass its memory
/// all the same is marked and must be dropped.
struct JSONLine {
    /// Bytes of a string that are written; escaping may make six of one.
    static let fieldBytesMax = 128
    /// Room for every string of an access-log line at its longest, each byte escaped, and the rest.
    static let bytesMax = 16 * 1024

    /// What a line nearly always fits, and what Swift still puts on the stack.
    static let usualBytes = 1024

    private var cursor: ByteCursor

    /// - Parameter memory: Must outlive this value.
    init(memory: UnsafeMutableRawBufferPointer) {
        cursor = ByteCursor(memory: memory)
    }

    var bytes: UnsafeRawBufferPointer { cursor.written }
    var isTruncated: Bool { cursor.isTruncated }

    /// Text that is JSON already.
    @inline(__always)
    mutating func raw(_ text: StaticString) { cursor.raw(text) }

    mutating func string(_ text: String?) {
        guard var text else { return raw("null") }
        raw("\"")
        text.withUTF8 { escape($0) }
        raw("\"")
    }

    mutating func boolean(_ value: Bool) {
        if value { raw("true") } else { raw("false") }
    }

    mutating func integer(_ value: Int64?) {
        guard let value else { return raw("null") }
        cursor.decimal(value)
    }

    /// Nanoseconds as seconds with six decimals, rounded down.
    mutating func seconds(_ nanoseconds: Int64?) {
        guard let nanoseconds else { return raw("null") }
        let microseconds = max(0, nanoseconds) / 1_000
        cursor.digits(UInt64(microseconds / 1_000_000), atLeast: 1)
        raw(".")
        cursor.digits(UInt64(microseconds % 1_000_000), atLeast: 6)
    }

    /// RFC 3339 in UTC with milliseconds; years 1970 to 9999.
    mutating func timestamp(_ time: WallTime) {
        let milliseconds = UInt64(clamping: time.milliseconds)
        let (days, rest) = (milliseconds / 86_400_000, milliseconds % 86_400_000)
        // Howard Hinnant's civil_from_days, for days at or after 1970: eras of 400 years that begin in March.
        let shifted = days + 719_468
        let (era, dayOfEra) = (shifted / 146_097, shifted % 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        cursor.digits(yearOfEra + era * 400 + (month <= 2 ? 1 : 0), atLeast: 4)
        raw("-")
        cursor.digits(month, atLeast: 2)
        raw("-")
        cursor.digits(day, atLeast: 2)
        raw("T")
        cursor.digits(rest / 3_600_000, atLeast: 2)
        raw(":")
        cursor.digits(rest / 60_000 % 60, atLeast: 2)
        raw(":")
        cursor.digits(rest / 1_000 % 60, atLeast: 2)
        raw(".")
        cursor.digits(rest % 1_000, atLeast: 3)
        raw("Z")
    }

    /// Sixteen lower-case digits.
    mutating func hexadecimal(_ value: UInt64) { cursor.hexadecimal(value, digits: 16) }

    private mutating func escape(_ text: UnsafeBufferPointer<UInt8>) {
        var end = text.count
        if end > Self.fieldBytesMax {
            end = Self.fieldBytesMax
            // Not within a character: back to the byte that begins one.
            while end > 0, text[end] & 0xC0 == 0x80 { end -= 1 }
        }
        var start = 0
        for index in 0..<end {
            let byte = text[index]
            guard byte < 0x20 || byte == 0x22 || byte == 0x5C || byte == 0x7F else { continue }
            cursor.bytes(UnsafeBufferPointer(rebasing: text[start..<index]))
            start = index + 1
            switch byte {
            case 0x22: raw("\\\"")
            case 0x5C: raw("\\\\")
            case 0x0A: raw("\\n")
            case 0x0D: raw("\\r")
            case 0x09: raw("\\t")
            default:
                raw("\\u00")
                cursor.hexadecimal(UInt64(byte), digits: 2)
            }
        }
        cursor.bytes(UnsafeBufferPointer(rebasing: text[start..<end]))
    }
}

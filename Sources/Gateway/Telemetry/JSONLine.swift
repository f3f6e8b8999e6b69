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

    private let memory: UnsafeMutableRawBufferPointer
    private(set) var count = 0
    private(set) var isTruncated = false

    /// - Parameter memory: Must outlive this value; SAFETY: every write is checked against its count.
    init(memory: UnsafeMutableRawBufferPointer) {
        self.memory = memory
    }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    /// Text that is JSON already.
    @inline(__always)
    mutating func raw(_ text: StaticString) {
        let length = text.utf8CodeUnitCount
        guard let target = take(length) else { return }
        // SAFETY: `take` gave room for `length` bytes; a static string's bytes live for ever.
        target.copyMemory(from: text.utf8Start, byteCount: length)
    }

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
        if value < 0 { raw("-") }
        digits(value.magnitude, atLeast: 1)
    }

    /// Nanoseconds as seconds with six decimals, rounded down.
    mutating func seconds(_ nanoseconds: Int64?) {
        guard let nanoseconds else { return raw("null") }
        let microseconds = max(0, nanoseconds) / 1_000
        digits(UInt64(microseconds / 1_000_000), atLeast: 1)
        raw(".")
        digits(UInt64(microseconds % 1_000_000), atLeast: 6)
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
        digits(yearOfEra + era * 400 + (month <= 2 ? 1 : 0), atLeast: 4)
        raw("-")
        digits(month, atLeast: 2)
        raw("-")
        digits(day, atLeast: 2)
        raw("T")
        digits(rest / 3_600_000, atLeast: 2)
        raw(":")
        digits(rest / 60_000 % 60, atLeast: 2)
        raw(":")
        digits(rest / 1_000 % 60, atLeast: 2)
        raw(".")
        digits(rest % 1_000, atLeast: 3)
        raw("Z")
    }

    /// Sixteen lower-case digits.
    mutating func hexadecimal(_ value: UInt64) {
        guard let target = take(16) else { return }
        for index in 0..<16 {
            let nibble = UInt8(truncatingIfNeeded: value >> UInt64(60 - 4 * index)) & 0xF
            // SAFETY: `take` gave room for 16 bytes.
            target.storeBytes(
                of: nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10, toByteOffset: index, as: UInt8.self)
        }
    }

    private mutating func digits(_ value: UInt64, atLeast width: Int) {
        var length = 1
        var bound: UInt64 = 10
        // 10^19 is the last power that UInt64 holds.
        while length < 20, value >= bound {
            length += 1
            if length == 20 { break }
            bound *= 10
        }
        length = max(length, width)
        guard let target = take(length) else { return }
        var rest = value
        for index in stride(from: length - 1, through: 0, by: -1) {
            // SAFETY: `take` gave room for `length` bytes.
            target.storeBytes(of: UInt8(rest % 10) + 0x30, toByteOffset: index, as: UInt8.self)
            rest /= 10
        }
    }

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
            copy(text, start..<index)
            start = index + 1
            switch byte {
            case 0x22: raw("\\\"")
            case 0x5C: raw("\\\\")
            case 0x0A: raw("\\n")
            case 0x0D: raw("\\r")
            case 0x09: raw("\\t")
            default:
                raw("\\u00")
                guard let target = take(2) else { return }
                let low = byte & 0xF
                // SAFETY: `take` gave room for 2 bytes.
                target.storeBytes(of: 0x30 + byte >> 4, as: UInt8.self)
                target.storeBytes(of: low < 10 ? 0x30 + low : 0x61 + low - 10, toByteOffset: 1, as: UInt8.self)
            }
        }
        copy(text, start..<end)
    }

    private mutating func copy(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) {
        guard !range.isEmpty, let source = text.baseAddress, let target = take(range.count) else { return }
        // SAFETY: the range lies within `text`, and `take` gave room for its count.
        target.copyMemory(from: source + range.lowerBound, byteCount: range.count)
    }

    /// Room for `length` bytes, nil (and the mark) where there is none.
    @inline(__always)
    private mutating func take(_ length: Int) -> UnsafeMutableRawPointer? {
        guard length <= memory.count - count, let base = memory.baseAddress else {
            isTruncated = true
            return nil
        }
        let target = base + count
        count += length
        return target
    }
}

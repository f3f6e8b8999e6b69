#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A point on the machine's monotonic clock, in nanoseconds. Never compared across machines or restarts.
package struct MonotonicTime: Hashable, Sendable, Comparable {
    package let nanoseconds: Int64

    package init(nanoseconds: Int64) {
        self.nanoseconds = nanoseconds
    }

    /// Reads CLOCK_MONOTONIC. State machines never call this: their time is an argument.
    package static func now() -> MonotonicTime {
        var spec = timespec()
        clock_gettime(CLOCK_MONOTONIC, &spec)
        return MonotonicTime(nanoseconds: Int64(spec.tv_sec) * 1_000_000_000 + Int64(spec.tv_nsec))
    }

    package func advanced(byNanoseconds delta: Int64) -> MonotonicTime {
        MonotonicTime(nanoseconds: nanoseconds + delta)
    }

    /// Within centuries, whatever is asked.
    package func advanced(bySeconds seconds: Double) -> MonotonicTime {
        let nanoseconds = (seconds.isNaN ? 0 : min(max(seconds, -1e9), 1e9)) * 1e9
        return advanced(byNanoseconds: Int64(nanoseconds))
    }

    package func advanced(by duration: Duration) -> MonotonicTime {
        advanced(byNanoseconds: duration.nanoseconds)
    }

    /// Nanoseconds from `earlier` to here.
    package func nanoseconds(since earlier: MonotonicTime) -> Int64 { nanoseconds - earlier.nanoseconds }

    /// Seconds from `earlier` to here.
    package func seconds(since earlier: MonotonicTime) -> Double { Double(nanoseconds(since: earlier)) / 1e9 }

    package static func < (left: MonotonicTime, right: MonotonicTime) -> Bool { left.nanoseconds < right.nanoseconds }
}

/// A point in civil time: milliseconds since 1970 UTC. For records that people read, never for timeouts.
package struct WallTime: Hashable, Sendable, Comparable {
    package let milliseconds: Int64

    package init(milliseconds: Int64) {
        self.milliseconds = milliseconds
    }

    /// Reads CLOCK_REALTIME.
    package static func now() -> WallTime {
        var spec = timespec()
        clock_gettime(CLOCK_REALTIME, &spec)
        return WallTime(milliseconds: Int64(spec.tv_sec) * 1_000 + Int64(spec.tv_nsec) / 1_000_000)
    }

    package static func < (left: WallTime, right: WallTime) -> Bool { left.milliseconds < right.milliseconds }

    /// RFC 3339 in UTC with milliseconds: `2026-11-22T17:50:00.123Z`.
    package var rfc3339: String {
        var seconds = time_t(milliseconds / 1_000)
        var fraction = milliseconds % 1_000
        if fraction < 0 {
            fraction += 1_000
            seconds -= 1
        }
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: some BinaryInteger, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = "\(padded(Int(parts.tm_year) + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
        let time = "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
        return "\(date)T\(time).\(padded(fraction, 3))Z"
    }
}

extension Duration {
    /// Whole nanoseconds; durations past 292 years saturate.
    package var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? (seconds < 0 ? .min : .max) : product + attoseconds / 1_000_000_000
    }

    package var milliseconds: Int64 { nanoseconds / 1_000_000 }
}

extension WallTime {
    /// HTTP's preferred form: `Sun, 22 Nov 2026 17:50:00 GMT`.
    package var imfFixdate: String {
        var seconds = time_t(milliseconds / 1_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let date = "\(two(parts.tm_mday)) \(months[Int(parts.tm_mon)]) \(Int(parts.tm_year) + 1900)"
        let time = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        return "\(days[Int(parts.tm_wday)]), \(date) \(time) GMT"
    }
}

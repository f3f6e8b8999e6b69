import Domain

/// What a limit applies to.
package enum Scope: Hashable, Sendable {
    case org
    case key(KeyID)

    /// How it is named in the store's keys.
    package var name: String {
        switch self {
        case .org: "o"
        case .key(let id): "k:\(id)"
        }
    }
}

/// A rolling minute of requests and tokens, in one-second buckets.
///
/// A bucket counts from its own second until 60 whole seconds have passed after that second's end, so the sum never
/// covers less than the last 60 s: no 60 s, wherever they begin, hold more than the limit. (A token bucket or GCRA
/// whose burst is the limit admits twice the limit in 60 s; a window that forgets the 60th second admits it in 59.1.)
///
/// The ring holds 60 seconds of the past, the present one, and ``aheadSeconds`` to come, where leased amounts will be
/// booked.
package struct RateWindow: Hashable, Sendable {
    package static let pastSeconds: Int64 = 60
    package static let aheadSeconds: Int64 = 10
    package static let buckets = 71
    /// No refusal tells a client to wait longer.
    package static let retryAfterMillisecondsMax: Int64 = 60_000

    private struct Bucket: Hashable {
        var requests = 0
        var tokens = 0
    }

    /// The present second when the window was last looked at.
    private var second: Int64
    /// The last second in which an admission was booked.
    private var newest: Int64 = 0
    private var ring = [Bucket](repeating: Bucket(), count: Self.buckets)
    package private(set) var requests = 0
    package private(set) var tokens = 0

    package init(second: Int64) {
        self.second = second
    }

    /// Forgets what is older than 60 s. Time that goes backwards changes nothing.
    package mutating func age(to now: Int64) {
        guard now > second else { return }
        if now - second >= Int64(Self.buckets) {
            self = RateWindow(second: now)
            return
        }
        for leaving in (second - Self.pastSeconds)..<(now - Self.pastSeconds) {
            let index = Self.index(leaving)
            requests -= ring[index].requests
            tokens -= ring[index].tokens
            ring[index] = Bucket()
        }
        second = now
    }

    /// Books one request in the present second.
    package mutating func book(tokens count: Int) {
        let index = Self.index(second)
        ring[index].requests += 1
        ring[index].tokens += count
        requests += 1
        tokens += count
        newest = second
    }

    /// Takes unused tokens out of the bucket they were booked in. A bucket that has aged out took them along.
    package mutating func giveBack(_ booking: RateBooking) {
        guard booking.second >= second - Self.pastSeconds, booking.second <= second + Self.aheadSeconds else { return }
        let index = Self.index(booking.second)
        let count = min(ring[index].tokens, booking.tokens)
        ring[index].tokens -= count
        tokens -= count
    }

    /// Until one more request fits `limit`.
    package func waitForRequest(limit: Int, now milliseconds: Int64) -> Int64 {
        wait(excess: requests + 1 - limit, now: milliseconds, of: \.requests)
    }

    /// Until `count` more tokens fit `limit`.
    package func waitForTokens(_ count: Int, limit: Int, now milliseconds: Int64) -> Int64 {
        wait(excess: tokens + count - limit, now: milliseconds, of: \.tokens)
    }

    /// Until the newest booked bucket ages out; 0 where nothing is booked.
    package func resetMilliseconds(now milliseconds: Int64) -> Int64 {
        requests == 0 ? 0 : Self.agesOut(newest) - milliseconds
    }

    private func wait(excess: Int, now milliseconds: Int64, of count: KeyPath<Bucket, Int>) -> Int64 {
        var aged = 0
        for bucket in (second - Self.pastSeconds)...(second + Self.aheadSeconds) {
            aged += ring[Self.index(bucket)][keyPath: count]
            if aged >= excess {
                return min(Self.retryAfterMillisecondsMax, max(1, Self.agesOut(bucket) - milliseconds))
            }
        }
        return Self.retryAfterMillisecondsMax
    }

    /// Unix milliseconds at which a bucket stops counting.
    private static func agesOut(_ second: Int64) -> Int64 { (second + pastSeconds + 1) * 1_000 }

    private static func index(_ second: Int64) -> Int {
        // Seconds near the epoch occur in tests only, but a negative index must not.
        let remainder = second % Int64(buckets)
        return Int(remainder < 0 ? remainder + Int64(buckets) : remainder)
    }
}

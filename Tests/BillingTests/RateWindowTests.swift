import Billing
import Domain
import Support
import Testing

@Suite struct RateWindowTests {
    private static let second: Int64 = 1_800_000_000

    @Test func noSixtySecondsHoldMoreThanTheLimit() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        let limit = 20
        var window = RateWindow(second: Self.second)
        var admitted: [Int64] = []
        var now = Self.second * 1_000
        for _ in 0..<20_000 {
            now += Int64(random.chance(2) ? random.int(0...70_000) : random.int(0...400))
            window.age(to: now / 1_000)
            guard window.requests < limit else { continue }
            window.book(tokens: 1)
            admitted.append(now)
        }
        for (first, last) in zip(admitted, admitted.dropFirst(limit)) {
            #expect(last - first >= 60_000, "seed \(seed): \(limit + 1) requests within \(last - first) ms")
        }
        #expect(admitted.count > 1_000)
    }

    /// A token bucket or GCRA whose burst is the limit has refilled by half after half a minute.
    @Test func burstIsNotFollowedByAnotherWithinTheMinute() {
        var window = RateWindow(second: Self.second)
        for _ in 0..<10 { window.book(tokens: 5) }
        var admitted = 0
        for second in 0...60 {
            window.age(to: Self.second + Int64(second))
            if window.requests < 10 { admitted += 1 }
        }
        #expect(admitted == 0)
        window.age(to: Self.second + 61)
        #expect(window.requests == 0)
        #expect(window.tokens == 0)
    }

    @Test func waitEndsWhenEnoughHasAgedOut() {
        var window = RateWindow(second: Self.second)
        window.book(tokens: 100)
        window.age(to: Self.second + 10)
        window.book(tokens: 50)
        window.age(to: Self.second + 20)
        let now = (Self.second + 20) * 1_000 + 250
        #expect(window.waitForTokens(100, limit: 200, now: now) == 40_750)
        #expect(window.waitForTokens(101, limit: 200, now: now) == 40_750)
        #expect(window.waitForTokens(151, limit: 200, now: now) == 50_750)
        #expect(window.waitForRequest(limit: 2, now: now) == 40_750)
        #expect(window.waitForRequest(limit: 1, now: now) == 50_750)
        #expect(window.resetMilliseconds(now: now) == 50_750)
    }

    @Test func nobodyWaitsLongerThanAMinute() {
        var window = RateWindow(second: Self.second)
        window.book(tokens: 1)
        #expect(window.waitForRequest(limit: 1, now: Self.second * 1_000) == 60_000)
        #expect(window.waitForRequest(limit: 0, now: Self.second * 1_000) == 60_000)
    }

    @Test func timeThatGoesBackwardsForgetsNothing() {
        var window = RateWindow(second: Self.second)
        window.book(tokens: 7)
        window.age(to: Self.second - 500)
        #expect(window.tokens == 7)
        window.age(to: Self.second + 60)
        #expect(window.tokens == 7)
    }

    @Test func bucketGivesBackNoMoreThanItHolds() {
        var window = RateWindow(second: Self.second)
        window.book(tokens: 7)
        window.age(to: Self.second + 1)
        window.book(tokens: 5)
        window.giveBack(RateBooking(second: Self.second, tokens: 100))
        #expect(window.tokens == 5)
        window.giveBack(RateBooking(second: Self.second - 61, tokens: 5))
        #expect(window.tokens == 5)
        #expect(window.requests == 2)
    }
}

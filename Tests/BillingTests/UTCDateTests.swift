import Billing
import Domain
import Testing

@Suite struct UTCDateTests {
    /// RFC 3339 comes from the C library: another calendar than ours.
    @Test func daysAgreeWithTheSystemsCalendar() {
        for day in stride(from: Int64(-30_000), through: 60_000, by: 1) {
            let time = WallTime(milliseconds: day * 86_400_000 + 43_200_000)
            let date = UTCDate(time)
            #expect(date.description == String(time.rfc3339.prefix(10)))
            #expect(UTCDate(date.description) == date)
        }
    }

    @Test(arguments: [
        "2026-02-29", "2026-13-01", "2026-00-10", "2026-01-00", "2026-1-01", "26-01-01", "2026-04-31", "2026/01/01",
        "2026-01-01T", "", "0000-01-01", "+026-01-01",
    ])
    func impossibleDatesAreRefused(text: String) {
        #expect(UTCDate(text) == nil)
    }

    @Test func monthsFollowEachOther() throws {
        let date = try #require(UTCDate("2027-11-30"))
        #expect(date.firstOfNextMonth.description == "2027-12-01")
        #expect(date.firstOfNextMonth.firstOfNextMonth.description == "2028-01-01")
        #expect(date.monthText == "2027-11")
    }

    @Test func lastMillisecondBelongsToItsDay() {
        #expect(UTCDate(WallTime(milliseconds: 86_399_999)).description == "1970-01-01")
        #expect(UTCDate(WallTime(milliseconds: 86_400_000)).description == "1970-01-02")
        #expect(UTCDate(WallTime(milliseconds: -1)).description == "1969-12-31")
    }
}

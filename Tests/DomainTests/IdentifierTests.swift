import Domain
import Testing

@Suite struct IdentifierTests {
    @Test(arguments: [
        "a", "acme", "llama-3.1-8b", "meta-llama/Llama-3.1-8B", "A:b_c", String(repeating: "x", count: 64),
    ])
    func namesOfTheGrammarAreTaken(name: String) {
        #expect(OrgID(name)?.rawValue == name)
    }

    @Test(arguments: ["", "-a", ".a", "a b", "a{b}", "a\n", "é", "a\"b", String(repeating: "x", count: 65), "a*"])
    func namesThatWouldBreakAKeyOrALogLineAreRefused(name: String) {
        #expect(OrgID(name) == nil)
    }

    @Test func requestIDsReadBackAsTheyPrint() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<1_000 {
            let id = RequestID(using: &generator)
            #expect(id.description.utf8.count == 36)
            #expect(RequestID(id.description) == id)
        }
        #expect(RequestID("req_00000000000000000000000000000000") == RequestID(high: 0, low: 0))
    }

    @Test(arguments: [
        "", "req_", "req_0", "REQ_00000000000000000000000000000000", "req_0000000000000000000000000000000G",
    ])
    func otherTextIsNoRequestID(text: String) {
        #expect(RequestID(text) == nil)
    }
}

@Suite struct TimeTests {
    @Test func wallTimePrintsAsRFC3339AndAsHTTPDate() {
        let time = WallTime(milliseconds: 1_795_369_800_123)
        #expect(time.rfc3339 == "2026-11-22T17:50:00.123Z")
        #expect(time.imfFixdate == "Sun, 22 Nov 2026 17:50:00 GMT")
        #expect(WallTime(milliseconds: -1).rfc3339 == "1969-12-31T23:59:59.999Z")
    }

    @Test func durationsSaturateInsteadOfWrapping() {
        #expect(Duration.seconds(Int64.max).nanoseconds == .max)
        #expect(Duration.milliseconds(1_500).nanoseconds == 1_500_000_000)
    }

    @Test func theMonotonicClockDoesNotGoBack() {
        var last = MonotonicTime.now()
        for _ in 0..<1_000 {
            let next = MonotonicTime.now()
            #expect(next >= last)
            last = next
        }
        #expect(last.advanced(by: .seconds(2)).seconds(since: last) == 2)
    }
}

import Simulator
import Testing

@Suite struct EventFileTests {
    private func parse(_ text: String) throws(EventFile.Failure) -> EventFile {
        try EventFile(text, file: "events", fleet: FleetSpec(.homogeneous, nodes: 8), orgs: 4)
    }

    @Test func everyEventIsReadInTheOrderOfTime() throws {
        let file = try parse(
            """
            # a comment
            2m    restore node-1
            90s   kill node-3       # another
            95.5  join node-3
            100ms freeze node-0,lulea for 1s
            60s   curtail austin to 35% for 10s
            3s    thaw all
            5s    surge org-2 x10 for 1m
            """)
        #expect(
            file.script == [
                ScriptedEvent(seconds: 0.1, action: .freeze(nodes: [0, 2, 6], isFrozen: true)),
                ScriptedEvent(seconds: 1.1, action: .freeze(nodes: [0, 2, 6], isFrozen: false)),
                ScriptedEvent(seconds: 3, action: .freeze(nodes: Array(0..<8), isFrozen: false)),
                ScriptedEvent(seconds: 60, action: .curtail(nodes: [0, 4], share: 0.35)),
                ScriptedEvent(seconds: 70, action: .curtail(nodes: [0, 4], share: 1)),
                ScriptedEvent(seconds: 90, action: .kill(node: 3)),
                ScriptedEvent(seconds: 95.5, action: .join(node: 3)),
                ScriptedEvent(seconds: 120, action: .curtail(nodes: [1], share: 1)),
            ])
        #expect(file.surges == [Surge(org: 2, factor: 10, start: 5, seconds: 60)])
    }

    @Test func churnTakesTheNextNodesEachTimeAndBringsThemBack() throws {
        let file = try parse("10s churn 25% every 20s for 1m")
        #expect(file.script.count == 12)
        #expect(
            file.script.prefix(4) == [
                ScriptedEvent(seconds: 10, action: .kill(node: 0)), ScriptedEvent(seconds: 10, action: .kill(node: 1)),
                ScriptedEvent(seconds: 20, action: .join(node: 0)), ScriptedEvent(seconds: 20, action: .join(node: 1)),
            ])
    }

    @Test(arguments: [
        ("kill node-1", "events:1: kill is not a time such as 90s, 5m or 100ms"),
        ("\n-5s kill node-1", "events:2: -5s is not a time such as 90s, 5m or 100ms"),
        (
            "5s explode node-1",
            "events:1: explode is no event: use kill, join, churn, curtail, restore, freeze, thaw or surge"
        ),
        (
            "5s kill node-9",
            "events:1: node-9 is no node of this fleet (node-0 to node-7) and no site (austin, reykjavik, lulea, quebec)"
        ),
        ("5s kill", "events:1: the line ends where a node, a site or all is expected"),
        ("5s kill node-1 now", "events:1: now is one word too many"),
        ("5s join node-9", "events:1: node-9 joins before node-8"),
        ("5s curtail node-1 to 0%", "events:1: 0% is not a share such as 35%, over 0"),
        ("5s curtail node-1 to nan", "events:1: nan is not a share such as 35%, over 0"),
        ("5s curtail node-1 by 5%", "events:1: by stands where 'to' is expected"),
        (
            "5s churn 30% every 0s for 1m",
            "events:1: churn needs an interval over 0, and at most 100000 events"
        ),
        (
            "5s churn 100% every 1ms for 100s",
            "events:1: churn needs an interval over 0, and at most 100000 events"
        ),
        ("5s surge org-4 x10 for 1m", "events:1: org-4 is not an org of this run: they are org-0 to org-3"),
        ("5s surge org-1 10 for 1m", "events:1: 10 is not a factor such as x10, from x1 to x1000"),
    ])
    func errorsNameFileAndLine(text: String, message: String) {
        #expect { try parse(text) } throws: { "\($0)" == message }
    }

    @Test func newNodesJoinInTheOrderOfTheirNumbers() throws {
        let file = try parse("9s join node-9\n5s join node-8")
        #expect(file.script.map(\.seconds) == [5, 9])
    }
}

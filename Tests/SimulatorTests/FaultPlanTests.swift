import Domain
import Testing

@testable import Simulator

@Suite struct FaultPlanTests {
    @Test(
        arguments: [
            ("", []),
            ("refuse", [.init(.refuse)]),
            ("status:500", [.init(.status(500))]),
            ("loading:5s", [.init(.loading(.seconds(5)))]),
            ("first_token:250ms", [.init(.firstToken(.milliseconds(250)))]),
            ("first_token:1.5s", [.init(.firstToken(.milliseconds(1_500)))]),
            ("loading:2m", [.init(.loading(.seconds(120)))]),
            ("die:20", [.init(.die(tokens: 20))]),
            ("die:0", [.init(.die(tokens: 0))]),
            ("stall:20@every 3", [.init(.stall(tokens: 20), .every(3))]),
            ("bad_json@after 10", [.init(.badJSON, .after(10))]),
            ("close@p 0.1", [.init(.close, .probability(0.1))]),
            ("usage:+50%", [.init(.usage(percent: 50))]),
            ("usage:-99%", [.init(.usage(percent: -99))]),
            (" no_usage , no_done @every 2 ", [.init(.noUsage), .init(.noDone, .every(2))]),
            ("overrun:10", [.init(.overrun(tokens: 10))]),
        ] as [(String, [FaultPlan.Rule])])
    func planIsReadAndPrintedBack(text: String, rules: [FaultPlan.Rule]) throws {
        let plan = try FaultPlan(parsing: text)
        #expect(plan.rules == rules)
        #expect(try FaultPlan(parsing: plan.description) == plan)
    }

    @Test(arguments: [
        ("explode", "'explode' is no fault"),
        ("refuse:1", "'refuse' takes no argument"),
        ("status", "400 to 599"),
        ("status:200", "400 to 599"),
        ("status:+500", "400 to 599"),
        ("loading:5", "'loading' takes a duration"),
        ("loading:1e3s", "'loading' takes a duration"),
        ("loading:1441m", "'loading' takes a duration"),
        ("first_token:-1s", "'first_token' takes a duration"),
        ("die", "'die' takes a number of tokens"),
        ("die:-1", "'die' takes a number of tokens"),
        ("die:99999999999999999999", "'die' takes a number of tokens"),
        ("usage:50%", "signed percentage"),
        ("usage:-100%", "signed percentage"),
        ("usage:+50", "signed percentage"),
        ("die:1@sometimes", "'@sometimes' after 'die:1' is no trigger"),
        ("die:1@every 0", "no trigger"),
        ("die:1@p 1.1", "no trigger"),
        ("die:1@p nan", "no trigger"),
        ("die:1,", "'' is no fault"),
        (",", "'' is no fault"),
    ])
    func badPlanSaysWhatIsAllowed(text: String, message: String) {
        #expect { try FaultPlan(parsing: text) } throws: { error in
            (error as? FaultPlanError)?.message.contains(message) == true
        }
    }

    @Test func planIsBounded() {
        let rules = String(repeating: "close,", count: FaultPlan.rulesMax) + "close"
        #expect(throws: FaultPlanError("a fault plan has at most 16 rules, this one 17")) {
            try FaultPlan(parsing: rules)
        }
        #expect(throws: FaultPlanError("a fault plan has at most 1024 bytes")) {
            try FaultPlan(parsing: String(repeating: " ", count: 1_025))
        }
    }

    private let start = MonotonicTime(nanoseconds: 1_000)

    private func statuses(_ text: String, requests: Int, seed: UInt64 = 1) throws -> [Bool] {
        var injector = FaultInjector(plan: try FaultPlan(parsing: text), since: start, seed: seed)
        return (0..<requests).map { _ in injector.requestArrived(at: start).status != nil }
    }

    @Test func triggersChooseTheirRequests() throws {
        #expect(try statuses("status:500", requests: 3) == [true, true, true])
        #expect(try statuses("status:500@every 3", requests: 7) == [false, false, true, false, false, true, false])
        #expect(try statuses("status:500@after 2", requests: 4) == [false, false, true, true])
        #expect(try statuses("status:500@p 0", requests: 100).allSatisfy { !$0 })
        #expect(try statuses("status:500@p 1", requests: 100).allSatisfy { $0 })
    }

    @Test func probabilityIsSeededAndAboutRight() throws {
        let first = try statuses("status:500@p 0.1", requests: 10_000, seed: 7)
        #expect(try statuses("status:500@p 0.1", requests: 10_000, seed: 7) == first)
        #expect(try statuses("status:500@p 0.1", requests: 10_000, seed: 8) != first)
        #expect((900...1_100).contains(first.count { $0 }))
    }

    @Test func loadingEndsByItself() throws {
        var injector = FaultInjector(plan: try FaultPlan(parsing: "loading:5s"), since: start, seed: 1)
        #expect(injector.requestArrived(at: start.advanced(by: .milliseconds(4_999))).loading)
        #expect(!injector.requestArrived(at: start.advanced(by: .seconds(5))).loading)
    }

    @Test func probesMeetOnlyWhatTakesTheWholeNodeAndNeverCount() throws {
        var injector = FaultInjector(
            plan: try FaultPlan(parsing: "status:500@every 2,refuse@every 9"), since: start, seed: 1)
        for _ in 0..<5 { #expect(injector.probeArrived(at: start) == .none) }
        #expect(injector.requestArrived(at: start).status == nil)
        #expect(injector.requestArrived(at: start).status == 500)
        let down = FaultInjector(plan: try FaultPlan(parsing: "refuse,status:500"), since: start, seed: 1)
        #expect(down.probeArrived(at: start).refuse)
        #expect(down.probeArrived(at: start).status == nil)
    }

    @Test func firstOfTwoRulesOfAKindWins() throws {
        var injector = FaultInjector(
            plan: try FaultPlan(parsing: "die:5@every 2,die:9"), since: start, seed: 1)
        #expect(injector.requestArrived(at: start).dieAfterTokens == 9)
        #expect(injector.requestArrived(at: start).dieAfterTokens == 5)
    }
}

import Domain
import Routing
import Testing

struct NodeHealthStateMachineTests {
    enum Event: CaseIterable {
        case probeGood, probeLoading, probeBad, succeeded, failed, cordon, uncordon, replaced
    }

    private static func machine(_ events: [Event], from start: Double = 100) -> NodeHealthStateMachine {
        var machine = NodeHealthStateMachine()
        var clock = start
        for event in events {
            // Far enough apart that no success shields the next probe.
            clock += 10
            switch event {
            case .probeGood: machine.probed(.healthy, now: seconds(clock))
            case .probeLoading: machine.probed(.loading, now: seconds(clock))
            case .probeBad: machine.probed(.failed, now: seconds(clock))
            case .succeeded: machine.requestSucceeded(now: seconds(clock))
            case .failed: machine.requestFailed()
            case .cordon: machine.cordonChanged(to: true)
            case .uncordon: machine.cordonChanged(to: false)
            case .replaced: machine.serverReplaced()
            }
        }
        return machine
    }

    private static let warming: [Event] = []
    private static let ready: [Event] = [.probeGood]
    private static let shaken: [Event] = [.probeGood, .probeBad]
    private static let unhealthy: [Event] = [.probeGood, .probeBad, .probeBad]
    private static let broken: [Event] = [.probeGood, .failed, .failed, .failed]
    private static let onTrial: [Event] = broken + [.probeGood]
    private static let cordoned: [Event] = [.probeGood, .cordon]

    /// Every state by every event.
    private static let table: [(String, [Event], [Event: RoutingNodeState])] = [
        (
            "warming", warming,
            [
                .probeGood: .ready, .probeLoading: .warming, .probeBad: .warming, .succeeded: .ready,
                .failed: .warming, .cordon: .cordoned, .uncordon: .warming, .replaced: .warming,
            ]
        ),
        (
            "ready", ready,
            [
                .probeGood: .ready, .probeLoading: .warming, .probeBad: .ready, .succeeded: .ready,
                .failed: .ready, .cordon: .cordoned, .uncordon: .ready, .replaced: .warming,
            ]
        ),
        (
            "ready after one bad probe", shaken,
            [
                .probeGood: .ready, .probeLoading: .warming, .probeBad: .unhealthy, .succeeded: .ready,
                .failed: .ready, .cordon: .cordoned, .uncordon: .ready, .replaced: .warming,
            ]
        ),
        (
            "unhealthy", unhealthy,
            [
                .probeGood: .ready, .probeLoading: .warming, .probeBad: .unhealthy, .succeeded: .ready,
                .failed: .unhealthy, .cordon: .cordoned, .uncordon: .unhealthy, .replaced: .warming,
            ]
        ),
        (
            "breaker open", broken,
            [
                .probeGood: .ready, .probeLoading: .unhealthy, .probeBad: .unhealthy, .succeeded: .ready,
                .failed: .unhealthy, .cordon: .cordoned, .uncordon: .unhealthy, .replaced: .warming,
            ]
        ),
        (
            "breaker on trial", onTrial,
            [
                .probeGood: .ready, .probeLoading: .warming, .probeBad: .ready, .succeeded: .ready,
                .failed: .unhealthy, .cordon: .cordoned, .uncordon: .ready, .replaced: .warming,
            ]
        ),
        (
            "cordoned", cordoned,
            [
                .probeGood: .cordoned, .probeLoading: .cordoned, .probeBad: .cordoned, .succeeded: .cordoned,
                .failed: .cordoned, .cordon: .cordoned, .uncordon: .ready, .replaced: .cordoned,
            ]
        ),
    ]

    @Test(arguments: Self.table.indices, Event.allCases)
    func everyEventInEveryStateLeadsWhereTheTableSays(row: Int, event: Event) {
        let (name, path, expected) = Self.table[row]
        #expect(Self.machine(path + [event]).state == expected[event], "\(name), \(event)")
    }

    @Test func successBetweenFailuresKeepsTheBreakerClosed() {
        #expect(Self.machine([.probeGood, .failed, .failed, .succeeded, .failed, .failed]).state == .ready)
        #expect(Self.machine(Self.onTrial + [.succeeded, .failed, .failed]).state == .ready)
        #expect(Self.machine(Self.onTrial + [.succeeded, .failed, .failed, .failed]).state == .unhealthy)
    }

    @Test func goodProbesDoNotHideFailingRequests() {
        #expect(Self.machine([.probeGood, .failed, .probeGood, .failed, .probeGood, .failed]).state == .unhealthy)
    }

    @Test func failedProbesDoNotCountRightAfterASuccess() {
        var machine = NodeHealthStateMachine()
        machine.requestSucceeded(now: seconds(10))
        for time in [10.1, 11, 11.9] { machine.probed(.failed, now: seconds(time)) }
        #expect(machine.state == .ready)
        machine.probed(.failed, now: seconds(12))
        #expect(machine.state == .ready)
        machine.probed(.failed, now: seconds(12.1))
        #expect(machine.state == .unhealthy)
    }

    @Test func cordonOutlivesEverythingButItsOwnEnd() {
        let path: [Event] = [
            .cordon, .probeGood, .succeeded, .failed, .replaced, .probeGood, .probeLoading, .probeGood,
        ]
        #expect(Self.machine(path).state == .cordoned)
        #expect(Self.machine(path + [.uncordon]).state == .ready)
    }
}

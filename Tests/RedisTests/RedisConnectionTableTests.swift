import Domain
import Testing

@testable import Redis

@Suite struct RedisConnectionTableTests {
    enum Place: String, CaseIterable {
        case idle, connecting, handshaking, ready, disconnecting, backingOff, draining, closing, closed
    }

    enum Event: String, CaseIterable {
        case started, connected, connectFailed, reply, protocolViolated, channelClosed, closeRequested, timerFired
        case waitingReleased
    }

    /// Where each legal event leads. A pair that is missing is illegal: nothing may change.
    static let table: [Place: [Event: Place]] = [
        .idle: [.started: .connecting, .closeRequested: .closed, .timerFired: .idle],
        .connecting: [
            .connected: .handshaking, .connectFailed: .backingOff, .closeRequested: .closing, .timerFired: .connecting,
        ],
        .handshaking: [
            .reply: .ready, .protocolViolated: .disconnecting, .channelClosed: .backingOff, .closeRequested: .closing,
            .timerFired: .disconnecting,
        ],
        .ready: [
            .reply: .ready, .protocolViolated: .disconnecting, .channelClosed: .backingOff, .closeRequested: .draining,
            .timerFired: .disconnecting, .waitingReleased: .ready,
        ],
        .disconnecting: [
            .reply: .disconnecting, .protocolViolated: .disconnecting, .channelClosed: .backingOff,
            .closeRequested: .closing, .timerFired: .disconnecting,
        ],
        .backingOff: [.closeRequested: .closed, .timerFired: .connecting],
        .draining: [
            .reply: .closing, .protocolViolated: .closing, .channelClosed: .closed, .timerFired: .closing,
        ],
        .closing: [
            .connected: .closing, .connectFailed: .closed, .reply: .closing, .protocolViolated: .closing,
            .channelClosed: .closed, .timerFired: .closing,
        ],
        .closed: [.timerFired: .closed],
    ]

    private func machine(in place: Place) -> Machine {
        var machine = makeMachine()
        if place == .idle { return machine }
        _ = machine.started()
        if place == .connecting { return machine }
        if place == .backingOff {
            _ = machine.connectFailed(.notConnected, now: seconds(0), jitter: 0)
            return machine
        }
        if place == .closed || place == .closing {
            _ = machine.closeRequested(deadline: later)
            if place == .closed { _ = machine.connectFailed(.notConnected, now: seconds(0), jitter: 0) }
            return machine
        }
        _ = machine.connected(now: seconds(0))
        if place == .handshaking { return machine }
        _ = machine.replyReceived(info)
        _ = machine.sendOne(1)
        machine.flushed()
        if place == .disconnecting { _ = machine.protocolViolated("test") }
        if place == .draining { _ = machine.closeRequested(deadline: later) }
        return machine
    }

    private func place(of machine: Machine) -> Place {
        switch machine.state {
        case .idle: .idle
        case .connecting: .connecting
        case .handshaking: .handshaking
        case .ready: .ready
        case .disconnecting: .disconnecting
        case .backingOff: .backingOff
        case .draining: .draining
        case .closing: .closing
        case .closed: .closed
        }
    }

    /// - Returns: Whether the machine asked for anything.
    private func apply(_ event: Event, to machine: inout Machine) -> Bool {
        switch event {
        case .started: !machine.started().isEmpty
        case .connected: !machine.connected(now: seconds(1)).isEmpty
        case .connectFailed: !machine.connectFailed(.notConnected, now: seconds(1), jitter: 0.5).isEmpty
        case .reply: machine.replyReceived(info) != .perform([])
        case .protocolViolated: !machine.protocolViolated("test").isEmpty
        case .channelClosed: !machine.channelClosed(now: seconds(1), jitter: 0.5).isEmpty
        case .closeRequested: !machine.closeRequested(deadline: later).isEmpty
        case .timerFired: !machine.timerFired(now: seconds(2_000)).isEmpty
        case .waitingReleased: !machine.waitingReleased().write.isEmpty
        }
    }

    @Test(arguments: Place.allCases) func everyEventLeadsWhereTheTableSays(from: Place) {
        for event in Event.allCases {
            var machine = machine(in: from)
            #expect(place(of: machine) == from)
            let acted = apply(event, to: &machine)
            if let to = Self.table[from]?[event] {
                #expect(place(of: machine) == to, "\(from) + \(event)")
                #expect(machine.illegalEvents == 0, "\(from) + \(event)")
            } else {
                #expect(place(of: machine) == from, "\(from) + \(event)")
                #expect(machine.illegalEvents == 1, "\(from) + \(event)")
                #expect(!acted, "\(from) + \(event)")
            }
        }
    }

    @Test(arguments: Place.allCases) func commandsAreWrittenKeptOrRejectedByState(place: Place) {
        var failing = machine(in: place)
        var waiting = machine(in: place)
        let whenFailing = failing.commandSubmitted(7, deadline: later, waitingBytes: nil)
        let whenWaiting = waiting.commandSubmitted(7, deadline: later, waitingBytes: 5)
        switch place {
        case .ready:
            #expect(whenFailing == .write && whenWaiting == .write)
        case .draining, .closing, .closed:
            #expect(whenFailing == .reject(7, .notConnected) && whenWaiting == .reject(7, .notConnected))
        case .idle, .connecting, .handshaking, .disconnecting, .backingOff:
            #expect(whenFailing == .reject(7, .notConnected) && whenWaiting == .wait)
        }
    }

    @Test(arguments: Place.allCases) func everyTokenComesOutExactlyOnceHoweverItEnds(from: Place) {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SplitMix64(seed: seed)
        for round in 0..<300 {
            var machine = machine(in: from)
            var alive: Set<Int> = from == .ready || from == .draining ? [1] : []
            var ended: [Int] = []
            var clock = 2.0
            func end(_ actions: [Machine.Action]) {
                for case .fail(let token, _) in actions { ended.append(token) }
            }
            for token in 100..<160 {
                clock += Double.random(in: 0...0.3, using: &generator)
                let now = seconds(clock)
                let deadline = seconds(clock + .random(in: 0...2, using: &generator))
                switch Int.random(in: 0..<12, using: &generator) {
                case 0...4:
                    let waits = Bool.random(using: &generator)
                    switch machine.commandSubmitted(token, deadline: deadline, waitingBytes: waits ? 3 : nil) {
                    case .write:
                        machine.commandEncoded(bytes: 3)
                        alive.insert(token)
                    case .wait: alive.insert(token)
                    case .reject: break
                    }
                    if Bool.random(using: &generator) { machine.flushed() }
                case 5...7:
                    switch machine.replyReceived(info) {
                    case .complete(let token), .completeLast(let token): ended.append(token)
                    case .dropLate: break
                    case .perform(let actions):
                        end(actions)
                        if actions.contains(.announceReady(runID: runID, isReconnect: false))
                            || actions.contains(.announceReady(runID: runID, isReconnect: true))
                        {
                            end(machine.waitingReleased().fail)
                        }
                    }
                case 8: end(machine.timerFired(now: now))
                case 9: end(machine.connected(now: now))
                case 10: end(machine.channelClosed(now: now, jitter: 0.5))
                default:
                    if Int.random(in: 0..<10, using: &generator) == 0 { end(machine.closeRequested(deadline: now)) }
                }
            }
            end(machine.closeRequested(deadline: seconds(clock)))
            end(machine.timerFired(now: seconds(clock + 1_000)))
            end(machine.channelClosed(now: seconds(clock), jitter: 0))
            #expect(ended.sorted() == alive.sorted(), "seed \(seed), round \(round)")
            #expect(machine.pendingBytes == 0 && machine.waitingBytes == 0, "seed \(seed), round \(round)")
        }
    }
}

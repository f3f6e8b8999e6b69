import Domain
import Testing

@testable import Redis

private typealias Machine = RedisConnectionStateMachine<Int>

private func seconds(_ value: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(value * 1e9)) }

private let runID = String(repeating: "a1", count: 20)
private let info = RESPValue.bulkString(Array("# Server\r\nredis_version:7.0.15\r\nrun_id:\(runID)\r\n".utf8))
private let later = seconds(1_000)

private func makeMachine(
    _ handshake: [RedisHandshakeStep] = [.identify], configure: (inout RedisLimits) -> Void = { _ in }
) -> Machine {
    var limits = RedisLimits()
    configure(&limits)
    return Machine(limits: limits, handshake: handshake)
}

private func makeReady(at now: MonotonicTime = seconds(0), configure: (inout RedisLimits) -> Void = { _ in }) -> Machine
{
    var machine = makeMachine(configure: configure)
    _ = machine.started()
    _ = machine.connected(now: now)
    _ = machine.replyReceived(info)
    return machine
}

extension Machine {
    /// Submits and encodes one that does not wait.
    fileprivate mutating func sendOne(_ token: Int, deadline: MonotonicTime = later, bytes: Int = 10) -> SubmitAction {
        let action = commandSubmitted(token, deadline: deadline, waitingBytes: nil)
        if action == .write { commandEncoded(bytes: bytes) }
        return action
    }
}

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

@Suite struct RedisConnectionStateMachineTests {
    // MARK: Handshake

    @Test func isReadyOnlyAfterTheLastHandshakeReply() {
        var machine = makeMachine([.authenticate, .identify, .select, .setName])
        #expect(machine.started() == [.connect])
        #expect(
            machine.connected(now: seconds(0)) == [.sendHandshake([.authenticate, .identify, .select, .setName])])
        #expect(machine.replyReceived(.ok) == .perform([]))
        #expect(machine.replyReceived(info) == .perform([]))
        #expect(machine.runID == runID)
        #expect(machine.replyReceived(.ok) == .perform([]))
        #expect(!machine.isReady)
        #expect(machine.replyReceived(.ok) == .perform([.announceReady(runID: runID, isReconnect: false)]))
        #expect(machine.isReady)
    }

    @Test func aRefusedLoginIsToldToThoseWhoWait() {
        var machine = makeMachine([.authenticate, .identify])
        _ = machine.started()
        _ = machine.commandSubmitted(1, deadline: later, waitingBytes: 4)
        _ = machine.connected(now: seconds(0))
        let reply = RESPValue.error(RedisServerError("WRONGPASS invalid username-password pair"))
        let error = RedisError.server(
            code: "WRONGPASS",
            message: "AUTH refused: WRONGPASS invalid username-password pair"
                + " (check the user and the password in the Redis URL)")
        #expect(machine.replyReceived(reply) == .perform([.fail(1, error), .closeChannel]))
        #expect(machine.lastConnectFailure == error)
        _ = machine.channelClosed(now: seconds(0), jitter: 0)
        #expect(machine.lastConnectFailure == error)
        #expect(machine.runID == nil)
    }

    @Test func aPassingRefusalIsWaitedOut() {
        var machine = makeMachine()
        _ = machine.started()
        _ = machine.commandSubmitted(1, deadline: later, waitingBytes: 4)
        _ = machine.connected(now: seconds(0))
        let reply = RESPValue.error(RedisServerError("LOADING Redis is loading the dataset in memory"))
        #expect(machine.replyReceived(reply) == .perform([.closeChannel]))
        #expect(machine.waitingCount == 1)
    }

    @Test func aRefusedNameDoesNotMatter() {
        var machine = makeMachine([.identify, .setName])
        _ = machine.started()
        _ = machine.connected(now: seconds(0))
        _ = machine.replyReceived(info)
        let reply = RESPValue.error(RedisServerError("NOPERM this user has no permissions"))
        #expect(machine.replyReceived(reply) == .perform([.announceReady(runID: runID, isReconnect: false)]))
    }

    @Test(arguments: [
        RESPValue.ok, .null, .bulkString(Array("run_id:short\r\n".utf8)),
        .bulkString(Array("xrun_id:\(runID)\r\n".utf8)), .bulkString(Array("run_id:\(runID)0\r\n".utf8)),
    ])
    func aServerWithoutARunIDIsNotRedis(reply: RESPValue) {
        var machine = makeMachine()
        _ = machine.started()
        _ = machine.connected(now: seconds(0))
        #expect(machine.replyReceived(reply) == .perform([.closeChannel]))
        #expect(machine.lastConnectFailure == .protocolViolation("INFO server names no run_id"))
    }

    @Test func aSilentServerTimesOutOfTheHandshake() {
        var machine = makeMachine()
        _ = machine.started()
        _ = machine.connected(now: seconds(10))
        #expect(machine.timerFired(now: seconds(11.9)) == [])
        #expect(machine.timerFired(now: seconds(12)) == [.closeChannel])
        #expect(machine.lastConnectFailure == .timedOut)
    }

    @Test func waitingCommandsFollowInOrderOnceReady() {
        var machine = makeMachine()
        _ = machine.started()
        for token in 1...3 { #expect(machine.commandSubmitted(token, deadline: later, waitingBytes: 8) == .wait) }
        _ = machine.connected(now: seconds(0))
        _ = machine.replyReceived(info)
        #expect(machine.waitingReleased().write == [1, 2, 3])
        #expect(machine.pendingBytes == 24)
        machine.flushed()
        for token in 1...3 { #expect(machine.replyReceived(.ok) == .complete(token)) }
        #expect(machine.pendingBytes == 0)
    }

    // MARK: Pipelining and deadlines

    @Test func repliesMatchCommandsInOrder() {
        var machine = makeReady()
        for token in 1...5 { #expect(machine.sendOne(token) == .write) }
        machine.flushed()
        for token in 1...5 { #expect(machine.replyReceived(.integer(Int64(token))) == .complete(token)) }
        #expect(!machine.needsTimer)
    }

    @Test func aLateReplyIsMatchedAndDropped() {
        var machine = makeReady()
        _ = machine.sendOne(1, deadline: seconds(10))
        _ = machine.sendOne(2, deadline: seconds(20))
        machine.flushed()
        #expect(machine.timerFired(now: seconds(9.99)) == [])
        #expect(machine.timerFired(now: seconds(10)) == [.fail(1, .timedOut)])
        #expect(machine.pendingCount == 2)
        #expect(machine.replyReceived(.integer(1)) == .dropLate)
        #expect(machine.replyReceived(.integer(2)) == .complete(2))
    }

    @Test func deadlinesNeedNotComeInOrder() {
        var machine = makeReady()
        _ = machine.sendOne(1, deadline: seconds(30))
        _ = machine.sendOne(2, deadline: seconds(10))
        _ = machine.sendOne(3, deadline: seconds(20))
        machine.flushed()
        #expect(machine.timerFired(now: seconds(15)) == [.fail(2, .timedOut)])
        #expect(machine.timerFired(now: seconds(25)) == [.fail(3, .timedOut)])
        #expect(machine.replyReceived(.ok) == .complete(1))
        #expect(machine.replyReceived(.ok) == .dropLate)
        #expect(machine.replyReceived(.ok) == .dropLate)
    }

    @Test func anOverdueOldestReplyEndsTheConnection() {
        var machine = makeReady()
        _ = machine.sendOne(1, deadline: seconds(10))
        _ = machine.sendOne(2, deadline: seconds(100))
        machine.flushed()
        #expect(machine.timerFired(now: seconds(10)) == [.fail(1, .timedOut)])
        #expect(machine.timerFired(now: seconds(11.9)) == [])
        #expect(
            machine.timerFired(now: seconds(12))
                == [.fail(2, .connectionClosed(commandMayHaveRun: true)), .closeChannel])
        #expect(machine.state == .disconnecting)
        #expect(machine.lastConnectFailure == .timedOut)
        #expect(machine.replyReceived(.ok) == .dropLate)
    }

    @Test func aLostConnectionSaysWhatMayHaveRun() {
        var machine = makeReady()
        _ = machine.sendOne(1)
        machine.flushed()
        _ = machine.sendOne(2)
        #expect(
            machine.channelClosed(now: seconds(0), jitter: 0)
                == [
                    .fail(1, .connectionClosed(commandMayHaveRun: true)),
                    .fail(2, .connectionClosed(commandMayHaveRun: false)),
                ])
        #expect(machine.runID == nil)
    }

    @Test func anUnaskedReplyBreaksTheProtocol() {
        var machine = makeReady()
        #expect(machine.replyReceived(.ok) == .perform([.closeChannel]))
        #expect(machine.state == .disconnecting)
        // Nor can what has not been sent be answered.
        machine = makeReady()
        _ = machine.sendOne(1)
        #expect(
            machine.replyReceived(.ok)
                == .perform([.fail(1, .connectionClosed(commandMayHaveRun: false)), .closeChannel]))
    }

    @Test func commandsAndBytesPendingAreBounded() {
        var machine = makeReady {
            $0.pendingCommandsMax = 3
            $0.pendingBytesMax = 100
        }
        for token in 1...3 { #expect(machine.sendOne(token) == .write) }
        #expect(machine.sendOne(4) == .reject(4, .overloaded))
        machine.flushed()
        // A timed out command still occupies its place.
        _ = machine.timerFired(now: later)
        #expect(machine.sendOne(5) == .reject(5, .overloaded))
        #expect(machine.replyReceived(.ok) == .dropLate)
        #expect(machine.sendOne(6, bytes: 200) == .write)
        machine.flushed()
        #expect(machine.replyReceived(.ok) == .dropLate)
        #expect(machine.sendOne(7) == .reject(7, .overloaded))
    }

    @Test func waitingCommandsAreBoundedAndExpireAsNeverSent() {
        var machine = makeMachine { $0.waitingCommandsMax = 2 }
        _ = machine.started()
        _ = machine.commandSubmitted(1, deadline: seconds(1), waitingBytes: 4)
        _ = machine.commandSubmitted(2, deadline: seconds(5), waitingBytes: 4)
        #expect(machine.commandSubmitted(3, deadline: later, waitingBytes: 4) == .reject(3, .overloaded))
        #expect(machine.timerFired(now: seconds(2)) == [.fail(1, .notConnected)])
        #expect(machine.commandSubmitted(3, deadline: later, waitingBytes: 4) == .wait)
    }

    @Test func aWithdrawnCommandWasNeverThere() {
        var machine = makeReady()
        _ = machine.sendOne(1)
        _ = machine.commandSubmitted(2, deadline: later, waitingBytes: nil)
        #expect(machine.commandWithdrawn() == 2)
        machine.flushed()
        #expect(machine.replyReceived(.ok) == .complete(1))
        #expect(machine.pendingCount == 0)
    }

    // MARK: Reconnect

    @Test func backoffDoublesToItsMaximumWithJitterOfAHalf() {
        var machine = makeMachine {
            $0.backoffMin = .milliseconds(100)
            $0.backoffMax = .milliseconds(500)
        }
        _ = machine.started()
        var now = seconds(0)
        for delay in [0.1, 0.2, 0.4, 0.5, 0.5] {
            for jitter in [0.0, 0.5] {
                var copy = machine
                #expect(copy.connectFailed(.notConnected, now: now, jitter: jitter) == [])
                let due = now.advanced(by: .seconds(delay / 2 * (1 + jitter)))
                #expect(copy.state == .backingOff(until: due))
                #expect(copy.timerFired(now: due.advanced(byNanoseconds: -1)) == [])
                #expect(copy.timerFired(now: due) == [.connect])
                if jitter == 0.5 {
                    machine = copy
                    now = due
                }
            }
        }
    }

    @Test func aReadyConnectionResetsTheBackoffAndTheNextIsAReconnect() {
        var machine = makeMachine()
        _ = machine.started()
        for _ in 0..<10 {
            _ = machine.connectFailed(.notConnected, now: seconds(0), jitter: 0)
            _ = machine.timerFired(now: later)
        }
        _ = machine.connected(now: seconds(0))
        #expect(machine.replyReceived(info) == .perform([.announceReady(runID: runID, isReconnect: false)]))
        #expect(machine.lastConnectFailure == nil)
        _ = machine.channelClosed(now: seconds(0), jitter: 0)
        #expect(machine.state == .backingOff(until: seconds(0.025)))
        _ = machine.timerFired(now: later)
        _ = machine.connected(now: seconds(0))
        #expect(machine.replyReceived(info) == .perform([.announceReady(runID: runID, isReconnect: true)]))
    }

    // MARK: Closing

    @Test func closingAwaitsWhatIsPending() {
        var machine = makeReady()
        _ = machine.sendOne(1)
        _ = machine.sendOne(2)
        machine.flushed()
        #expect(machine.closeRequested(deadline: later) == [])
        #expect(machine.sendOne(3) == .reject(3, .notConnected))
        #expect(machine.replyReceived(.ok) == .complete(1))
        #expect(machine.replyReceived(.ok) == .completeLast(2))
        #expect(machine.channelClosed(now: seconds(0), jitter: 0) == [.announceClosed])
        #expect(machine.state == .closed)
    }

    @Test func closingEndsAtItsDeadline() {
        var machine = makeReady()
        _ = machine.sendOne(1)
        machine.flushed()
        _ = machine.closeRequested(deadline: seconds(5))
        #expect(machine.timerFired(now: seconds(4.9)) == [])
        #expect(
            machine.timerFired(now: seconds(5))
                == [.fail(1, .connectionClosed(commandMayHaveRun: true)), .closeChannel])
        #expect(machine.state == .closing)
    }

    @Test func closingDoesNotWaitForRepliesThatNobodyWants() {
        var machine = makeReady()
        _ = machine.sendOne(1, deadline: seconds(1))
        machine.flushed()
        _ = machine.timerFired(now: seconds(1))
        #expect(machine.closeRequested(deadline: later) == [.closeChannel])
    }

    @Test func closingWhileConnectingClosesTheSocketWhenItAppears() {
        var machine = makeMachine()
        _ = machine.started()
        _ = machine.commandSubmitted(1, deadline: later, waitingBytes: 4)
        #expect(machine.closeRequested(deadline: later) == [.fail(1, .notConnected)])
        #expect(machine.connected(now: seconds(0)) == [.closeChannel])
        #expect(machine.channelClosed(now: seconds(0), jitter: 0) == [.announceClosed])
    }
}

import Domain
import Testing

@testable import Redis

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

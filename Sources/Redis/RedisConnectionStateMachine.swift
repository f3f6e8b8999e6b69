import Domain
import NIOCore

/// What a connection says before it serves: each step is one command and one reply.
package enum RedisHandshakeStep: Hashable, Sendable {
    case authenticate
    /// `INFO server`: the run id, before any command may change anything.
    case identify
    case select
    case setName
}

/// Decides for one Redis connection and its successors: handshake, pipelined replies, deadlines, reconnects, closing.
///
/// ```
/// idle > connecting > handshaking > ready > draining > closing > closed
///            ^  |          |          |
///            |  v          v          v
///        backingOff <  disconnecting (or the peer closed)
/// ```
/// Replies come in the order of the commands, so the pending commands are a FIFO. One that passes its deadline is failed
/// at once but keeps its place, because its reply will come yet and must be matched and dropped. When the oldest one's
/// reply is overdue by ``RedisLimits/lateReplyGrace``, the connection counts as dead.
///
/// `Token` is what the shell needs to finish a command. Every token that comes in goes out exactly once.
/// An event that is illegal in the present state changes nothing, is counted, and asks for nothing.
package struct RedisConnectionStateMachine<Token> {
    package enum State: Equatable {
        /// Exits: `started`, `closeRequested` (to closed).
        case idle
        /// Exits: `connected`, `connectFailed`, `closeRequested` (to closing: the socket may yet appear).
        case connecting
        /// Exits: the last reply (to ready), an error reply or the deadline (to disconnecting), `channelClosed`.
        case handshaking(deadline: MonotonicTime)
        /// Exits: `protocolViolated`, an overdue reply (to disconnecting), `channelClosed`, `closeRequested`.
        case ready
        /// The shell was told to close the channel. Exits: `channelClosed` (to backingOff), `closeRequested`.
        case disconnecting
        /// Exits: `timerFired` at the time (to connecting), `closeRequested` (to closed).
        case backingOff(until: MonotonicTime)
        /// No new commands; the pending ones may be answered. Exits: the last reply, the deadline, `channelClosed`.
        case draining(deadline: MonotonicTime)
        /// The shell was told to close the channel for good. Exits: `channelClosed`, `connectFailed` (to closed).
        case closing
        /// No exit.
        case closed
    }

    package enum Action {
        case connect
        case sendHandshake([RedisHandshakeStep])
        case fail(Token, RedisError)
        /// Tell who asked for it, then call ``RedisConnectionStateMachine/waitingReleased()``.
        case announceReady(runID: String, isReconnect: Bool)
        case closeChannel
        case announceClosed
    }

    package enum SubmitAction {
        /// Encode it at the end of what goes out next, then call `commandEncoded`.
        case write
        /// The token is kept until there is a connection.
        case wait
        case reject(Token, RedisError)
    }

    package enum ReplyAction {
        case complete(Token)
        /// Complete, then close the channel: it was the last one of a draining connection.
        case completeLast(Token)
        case dropLate
        case perform([Action])
    }

    private struct Pending {
        /// nil once it has timed out.
        var token: Token?
        let deadline: MonotonicTime
        var bytes: Int
    }

    private struct Waiting {
        let token: Token
        let deadline: MonotonicTime
        let bytes: Int
    }

    package private(set) var state = State.idle
    /// Of the server that this connection reached; nil while there is none.
    package private(set) var runID: String?
    /// Why there is no connection, until there is one.
    package private(set) var lastConnectFailure: RedisError?
    package private(set) var illegalEvents = 0
    package private(set) var pendingBytes = 0
    package private(set) var waitingBytes = 0

    private let limits: RedisLimits
    private let handshake: [RedisHandshakeStep]
    private var handshakeRepliesSeen = 0
    private var wasEverReady = false
    /// Attempts since the last ready connection: the exponent of the backoff.
    private var failedAttempts = 0
    private var pending = CircularBuffer<Pending>()
    /// How many at the end of `pending` have not been handed to the socket.
    private var unflushed = 0
    private var waiting = CircularBuffer<Waiting>()
    /// No later than the earliest deadline of an unexpired command: spares the timer most of its scans.
    private var earliestDeadline = MonotonicTime(nanoseconds: .max)

    package init(limits: RedisLimits, handshake: [RedisHandshakeStep]) {
        precondition(handshake.contains(.identify), "the handshake must learn the run id")
        self.limits = limits
        self.handshake = handshake
    }

    package var pendingCount: Int { pending.count }
    package var waitingCount: Int { waiting.count }
    package var isReady: Bool { state == .ready }

    /// Whether `timerFired` has something to look at; the timer may sleep otherwise.
    package var needsTimer: Bool {
        switch state {
        case .handshaking, .backingOff, .draining: true
        case .idle, .connecting, .ready, .disconnecting, .closing, .closed: !pending.isEmpty || !waiting.isEmpty
        }
    }

    // MARK: Commands

    /// - Parameter waitingBytes: The size of a command that may wait for a connection until its deadline; nil where it
    ///   may not.
    package mutating func commandSubmitted(
        _ token: Token, deadline: MonotonicTime, waitingBytes: Int?
    ) -> SubmitAction {
        switch state {
        case .ready:
            guard pending.count < limits.pendingCommandsMax, pendingBytes < limits.pendingBytesMax else {
                return .reject(token, .overloaded)
            }
            pending.append(Pending(token: token, deadline: deadline, bytes: 0))
            unflushed += 1
            earliestDeadline = min(earliestDeadline, deadline)
            return .write
        case .idle, .connecting, .handshaking, .disconnecting, .backingOff:
            guard let bytes = waitingBytes else { return .reject(token, .notConnected) }
            guard waiting.count < limits.waitingCommandsMax, self.waitingBytes < limits.pendingBytesMax else {
                return .reject(token, .overloaded)
            }
            waiting.append(Waiting(token: token, deadline: deadline, bytes: bytes))
            self.waitingBytes += bytes
            return .wait
        case .draining, .closing, .closed:
            return .reject(token, .notConnected)
        }
    }

    /// The command submitted last takes this many bytes.
    package mutating func commandEncoded(bytes: Int) {
        guard unflushed > 0 else { return countIllegalEvent() }
        pending[pending.index(before: pending.endIndex)].bytes = bytes
        pendingBytes += bytes
    }

    /// The command submitted last could not be encoded: it was never there.
    package mutating func commandWithdrawn() -> Token? {
        guard unflushed > 0, let last = pending.popLast() else {
            countIllegalEvent()
            return nil
        }
        unflushed -= 1
        return last.token
    }

    /// The commands that waited become pending now: the shell writes them, in this order, and fails those that find no
    /// place.
    package mutating func waitingReleased() -> (write: [Token], fail: [Action]) {
        guard state == .ready else {
            countIllegalEvent()
            return ([], [])
        }
        var released: [Token] = []
        released.reserveCapacity(waiting.count)
        while pending.count < limits.pendingCommandsMax, let next = waiting.popFirst() {
            pending.append(Pending(token: next.token, deadline: next.deadline, bytes: next.bytes))
            pendingBytes += next.bytes
            unflushed += 1
            earliestDeadline = min(earliestDeadline, next.deadline)
            released.append(next.token)
        }
        return (released, failWaiting(.overloaded))
    }

    /// Everything encoded so far was handed to the socket, so it may run.
    package mutating func flushed() {
        unflushed = 0
    }

    // MARK: The connection

    package mutating func started() -> [Action] {
        guard state == .idle else { return illegal() }
        state = .connecting
        return [.connect]
    }

    package mutating func connected(now: MonotonicTime) -> [Action] {
        switch state {
        case .connecting:
            state = .handshaking(deadline: now.advanced(by: limits.handshakeTimeout))
            handshakeRepliesSeen = 0
            return [.sendHandshake(handshake)]
        case .closing:
            return [.closeChannel]
        case .idle, .handshaking, .ready, .disconnecting, .backingOff, .draining, .closed:
            return illegal()
        }
    }

    /// - Parameter jitter: Uniform in 0..<1.
    package mutating func connectFailed(_ error: RedisError, now: MonotonicTime, jitter: Double) -> [Action] {
        switch state {
        case .connecting:
            lastConnectFailure = error
            backOff(now: now, jitter: jitter)
            return []
        case .closing:
            state = .closed
            return [.announceClosed]
        case .idle, .handshaking, .ready, .disconnecting, .backingOff, .draining, .closed:
            return illegal()
        }
    }

    package mutating func replyReceived(_ value: RESPValue) -> ReplyAction {
        switch state {
        case .ready:
            guard let first = popAnswered() else {
                return .perform(protocolViolated("a reply to no command"))
            }
            guard let token = first.token else { return .dropLate }
            return .complete(token)
        case .draining:
            guard let first = popAnswered() else {
                return .perform(protocolViolated("a reply to no command"))
            }
            let isLast = pending.allSatisfy { $0.token == nil }
            if isLast { state = .closing }
            guard let token = first.token else { return isLast ? .perform([.closeChannel]) : .dropLate }
            return isLast ? .completeLast(token) : .complete(token)
        case .handshaking:
            return .perform(handshakeReplyReceived(value))
        case .disconnecting, .closing:
            // Bytes that were under way when the decision to close fell.
            return .dropLate
        case .idle, .connecting, .backingOff, .closed:
            return .perform(illegal())
        }
    }

    package mutating func protocolViolated(_ message: String) -> [Action] {
        let error = RedisError.protocolViolation(message)
        switch state {
        case .handshaking:
            lastConnectFailure = error
            state = .disconnecting
            return [.closeChannel]
        case .ready:
            lastConnectFailure = error
            state = .disconnecting
            return failPending(error) + [.closeChannel]
        case .draining:
            state = .closing
            return failPending(error) + [.closeChannel]
        case .disconnecting, .closing:
            return []
        case .idle, .connecting, .backingOff, .closed:
            return illegal()
        }
    }

    /// - Parameter jitter: Uniform in 0..<1.
    package mutating func channelClosed(now: MonotonicTime, jitter: Double) -> [Action] {
        switch state {
        case .handshaking, .disconnecting, .ready:
            if state != .disconnecting {
                lastConnectFailure = .connectionClosed(commandMayHaveRun: !pending.isEmpty)
            }
            let actions = failPending()
            runID = nil
            backOff(now: now, jitter: jitter)
            return actions
        case .draining, .closing:
            let actions = failPending()
            runID = nil
            state = .closed
            return actions + [.announceClosed]
        case .idle, .connecting, .backingOff, .closed:
            return illegal()
        }
    }

    /// Answers what was asked until `deadline`, then ends. Commands that wait for a connection fail now.
    package mutating func closeRequested(deadline: MonotonicTime) -> [Action] {
        let abandoned = failWaiting(.notConnected)
        switch state {
        case .idle, .backingOff:
            state = .closed
            return abandoned + [.announceClosed]
        case .connecting:
            state = .closing
            return abandoned
        case .ready where pending.contains { $0.token != nil }:
            state = .draining(deadline: deadline)
            return abandoned
        case .handshaking, .ready:
            state = .closing
            return abandoned + [.closeChannel]
        case .disconnecting:
            state = .closing
            return abandoned
        case .draining, .closing, .closed:
            return illegal()
        }
    }

    package mutating func timerFired(now: MonotonicTime) -> [Action] {
        var actions = expire(now: now)
        switch state {
        case .ready:
            guard let oldest = pending.first, now >= oldest.deadline.advanced(by: limits.lateReplyGrace) else { break }
            lastConnectFailure = .timedOut
            state = .disconnecting
            actions += failPending()
            actions.append(.closeChannel)
        case .handshaking(let deadline) where now >= deadline:
            lastConnectFailure = .timedOut
            state = .disconnecting
            actions.append(.closeChannel)
        case .backingOff(let until) where now >= until:
            state = .connecting
            actions.append(.connect)
        case .draining(let deadline) where now >= deadline || pending.allSatisfy { $0.token == nil }:
            state = .closing
            actions += failPending()
            actions.append(.closeChannel)
        case .handshaking, .backingOff, .draining, .idle, .connecting, .disconnecting, .closing, .closed:
            break
        }
        return actions
    }

    // MARK: Steps

    private mutating func handshakeReplyReceived(_ value: RESPValue) -> [Action] {
        let step = handshake[handshakeRepliesSeen]
        handshakeRepliesSeen += 1
        // The name only helps people; a server that forbids setting it is a server all the same.
        if case .error(let error) = value, step != .setName {
            return handshakeRefused(RedisHandshakeReply.explain(error, of: step), code: error.code)
        }
        if step == .identify {
            guard let runID = RedisHandshakeReply.runID(in: value) else {
                return protocolViolated("INFO server names no run_id")
            }
            self.runID = runID
        }
        guard handshakeRepliesSeen == handshake.count, let runID else { return [] }
        let isReconnect = wasEverReady
        state = .ready
        wasEverReady = true
        failedAttempts = 0
        lastConnectFailure = nil
        return [.announceReady(runID: runID, isReconnect: isReconnect)]
    }

    /// A refusal that only an operator can lift is told to those who wait; a passing one is waited out.
    private mutating func handshakeRefused(_ message: String, code: String) -> [Action] {
        let error = RedisError.server(code: code, message: message)
        lastConnectFailure = error
        runID = nil
        state = .disconnecting
        let isPassing = ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"].contains(code)
        return (isPassing ? [] : failWaiting(error)) + [.closeChannel]
    }

    private mutating func popAnswered() -> Pending? {
        // What has not been sent cannot have been answered.
        guard pending.count > unflushed, let first = pending.popFirst() else { return nil }
        pendingBytes -= first.bytes
        return first
    }

    private mutating func backOff(now: MonotonicTime, jitter: Double) {
        let doublings = Int64(min(failedAttempts, 30))
        failedAttempts += 1
        let (delay, overflow) = limits.backoffMin.nanoseconds.multipliedReportingOverflow(by: 1 << doublings)
        let delayMax = limits.backoffMax.nanoseconds
        let half = (overflow ? delayMax : min(delay, delayMax)) / 2
        // Half of it is random, so that a fleet of gateways does not return in step.
        state = .backingOff(until: now.advanced(byNanoseconds: half + Int64(Double(half) * jitter)))
    }

    private mutating func expire(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        if now >= earliestDeadline {
            earliestDeadline = MonotonicTime(nanoseconds: .max)
            for index in pending.indices {
                guard let token = pending[index].token else { continue }
                if pending[index].deadline <= now {
                    pending[index].token = nil
                    actions.append(.fail(token, .timedOut))
                } else {
                    earliestDeadline = min(earliestDeadline, pending[index].deadline)
                }
            }
        }
        if waiting.contains(where: { $0.deadline <= now }) {
            for command in waiting where command.deadline <= now {
                actions.append(.fail(command.token, .notConnected))
                waitingBytes -= command.bytes
            }
            waiting.removeAll { $0.deadline <= now }
        }
        return actions
    }

    /// - Parameter error: nil means that the connection closed, with or without the command having been sent.
    private mutating func failPending(_ error: RedisError? = nil) -> [Action] {
        var actions: [Action] = []
        let sent = pending.count - unflushed
        for (offset, command) in pending.enumerated() {
            guard let token = command.token else { continue }
            let closed = RedisError.connectionClosed(commandMayHaveRun: offset < sent)
            actions.append(.fail(token, offset < sent ? error ?? closed : closed))
        }
        pending.removeAll(keepingCapacity: true)
        pendingBytes = 0
        unflushed = 0
        earliestDeadline = MonotonicTime(nanoseconds: .max)
        return actions
    }

    private mutating func failWaiting(_ error: RedisError) -> [Action] {
        let actions = waiting.map { Action.fail($0.token, error) }
        waiting.removeAll(keepingCapacity: false)
        waitingBytes = 0
        return actions
    }

    private mutating func illegal() -> [Action] {
        countIllegalEvent()
        return []
    }

    private mutating func countIllegalEvent() {
        illegalEvents += 1
    }
}

extension RedisConnectionStateMachine.Action: Equatable where Token: Equatable {}
extension RedisConnectionStateMachine.SubmitAction: Equatable where Token: Equatable {}
extension RedisConnectionStateMachine.ReplyAction: Equatable where Token: Equatable {}

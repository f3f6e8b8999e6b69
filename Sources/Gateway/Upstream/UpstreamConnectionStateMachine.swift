/// What one connection to a node may do next.
///
/// ```
/// connecting -> idle             connected
///            -> closed           connectionClosed, callCancelled
/// idle       -> awaiting         requestSent
///            -> closed           connectionClosed, bytesArrived (nobody asked), idleExpired
/// awaiting   -> awaiting         bytesArrived (a part of the head)
///            -> relaying         headReceived
///            -> closed           connectionClosed, callCancelled, responseRejected
/// relaying   -> idle             responseEnded, where the connection may be used again
///            -> closed           responseEnded otherwise, connectionClosed, callCancelled, responseRejected
/// ```
///
/// A node may close a kept connection at any moment, so a request on one can meet the close before any byte of an
/// answer. That, and only that, is `.sendAgain`: the request was never begun as far as anyone can tell, and a fresh
/// connection cannot meet it twice. (llama.cpp closes after a stream without saying so.)
package struct UpstreamConnectionStateMachine: Hashable, Sendable {
    package enum State: Hashable, Sendable {
        case connecting
        case idle
        /// A request was written, no head has come. `reused`: it is not this connection's first request.
        case awaiting(reused: Bool, bytesArrived: Bool)
        /// `reusable`: both sides agree to keep the connection after this answer.
        case relaying(reusable: Bool)
        case closed
    }

    package enum Action: Hashable, Sendable {
        case none
        /// The first byte of the answer: the retained request can go.
        case releaseRequest
        /// Offer the connection to the next request.
        case park
        /// Close; the call, if there is one, has been told already or is told by the event's caller.
        case close
        /// Take the connection out of the idle ones: it closed there.
        case forget
        /// The same request again, on a fresh connection.
        case sendAgain
        case end
        case fail(UpstreamFailure)
        /// The event cannot happen in this state: a defect of the caller. The connection must be closed.
        case illegal
    }

    package private(set) var state = State.connecting
    /// Requests sent on this connection.
    package private(set) var requestCount = 0

    package init() {}

    package mutating func connected() -> Action {
        guard case .connecting = state else { return illegal() }
        state = .idle
        return .none
    }

    package mutating func requestSent() -> Action {
        guard case .idle = state else { return illegal() }
        state = .awaiting(reused: requestCount > 0, bytesArrived: false)
        requestCount += 1
        return .none
    }

    package mutating func bytesArrived() -> Action {
        switch state {
        case .awaiting(let reused, bytesArrived: false):
            state = .awaiting(reused: reused, bytesArrived: true)
            return .releaseRequest
        case .awaiting, .relaying: return .none
        case .idle:
            state = .closed
            return .close
        case .closed: return .none
        case .connecting: return illegal()
        }
    }

    /// - Parameters:
    ///   - keepAlive: What the node's head says.
    ///   - requestWritten: Whether the socket had taken the whole request by now. A node that answers before does not
    ///     read the rest, so the connection must end with this answer.
    package mutating func headReceived(keepAlive: Bool, requestWritten: Bool) -> Action {
        guard case .awaiting(_, bytesArrived: true) = state else { return illegal() }
        state = .relaying(reusable: keepAlive && requestWritten)
        return .none
    }

    /// - Parameter excess: Whether more came than the answer; those bytes would be taken for the next answer.
    package mutating func responseEnded(excess: Bool) -> Action {
        guard case .relaying(let reusable) = state else { return illegal() }
        guard reusable, !excess else {
            state = .closed
            return .close
        }
        state = .idle
        return .park
    }

    /// The parser refused the answer.
    package mutating func responseRejected() -> Action {
        switch state {
        case .awaiting(_, bytesArrived: true), .relaying:
            state = .closed
            return .close
        case .closed: return .none
        case .connecting, .idle, .awaiting: return illegal()
        }
    }

    package mutating func callCancelled() -> Action {
        switch state {
        case .connecting, .awaiting, .relaying:
            state = .closed
            return .close
        case .closed: return .none
        case .idle: return illegal()
        }
    }

    /// Idle for too long, or the pool is closing, or the address is no longer the node's.
    package mutating func idleExpired() -> Action {
        switch state {
        case .idle:
            state = .closed
            return .close
        case .closed: return .none
        case .connecting, .awaiting, .relaying: return illegal()
        }
    }

    /// - Parameter endsBody: Whether this close is how the answer's body ends: without stated length, and in order.
    package mutating func connectionClosed(endsBody: Bool) -> Action {
        let before = state
        state = .closed
        switch before {
        case .connecting: return .fail(.connectFailed)
        case .idle: return .forget
        case .awaiting(reused: true, bytesArrived: false): return .sendAgain
        case .awaiting(reused: false, bytesArrived: false): return .fail(.closedBeforeResponse)
        case .awaiting(_, bytesArrived: true): return .fail(.closedMidResponse)
        case .relaying: return endsBody ? .end : .fail(.closedMidResponse)
        case .closed: return .none
        }
    }

    private mutating func illegal() -> Action {
        state = .closed
        return .illegal
    }
}

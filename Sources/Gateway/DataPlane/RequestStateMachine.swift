import Domain

/// One request from its accepted head to its recorded end.
///
///     receiving -> reserving -> routing -> awaiting -> answering -> finished
///                      ^-----------'|^---------' (another node, before the first byte)
///                      (another model, where no node of the first is left)
///                                 routing <-> waiting (no node has room)
///     receiving, reserving -> refusing -> finished (it tells the key's rates, which are asked for first)
///
/// Decides; ``Exchange`` acts. What must hold however events interleave:
/// - one answer at most goes down, and none after ``State/finished``;
/// - a hold that was granted is settled or released exactly once;
/// - a node's work is cancelled when nobody waits for it any more.
///
/// An event that a state does not expect ends that request with a 500 and is kept in ``illegalEvent``; the others on the
/// loop go on.
package struct RequestStateMachine: Sendable {
    /// Exits are named beside each state.
    package enum State: Hashable, Sendable {
        /// The head is accepted; the key, the body or both are still on their way. Exits: reserving, refusing,
        /// finished.
        case receiving(isKeyKnown: Bool, isBodyWhole: Bool)
        /// The request is refused with this; the store was asked what the key's rates are, to say so. Exits: finished.
        case refusing(Failure)
        /// The store was asked for the hold. Exits: routing, refusing, finished.
        case reserving
        /// The hold is granted; a node is to be chosen. Exits: awaiting, waiting, reserving, finished.
        case routing
        /// No node has room: it waits in the gateway, its hold granted. Exits: routing, finished.
        case waiting
        /// A node has, or will have, the request; nothing of its answer went down. Exits: answering, routing, finished.
        case awaiting
        /// The answer's head went down. Exits: finished.
        case answering(Form)
        case finished
    }

    /// How an answer goes down once it has begun.
    package enum Form: Hashable, Sendable {
        /// Server-sent events: a failure can still be said, as an error event.
        case eventStream
        /// A plain answer too large to hold whole: a failure can only cut it short.
        case largeBody
    }

    package enum Action: Hashable, Sendable {
        case none
        /// Key and body are there: scan, find the model, compute the hold.
        case prepare
        /// Ask the store for the key's rates, to tell them with a refusal.
        case readRates
        /// Ask the store for the hold.
        case reserve
        /// Give the hold back whole, then ask the store for the hold of the model that serves instead.
        case exchangeHold
        /// Choose a node and dispatch.
        case route
        /// Send the answer's head.
        case beginAnswer(Form)
        case exit(Exit)
    }

    /// How a request ends: each part is carried out once, in this order.
    package struct Exit: Hashable, Sendable {
        package var cancelsUpstream: Bool
        package var money: Money
        package var answer: Answer
    }

    package enum Money: Hashable, Sendable {
        /// No hold was asked for.
        case nothing
        /// A hold was asked for and not answered yet.
        case abandon
        /// The hold goes back whole.
        case release
        /// What the node reported.
        case settleUsage
        /// The prompt and what went down so far, by the gateway's own count.
        case settleDelivered
    }

    package enum Answer: Hashable, Sendable {
        /// Nobody is there to answer.
        case none
        case error(Failure)
        /// An error event, then the end without `[DONE]`.
        case errorEvent(Failure)
        /// The connection is cut so that the client cannot take a part for the whole.
        case truncation(Failure)
        case completion
    }

    package private(set) var state: State
    /// Dispatches so far, the present one included.
    package private(set) var attempts = 0
    /// Whether the present attempt's node had the request: an abort costs its prompt from then on. A failed attempt
    /// costs nothing, so the next one begins without.
    private var hasReachedNode = false
    /// Set where an event met a state that does not expect it.
    package private(set) var illegalEvent: String?

    package init() {
        state = .receiving(isKeyKnown: false, isBodyWhole: false)
    }

    package var isFinished: Bool { state == .finished }

    /// Nothing that the client still sends is of use.
    package var isRefused: Bool {
        switch state {
        case .refusing, .finished: true
        default: false
        }
    }

    /// The shell has counted and logged it.
    package mutating func acknowledgeIllegalEvent() {
        illegalEvent = nil
    }

    // MARK: Receiving

    package mutating func keyAuthenticated() -> Action {
        switch state {
        case .receiving(isKeyKnown: false, let isBodyWhole):
            state = .receiving(isKeyKnown: true, isBodyWhole: isBodyWhole)
            return isBodyWhole ? .prepare : .none
        case .refusing, .finished: return .none
        default: return illegal("keyAuthenticated")
        }
    }

    package mutating func bodyCompleted() -> Action {
        switch state {
        case .receiving(let isKeyKnown, isBodyWhole: false):
            state = .receiving(isKeyKnown: isKeyKnown, isBodyWhole: true)
            return isKeyKnown ? .prepare : .none
        case .refusing, .finished: return .none
        default: return illegal("bodyCompleted")
        }
    }

    /// The answer needs neither money nor a node (`/v1/models`).
    package mutating func answeredLocally() -> Action {
        switch state {
        case .receiving(isKeyKnown: true, isBodyWhole: true):
            return finish(.nothing, .completion)
        case .finished: return .none
        default: return illegal("answeredLocally")
        }
    }

    /// A browser asks whether a page may send a request: answered without key and body.
    package mutating func preflightAnswered() -> Action {
        switch state {
        case .receiving(isKeyKnown: false, isBodyWhole: false): return finish(.nothing, .completion)
        case .finished: return .none
        default: return illegal("preflightAnswered")
        }
    }

    package mutating func prepared() -> Action {
        switch state {
        case .receiving(isKeyKnown: true, isBodyWhole: true):
            state = .reserving
            return .reserve
        case .finished: return .none
        default: return illegal("prepared")
        }
    }

    /// The request cannot be served: anything from a bad route to a refused hold to no node.
    ///
    /// - Parameter tellsRates: The key is known and its rates are not; the store was not asked for a hold.
    package mutating func refused(_ failure: Failure, tellsRates: Bool = false) -> Action {
        switch state {
        case .receiving where tellsRates, .reserving where tellsRates:
            state = .refusing(failure)
            return .readRates
        case .receiving, .reserving: return finish(.nothing, .error(failure))
        case .routing, .waiting: return finish(.release, .error(failure))
        // The first refusal stands.
        case .refusing, .finished: return .none
        case .awaiting, .answering: return illegal("refused")
        }
    }

    /// The store said what the key's rates are, or did not in time.
    package mutating func ratesRead() -> Action {
        switch state {
        case .refusing(let failure): return finish(.nothing, .error(failure))
        case .finished: return .none
        default: return illegal("ratesRead")
        }
    }

    // MARK: Reserving and routing

    package mutating func holdGranted() -> Action {
        switch state {
        case .reserving:
            state = .routing
            return .route
        case .finished: return .none
        default: return illegal("holdGranted")
        }
    }

    /// No node of the model is left, and another model serves in its place: at another price, so with another hold.
    package mutating func fallbackChosen() -> Action {
        switch state {
        case .routing:
            state = .reserving
            return .exchangeHold
        case .finished: return .none
        default: return illegal("fallbackChosen")
        }
    }

    /// No node has room.
    package mutating func queued() -> Action {
        switch state {
        case .routing:
            state = .waiting
            return .none
        case .finished: return .none
        default: return illegal("queued")
        }
    }

    /// It need not wait any longer, whatever comes of it.
    package mutating func turnCame() -> Action {
        switch state {
        case .waiting:
            state = .routing
            return .none
        case .finished: return .none
        default: return illegal("turnCame")
        }
    }

    package mutating func dispatched() -> Action {
        switch state {
        case .routing:
            state = .awaiting
            attempts += 1
            return .none
        case .finished: return .none
        default: return illegal("dispatched")
        }
    }

    /// The request was handed to the connection with the node; connecting took until here.
    package mutating func requestWritten() -> Action {
        switch state {
        case .awaiting:
            hasReachedNode = true
            return .none
        case .finished: return .none
        default: return illegal("requestWritten")
        }
    }

    // MARK: The node's answer

    /// The attempt failed before anything of it went down.
    /// - Parameter mayRetry: Another node, an attempt and the retry budget are there for it.
    package mutating func attemptFailed(_ failure: Failure, mayRetry: Bool) -> Action {
        switch state {
        case .awaiting:
            if mayRetry, failure.retry == .otherNode {
                state = .routing
                hasReachedNode = false
                return .route
            }
            return finish(.release, .error(failure))
        case .finished: return .none
        default: return illegal("attemptFailed")
        }
    }

    /// A plain answer is there, whole and sound.
    package mutating func answerCompleted() -> Action {
        switch state {
        case .awaiting, .answering(.largeBody): return finish(.settleUsage, .completion)
        case .finished: return .none
        default: return illegal("answerCompleted")
        }
    }

    package mutating func answerBegan(_ form: Form) -> Action {
        switch state {
        case .awaiting:
            state = .answering(form)
            return .beginAnswer(form)
        case .finished: return .none
        default: return illegal("answerBegan")
        }
    }

    /// The node said `[DONE]`.
    package mutating func streamCompleted() -> Action {
        switch state {
        case .answering(.eventStream): return finish(.settleUsage, .completion)
        case .finished: return .none
        default: return illegal("streamCompleted")
        }
    }

    /// The node's answer broke off, stalled or went past its bound after its head went down.
    /// - Parameter delivered: Completion tokens that went down.
    package mutating func answerInterrupted(_ failure: Failure, delivered: Int) -> Action {
        switch state {
        case .answering(let form): return interrupt(form, failure, delivered: delivered)
        case .finished: return .none
        default: return illegal("answerInterrupted")
        }
    }

    // MARK: From outside

    package mutating func clientClosed() -> Action {
        switch state {
        case .receiving, .refusing: return finish(.nothing, .none)
        case .reserving: return finish(.abandon, .none)
        case .routing, .waiting: return finish(.release, .none)
        // An abort during prefill is not free: the node worked, and would be the way to steal it.
        case .awaiting where !hasReachedNode: return finish(.release, .none, cancelsUpstream: true)
        case .awaiting, .answering: return finish(.settleDelivered, .none, cancelsUpstream: true)
        case .finished: return .none
        }
    }

    /// The request ran past a deadline, or the gateway past its drain time.
    package mutating func expired(_ failure: Failure, delivered: Int) -> Action {
        switch state {
        case .receiving: return finish(.nothing, .error(failure))
        case .refusing(let first): return finish(.nothing, .error(first))
        case .reserving: return finish(.abandon, .error(failure))
        case .routing, .waiting: return finish(.release, .error(failure))
        case .awaiting: return finish(.release, .error(failure), cancelsUpstream: true)
        case .answering(let form): return interrupt(form, failure, delivered: delivered)
        case .finished: return .none
        }
    }

    // MARK: Endings

    private mutating func interrupt(_ form: Form, _ failure: Failure, delivered: Int) -> Action {
        let money: Money
        let answer: Answer
        switch form {
        case .eventStream:
            money = delivered > 0 ? .settleDelivered : .release
            answer = .errorEvent(failure)
        case .largeBody:
            // A mebibyte of it went down, or it would have been held.
            money = .settleDelivered
            answer = .truncation(failure)
        }
        return finish(money, answer, cancelsUpstream: true)
    }

    private mutating func finish(_ money: Money, _ answer: Answer, cancelsUpstream: Bool = false) -> Action {
        state = .finished
        return .exit(Exit(cancelsUpstream: cancelsUpstream, money: money, answer: answer))
    }

    private mutating func illegal(_ event: String) -> Action {
        illegalEvent = "\(event) in \(state)"
        let failure = Failure(
            .internalError, "The gateway met an internal error. Please retry; if it persists, contact support.",
            source: .gateway)
        return expired(failure, delivered: 0)
    }
}

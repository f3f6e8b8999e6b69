import Domain
import Testing

@testable import Gateway

private typealias Machine = RequestStateMachine

/// What can happen to a request, as the table drives it.
private enum Event: CaseIterable {
    case keyAuthenticated, bodyCompleted, answeredLocally, preflightAnswered, prepared, refused, holdGranted, dispatched
    case refusedTellingRates, ratesRead
    case fallbackChosen, queued, turnCame, requestWritten
    case attemptFailedRetryable, attemptFailed, answerCompleted, answerBegan, streamCompleted
    case interruptedEmpty, interruptedDelivered, clientClosed, expiredEmpty, expiredDelivered

    func apply(to machine: inout RequestStateMachine) -> RequestStateMachine.Action {
        switch self {
        case .keyAuthenticated: machine.keyAuthenticated()
        case .bodyCompleted: machine.bodyCompleted()
        case .answeredLocally: machine.answeredLocally()
        case .preflightAnswered: machine.preflightAnswered()
        case .prepared: machine.prepared()
        case .refused: machine.refused(failure)
        case .refusedTellingRates: machine.refused(failure, tellsRates: true)
        case .ratesRead: machine.ratesRead()
        case .holdGranted: machine.holdGranted()
        case .dispatched: machine.dispatched()
        case .fallbackChosen: machine.fallbackChosen()
        case .queued: machine.queued()
        case .turnCame: machine.turnCame()
        case .requestWritten: machine.requestWritten()
        case .attemptFailedRetryable: machine.attemptFailed(failure, mayRetry: true)
        case .attemptFailed: machine.attemptFailed(failure, mayRetry: false)
        case .answerCompleted: machine.answerCompleted()
        case .answerBegan: machine.answerBegan(.eventStream)
        case .streamCompleted: machine.streamCompleted()
        case .interruptedEmpty: machine.answerInterrupted(failure, delivered: 0)
        case .interruptedDelivered: machine.answerInterrupted(failure, delivered: 3)
        case .clientClosed: machine.clientClosed()
        case .expiredEmpty: machine.expired(failure, delivered: 0)
        case .expiredDelivered: machine.expired(failure, delivered: 3)
        }
    }
}

private let failure = Failure(.upstreamInvalid, "node", source: .upstream, retry: .otherNode)
private let internalFailure = Failure(
    .internalError, "The gateway met an internal error. Please retry; if it persists, contact support.",
    source: .gateway)

/// A machine brought into each state by the events that lead there.
private let routes: [(name: String, events: [Event])] = [
    ("receiving nothing", []),
    ("receiving key", [.keyAuthenticated]),
    ("receiving body", [.bodyCompleted]),
    ("preparing", [.keyAuthenticated, .bodyCompleted]),
    ("refusing", [.keyAuthenticated, .refusedTellingRates]),
    ("reserving", [.keyAuthenticated, .bodyCompleted, .prepared]),
    ("routing", [.keyAuthenticated, .bodyCompleted, .prepared, .holdGranted]),
    ("waiting", [.keyAuthenticated, .bodyCompleted, .prepared, .holdGranted, .queued]),
    ("connecting", [.keyAuthenticated, .bodyCompleted, .prepared, .holdGranted, .dispatched]),
    ("awaiting", [.keyAuthenticated, .bodyCompleted, .prepared, .holdGranted, .dispatched, .requestWritten]),
    ("answering", [.keyAuthenticated, .bodyCompleted, .prepared, .holdGranted, .dispatched, .answerBegan]),
    ("finished", [.clientClosed]),
]

private func machine(in state: String) -> RequestStateMachine {
    var machine = RequestStateMachine()
    for event in routes.first(where: { $0.name == state })!.events { _ = event.apply(to: &machine) }
    return machine
}

private func exit(
    _ money: Machine.Money, _ answer: Machine.Answer, cancels: Bool = false
) -> Machine.Action {
    .exit(Machine.Exit(cancelsUpstream: cancels, money: money, answer: answer))
}

/// Every legal pair; a pair that is not here is illegal.
private let table: [String: [Event: Machine.Action]] = [
    "receiving nothing": [
        .keyAuthenticated: .none, .bodyCompleted: .none, .refused: exit(.nothing, .error(failure)),
        .refusedTellingRates: .readRates,
        .preflightAnswered: exit(.nothing, .completion),
        .clientClosed: exit(.nothing, .none), .expiredEmpty: exit(.nothing, .error(failure)),
        .expiredDelivered: exit(.nothing, .error(failure)),
    ],
    "receiving key": [
        .bodyCompleted: .prepare, .refused: exit(.nothing, .error(failure)), .refusedTellingRates: .readRates,
        .clientClosed: exit(.nothing, .none),
        .expiredEmpty: exit(.nothing, .error(failure)), .expiredDelivered: exit(.nothing, .error(failure)),
    ],
    "receiving body": [
        .keyAuthenticated: .prepare, .refused: exit(.nothing, .error(failure)), .refusedTellingRates: .readRates,
        .clientClosed: exit(.nothing, .none),
        .expiredEmpty: exit(.nothing, .error(failure)), .expiredDelivered: exit(.nothing, .error(failure)),
    ],
    "preparing": [
        .prepared: .reserve, .answeredLocally: exit(.nothing, .completion),
        .refused: exit(.nothing, .error(failure)), .refusedTellingRates: .readRates,
        .clientClosed: exit(.nothing, .none),
        .expiredEmpty: exit(.nothing, .error(failure)), .expiredDelivered: exit(.nothing, .error(failure)),
    ],
    "refusing": [
        .keyAuthenticated: .none, .bodyCompleted: .none, .refused: .none, .refusedTellingRates: .none,
        .ratesRead: exit(.nothing, .error(failure)), .clientClosed: exit(.nothing, .none),
        .expiredEmpty: exit(.nothing, .error(failure)), .expiredDelivered: exit(.nothing, .error(failure)),
    ],
    "reserving": [
        .holdGranted: .route, .refused: exit(.nothing, .error(failure)), .refusedTellingRates: .readRates,
        .clientClosed: exit(.abandon, .none),
        .expiredEmpty: exit(.abandon, .error(failure)), .expiredDelivered: exit(.abandon, .error(failure)),
    ],
    "routing": [
        .dispatched: .none, .fallbackChosen: .exchangeHold, .queued: .none,
        .refused: exit(.release, .error(failure)), .refusedTellingRates: exit(.release, .error(failure)),
        .clientClosed: exit(.release, .none),
        .expiredEmpty: exit(.release, .error(failure)), .expiredDelivered: exit(.release, .error(failure)),
    ],
    "waiting": [
        .turnCame: .none, .refused: exit(.release, .error(failure)),
        .refusedTellingRates: exit(.release, .error(failure)), .clientClosed: exit(.release, .none),
        .expiredEmpty: exit(.release, .error(failure)), .expiredDelivered: exit(.release, .error(failure)),
    ],
    "connecting": [
        .requestWritten: .none, .attemptFailedRetryable: .route, .attemptFailed: exit(.release, .error(failure)),
        .answerCompleted: exit(.settleUsage, .completion), .answerBegan: .beginAnswer(.eventStream),
        .clientClosed: exit(.release, .none, cancels: true),
        .expiredEmpty: exit(.release, .error(failure), cancels: true),
        .expiredDelivered: exit(.release, .error(failure), cancels: true),
    ],
    "awaiting": [
        .requestWritten: .none, .attemptFailedRetryable: .route, .attemptFailed: exit(.release, .error(failure)),
        .answerCompleted: exit(.settleUsage, .completion), .answerBegan: .beginAnswer(.eventStream),
        .clientClosed: exit(.settleDelivered, .none, cancels: true),
        .expiredEmpty: exit(.release, .error(failure), cancels: true),
        .expiredDelivered: exit(.release, .error(failure), cancels: true),
    ],
    "answering": [
        .streamCompleted: exit(.settleUsage, .completion),
        .interruptedEmpty: exit(.release, .errorEvent(failure), cancels: true),
        .interruptedDelivered: exit(.settleDelivered, .errorEvent(failure), cancels: true),
        .clientClosed: exit(.settleDelivered, .none, cancels: true),
        .expiredEmpty: exit(.release, .errorEvent(failure), cancels: true),
        .expiredDelivered: exit(.settleDelivered, .errorEvent(failure), cancels: true),
    ],
]

/// How an illegal event ends a request in each state: with a 500 where an answer can still be given, and with the
/// money back.
private let illegalExits: [String: Machine.Action] = [
    "receiving nothing": exit(.nothing, .error(internalFailure)),
    "receiving key": exit(.nothing, .error(internalFailure)),
    "receiving body": exit(.nothing, .error(internalFailure)),
    "preparing": exit(.nothing, .error(internalFailure)),
    // The client hears what was wrong first.
    "refusing": exit(.nothing, .error(failure)),
    "reserving": exit(.abandon, .error(internalFailure)),
    "routing": exit(.release, .error(internalFailure)),
    "waiting": exit(.release, .error(internalFailure)),
    "connecting": exit(.release, .error(internalFailure), cancels: true),
    "awaiting": exit(.release, .error(internalFailure), cancels: true),
    "answering": exit(.release, .errorEvent(internalFailure), cancels: true),
]

@Suite struct RequestStateMachineTests {
    @Test(arguments: table.keys.sorted()) func everyPairOfStateAndEventIsDecided(state: String) throws {
        for event in Event.allCases {
            var machine = machine(in: state)
            let action = event.apply(to: &machine)
            if let expected = table[state]?[event] {
                #expect(action == expected, "\(event) in \(state)")
                #expect(machine.illegalEvent == nil, "\(event) in \(state)")
            } else {
                #expect(action == illegalExits[state], "\(event) in \(state) is illegal")
                #expect(machine.illegalEvent != nil, "\(event) in \(state) is illegal")
                #expect(machine.isFinished)
            }
        }
    }

    @Test func nothingHappensAfterTheEnd() {
        for event in Event.allCases {
            var machine = machine(in: "finished")
            #expect(event.apply(to: &machine) == .none, "\(event)")
            #expect(machine.illegalEvent == nil)
        }
    }

    /// Any sequence of events, legal or not, exits at most once; and exactly once where the client leaves at last.
    @Test func everyRequestExitsExactlyOnce() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix64(seed: seed)
        for _ in 0..<20_000 {
            var machine = RequestStateMachine()
            var exits = 0
            for _ in 0..<random.below(12) {
                let event = Event.allCases[random.below(Event.allCases.count)]
                if case .exit = event.apply(to: &machine) { exits += 1 }
            }
            if case .exit = machine.clientClosed() { exits += 1 }
            #expect(exits == 1)
        }
    }

    @Test func aFallbackReservesAnewAndKeepsTheCountOfAttempts() {
        var machine = machine(in: "awaiting")
        #expect(machine.attemptFailed(failure, mayRetry: true) == .route)
        #expect(machine.fallbackChosen() == .exchangeHold)
        #expect(machine.state == .reserving)
        #expect(machine.clientClosed() == exit(.abandon, .none))
        machine = RequestStateMachine()
        let events: [Event] = [
            .keyAuthenticated, .bodyCompleted, .prepared, .holdGranted, .dispatched, .attemptFailedRetryable,
            .fallbackChosen,
        ]
        for event in events { _ = event.apply(to: &machine) }
        #expect(machine.holdGranted() == .route)
        #expect(machine.dispatched() == .none)
        #expect(machine.attempts == 2)
    }

    /// The node that had the request failed; the one that was to have it has not got it yet.
    @Test func whoLeavesWhileTheNextNodeIsConnectedPaysNothing() {
        for isFallback in [false, true] {
            var machine = machine(in: "awaiting")
            #expect(machine.attemptFailed(failure, mayRetry: true) == .route)
            if isFallback {
                _ = machine.fallbackChosen()
                _ = machine.holdGranted()
            }
            _ = machine.dispatched()
            #expect(machine.clientClosed() == exit(.release, .none, cancels: true))
        }
    }

    @Test func oneThatWaitedIsRoutedAndMayWaitAgainAfterANodeFailedIt() {
        var machine = machine(in: "waiting")
        #expect(machine.turnCame() == .none)
        #expect(machine.state == .routing)
        _ = machine.dispatched()
        _ = machine.requestWritten()
        #expect(machine.attemptFailed(failure, mayRetry: true) == .route)
        #expect(machine.queued() == .none)
        // No node has it any more: leaving costs nothing.
        #expect(machine.clientClosed() == exit(.release, .none))
    }

    @Test func aRetryCountsItsAttempts() {
        var machine = machine(in: "awaiting")
        #expect(machine.attempts == 1)
        #expect(machine.attemptFailed(failure, mayRetry: true) == .route)
        _ = machine.dispatched()
        #expect(machine.attempts == 2)
    }

    @Test func aFailureThatNoOtherNodeHelpsIsNotRetried() {
        var machine = machine(in: "awaiting")
        let final = Failure(.upstreamRejected, "bad", source: .upstream)
        #expect(machine.attemptFailed(final, mayRetry: true) == exit(.release, .error(final)))
    }

    @Test func aLargeAnswerThatBreaksOffIsCutShort() {
        var machine = machine(in: "awaiting")
        #expect(machine.answerBegan(.largeBody) == .beginAnswer(.largeBody))
        #expect(
            machine.answerInterrupted(failure, delivered: 1)
                == exit(.settleDelivered, .truncation(failure), cancels: true))
    }
}

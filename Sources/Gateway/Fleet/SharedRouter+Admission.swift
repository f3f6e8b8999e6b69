import Domain
import NIOCore
import Routing
import Synchronization

/// A request that waits, and the loop on which it is to be told what became of it.
struct AdmissionWaiter: Sendable {
    let exchange: NIOLoopBound<Exchange>
    let eventLoop: any EventLoop

    /// On the request's loop.
    init(_ exchange: Exchange) {
        self.exchange = NIOLoopBound(exchange, eventLoop: exchange.loop.eventLoop)
        eventLoop = exchange.loop.eventLoop
    }
}

/// One ``AdmissionRoom``, and who waits in it.
struct WaitingRoom: Sendable {
    var room = AdmissionRoom()
    /// By the number that the room knows each by.
    fileprivate var waiters: [UInt64: AdmissionWaiter] = [:]
}

/// Waiting for room: one ``AdmissionRoom`` beside the one router.
///
/// Whatever may make room looks whether somebody waits (an atomic, so that it costs nothing where nobody does), places
/// whoever's turn it is under both locks, and tells them on their loops after unlocking. Nothing is lost between a request
/// that finds no room and an event that makes some: a request counts as waiting before it looks.
extension SharedRouter {
    /// The next request to come finds these. Fewer may wait than do already: those stay.
    func configureAdmission(_ limits: AdmissionLimits, stepSecondsMax: Double) {
        waitingRoom.withLock {
            $0.room.limits = limits
            $0.room.stepSecondsMax = stepSecondsMax
        }
    }

    /// A request came, or came back from a node that failed it: goes to a node, waits, or is refused.
    ///
    /// - Parameters:
    ///   - seat: What it was let in with before, if it was.
    ///   - waiter: Who is told if it waits.
    func admit(
        _ request: RoutingRequest, blocks: PromptBlocks, asking: AdmissionRequest, seat: AdmissionSeat?,
        waiter: () -> AdmissionWaiter, now: MonotonicTime
    ) -> RoomOutcome {
        var told: [WaitingRoom.Told] = []
        let outcome = waitingRoom.withLock { waiting in
            waitingCount.wrappingAdd(1, ordering: .sequentiallyConsistent)
            defer { waitingCount.store(waiting.room.count, ordering: .sequentiallyConsistent) }
            var turns: [AdmissionTurn] = []
            let outcome = router.withLock { router in
                waiting.room.arrived(
                    request, blocks: blocks.hashes.span, asking: asking, seat: seat, router: &router, now: now,
                    turns: &turns)
            }
            if case .waits(let seat) = outcome, let id = seat.waitingID { waiting.waiters[id] = waiter() }
            told = waiting.take(turns)
            return outcome
        }
        tell(told)
        return outcome
    }

    /// A request is over, or its client has left: what it held is free.
    func left(_ seat: AdmissionSeat, isAnswered: Bool, now: MonotonicTime) {
        changeRoom { waiting, router in
            waiting.room.left(seat, isAnswered: isAnswered, now: now)
            if let id = seat.waitingID { waiting.waiters[id] = nil }
            return waiting.room.count == 0 ? [] : router.withLock { waiting.room.turns(router: &$0, now: now) }
        }
    }

    /// Something happened to the router that may have made room.
    func admitWaiting(now: MonotonicTime) {
        guard waitingCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        changeRoom { waiting, router in router.withLock { waiting.room.turns(router: &$0, now: now) } }
    }

    /// Now and then: deadlines pass, and nodes catch up while nothing happens.
    func tickAdmission(now: MonotonicTime) {
        guard waitingCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        changeRoom { waiting, router in router.withLock { waiting.room.ticked(router: &$0, now: now) } }
    }

    /// Why the request went where it is; nil where nobody asked that this be kept.
    func explanation(_ assignment: Assignment) -> RoutingExplanation? {
        router.withLock { $0.explanation(assignment) }
    }

    func setExplaining(_ isExplaining: Bool) { router.withLock { $0.isExplaining = isExplaining } }

    private func changeRoom(_ change: (inout WaitingRoom, borrowing Mutex<Router>) -> [AdmissionTurn]) {
        let told = waitingRoom.withLock { waiting in
            defer { waitingCount.store(waiting.room.count, ordering: .sequentiallyConsistent) }
            let turns = change(&waiting, router)
            return waiting.take(turns)
        }
        tell(told)
    }

    private func tell(_ told: [WaitingRoom.Told]) {
        for (waiter, outcome) in told {
            // Never within the call of another request, on whose loop this may be.
            waiter.eventLoop.execute { waiter.exchange.value.turnCame(outcome) }
        }
    }
}

extension WaitingRoom {
    fileprivate typealias Told = (waiter: AdmissionWaiter, outcome: RoomOutcome)

    /// Who is to be told what; they wait no more.
    fileprivate mutating func take(_ turns: [AdmissionTurn]) -> [Told] {
        let told: [Told] = turns.compactMap { turn in
            waiters.removeValue(forKey: turn.id).map { ($0, turn.outcome) }
        }
        assert(told.count == turns.count && waiters.count == room.count, "somebody waits whom nobody knows")
        return told
    }
}

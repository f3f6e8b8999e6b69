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

/// Waiting for room: one ``AdmissionRoom`` beside the one router.
///
/// Whatever may make room looks whether somebody waits (an atomic, so that it costs nothing where nobody does), places
/// whoever's turn it is under both locks, and tells them on their loops after unlocking. Nothing is lost between a request
/// that finds no room and an event that makes some: a request counts as waiting before it looks.
extension SharedRouter {
    /// The next request to come finds these. Fewer may wait than do already: those stay.
    func configureAdmission(_ limits: AdmissionLimits, stepSecondsMax: Double) {
        room.withLock {
            $0.limits = limits
            $0.stepSecondsMax = stepSecondsMax
        }
    }

    /// A request came, or came back from a node that failed it: goes to a node, waits, or is refused.
    ///
    /// - Parameter seat: What it was let in with before, if it was.
    func admit(
        _ request: RoutingRequest, blocks: PromptBlocks, asking: AdmissionRequest, seat: AdmissionSeat?,
        waiter: AdmissionWaiter, now: MonotonicTime
    ) -> RoomOutcome {
        let (outcome, turns) = room.withLock { room in
            waitingCount.wrappingAdd(1, ordering: .sequentiallyConsistent)
            defer { waitingCount.store(room.count, ordering: .sequentiallyConsistent) }
            return router.withLock { router in
                var turns: [AdmissionTurn<AdmissionWaiter>] = []
                let outcome = room.arrived(
                    request, blocks: blocks.hashes.span, asking: asking, seat: seat, waiter: waiter, router: &router,
                    now: now, turns: &turns)
                return (outcome, turns)
            }
        }
        tell(turns)
        return outcome
    }

    /// A request is over, or its client has left: what it held is free.
    func left(_ seat: AdmissionSeat, isAnswered: Bool, now: MonotonicTime) {
        changeRoom { room, router in
            room.left(seat, isAnswered: isAnswered, now: now)
            return room.count == 0 ? [] : router.withLock { room.turns(router: &$0, now: now) }
        }
    }

    /// Something happened to the router that may have made room.
    func admitWaiting(now: MonotonicTime) {
        guard waitingCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        changeRoom { room, router in router.withLock { room.turns(router: &$0, now: now) } }
    }

    /// Now and then: deadlines pass, and nodes catch up while nothing happens.
    func tickAdmission(now: MonotonicTime) {
        guard waitingCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
        changeRoom { room, router in router.withLock { room.ticked(router: &$0, now: now) } }
    }

    /// Why the request went where it is; nil where nobody asked that this be kept.
    func explanation(_ assignment: Assignment) -> RoutingExplanation? {
        router.withLock { $0.explanation(assignment) }
    }

    func setExplaining(_ isExplaining: Bool) { router.withLock { $0.isExplaining = isExplaining } }

    private func changeRoom(
        _ change: (inout AdmissionRoom<AdmissionWaiter>, borrowing Mutex<Router>) -> [AdmissionTurn<AdmissionWaiter>]
    ) {
        let turns = room.withLock { room in
            defer { waitingCount.store(room.count, ordering: .sequentiallyConsistent) }
            return change(&room, router)
        }
        tell(turns)
    }

    private func tell(_ turns: [AdmissionTurn<AdmissionWaiter>]) {
        for turn in turns {
            let (waiter, outcome) = (turn.waiter, turn.outcome)
            // Never within the call of another request, on whose loop this may be.
            waiter.eventLoop.execute { waiter.exchange.value.turnCame(outcome) }
        }
    }
}

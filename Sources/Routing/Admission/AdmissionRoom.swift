import Domain

/// All requests that wait in one gateway, and the way to a node for all that come.
///
/// Requests that the same nodes could take (one model, endpoints that the same engines serve) share a lane: an
/// ``AdmissionQueue`` with its orgs, classes and deadlines. One that no node of its lane has room for waits there; others
/// pass, since what is full is not theirs. Lanes share one bound on number and bytes, and take turns where they share
/// nodes. A request that comes back from a node that failed it goes before all that wait: it was let in once.
///
/// Whoever's turn comes is placed at once, in the same step: so as many go as there is room for, and no other can take the
/// room before they are told. Pure: the caller tells it after each event that may have made room (``turns(router:now:)``),
/// and knows those that wait by the number that their seat has (``AdmissionSeat/waitingID``).
package struct AdmissionRoom: Sendable {
    struct Waiting: Sendable {
        var lane: Int
        /// nil where it has come back from a node.
        var ticket: AdmissionTicket?
        var request: RoutingRequest
        var blocks: ContiguousArray<UInt64>
        var asking: AdmissionRequest
        /// Let in though no node would have it: there seemed to be room. Otherwise, without a ticket, a node failed it.
        var isStranded = false
        var patienceSeconds: Double
    }

    struct Lane: Sendable {
        let key: AdmissionLane
        var queue: AdmissionQueue
        /// From a ticket of the queue to its request.
        var queued: [AdmissionTicket: UInt64] = [:]
        /// Let in before, in the order in which they came back or were tried last.
        var returned: ContiguousArray<UInt64> = []
        /// Of those, the ones that are stranded.
        var stranded = 0
        /// From placement to end, of those answered.
        var service = RunningMean()

        var isEmpty: Bool { queued.isEmpty && returned.isEmpty }
        /// Nothing that came by it is anywhere.
        var isIdle: Bool { isEmpty && queue.isIdle }
    }

    /// Until something has been seen to leave, all that is with the nodes may at any moment.
    private static let costPerSecondUnseen = 1e9
    /// Lanes that nothing is in are forgotten beyond this.
    private static let idleLanesMax = 1_024

    /// While so many of a lane are stranded, what seems to be room there is none.
    static let strandedMax = 8

    package var limits: AdmissionLimits {
        didSet { for lane in lanes.indices { lanes[lane].queue.limits = limits } }
    }
    /// Beyond a decode step of so many seconds a node is full.
    package var stepSecondsMax: Double
    /// Seats name them by their index: a lane stays where it is while anything that came by it is anywhere.
    var lanes: ContiguousArray<Lane> = []
    private var laneIndexes: [AdmissionLane: Int] = [:]
    private var lanesFree: ContiguousArray<Int> = []
    var waiting: [UInt64: Waiting] = [:]
    /// Lanes in which somebody waits, in turn.
    var busy: ContiguousArray<Int> = []
    var turn = 0
    private var ids: UInt64 = 0

    package init(limits: AdmissionLimits = AdmissionLimits(), stepSecondsMax: Double = 0.05) {
        self.limits = limits
        self.stepSecondsMax = stepSecondsMax
    }

    /// Requests that wait.
    package var count: Int { waiting.count }
    package var bytes: Int { busy.reduce(returnedBytes) { $0 + lanes[$1].queue.bytes } }
    /// Of those that were let in and wait for a node all the same.
    var returnedBytes = 0

    // MARK: Coming

    /// A request came, or came back from a node that failed it.
    ///
    /// - Parameters:
    ///   - asking: Whose it is. Where its cost is 0 it is charged what the router finds that it costs.
    ///   - seat: What it was let in with before; that is over where the request is for another lane now.
    ///   - turns: What becomes of others that must make way for it.
    package mutating func arrived(
        _ request: RoutingRequest, blocks: Span<UInt64>, asking: AdmissionRequest, seat: AdmissionSeat?,
        router: inout Router, now: MonotonicTime, turns: inout [AdmissionTurn]
    ) -> RoomOutcome {
        let key = AdmissionLane(request)
        let known = laneIndexes[key]
        let isBack = seat != nil && seat?.lane == known
        // A seat in another lane, of the model that this one stands in for, pays for nothing here.
        if let seat, !isBack { left(seat, now: now) }
        let wait = leastWait(request, &router, now)
        if wait == .infinity, let refusal = refusal(of: request, router: &router, now: now) {
            if isBack, let seat { left(seat, now: now) }
            return .refused(refusal)
        }
        let lane = known ?? open(key)
        if let seat, isBack {
            guard wait < limits.waitSecondsMax else {
                return comeBack(request, blocks, asking, seat, isStranded: false, now)
            }
            return placedAgain(request, blocks, asking, seat, &router, now)
        }
        if let seconds = lanes[lane].service.mean { lanes[lane].queue.serviceTakes(seconds: seconds) }
        let stepSecondsMax = stepSecondsMax
        let isStuck = lanes[lane].stranded >= Self.strandedMax
        let goes = lanes[lane].queue.letsThrough(
            asking, leastWaitSeconds: isStuck ? max(wait, limits.waitSecondsMax) : wait,
            meanWaitSeconds: { router.meanWaitSeconds(for: request, stepSecondsMax: stepSecondsMax, now: now) },
            now: now)
        if goes { return placed(request, blocks, asking, lane, &router, now) }
        var asking = asking
        if asking.cost == 0 { asking.cost = router.admissionCost(of: request, blocks: blocks) }
        return waits(request, blocks, asking, lane, now: now, turns: &turns)
    }

    private mutating func open(_ key: AdmissionLane) -> Int {
        if laneIndexes.count >= Self.idleLanesMax {
            for (key, lane) in laneIndexes where lanes[lane].isIdle {
                laneIndexes[key] = nil
                lanesFree.append(lane)
            }
        }
        let opened = Lane(key: key, queue: AdmissionQueue(limits: limits, costPerSecond: Self.costPerSecondUnseen))
        let lane = lanesFree.popLast() ?? lanes.count
        if lane == lanes.count { lanes.append(opened) } else { lanes[lane] = opened }
        laneIndexes[key] = lane
        return lane
    }

    /// A request that need not wait goes to a node.
    private mutating func placed(
        _ request: RoutingRequest, _ blocks: Span<UInt64>, _ asking: AdmissionRequest, _ lane: Int,
        _ router: inout Router, _ now: MonotonicTime
    ) -> RoomOutcome {
        var seat = AdmissionSeat(lane: lane, org: asking.org, cost: asking.cost, phase: .placed(since: now))
        switch router.decide(request, blocks: blocks, now: now) {
        case .dispatch(let assignment):
            // The decision has looked for its prompt already.
            if seat.cost == 0 { seat.cost = router.costLast }
            lanes[lane].queue.began(seat.org, cost: seat.cost, now: now)
            return .placed(assignment, seat)
        // The policy's own caution: a node that will stop soon, say.
        case .refuse(.allAtConcurrency):
            if seat.cost == 0 { seat.cost = router.admissionCost(of: request, blocks: blocks) }
            lanes[lane].queue.began(seat.org, cost: seat.cost, now: now)
            return comeBack(request, blocks, asking, seat, isStranded: true, now)
        case .refuse(let refusal): return .refused(refusal)
        }
    }

    /// A request that a node failed goes to another.
    private mutating func placedAgain(
        _ request: RoutingRequest, _ blocks: Span<UInt64>, _ asking: AdmissionRequest, _ seat: AdmissionSeat,
        _ router: inout Router, _ now: MonotonicTime
    ) -> RoomOutcome {
        switch router.decide(request, blocks: blocks, now: now) {
        case .dispatch(let assignment): return .placed(assignment, seat.placed(now))
        case .refuse(.allAtConcurrency): return comeBack(request, blocks, asking, seat, isStranded: false, now)
        case .refuse(let refusal):
            left(seat, now: now)
            return .refused(refusal)
        }
    }

    /// A request that may not go yet joins its lane's queue, if there is room for it.
    private mutating func waits(
        _ request: RoutingRequest, _ blocks: Span<UInt64>, _ asking: AdmissionRequest, _ lane: Int,
        now: MonotonicTime, turns: inout [AdmissionTurn]
    ) -> RoomOutcome {
        switch lanes[lane].queue.enqueued(asking, now: now) {
        case .wait(let ticket, let evicted):
            for ticket in evicted { evict(ticket, of: lane, now: now, turns: &turns) }
            let id = note(
                Waiting(
                    lane: lane, ticket: ticket, request: request, blocks: copy(blocks), asking: asking,
                    patienceSeconds: asking.deadline.seconds(since: now)))
            lanes[lane].queued[ticket] = id
            guard fits(id, asking, now: now, turns: &turns) else {
                let rejection = rejection(.full, asking, lane, patience: 0, now: now)
                forget(id)
                return .rejected(rejection)
            }
            return .waits(AdmissionSeat(lane: lane, org: asking.org, cost: asking.cost, phase: .waiting(id)))
        case .reject(let seconds, let evicted):
            for ticket in evicted { evict(ticket, of: lane, now: now, turns: &turns) }
            let predicted = lanes[lane].queue.waitSeconds(for: asking, now: now)
            let isLate = predicted > asking.deadline.seconds(since: now)
            return .rejected(AdmissionRejection(cause: isLate ? .late : .full, retryAfterSeconds: seconds))
        }
    }

    private mutating func comeBack(
        _ request: RoutingRequest, _ blocks: Span<UInt64>, _ asking: AdmissionRequest, _ seat: AdmissionSeat,
        isStranded: Bool, _ now: MonotonicTime
    ) -> RoomOutcome {
        guard count < limits.requestsMax, bytes + asking.bytes <= limits.bytesMax else {
            left(seat, now: now)
            return .rejected(rejection(.full, asking, seat.lane, patience: 0, now: now))
        }
        var asking = asking
        (asking.org, asking.cost) = (seat.org, seat.cost)
        let id = note(
            Waiting(
                lane: seat.lane, ticket: nil, request: request, blocks: copy(blocks), asking: asking,
                patienceSeconds: asking.deadline.seconds(since: now)))
        returns(id, to: seat.lane, isStranded: isStranded)
        return .waits(seat.waiting(id))
    }

    /// One that was let in waits all the same.
    mutating func returns(_ id: UInt64, to lane: Int, isStranded: Bool) {
        waiting[id]?.ticket = nil
        waiting[id]?.isStranded = isStranded
        lanes[lane].returned.append(id)
        if isStranded { lanes[lane].stranded += 1 }
        returnedBytes += max(0, waiting[id]?.asking.bytes ?? 0)
    }

    private mutating func note(_ request: Waiting) -> UInt64 {
        ids += 1
        waiting[ids] = request
        if !busy.contains(request.lane) { busy.append(request.lane) }
        return ids
    }

    private func copy(_ blocks: Span<UInt64>) -> ContiguousArray<UInt64> {
        var copy = ContiguousArray<UInt64>()
        copy.reserveCapacity(blocks.count)
        for position in 0..<blocks.count { copy.append(blocks[position]) }
        return copy
    }

    /// Whether all lanes together are within the bounds, others having made way if need be.
    private mutating func fits(
        _ id: UInt64, _ asking: AdmissionRequest, now: MonotonicTime, turns: inout [AdmissionTurn]
    ) -> Bool {
        while count > limits.requestsMax || bytes > limits.bytesMax {
            // Its own lane too: what waits there besides the queue counts as well.
            let longest = busy.sorted { lanes[$0].queue.count > lanes[$1].queue.count }
            var hasGiven = false
            for lane in longest {
                guard let ticket = lanes[lane].queue.giveWay(to: asking) else { continue }
                evict(ticket, of: lane, now: now, turns: &turns)
                hasGiven = true
                break
            }
            guard hasGiven else { return false }
        }
        return true
    }

    /// The queue has dropped it; its waiter is still to be told.
    private mutating func evict(
        _ ticket: AdmissionTicket, of lane: Int, now: MonotonicTime, turns: inout [AdmissionTurn]
    ) {
        guard let id = lanes[lane].queued[ticket], let request = waiting[id] else { return }
        let rejection = rejection(.full, request.asking, lane, patience: 0, now: now)
        forget(id)
        turns.append(AdmissionTurn(id: id, outcome: .rejected(rejection)))
    }

    // MARK: Leaving

    /// A request is over, or gives up waiting: what it held is free. One whose turn has come meanwhile, and who will be told
    /// so, is not waiting any more: he leaves with the seat that he is told.
    ///
    /// - Parameter isAnswered: How long it took says how fast the nodes are.
    package mutating func left(_ seat: AdmissionSeat, isAnswered: Bool = false, now: MonotonicTime) {
        switch seat.phase {
        case .placed(let since):
            lanes[seat.lane].queue.ended(seat.org, cost: seat.cost)
            if isAnswered { lanes[seat.lane].service.add(max(0, now.seconds(since: since))) }
        case .waiting(let id):
            guard let request = waiting[id] else { return }
            if request.ticket == nil { lanes[seat.lane].queue.ended(seat.org, cost: seat.cost) }
            forget(id)
        }
    }

    /// Takes it out of every list.
    mutating func forget(_ id: UInt64) {
        guard let request = waiting.removeValue(forKey: id) else { return }
        let lane = request.lane
        if let ticket = request.ticket {
            lanes[lane].queue.left(ticket)
            lanes[lane].queued[ticket] = nil
        } else {
            lanes[lane].returned.removeAll { $0 == id }
            if request.isStranded { lanes[lane].stranded -= 1 }
            returnedBytes -= max(0, request.asking.bytes)
        }
        guard lanes[lane].isEmpty, let position = busy.firstIndex(of: lane) else { return }
        busy.remove(at: position)
        if position < turn { turn -= 1 }
    }

    func rejection(
        _ cause: AdmissionRejection.Cause, _ asking: AdmissionRequest, _ lane: Int, patience: Double,
        now: MonotonicTime
    ) -> AdmissionRejection {
        AdmissionRejection(
            cause: cause,
            retryAfterSeconds: lanes[lane].queue.retryAfterSeconds(
                for: asking, patienceSeconds: patience, now: now))
    }

    // MARK: Room

    func leastWait(_ request: RoutingRequest, _ router: inout Router, _ now: MonotonicTime) -> Double {
        router.leastWaitSeconds(
            for: request, stepSecondsMax: stepSecondsMax, enough: limits.shareWaitSeconds / 2, now: now)
    }

    /// Why no node takes the request, now or soon; nil where one would once it has room.
    func refusal(of request: RoutingRequest, router: inout Router, now: MonotonicTime) -> RoutingRefusal? {
        guard
            !router.takesRequests(
                request.model, on: request.engines, excluding: request.excluded, in: request.region),
            case .refuse(let refusal) = router.decide(request, now: now), refusal != .allAtConcurrency
        else { return nil }
        return refusal
    }
}

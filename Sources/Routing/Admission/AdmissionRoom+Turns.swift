import Domain

/// Who goes when there is room, and who need not wait any longer.
extension AdmissionRoom {
    /// Something happened that may have made room: who goes now, each placed already.
    package mutating func turns(router: inout Router, now: MonotonicTime) -> [AdmissionTurn] {
        var turns: [AdmissionTurn] = []
        var misses = 0
        while !busy.isEmpty, misses < busy.count {
            if turn >= busy.count { turn = 0 }
            let lane = busy[turn]
            turn += 1
            if goes(lane, router: &router, now: now, turns: &turns) { misses = 0 } else { misses += 1 }
        }
        return turns
    }

    /// Now and then: those whose deadline has passed, or will have before they would be served, and who may go, since
    /// nodes catch up while nothing happens.
    package mutating func ticked(router: inout Router, now: MonotonicTime) -> [AdmissionTurn] {
        var turns: [AdmissionTurn] = []
        for lane in busy {
            for ticket in lanes[lane].queue.expired(now: now) {
                giveUp(lanes[lane].queued[ticket], nil, now: now, turns: &turns)
            }
            for (ticket, seconds) in lanes[lane].queue.hopeless(now: now) {
                giveUp(lanes[lane].queued[ticket], seconds, now: now, turns: &turns)
            }
            for id in lanes[lane].returned where (waiting[id]?.asking.deadline ?? now) <= now {
                if let request = waiting[id] { lanes[lane].queue.ended(request.asking.org, cost: request.asking.cost) }
                giveUp(id, nil, now: now, turns: &turns)
            }
        }
        return turns + self.turns(router: &router, now: now)
    }

    private mutating func giveUp(
        _ id: UInt64?, _ seconds: Int?, now: MonotonicTime, turns: inout [AdmissionTurn]
    ) {
        guard let id, let request = waiting[id] else { return }
        let rejection =
            seconds.map { AdmissionRejection(cause: .late, retryAfterSeconds: $0) }
            ?? rejection(.late, request.asking, request.lane, patience: request.patienceSeconds, now: now)
        forget(id)
        turns.append(AdmissionTurn(id: id, outcome: .rejected(rejection)))
    }

    /// Of those that were let in and found no node, so many are tried at an event: those whose last try is the longest ago.
    private static let returnedTriedMax = 8

    /// - Returns: Whether somebody has left the lane.
    private mutating func goes(
        _ lane: Int, router: inout Router, now: MonotonicTime, turns: inout [AdmissionTurn]
    ) -> Bool {
        for id in lanes[lane].returned.prefix(Self.returnedTriedMax) {
            if goesBack(id, lane, router: &router, now: now, turns: &turns) { return true }
        }
        if lanes[lane].returned.count > Self.returnedTriedMax {
            // Others next time: what keeps these need not keep those.
            let tried = lanes[lane].returned.prefix(Self.returnedTriedMax)
            lanes[lane].returned.removeFirst(tried.count)
            lanes[lane].returned.append(contentsOf: tried)
        }
        guard !lanes[lane].queue.isEmpty, lanes[lane].stranded < Self.strandedMax else { return false }
        let probe = lanes[lane].key.probe
        let wait = leastWait(probe, &router, now)
        if wait == .infinity {
            guard let refusal = refusal(of: probe, router: &router, now: now) else { return false }
            // No node is left to wait for.
            for id in lanes[lane].queued.values.sorted() {
                guard waiting[id] != nil else { continue }
                forget(id)
                turns.append(AdmissionTurn(id: id, outcome: .refused(refusal)))
            }
            return true
        }
        let stepSecondsMax = stepSecondsMax
        let next = lanes[lane].queue.next(
            leastWaitSeconds: wait,
            meanWaitSeconds: { router.meanWaitSeconds(for: probe, stepSecondsMax: stepSecondsMax, now: now) }, now: now)
        guard let next,
            let id = lanes[lane].queued.removeValue(forKey: next.ticket)
        else { return false }
        // It has left the queue, and counts as let in.
        returns(id, to: lane, isStranded: true)
        return goesBack(id, lane, router: &router, now: now, turns: &turns)
    }

    /// Places one that was let in, if there is room for it.
    private mutating func goesBack(
        _ id: UInt64, _ lane: Int, router: inout Router, now: MonotonicTime,
        turns: inout [AdmissionTurn]
    ) -> Bool {
        guard let request = waiting[id] else { return false }
        let seat = AdmissionSeat(
            lane: lane, org: request.asking.org, cost: request.asking.cost, phase: .placed(since: now))
        let wait = leastWait(request.request, &router, now)
        if wait == .infinity, let refusal = refusal(of: request.request, router: &router, now: now) {
            forget(id)
            left(seat, now: now)
            turns.append(AdmissionTurn(id: id, outcome: .refused(refusal)))
            return true
        }
        guard wait < limits.waitSecondsMax else { return false }
        switch router.decide(request.request, blocks: request.blocks.span, now: now) {
        case .dispatch(let assignment):
            forget(id)
            turns.append(AdmissionTurn(id: id, outcome: .placed(assignment, seat)))
            return true
        case .refuse: return false
        }
    }
}

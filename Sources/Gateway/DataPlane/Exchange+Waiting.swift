import Billing
import Domain
import NIOCore
import OpenAIProtocol
import Routing

// Waiting for room at the nodes, the hold granted: nothing has gone to a node, so leaving costs nothing.
extension Exchange {
    /// What the request asks for room with; its cost is the router's to say.
    func admissionRequest(_ key: KeyRecord, now: MonotonicTime) -> AdmissionRequest {
        let queue = snapshot.configuration.queue
        // Whoever begins when the time of all requests is nearly over is let go in vain: 429 is more use than 408.
        let last = acceptedAt.advanced(byNanoseconds: snapshot.timeouts.request / 10 * 9)
        var deadline = min(now.advanced(by: queue.deadline), last)
        // A client that says when it will leave is served before then, or not at all.
        if let seconds = incoming?.timeoutSeconds {
            deadline = min(deadline, acceptedAt.advanced(bySeconds: seconds))
        }
        return AdmissionRequest(
            org: key.org, priority: queue.admissionClass(of: scanned?.serviceTier, org: key.org),
            cost: 0, bytes: bufferedBytes, deadline: deadline)
    }

    func follow(_ outcome: RoomOutcome) {
        switch outcome {
        case .placed(let assignment, let seat):
            self.seat = seat
            dispatch(assignment)
        case .waits(let seat):
            self.seat = seat
            waitingSince = MonotonicTime.now()
            loop.metrics.add(1, to: .requestsWaiting)
            perform(machine.queued())
        case .refused(let refusal):
            seat = nil
            fallBack(or: failure ?? Failure(refusal, model: model?.id, region: key?.region))
        case .rejected(let rejection):
            seat = nil
            loop.metrics.count(rejection.cause == .full ? .queueRefusedFull : .queueRefusedLate)
            perform(machine.refused(failure ?? Failure(rejection)))
        }
    }

    /// What became of the wait: told by whoever made room, in a turn of the loop of its own.
    func turnCame(_ outcome: RoomOutcome) {
        guard machine.state == .waiting else {
            // The client left while this was on its way: what was kept for it is free again.
            guard case .placed(let assignment, let seat) = outcome else { return }
            let now = MonotonicTime.now()
            loop.services.router.finished(assignment, outcome: .aborted, now: now)
            return loop.services.router.left(seat, isAnswered: false, now: now)
        }
        endWait()
        perform(machine.turnCame())
        follow(outcome)
    }

    private func endWait() {
        guard let since = waitingSince else { return }
        waitingSince = nil
        let waited = max(0, MonotonicTime.now().nanoseconds(since: since))
        waitedNanoseconds += waited
        loop.metrics.add(-1, to: .requestsWaiting)
        loop.metrics.queueWaited(seconds: Double(waited) / 1e9)
    }

    /// The request is over: its place among those that wait, or that the nodes have, is free.
    func leaveRoom(isAnswered: Bool) {
        endWait()
        guard let seat else { return }
        self.seat = nil
        loop.services.router.left(seat, isAnswered: isAnswered, now: MonotonicTime.now())
    }
}

extension Failure {
    init(_ rejection: AdmissionRejection) {
        let message =
            switch rejection.cause {
            case .full: "More requests wait for this model than the gateway holds. Retry in"
            case .late: "The model is too busy to begin on this request in time. Retry in"
            }
        let seconds = rejection.retryAfterSeconds
        self.init(
            .saturated, "\(message) \(seconds) s.", source: .gateway,
            retry: .after(milliseconds: Int64(seconds) * 1_000))
    }
}

extension ScannedRequest {
    /// What the client asks to be served as, where the dialect has such a thing.
    var serviceTier: String? {
        guard case .string(let tier)? = steering.first(where: { $0.key == .serviceTier })?.value else { return nil }
        return tier
    }
}

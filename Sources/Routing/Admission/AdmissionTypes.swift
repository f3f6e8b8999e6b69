import Domain

/// Who goes before whom when there is not room for all: the API's `service_tier`.
package enum AdmissionClass: Int, Hashable, Sendable, CaseIterable, Comparable {
    case priority
    case standard
    case flex

    package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// A request that asks for admission.
package struct AdmissionRequest: Hashable, Sendable {
    package var org: OrgID
    package var priority: AdmissionClass
    /// What it is charged: its new work and twice its expected output, in tokens. 0 where the router is to say: of one that
    /// goes at once what its node has to do (``Router/costLast``), of one that waits what the node that knows most of it
    /// would (``Router/admissionCost(of:blocks:)``).
    package var cost: Double
    /// What the gateway holds for it while it waits.
    package var bytes: Int
    /// It is worth nothing later.
    package var deadline: MonotonicTime

    package init(org: OrgID, priority: AdmissionClass, cost: Double, bytes: Int, deadline: MonotonicTime) {
        self.org = org
        self.priority = priority
        self.cost = cost
        self.bytes = bytes
        self.deadline = deadline
    }
}

/// What becomes of a request that may not go at once.
package enum AdmissionDecision: Hashable, Sendable {
    /// It waits under the ticket. Those in `evicted` waited and must be refused, to make room for it.
    case wait(AdmissionTicket, evicted: [AdmissionTicket])
    /// There is no room, or it would wait past its deadline; worth trying again after so many seconds. Those in
    /// `evicted` waited and must be refused too: making room for a large one can fail half-way.
    case reject(retryAfterSeconds: Int, evicted: [AdmissionTicket])
}

/// A waiting request; good once.
package struct AdmissionTicket: Hashable, Sendable {
    package let value: UInt64
}

/// How much may wait.
package struct AdmissionLimits: Hashable, Sendable {
    package var requestsMax: Int
    package var bytesMax: Int
    /// Nodes are full for everyone when the least busy of them is so many seconds behind.
    package var waitSecondsMax: Double
    /// Orgs that surge (``RecentUsage``) and have more in flight than the others in the mean wait from here on, so that the
    /// others find short queues.
    package var shareWaitSeconds: Double
    /// More: so many times as much.
    package static let shareMultiple = 1.0

    package init(
        requestsMax: Int = 4_096, bytesMax: Int = 256 << 20, waitSecondsMax: Double = 3, shareWaitSeconds: Double = 0.1
    ) {
        self.requestsMax = max(1, requestsMax)
        self.bytesMax = max(1, bytesMax)
        self.waitSecondsMax = waitSecondsMax
        self.shareWaitSeconds = min(shareWaitSeconds, waitSecondsMax)
    }
}

/// Requests that the same nodes could take: they wait for the same room.
package struct AdmissionLane: Hashable, Sendable {
    let model: ModelID
    let engines: EngineSet
    let region: String?

    init(_ request: RoutingRequest) {
        model = request.model
        engines = request.engines
        region = request.region
    }

    /// Any request of it, for what the router is asked of all alike.
    var probe: RoutingRequest {
        var probe = RoutingRequest(model: model, promptTokens: 1, expectedOutputTokens: 1, engines: engines)
        probe.region = region
        return probe
    }
}

/// What a request that came is charged with, until it is over (``AdmissionRoom/left(_:isAnswered:now:)``).
package struct AdmissionSeat: Hashable, Sendable {
    enum Phase: Hashable, Sendable {
        case waiting(UInt64)
        case placed(since: MonotonicTime)
    }

    /// Its index among the room's lanes.
    let lane: Int
    let org: OrgID
    var cost: Double
    let phase: Phase

    /// What the room's turns call it by; nil where it is with a node.
    package var waitingID: UInt64? {
        if case .waiting(let id) = phase { id } else { nil }
    }

    func waiting(_ id: UInt64) -> AdmissionSeat {
        AdmissionSeat(lane: lane, org: org, cost: cost, phase: .waiting(id))
    }

    func placed(_ now: MonotonicTime) -> AdmissionSeat {
        AdmissionSeat(lane: lane, org: org, cost: cost, phase: .placed(since: now))
    }
}

/// Why a request does not wait, or not any longer.
package struct AdmissionRejection: Hashable, Sendable {
    package enum Cause: Hashable, Sendable {
        /// Too many wait, or too much.
        case full
        /// It would be served after its deadline, or was not before.
        case late
    }

    package var cause: Cause
    /// Trying again is worth it then.
    package var retryAfterSeconds: Int
}

/// What becomes of a request that came.
package enum RoomOutcome: Hashable, Sendable {
    /// A node has it, in the router's books too.
    case placed(Assignment, AdmissionSeat)
    case waits(AdmissionSeat)
    /// No node takes it, and none is about to.
    case refused(RoutingRefusal)
    case rejected(AdmissionRejection)
}

/// One that waited, and what became of it: never ``RoomOutcome/waits(_:)``.
package struct AdmissionTurn: Sendable {
    /// As its seat has it.
    package let id: UInt64
    package let outcome: RoomOutcome
}

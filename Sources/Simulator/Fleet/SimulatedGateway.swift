import Domain
import Routing

/// One gateway of a run: the product's ``Router``, and the little that stands around it there.
struct SimulatedGateway {
    /// Attempts in all, as the product's configuration has it.
    static let attemptsMax: UInt8 = 2
    private static let retryPermille = 100
    /// Before any answer is known.
    private static let expectedOutputTokensInitial = 300.0
    /// Weight of the newest answer in the mean.
    private static let expectedOutputWeight = 0.02

    /// How long a request may wait in the gateway, as the product's configuration has it.
    private static let queueDeadlineSeconds = 30.0

    private(set) var router: Router
    /// nil where every request goes to a node at once.
    private var admission: AdmissionQueue?
    /// The flights that wait, by ticket.
    private var waiting: [AdmissionTicket: Int] = [:]
    private var retries = RetryBudget(permille: retryPermille)
    private var expectedOutputTokens = expectedOutputTokensInitial

    init(policy: RoutingPolicy, nodes: [NodeSpec], seed: UInt64, isAdmitting: Bool = false) {
        admission = isAdmitting ? AdmissionQueue() : nil
        router = Router(fleet: FleetSnapshot(nodes: nodes), policy: policy, seed: seed)
        for node in nodes { router.probed(node.id, .healthy, now: Self.time(0)) }
    }

    static func time(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }

    // MARK: Admission

    enum Admission {
        case dispatch
        case wait
        case reject
    }

    /// - Parameter evicted: Flights that waited and make room for this one.
    mutating func admit(
        _ index: Int, _ flight: inout Flight, _ request: Trace.Request, evicted: inout [Int]
    ) -> Admission {
        guard admission != nil else { return .dispatch }
        let now = Self.time(flight.arrival)
        var asked = AdmissionRequest(
            org: Self.org(flight.org), priority: .standard, cost: 0, bytes: request.promptTokens * 4,
            deadline: Self.time(flight.arrival + Self.queueDeadlineSeconds))
        let wait = router.leastWaitSeconds(for: wanted(flight, request), now: now)
        let mean = router.meanWaitSeconds(for: wanted(flight, request), now: now)
        if admission?.letsThrough(asked, leastWaitSeconds: wait, meanWaitSeconds: { mean }, now: now) != false {
            return .dispatch
        }
        asked.cost = router.admissionCost(of: wanted(flight, request), blocks: request.blocks.span)
        flight.admissionCost = asked.cost
        switch admission?.enqueued(asked, now: now) {
        case nil: return .dispatch
        case .wait(let ticket, let others):
            evicted += others.compactMap { waiting.removeValue(forKey: $0) }
            waiting[ticket] = index
            return .wait
        case .reject(_, let others):
            evicted += others.compactMap { waiting.removeValue(forKey: $0) }
            return .reject
        }
    }

    /// Whose turn it is to go to a node; nil where nobody waits or no node has room.
    mutating func nextAdmitted(now: Double) -> Int? {
        guard !waiting.isEmpty else { return nil }
        let probe = RoutingRequest(model: FleetSpec.model, promptTokens: 1, expectedOutputTokens: 1)
        let wait = router.leastWaitSeconds(for: probe, now: Self.time(now))
        let mean = router.meanWaitSeconds(for: probe, now: Self.time(now))
        guard let next = admission?.next(leastWaitSeconds: wait, meanWaitSeconds: { mean }, now: Self.time(now)) else {
            return nil
        }
        return waiting.removeValue(forKey: next.ticket)
    }

    /// Those who have waited too long.
    mutating func expired(now: Double) -> [Int] {
        guard !waiting.isEmpty, let tickets = admission?.expired(now: Self.time(now)) else { return [] }
        return tickets.compactMap { waiting.removeValue(forKey: $0) }
    }

    /// A flight that was dispatched is over.
    mutating func ended(_ flight: Flight) {
        guard flight.admissionCost > 0 else { return }
        admission?.ended(Self.org(flight.org), cost: flight.admissionCost)
    }

    private static func org(_ number: Int32) -> OrgID { OrgID(unchecked: "org-\(number)") }

    // MARK: A request's life

    private func wanted(_ flight: Flight, _ request: Trace.Request) -> RoutingRequest {
        RoutingRequest(
            model: FleetSpec.model, promptTokens: request.promptTokens,
            expectedOutputTokens: Int(expectedOutputTokens), excluded: flight.excluded, session: request.session)
    }

    /// - Returns: nil where no node takes it.
    mutating func place(_ flight: inout Flight, _ request: Trace.Request, now: Double) -> Assignment? {
        if flight.attempt == 0 { retries.requestArrived() }
        let decision = router.decide(wanted(flight, request), blocks: request.blocks.span, now: Self.time(now))
        guard case .dispatch(let assignment) = decision else { return nil }
        if flight.admissionCost == 0 {
            flight.admissionCost = router.costLast
            admission?.began(Self.org(flight.org), cost: flight.admissionCost, now: Self.time(now))
        }
        router.started(assignment, now: Self.time(now))
        return assignment
    }

    /// Seconds to the first token that the policy predicts, and the work that it predicts them from; 0 where it predicts
    /// nothing.
    func prediction(_ assignment: Assignment) -> (seconds: Double, work: Double) {
        router.attempt(assignment).map { ($0.predictedSeconds, $0.work) } ?? (0, 0)
    }

    mutating func firstToken(_ assignment: Assignment, now: Double) {
        router.firstToken(assignment, now: Self.time(now))
    }

    mutating func completed(_ assignment: Assignment, usage: TokenUsage, now: Double) {
        expectedOutputTokens += Self.expectedOutputWeight * (Double(usage.completionTokens) - expectedOutputTokens)
        router.finished(assignment, outcome: .completed(usage), now: Self.time(now))
    }

    /// - Returns: Whether the request may be tried on another node.
    mutating func lost(_ flight: Flight, now: Double) -> Bool {
        if let assignment = flight.assignment { router.finished(assignment, outcome: .failed, now: Self.time(now)) }
        return flight.firstTokenAt.isNaN && flight.attempt < Self.attemptsMax && retries.withdrawRetry()
    }

    mutating func reported(_ node: NodeID, _ report: NodeReport, now: Double) {
        router.reported(node, report, now: Self.time(now))
    }

    mutating func probed(_ node: NodeID, isAlive: Bool, now: Double) {
        router.probed(node, isAlive ? .healthy : .failed, now: Self.time(now))
    }

    mutating func curtailed(_ node: NodeID, to share: Double, now: Double) {
        router.curtailed(node, to: share, now: Self.time(now))
    }

    mutating func cacheChanged(_ node: NodeID, stored: [UInt64], evicted: [UInt64], now: Double) {
        router.evicted(node, blocks: evicted.span, now: Self.time(now))
        router.stored(node, blocks: stored.span, now: Self.time(now))
    }

    mutating func replaceFleet(_ nodes: [NodeSpec]) {
        router.replaceFleet(router.fleet.succeeded(by: nodes))
    }

    mutating func gossip(now: Double) -> GossipMessage { router.gossip(now: Self.time(now)) }

    mutating func gossiped(_ message: GossipMessage, from peer: Int, now: Double) {
        router.gossiped(message, from: UInt64(peer), now: Self.time(now))
    }
}

import Domain
import Support
import Testing

@testable import Routing

/// What became of the request with a number.
private struct Turn {
    let waiter: Int
    let outcome: RoomOutcome
}

/// A room and a router by reference, with numbers for waiters.
private final class RoomUnderTest {
    private(set) var router: Router
    private(set) var room: AdmissionRoom
    /// Who had to make way.
    var turns: [Turn] = []
    /// By the room's number for each.
    private var waiters: [UInt64: Int] = [:]

    init(_ nodes: [NodeSpec], limits: AdmissionLimits = AdmissionLimits(), policy: RoutingPolicy = .leastTokens) {
        router = Router(fleet: FleetSnapshot(nodes: nodes), policy: policy, seed: 1)
        room = AdmissionRoom(limits: limits)
        for node in nodes { router.probed(node.id, .healthy, now: seconds(0)) }
    }

    var count: Int { room.count }
    var bytes: Int { room.bytes }

    func arrived(
        _ number: Int, _ org: Int = 0, model: ModelID = llama, deadline: Double = 1_000, bytes: Int = 10,
        priority: AdmissionClass = .standard, excluded: [Int] = [], seat: AdmissionSeat? = nil, cost: Double = 100,
        prompt: Int = 100, output: Int = 50, promptBlocks: [UInt64] = [], now: Double = 1
    ) -> RoomOutcome {
        var made: [AdmissionTurn] = []
        let outcome = room.arrived(
            request(model, prompt: prompt, output: output, excluded: excluded), blocks: promptBlocks.span,
            asking: AdmissionRequest(
                org: OrgID(unchecked: "org-\(org)"), priority: priority, cost: cost, bytes: bytes,
                deadline: seconds(deadline)),
            seat: seat, router: &router, now: seconds(now), turns: &made)
        if let id = outcome.seat?.waitingID { waiters[id] = number }
        turns += named(made)
        return outcome
    }

    private func named(_ turns: [AdmissionTurn]) -> [Turn] {
        turns.map { Turn(waiter: waiters.removeValue(forKey: $0.id) ?? -1, outcome: $0.outcome) }
    }

    func finish(_ assignment: Assignment, _ outcome: RoutingOutcome = .completed(nil), now: Double = 2) {
        router.finished(assignment, outcome: outcome, now: seconds(now))
    }

    func left(_ seat: AdmissionSeat, isAnswered: Bool = true, now: Double = 2) {
        room.left(seat, isAnswered: isAnswered, now: seconds(now))
    }

    func probe(_ node: String, _ result: ProbeResult) {
        for _ in 0..<5 { router.probed(NodeID(unchecked: node), result, now: seconds(2)) }
    }

    @discardableResult
    func letGo(now: Double = 2) -> [Turn] { named(room.turns(router: &router, now: seconds(now))) }
    func tick(now: Double) -> [Turn] { named(room.ticked(router: &router, now: seconds(now))) }
    var inflight: Int { router.inflightCount }
    /// Of all lanes: let in, though no node would have them.
    var stranded: Int { room.lanes.reduce(0) { $0 + $1.stranded } }
    func endSoon(_ node: String, at end: Double) {
        router.curtailed(NodeID(unchecked: node), to: 0, endsAt: seconds(end), now: seconds(1))
    }
}

extension RoomOutcome {
    fileprivate var placed: (Assignment, AdmissionSeat)? {
        guard case .placed(let assignment, let seat) = self else { return nil }
        return (assignment, seat)
    }

    fileprivate var seat: AdmissionSeat? {
        switch self {
        case .placed(_, let seat), .waits(let seat): seat
        case .refused, .rejected: nil
        }
    }

    fileprivate var rejection: AdmissionRejection? {
        guard case .rejected(let rejection) = self else { return nil }
        return rejection
    }

    fileprivate var isWaiting: Bool {
        guard case .waits = self else { return false }
        return true
    }
}

struct AdmissionRoomTests {
    private let one = [node("a", maxConcurrency: 1)]

    @Test func asManyGoAsThereIsRoomFor() throws {
        let room = RoomUnderTest([node("a", maxConcurrency: 2), node("b", maxConcurrency: 1)])
        let first = (0..<3).compactMap { room.arrived($0).placed }
        #expect(first.count == 3)
        for number in 3..<8 { #expect(room.arrived(number).isWaiting) }
        #expect(room.letGo().isEmpty)
        for (assignment, seat) in first.prefix(2) {
            room.finish(assignment)
            room.left(seat)
        }
        let turns = room.letGo()
        #expect(turns.map(\.waiter) == [3, 4])
        #expect(turns.allSatisfy { $0.outcome.placed != nil })
        #expect(room.count == 3 && room.inflight == 3)
        #expect(room.letGo().isEmpty)
    }

    /// However small requests are: a turn is not worth hundreds of them.
    @Test func aFloodOfOneOrgDelaysAnotherByTwoRequestsAtMost() throws {
        let room = RoomUnderTest(one)
        var (assignment, seat) = try #require(room.arrived(0).placed)
        for number in 1...50 { #expect(room.arrived(number).isWaiting) }
        #expect(room.arrived(99, 1).isWaiting)
        var order: [Int] = []
        while room.count > 0 {
            room.finish(assignment)
            room.left(seat)
            let turn = try #require(room.letGo().first)
            order.append(turn.waiter)
            (assignment, seat) = try #require(turn.outcome.placed)
        }
        #expect(order.count == 51)
        #expect(try #require(order.firstIndex(of: 99)) <= 2, "\(order)")
    }

    @Test func aModelThatIsFullHoldsUpNoOther() throws {
        let room = RoomUnderTest([node("a", maxConcurrency: 1), node("b", models: [qwen], maxConcurrency: 1)])
        #expect(room.arrived(0).placed != nil)
        #expect(room.arrived(1).isWaiting)
        let (assignment, seat) = try #require(room.arrived(2, model: qwen).placed)
        #expect(room.arrived(3, model: qwen).isWaiting)
        room.finish(assignment)
        room.left(seat)
        #expect(room.letGo().map(\.waiter) == [3])
    }

    @Test func whoLeavesIsForgottenAndTheNextGoes() throws {
        let room = RoomUnderTest(one)
        let (assignment, seat) = try #require(room.arrived(0).placed)
        let waiting = try #require(room.arrived(1).seat)
        #expect(room.arrived(2).isWaiting)
        room.left(waiting, isAnswered: false)
        #expect(room.count == 1 && room.bytes == 10)
        // Twice is once.
        room.left(waiting, isAnswered: false)
        room.finish(assignment)
        room.left(seat)
        #expect(room.letGo().map(\.waiter) == [2])
        #expect(room.count == 0 && room.bytes == 0)
    }

    /// The client left while the news of its turn was on the way to it.
    @Test func aTurnThatNobodyTakesGoesToTheNext() throws {
        let room = RoomUnderTest(one)
        let (assignment, seat) = try #require(room.arrived(0).placed)
        let waiting = try #require(room.arrived(1).seat)
        #expect(room.arrived(2).isWaiting)
        room.finish(assignment)
        room.left(seat)
        let turn = try #require(room.letGo().first)
        room.left(waiting, isAnswered: false)
        let placed = try #require(turn.outcome.placed)
        #expect(room.inflight == 1)
        room.finish(placed.0, .aborted)
        room.left(placed.1, isAnswered: false)
        #expect(room.letGo().map(\.waiter) == [2])
    }

    @Test func whoComesBackFromANodeThatFailedGoesBeforeAll() throws {
        let room = RoomUnderTest([node("a", maxConcurrency: 1), node("b", maxConcurrency: 1)])
        let placed = (0..<2).compactMap { room.arrived($0).placed }
        for number in 2..<5 { #expect(room.arrived(number, priority: .priority).isWaiting) }
        let (failed, seat) = placed[0]
        room.finish(failed, .failed)
        #expect(room.arrived(0, excluded: [failed.nodeIndex], seat: seat).isWaiting)
        // Its own node is closed to it; others may have that.
        #expect(room.letGo().map(\.waiter) == [2])
        room.finish(placed[1].0)
        room.left(placed[1].1)
        let turn = try #require(room.letGo().first)
        #expect(turn.waiter == 0)
        #expect(turn.outcome.placed?.0.nodeIndex == placed[1].0.nodeIndex)
    }

    /// Those whom one node failed wait for another; that is no reason to keep its room from whoever has not been there.
    @Test func whoComesBackHoldsUpNobodyElse() throws {
        let room = RoomUnderTest([node("a"), node("b", maxConcurrency: 1)])
        var placed = (0..<13).compactMap { room.arrived($0).placed }
        #expect(placed.count == 13)
        let other = try #require(placed.firstIndex { $0.0.nodeIndex == 1 })
        _ = placed.remove(at: other)
        for (number, (failed, seat)) in placed.enumerated() {
            room.finish(failed, .failed)
            #expect(room.arrived(100 + number, excluded: [0], seat: seat).isWaiting)
        }
        room.probe("a", .failed)
        #expect(room.arrived(200).isWaiting)
        room.probe("a", .healthy)
        #expect(room.letGo().map(\.waiter) == [200])
        #expect(room.count == 12)
    }

    /// What seems to be room is none where the policy would have none of it: newcomers wait their turn, and may be too many.
    @Test func whoIsStrandedIsBoundedAndTheOthersTakeTurns() throws {
        let room = RoomUnderTest(
            [node("a", maxConcurrency: 1_000)], limits: AdmissionLimits(requestsMax: 20), policy: .predictedCost)
        room.endSoon("a", at: 5)
        for number in 0..<20 { #expect(room.arrived(number, output: 500_000).isWaiting) }
        #expect(room.stranded == 8)
        #expect(room.letGo().isEmpty)
        #expect(room.stranded == 8 && room.count == 20)
        // Another org's first comes before the 20th of the first, which makes way.
        #expect(room.arrived(20, 1, output: 500_000).isWaiting)
        #expect(room.turns.map(\.outcome.rejection?.cause) == [.full])
        #expect(room.count == 20)
    }

    @Test func whatStandsInForAnotherModelIsChargedInItsOwnLane() throws {
        let room = RoomUnderTest([node("a", maxConcurrency: 1), node("b", models: [qwen])])
        let (failed, seat) = try #require(room.arrived(0, cost: 0, output: 5_000).placed)
        #expect(seat.cost >= 10_000)
        room.finish(failed, .failed)
        let (_, another) = try #require(room.arrived(0, model: qwen, seat: seat, cost: 0, output: 5_000).placed)
        #expect(another.cost == seat.cost)
    }

    @Test func whereNoNodeIsLeftNobodyWaits() throws {
        let room = RoomUnderTest(one)
        let (assignment, seat) = try #require(room.arrived(0).placed)
        #expect(room.arrived(1).isWaiting)
        room.probe("a", .failed)
        #expect(room.letGo().map(\.outcome) == [.refused(.allUnhealthy)])
        #expect(room.arrived(2) == .refused(.allUnhealthy))
        #expect(room.arrived(3, model: qwen) == .refused(.modelNotServed))
        room.finish(assignment)
        room.left(seat)
        #expect(room.count == 0)
    }

    @Test func deadlinesPassAndSayWhenToComeBack() throws {
        let room = RoomUnderTest(one)
        let (first, seat) = try #require(room.arrived(0, now: 0).placed)
        room.finish(first, now: 4)
        room.left(seat, now: 4)
        // Requests take four seconds here, and each that waits stands before the next.
        #expect(room.arrived(1, now: 4).placed != nil)
        #expect(room.arrived(2, deadline: 14, now: 4).isWaiting)
        #expect(room.arrived(3, deadline: 14.1, now: 4).isWaiting)
        #expect(room.arrived(4, deadline: 14.2, now: 4).isWaiting)
        let late = room.arrived(5, deadline: 14.3, now: 4).rejection
        #expect(late == AdmissionRejection(cause: .late, retryAfterSeconds: 2))
        #expect(room.tick(now: 5).isEmpty)
        // Nothing has left for five seconds: nobody believes in four any more, and the last has no hope.
        let hopeless = room.tick(now: 9)
        #expect(hopeless.map(\.waiter) == [4])
        #expect(hopeless.first?.outcome.rejection == AdmissionRejection(cause: .late, retryAfterSeconds: 5))
        #expect(room.tick(now: 9.1).isEmpty)
        let turns = room.tick(now: 14.15)
        #expect(Set(turns.map(\.waiter)) == [2, 3])
        #expect(turns.allSatisfy { ($0.outcome.rejection?.retryAfterSeconds ?? 0) >= 1 })
        #expect(room.count == 0)
    }

    @Test func allLanesTogetherAreBounded() {
        let nodes = [node("a", maxConcurrency: 1), node("b", models: [qwen], maxConcurrency: 1)]
        let room = RoomUnderTest(nodes, limits: AdmissionLimits(requestsMax: 4, bytesMax: 1_000))
        #expect(room.arrived(0).placed != nil)
        #expect(room.arrived(1, model: qwen).placed != nil)
        for number in 2..<6 { #expect(room.arrived(number).isWaiting) }
        #expect(room.arrived(6).rejection?.cause == .full)
        // Who holds the most makes way for another, in whichever lane.
        #expect(room.arrived(7, 1, model: qwen).isWaiting)
        #expect(room.turns.count == 1 && room.turns[0].outcome.rejection?.cause == .full)
        #expect(room.count == 4)
        #expect(room.arrived(8, 2, bytes: 1_001).rejection?.cause == .full)
        #expect(room.arrived(9, 1, model: qwen, bytes: 970).isWaiting)
        #expect(room.bytes <= 1_000)
    }

    @Test func noRequestWaitsWhereNoneMay() {
        var limits = AdmissionLimits()
        limits.requestsMax = 0
        let room = RoomUnderTest(one, limits: limits)
        #expect(room.arrived(0).placed != nil)
        #expect(room.arrived(1).rejection?.cause == .full)
    }

    @Test(arguments: RoutingPolicy.allCases)
    func whatGoesAtOnceIsChargedAsWhatWaitsIs(policy: RoutingPolicy) throws {
        let room = RoomUnderTest(one, policy: policy)
        let placed = try #require(room.arrived(0, cost: 0, prompt: 100_000, output: 10).seat)
        let waits = try #require(room.arrived(1, cost: 0, prompt: 100_000, output: 10).seat)
        #expect(placed.waitingID == nil && waits.waitingID != nil)
        #expect(placed.cost == waits.cost)
        // More than a token for each of its tokens: they read one another.
        #expect(placed.cost > 200_000)
    }

    @Test func whatItsNodeHasIsNotCharged() throws {
        let room = RoomUnderTest([node("a")], policy: .predictedCost)
        func cost(_ number: Int) throws -> Double {
            let blocks = (1...62).map { UInt64($0) }
            return try #require(room.arrived(number, cost: 0, prompt: 32_000, promptBlocks: blocks).seat).cost
        }
        let first = try cost(0)
        #expect(try cost(1) < first / 4)
    }

    @Test func aLaneStaysWhileAnythingThatCameByItIsAnywhere() throws {
        let many = (0..<2_200).map { ModelID(unchecked: "m\($0)") }
        let room = RoomUnderTest([node("a", maxConcurrency: 1), node("b", models: many, maxConcurrency: 2)])
        let (held, seat) = try #require(room.arrived(0).placed)
        #expect(room.arrived(1).isWaiting)
        for (number, model) in many.enumerated() {
            let (assignment, seat) = try #require(room.arrived(10 + number, model: model).placed)
            room.finish(assignment)
            room.left(seat)
        }
        #expect(room.room.lanes.count <= 1_024)
        #expect(room.room.lanes[seat.lane].key.model == llama)
        room.finish(held)
        room.left(seat)
        let turn = try #require(room.letGo().first)
        #expect(turn.waiter == 1)
        let (assignment, next) = try #require(turn.outcome.placed)
        #expect(next.lane == seat.lane)
        room.finish(assignment)
        room.left(next)
        #expect(room.room.lanes.allSatisfy { $0.isIdle })
    }

    @Test func whatNobodyServesOpensNoLane() {
        let room = RoomUnderTest(one)
        for number in 0..<10 { _ = room.arrived(number, model: ModelID(unchecked: "none-\(number)")) }
        #expect(room.room.lanes.isEmpty)
    }

    /// Whatever happens: each waiter hears once at most, and the books are empty when all have gone.
    @Test(arguments: 1...20)
    func booksBalanceUnderRandomEvents(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        let room = RoomUnderTest(
            [node("a", models: [llama, qwen], maxConcurrency: 3), node("b", maxConcurrency: 2)],
            limits: AdmissionLimits(requestsMax: 12, bytesMax: 800))
        var waiting: [Int: AdmissionSeat] = [:]
        var running: [(number: Int, model: ModelID, assignment: Assignment, seat: AdmissionSeat)] = []
        var models: [Int: ModelID] = [:]
        func take(_ number: Int, _ outcome: RoomOutcome) {
            switch outcome {
            case .placed(let assignment, let seat): running.append((number, models[number]!, assignment, seat))
            case .waits(let seat): waiting[number] = seat
            case .refused, .rejected: break
            }
        }
        func hear(_ turns: [Turn]) throws {
            for turn in turns {
                try #require(waiting.removeValue(forKey: turn.waiter) != nil, "seed \(seed)")
                take(turn.waiter, turn.outcome)
            }
        }
        for step in 0..<1_500 {
            let now = Double(step) / 20
            switch random.int(0...7) {
            case 0...3:
                models[step] = random.int(0...1) == 0 ? llama : qwen
                let outcome = room.arrived(
                    step, random.int(0...3), model: models[step]!, deadline: now + Double(random.int(1...20)),
                    bytes: random.int(0...200), priority: AdmissionClass.allCases[random.int(0...2)],
                    // 0: what the router says.
                    cost: random.int(0...1) == 0 ? 0 : 100, now: now)
                take(step, outcome)
                try hear(room.turns)
                room.turns = []
            case 4:
                guard let number = waiting.keys.min() else { continue }
                room.left(waiting.removeValue(forKey: number)!, isAnswered: false, now: now)
            case 5:
                try hear(room.tick(now: now))
            default:
                guard !running.isEmpty else { continue }
                let ended = running.remove(at: random.int(0...running.count - 1))
                let fails = random.int(0...3) == 0
                room.finish(ended.assignment, fails ? .unserved : .completed(nil), now: now)
                if fails {
                    take(
                        ended.number,
                        room.arrived(
                            ended.number, model: ended.model, deadline: now + 5,
                            excluded: [ended.assignment.nodeIndex], seat: ended.seat, now: now))
                    try hear(room.turns)
                    room.turns = []
                } else {
                    room.left(ended.seat, now: now)
                }
                try hear(room.letGo(now: now))
            }
            try #require(room.count == waiting.count, "seed \(seed) step \(step)")
            try #require(room.inflight == running.count, "seed \(seed) step \(step)")
        }
        while !running.isEmpty || !waiting.isEmpty {
            if let ended = running.popLast() {
                room.finish(ended.assignment, now: 75)
                room.left(ended.seat, now: 75)
            }
            try hear(room.letGo(now: 75))
            if running.isEmpty { try hear(room.tick(now: 1_000)) }
        }
        #expect(room.count == 0 && room.bytes == 0 && room.inflight == 0)
        #expect(room.room.lanes.allSatisfy { $0.isIdle })
    }
}

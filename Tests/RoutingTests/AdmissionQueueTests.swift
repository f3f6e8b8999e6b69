import Domain
import Support
import Testing

@testable import Routing

private let late = MonotonicTime(nanoseconds: 1 << 60)

private func org(_ number: Int) -> OrgID { OrgID(unchecked: "org-\(number)") }

private func ask(
    _ org: OrgID, cost: Double = 1_000, bytes: Int = 100, deadline: MonotonicTime = late,
    priority: AdmissionClass = .standard
) -> AdmissionRequest {
    AdmissionRequest(org: org, priority: priority, cost: cost, bytes: bytes, deadline: deadline)
}

/// By reference, since an expectation cannot call what mutates a value.
private final class QueueUnderTest {
    private var queue: AdmissionQueue

    init(_ limits: AdmissionLimits = AdmissionLimits(), costPerSecond: Double = 1e9) {
        queue = AdmissionQueue(limits: limits, costPerSecond: costPerSecond)
    }

    var count: Int { queue.count }
    var bytes: Int { queue.bytes }
    var isEmpty: Bool { queue.isEmpty }

    /// nil: it goes at once.
    func arrived(
        _ request: AdmissionRequest, leastWaitSeconds: Double, now: MonotonicTime
    ) -> AdmissionDecision? {
        let goes = queue.letsThrough(
            request, leastWaitSeconds: leastWaitSeconds, meanWaitSeconds: { leastWaitSeconds }, now: now)
        guard goes else { return queue.enqueued(request, now: now) }
        queue.began(request.org, cost: request.cost, now: now)
        return nil
    }

    func next(
        leastWaitSeconds: Double, now: MonotonicTime
    ) -> (ticket: AdmissionTicket, request: AdmissionRequest)? {
        queue.next(leastWaitSeconds: leastWaitSeconds, now: now)
    }

    func left(_ ticket: AdmissionTicket) { queue.left(ticket) }
    func expired(now: MonotonicTime) -> [AdmissionTicket] { queue.expired(now: now) }
    func ended(_ org: OrgID, cost: Double) { queue.ended(org, cost: cost) }
}

struct AdmissionQueueTests {
    private func ticket(_ decision: AdmissionDecision?) -> AdmissionTicket? {
        guard case .wait(let ticket, _) = decision else { return nil }
        return ticket
    }

    /// Everything waits, as when no node has room.
    private func full(_ requests: [AdmissionRequest], limits: AdmissionLimits = AdmissionLimits()) -> QueueUnderTest {
        let queue = QueueUnderTest(limits)
        for request in requests { _ = queue.arrived(request, leastWaitSeconds: .infinity, now: seconds(1)) }
        return queue
    }

    private func drain(_ queue: QueueUnderTest) -> [AdmissionRequest] {
        var served: [AdmissionRequest] = []
        while let next = queue.next(leastWaitSeconds: 0, now: seconds(2)) { served.append(next.request) }
        return served
    }

    @Test func nothingWaitsWhileSomeNodeIsFree() {
        let queue = QueueUnderTest()
        for number in 0..<100 {
            #expect(queue.arrived(ask(org(number % 3)), leastWaitSeconds: 0.1, now: seconds(1)) == nil)
        }
        #expect(queue.isEmpty)
    }

    @Test func saturatedFleetMakesEveryoneWait() {
        let queue = QueueUnderTest(costPerSecond: 1e6)
        let decision = queue.arrived(ask(org(0)), leastWaitSeconds: 3, now: seconds(1))
        #expect(ticket(decision) != nil)
        #expect(queue.next(leastWaitSeconds: 3, now: seconds(1)) == nil)
        #expect(queue.next(leastWaitSeconds: 0.1, now: seconds(1))?.request.org == org(0))
        #expect(queue.isEmpty && queue.bytes == 0)
    }

    @Test func orgBeyondItsShareWaitsWhereOthersDoNot() {
        let queue = QueueUnderTest(costPerSecond: 1e6)
        for _ in 0..<9 { #expect(queue.arrived(ask(org(0)), leastWaitSeconds: 0, now: seconds(1)) == nil) }
        #expect(queue.arrived(ask(org(1)), leastWaitSeconds: 0, now: seconds(1)) == nil)
        #expect(ticket(queue.arrived(ask(org(0)), leastWaitSeconds: 1, now: seconds(1))) != nil)
        #expect(queue.arrived(ask(org(1)), leastWaitSeconds: 1, now: seconds(1)) == nil)
        #expect(queue.next(leastWaitSeconds: 1, now: seconds(1)) == nil)
        for _ in 0..<7 { queue.ended(org(0), cost: 1_000) }
        #expect(queue.next(leastWaitSeconds: 1, now: seconds(1))?.request.org == org(0))
    }

    @Test func earliestDeadlineGoesFirstWithinAnOrg() {
        let queue = full(
            [30.0, 10, 20, 10].enumerated().map { index, deadline in
                ask(org(0), bytes: index, deadline: seconds(deadline))
            })
        #expect(drain(queue).map(\.bytes) == [1, 3, 2, 0])
    }

    @Test func classesAboveGoFirst() {
        let classes: [AdmissionClass] = [.flex, .standard, .priority, .flex, .priority]
        let queue = full(classes.map { ask(org(0), priority: $0) })
        #expect(drain(queue).map(\.priority) == [.priority, .priority, .standard, .flex, .flex])
    }

    @Test(arguments: 1...20)
    func orgsThatWaitAreServedAlikeInWorkWhateverTheySend(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        var requests: [AdmissionRequest] = []
        // Few large requests against many small ones; each org has more than is served below.
        for number in 0..<4 {
            let size = [1_000, 5_000, 40_000, 120_000][number]
            for _ in 0..<(4_000_000 / size) {
                requests.append(ask(org(number), cost: Double(random.int(size / 2...size))))
            }
        }
        requests.shuffle(using: &random)
        let queue = full(requests, limits: AdmissionLimits(requestsMax: 10_000))
        var served = [0.0, 0, 0, 0]
        for _ in 0..<1_500 {
            let next = try #require(queue.next(leastWaitSeconds: 0, now: seconds(2)), "seed \(seed)")
            served[(0..<4).first { next.request.org == org($0) } ?? 0] += next.request.cost
            let spread = (served.max() ?? 0) - (served.min() ?? 0)
            // A turn each, and one request that did not fit it: the bound of deficit round robin.
            try #require(spread <= 2 * AdmissionQueue.quantum + 2 * 120_000, "seed \(seed): \(served)")
            if served.reduce(0, +) > 6_000_000 { break }
        }
    }

    @Test func floodOfOneOrgDelaysAnotherByATurnOnly() {
        let queue = full((0..<1_000).map { _ in ask(org(0), cost: 30_000) })
        _ = queue.arrived(ask(org(1), cost: 30_000), leastWaitSeconds: .infinity, now: seconds(1))
        let position = drain(queue).firstIndex { $0.org == org(1) }
        #expect((position ?? .max) <= 2)
    }

    @Test func clientThatLeavesIsForgottenAtOnce() throws {
        let queue = QueueUnderTest(costPerSecond: 1e9)
        let tickets = (0..<10).compactMap { number in
            ticket(queue.arrived(ask(org(number % 2), bytes: 50), leastWaitSeconds: .infinity, now: seconds(1)))
        }
        for ticket in tickets.prefix(9) { queue.left(ticket) }
        #expect(queue.count == 1 && queue.bytes == 50)
        queue.left(tickets[0])
        #expect(queue.count == 1)
        #expect(queue.next(leastWaitSeconds: 0, now: seconds(1))?.ticket == tickets[9])
        #expect(queue.isEmpty && queue.bytes == 0)
    }

    @Test func waitingIsBoundedInNumberAndBytes() {
        let limits = AdmissionLimits(requestsMax: 20, bytesMax: 1_000)
        let queue = QueueUnderTest(limits)
        for number in 0..<500 {
            _ = queue.arrived(
                ask(org(number % 7), bytes: 30 + number % 100), leastWaitSeconds: .infinity, now: seconds(1))
            #expect(queue.count <= 20 && queue.bytes <= 1_000)
        }
        #expect(queue.arrived(ask(org(0), bytes: 1_001), leastWaitSeconds: .infinity, now: seconds(1)).isRejected)
    }

    @Test func fullQueueTakesFromWhoHoldsTheMost() throws {
        let queue = full((0..<20).map { _ in ask(org(0)) }, limits: AdmissionLimits(requestsMax: 20))
        #expect(queue.arrived(ask(org(0)), leastWaitSeconds: .infinity, now: seconds(1)).isRejected)
        guard case .wait(_, let evicted) = queue.arrived(ask(org(1)), leastWaitSeconds: .infinity, now: seconds(1))
        else {
            Issue.record("a newcomer finds no place")
            return
        }
        #expect(evicted.count == 1 && queue.count == 20)
    }

    @Test func nobodyWaitsPastHisDeadlineAndRetryAfterIsWhatIsMissing() {
        let queue = QueueUnderTest(costPerSecond: 1_000)
        for _ in 0..<10 { _ = queue.arrived(ask(org(0)), leastWaitSeconds: .infinity, now: seconds(1)) }
        // Ten seconds are ahead of it; it would wait for four.
        let decision = queue.arrived(ask(org(0), deadline: seconds(5)), leastWaitSeconds: .infinity, now: seconds(1))
        // Its deadline is earlier than the others', so within its org it goes first and may stay.
        #expect(ticket(decision) != nil)
        for _ in 0..<10 {
            _ = queue.arrived(ask(org(0), deadline: seconds(4)), leastWaitSeconds: .infinity, now: seconds(1))
        }
        let refused = queue.arrived(ask(org(0), deadline: seconds(5)), leastWaitSeconds: .infinity, now: seconds(1))
        guard case .reject(let retryAfter, _) = refused else {
            Issue.record("\(refused)")
            return
        }
        #expect(1...3 ~= retryAfter)
    }

    @Test func thoseWhoseDeadlinePassesAreNamedOnce() {
        let queue = QueueUnderTest(costPerSecond: 1e9)
        for deadline in [2.0, 9, 3, 8] {
            _ = queue.arrived(
                ask(org(Int(deadline) % 2), deadline: seconds(deadline)), leastWaitSeconds: .infinity, now: seconds(1))
        }
        #expect(queue.expired(now: seconds(3)).count == 2)
        #expect(queue.expired(now: seconds(3)).isEmpty)
        #expect(queue.count == 2)
    }

    @Test(arguments: 1...30)
    func booksBalanceUnderRandomEvents(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        let queue = QueueUnderTest(AdmissionLimits(requestsMax: 50, bytesMax: 4_000), costPerSecond: 1e7)
        var waiting: [AdmissionTicket: AdmissionRequest] = [:]
        var running: [AdmissionRequest] = []
        for step in 0..<2_000 {
            let now = seconds(Double(step) / 10)
            let least = [0.0, 0.2, 1, 5, .infinity][random.int(0...4)]
            switch random.int(0...9) {
            case 0...4:
                let request = ask(
                    org(random.int(0...4)), cost: Double(random.int(1...100_000)), bytes: random.int(0...300),
                    deadline: now.advanced(byNanoseconds: Int64(random.int(0...60)) * 1_000_000_000),
                    priority: AdmissionClass.allCases[random.int(0...2)])
                var evicted: [AdmissionTicket] = []
                switch queue.arrived(request, leastWaitSeconds: least, now: now) {
                case nil: running.append(request)
                case .wait(let ticket, let others):
                    try #require(waiting.updateValue(request, forKey: ticket) == nil, "seed \(seed) step \(step)")
                    evicted = others
                case .reject(let retryAfter, let others):
                    try #require(1...3_600 ~= retryAfter, "seed \(seed) step \(step)")
                    evicted = others
                }
                for ticket in evicted {
                    try #require(waiting.removeValue(forKey: ticket) != nil, "seed \(seed) step \(step)")
                }
            case 5, 6:
                guard let next = queue.next(leastWaitSeconds: least, now: now) else { continue }
                try #require(waiting.removeValue(forKey: next.ticket) != nil, "seed \(seed) step \(step)")
                running.append(next.request)
            case 7:
                guard let ticket = waiting.keys.min(by: { $0.value < $1.value }) else { continue }
                waiting[ticket] = nil
                queue.left(ticket)
            case 8:
                for ticket in queue.expired(now: now) {
                    let request = waiting.removeValue(forKey: ticket)
                    try #require((request?.deadline ?? late) <= now, "seed \(seed) step \(step)")
                }
            default:
                if !running.isEmpty {
                    let ended = running.removeFirst()
                    queue.ended(ended.org, cost: ended.cost)
                }
            }
            try #require(queue.count == waiting.count, "seed \(seed) step \(step)")
            try #require(queue.bytes == waiting.values.map(\.bytes).reduce(0, +), "seed \(seed) step \(step)")
        }
        while let next = queue.next(leastWaitSeconds: 0, now: seconds(1_000)) { waiting[next.ticket] = nil }
        #expect(waiting.isEmpty && queue.isEmpty && queue.bytes == 0, "seed \(seed)")
    }
}

extension AdmissionDecision? {
    fileprivate var isRejected: Bool {
        if case .reject = self { true } else { false }
    }
}

import CAllocations
import Domain
import Routing
import Support
import Testing

/// A decision takes no memory: what it needs was reserved when the fleet changed.
struct DecisionAllocationTests {
    private static let isCounted = tollgate_allocations() >= 0
    #if DEBUG
    private static let isOptimized = false
    #else
    private static let isOptimized = true
    #endif

    @Test(
        .enabled(if: isOptimized, "without optimization every loop allocates: make test-allocations"),
        .enabled(if: isCounted, "allocations are counted with glibc, and not under a sanitizer"),
        arguments: [10, 100, 1_000, 2_000])
    func aDecisionAllocatesNothing(nodes: Int) throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SplitMix64(seed: seed)
        let nodes = (0..<nodes).map { node("n\($0)", rtt: Int64($0) * 1_000_000) }
        var router = Router(fleet: FleetSnapshot(nodes: nodes), policy: .predictedCost, seed: seed)
        for node in nodes { router.probed(node.id, .healthy, now: seconds(0)) }
        let sessions: [[UInt64]] = (0..<200).map { _ in (0..<random.int(1...80)).map { _ in random.next() } }

        var open: [Assignment] = []
        open.reserveCapacity(64)
        var most = 0
        for number in 0..<4_000 {
            let now = seconds(1 + Double(number) * 0.01)
            let blocks = sessions[random.int(0...(sessions.count - 1))]
            let request = request(prompt: blocks.count * 512 + random.int(0...511), output: 100)
            let before = tollgate_allocations()
            let decision = router.decide(request, blocks: blocks.span, now: now)
            let count = tollgate_allocations() - before
            // The first ones make room for what is in flight.
            if number >= 1_000 { most = max(most, count) }
            guard case .dispatch(let assignment) = decision else {
                Issue.record("request \(number) found no node, seed \(seed)")
                return
            }
            // Half of them leave it to the next decision to do what this one left.
            if number.isMultiple(of: 2) { router.started(assignment, now: now) }
            if number.isMultiple(of: 4) { router.firstToken(assignment, now: now) }
            open.append(assignment)
            if open.count > 50 { router.finished(open.removeFirst(), outcome: .completed(nil), now: now) }
        }
        #expect(most == 0, "allocations of one decision, seed \(seed)")
    }
}

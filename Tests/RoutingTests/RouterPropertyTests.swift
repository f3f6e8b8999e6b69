import Domain
import Routing
import Testing

/// Random lives of a fleet, against sums kept here.
struct RouterPropertyTests {
    private struct Open {
        var assignment: Assignment
        var node: NodeID
        var tokens: Int
        var model: ModelID
    }

    @Test(arguments: RoutingPolicy.allCases, [UInt64.random(in: 0...(.max)), 1, 2, 3])
    func sumsFollowEveryEventAndReturnToZero(policy: RoutingPolicy, seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let names = (0..<12).map { "n\($0)" }
        func drawFleet() -> [NodeSpec] {
            names.shuffled(using: &random).prefix(Int.random(in: 1...10, using: &random)).map { name in
                node(
                    name, models: Bool.random(using: &random) ? [llama] : [llama, qwen],
                    maxConcurrency: Int.random(in: 1...6, using: &random),
                    rtt: Int64.random(in: 0...3, using: &random))
            }
        }
        var specs = drawFleet()
        let router = RouterUnderTest(specs, policy: policy, seed: seed)
        var open: [Open] = []
        var over: [Assignment] = []
        var cordoned: Set<NodeID> = []
        var clock = 0.0

        for step in 0..<3_000 {
            clock += Double.random(in: 0...0.2, using: &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<8:
                let model = Bool.random(using: &random) ? llama : qwen
                let excluded = (0..<3).map { _ in Int.random(in: 0..<12, using: &random) }
                let prompt = Int.random(in: 0...5_000, using: &random)
                let before = router.status(now: clock)
                switch router.decide(request(model, prompt: prompt, output: 7, excluded: excluded), now: clock) {
                case .dispatch(let assignment):
                    guard router.fleet.node(assignment) != nil, let spec = router.fleet.slots[assignment.nodeIndex]
                    else {
                        Issue.record("a decision that resolves to no node, seed \(seed) step \(step)")
                        return
                    }
                    try #require(!cordoned.contains(spec.id), "seed \(seed) step \(step)")
                    try #require(!excluded.contains(assignment.nodeIndex), "seed \(seed) step \(step)")
                    try #require(spec.models.contains { $0.model == model }, "seed \(seed) step \(step)")
                    let status = before.first { $0.id == spec.id }
                    try #require(status?.state == .ready, "seed \(seed) step \(step)")
                    try #require((status?.inflightRequests ?? .max) < spec.maxConcurrency, "seed \(seed) step \(step)")
                    open.append(Open(assignment: assignment, node: spec.id, tokens: prompt + 7, model: model))
                case .refuse(let reason):
                    // No node that could have taken it was passed over.
                    let couldTake = before.filter { status in
                        status.state == .ready && !excluded.contains(status.nodeIndex)
                            && router.fleet.slots[status.nodeIndex].map { spec in
                                spec.models.contains { $0.model == model }
                                    && status.inflightRequests < spec.maxConcurrency
                            } == true
                    }
                    try #require(couldTake.isEmpty, "\(reason) with \(couldTake), seed \(seed) step \(step)")
                }
            case 8..<14 where !open.isEmpty:
                let ended = open.remove(at: Int.random(in: 0..<open.count, using: &random))
                router.start(ended.assignment, now: clock)
                if Bool.random(using: &random) { router.firstToken(ended.assignment, now: clock) }
                let outcomes: [RoutingOutcome] = [.completed(.zero), .completed(nil), .failed, .unserved, .aborted]
                router.finish(ended.assignment, outcomes.randomElement(using: &random) ?? .failed, now: clock)
                over.append(ended.assignment)
            case 14 where !over.isEmpty:
                router.finish(over[Int.random(in: 0..<over.count, using: &random)], .failed, now: clock)
            case 15, 16:
                let results: [ProbeResult] = [.healthy, .healthy, .healthy, .failed, .loading]
                for spec in specs {
                    router.probe(spec.id.rawValue, results.randomElement(using: &random) ?? .healthy, now: clock)
                }
            case 17:
                guard let spec = specs.randomElement(using: &random) else { continue }
                if cordoned.remove(spec.id) == nil { cordoned.insert(spec.id) }
                router.cordon(cordoned.contains(spec.id), spec.id.rawValue)
            case 18 where step % 7 == 0:
                let staying = Set(specs.map(\.id))
                specs = drawFleet()
                router.replace(specs)
                let left = staying.subtracting(specs.map(\.id))
                cordoned.subtract(left)
                // Their work leaves the sums; the tickets stay open and must do no harm.
                for index in open.indices where left.contains(open[index].node) { open[index].tokens = 0 }
                for index in open.indices where left.contains(open[index].node) {
                    open[index].node = NodeID(unchecked: "gone")
                }
            default:
                break
            }
            for status in router.status(now: clock) {
                let here = open.filter { $0.node == status.id }
                try #require(status.inflightRequests == here.count, "seed \(seed) step \(step)")
                try #require(status.inflightTokens == here.map(\.tokens).reduce(0, +), "seed \(seed) step \(step)")
            }
            try #require(router.inflightCount == open.count, "seed \(seed) step \(step)")
        }

        for rest in open { router.finish(rest.assignment, .aborted, now: clock) }
        #expect(router.inflightCount == 0, "seed \(seed)")
        #expect(
            router.status(now: clock).allSatisfy { $0.inflightRequests == 0 && $0.inflightTokens == 0 },
            "seed \(seed)")
    }
}

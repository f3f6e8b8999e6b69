import Domain
import Support
import Testing

@testable import Routing

/// The scan of all nodes against the cost of each by itself, on made-up tables.
@Suite struct CostScanTests {
    private struct Case {
        var policy = PredictedCost()
        var loads: ContiguousArray<NodeLoad> = []
        var candidates: ContiguousArray<Int32> = []
        var allowed: ContiguousArray<UInt64>
        var holders: ContiguousArray<Int32> = []
        var request: RoutingRequest
        let now = seconds(1_000)

        init(nodes: Int, random: inout SplitMix64) {
            let milliseconds = PredictedCost.milliseconds(now)
            allowed = ContiguousArray(repeating: 0, count: (nodes + 63) / 64)
            request = RoutingRequest(
                model: llama, promptTokens: random.int(1...60_000), expectedOutputTokens: random.int(0...2_000))
            policy.resize(to: nodes)
            // Few values, so that many nodes are equal; or many.
            let values = random.int(0...1) == 0 ? 3 : 1_000
            let isShort = random.int(0...3) == 0
            func share() -> Float { Float(random.int(0...values)) / Float(values) }
            for node in 0..<nodes {
                var row = CostTable.Row()
                row.fixed = random.int(0...9) == 0 ? CostTable.closed : 0.001 + share() * 0.1
                // Nodes that failed lately: a penalty is no wait.
                if random.int(0...4) == 0 { row.fixed += 5 }
                row.step = 0.007 + share() * 0.05
                row.wait = share() * 3
                row.head = row.wait * share()
                row.headStart = milliseconds - Int32(random.int(-500...3_000))
                row.due = milliseconds - Int32(random.int(-3_000...500))
                row.overdue = share()
                row.inverseRate = 1 / (2_000 + share() * 30_000)
                row.runFactor = 1 + share() * 6
                row.kv = isShort ? 0.6 + share() * 0.5 : share() * 0.8
                row.kvPerToken = 1 / (200_000 + share() * 600_000)
                policy.table.set(node, row, nowMilliseconds: milliseconds)
                loads.append(NodeLoad(maxConcurrency: 64, rttNanoseconds: 0))
                // Not every node serves the model, on the engine, untried.
                if random.int(0...7) > 0 || nodes % 2 == 0 {
                    candidates.append(Int32(node))
                    allowed[node >> 6] |= 1 << UInt64(node & 63)
                }
                if random.int(0...max(4, nodes / 4)) == 0 {
                    loads[node].prefixTokens = Int64(random.int(1...request.promptTokens))
                    holders.append(Int32(node))
                }
            }
            for group in 0..<policy.table.groupCount where random.int(0...1) == 0 {
                policy.table.refresh(group: group, nowMilliseconds: milliseconds)
            }
        }

        func isAllowed(_ node: Int) -> Bool { allowed[node >> 6] >> UInt64(node & 63) & 1 == 1 }

        /// By the rule, one node at a time.
        func cost(_ node: Int) -> Float {
            guard isAllowed(node) else { return .infinity }
            let cached = Double(loads[node].prefixTokens)
            let new = max(1, Double(request.promptTokens) - cached)
            let work = PredictedCost.work(
                newTokens: new, cachedTokens: cached, RoutingRequest.attentionTokensDefault)
            return policy.table.cost(
                node, work: Float(work), newTokens: Float(new), policy.terms(of: request, now: now))
        }

        mutating func choose(rotation: Int) -> Int? {
            // Copies, since their spans would hold all of the case while its policy changes.
            let (candidates, allowed, loads, holders) = (candidates, allowed, loads, holders)
            return policy.choose(
                request, among: candidates.span, allowed: allowed.span, loads: loads.span, holders: holders.span,
                rotation: rotation, now: now)
        }
    }

    private static func limit(_ cost: Float) -> Float {
        let weights = CostWeights.standard
        return (cost * Float(1 + weights.tieShare) + Float(weights.tieSeconds)) * 1.000_1
    }

    @Test(arguments: [UInt64(1), 2, 3, 5, 8, 13, 21, 34])
    func theScanFindsOneOfTheCheapestByTheRule(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<60 {
            let nodes = random.int(0...2) == 0 ? random.int(1...1_024) : random.int(1...150)
            var made = Case(nodes: nodes, random: &random)
            guard !made.candidates.isEmpty else { continue }
            let least = (0..<nodes).map { made.cost($0) }.min() ?? .infinity
            let chosen = made.choose(rotation: random.int(0...(made.candidates.count - 1)))
            guard let chosen else {
                #expect(least == .infinity, "seed \(seed), \(nodes) nodes")
                continue
            }
            #expect(made.cost(chosen) <= Self.limit(least), "seed \(seed), \(nodes) nodes, node \(chosen)")
        }
    }

    @Test func equalsAreAllChosenInTurn() {
        for nodes in [3, 8, 9, 64, 200] {
            var random = SplitMix64(seed: 7)
            var made = Case(nodes: nodes, random: &random)
            made.holders = []
            var row = CostTable.Row()
            (row.fixed, row.step, row.inverseRate, row.kvPerToken) = (0.01, 0.01, 0.000_1, 0.000_001)
            for node in 0..<nodes {
                made.loads[node].prefixTokens = 0
                made.policy.table.set(node, row, nowMilliseconds: PredictedCost.milliseconds(made.now))
                made.allowed[node >> 6] |= 1 << UInt64(node & 63)
            }
            made.candidates = ContiguousArray((0..<nodes).map { Int32($0) })
            let chosen = Set((0..<nodes).compactMap { made.choose(rotation: $0) })
            // Of a large fleet the first group that is looked at serves.
            #expect(nodes <= 64 ? chosen.count == nodes : chosen.count >= nodes / 64, "\(nodes) nodes")
        }
    }

    @Test func beyondTheFullScanHoldersAreSeenAndNothingThatIsNotAllowedIsTaken() {
        for seed in UInt64(1)...12 {
            var random = SplitMix64(seed: seed)
            var made = Case(nodes: 1_400, random: &random)
            let held = made.holders.map { made.cost(Int($0)) }.min() ?? .infinity
            let chosen = made.choose(rotation: random.int(0...(made.candidates.count - 1)))
            guard let chosen else {
                Issue.record("seed \(seed): none of 1,400 chosen")
                continue
            }
            #expect(made.isAllowed(chosen) && made.cost(chosen) < .infinity, "seed \(seed)")
            #expect(made.cost(chosen) <= Self.limit(held), "seed \(seed)")
        }
    }
}

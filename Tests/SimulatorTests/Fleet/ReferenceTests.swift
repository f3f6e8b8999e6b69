import Routing
import Simulator
import Testing

/// The simulator and the peers' policies held against the reference simulator (`fleet_sim.py`), an implementation of the
/// same model by another hand in another language.
///
/// Its figures are stored here, as `Benchmarks/reference_sessions.py` prints them: means over seeds 1 to 10 of 150
/// sessions of 8 turns on 8 nodes, with the arrivals and gateways that ours draws. Equal nodes are drawn differently, so
/// policies agree to a few percent; 10 % is asked for. The traces that the balancer is judged by are held in the same way by
/// `Benchmarks/reference.py`.
@Suite struct ReferenceTests {
    struct Cell: CustomStringConvertible, Sendable {
        var policy: RoutingPolicy
        var kind: FleetSpec.Kind
        var gateways: Int
        /// Mean seconds to the first token.
        var ttft: Double
        var hits: Double

        init(_ policy: RoutingPolicy, _ kind: FleetSpec.Kind, gateways: Int, ttft: Double, hits: Double) {
            (self.policy, self.kind, self.gateways, self.ttft, self.hits) = (policy, kind, gateways, ttft, hits)
        }

        var description: String { "\(policy.rawValue) \(kind.rawValue) x\(gateways)" }
    }

    private static let trace = Trace.sessions(150, turns: 8, seed: 7)
    /// For SMetric. Of nodes that hold two blocks the reference's takes the first, which is one node for every new
    /// session; ours begins elsewhere each time, as published, and is the stronger (0.28 s for 0.45 s).
    private static let traceSharingABlock = Trace.sessions(150, turns: 8, sharedBlocks: 1, seed: 7)

    static let cells: [Cell] = [
        Cell(.roundRobin, .homogeneous, gateways: 1, ttft: 0.8452, hits: 0.305),
        Cell(.roundRobin, .homogeneous, gateways: 4, ttft: 0.9371, hits: 0.305),
        Cell(.roundRobin, .heterogeneous, gateways: 1, ttft: 24.5703, hits: 0.287),
        Cell(.roundRobin, .heterogeneous, gateways: 4, ttft: 24.7053, hits: 0.287),
        Cell(.leastRequests, .homogeneous, gateways: 1, ttft: 0.9047, hits: 0.306),
        Cell(.leastRequests, .homogeneous, gateways: 4, ttft: 1.0007, hits: 0.298),
        Cell(.leastRequests, .heterogeneous, gateways: 1, ttft: 8.2211, hits: 0.317),
        Cell(.leastRequests, .heterogeneous, gateways: 4, ttft: 8.2776, hits: 0.317),
        Cell(.leastTokens, .homogeneous, gateways: 1, ttft: 0.8702, hits: 0.304),
        Cell(.leastTokens, .homogeneous, gateways: 4, ttft: 0.9909, hits: 0.304),
        Cell(.leastTokens, .heterogeneous, gateways: 1, ttft: 8.6293, hits: 0.315),
        Cell(.leastTokens, .heterogeneous, gateways: 4, ttft: 8.4699, hits: 0.317),
        Cell(.p2c, .homogeneous, gateways: 1, ttft: 1.1550, hits: 0.300),
        Cell(.p2c, .homogeneous, gateways: 4, ttft: 1.2017, hits: 0.298),
        Cell(.p2c, .heterogeneous, gateways: 1, ttft: 9.3561, hits: 0.311),
        Cell(.p2c, .heterogeneous, gateways: 4, ttft: 9.5712, hits: 0.307),
        Cell(.sglangCacheAware, .homogeneous, gateways: 1, ttft: 0.2174, hits: 0.780),
        Cell(.sglangCacheAware, .homogeneous, gateways: 4, ttft: 0.2085, hits: 0.780),
        Cell(.sglangCacheAware, .heterogeneous, gateways: 1, ttft: 0.3550, hits: 0.780),
        Cell(.sglangCacheAware, .heterogeneous, gateways: 4, ttft: 0.3375, hits: 0.780),
        Cell(.gie, .homogeneous, gateways: 1, ttft: 0.2704, hits: 0.755),
        Cell(.gie, .homogeneous, gateways: 4, ttft: 0.2690, hits: 0.753),
        Cell(.gie, .heterogeneous, gateways: 1, ttft: 0.3845, hits: 0.748),
        Cell(.gie, .heterogeneous, gateways: 4, ttft: 0.3714, hits: 0.748),
        Cell(.dynamo, .homogeneous, gateways: 1, ttft: 0.3923, hits: 0.589),
        Cell(.dynamo, .homogeneous, gateways: 4, ttft: 0.4525, hits: 0.563),
        Cell(.dynamo, .heterogeneous, gateways: 1, ttft: 0.7006, hits: 0.578),
        Cell(.dynamo, .heterogeneous, gateways: 4, ttft: 0.8384, hits: 0.550),
        Cell(.lmetric, .homogeneous, gateways: 1, ttft: 0.2495, hits: 0.712),
        Cell(.lmetric, .homogeneous, gateways: 4, ttft: 0.2677, hits: 0.700),
        Cell(.lmetric, .heterogeneous, gateways: 1, ttft: 0.3713, hits: 0.708),
        Cell(.lmetric, .heterogeneous, gateways: 4, ttft: 0.3969, hits: 0.698),
        Cell(.smetric, .homogeneous, gateways: 1, ttft: 0.2119, hits: 0.770),
        Cell(.smetric, .homogeneous, gateways: 4, ttft: 0.2067, hits: 0.770),
        Cell(.smetric, .heterogeneous, gateways: 1, ttft: 0.3219, hits: 0.768),
        Cell(.smetric, .heterogeneous, gateways: 4, ttft: 0.3084, hits: 0.770),
    ]

    @Test(arguments: cells)
    func meanTTFTAgreesWithTheReference(cell: Cell) async {
        let runs = (1...10).map { seed in
            RunConfiguration(
                policy: cell.policy, fleet: FleetSpec(cell.kind, nodes: 8), rate: 10, gateways: cell.gateways,
                gossipSeconds: 0.1, seed: UInt64(seed))
        }
        let trace = cell.policy == .smetric ? Self.traceSharingABlock : Self.trace
        let results = await Sweep.run(runs, on: trace).map(\.statistics)
        let ttft = RunStatistics.mean(results.map(\.ttftMean))
        #expect(abs(ttft / cell.ttft - 1) < 0.10, "\(ttft) s, the reference \(cell.ttft) s")
        #expect(abs(RunStatistics.mean(results.map(\.prefixHitRatio)) - cell.hits) < 0.03)
    }
}

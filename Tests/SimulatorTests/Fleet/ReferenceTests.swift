import Routing
import Simulator
import Testing

/// The simulator and the peers' policies held against the reference simulator (`fleet_sim.py`), an implementation of the
/// same model by another hand in another language.
///
/// Its figures are stored here: mean TTFT over seeds 1 to 3 of 150 sessions of 8 turns on 8 nodes, arrivals drawn as here
/// (SGLang, heterogeneous: seeds 1 to 10). The two draw ties differently, so policies agree to a few percent; 10 % is
/// asked for where nothing has collapsed. Least tokens is held by
/// `Benchmarks/reference.py` alone. SMetric is not among them: of nodes that hold equally much the reference takes
/// the first, which here is one node for every new session; ours draws, and is the stronger (0.28 s for 0.44 s).
@Suite struct ReferenceTests {
    struct Cell: CustomStringConvertible, Sendable {
        var policy: RoutingPolicy
        var kind: FleetSpec.Kind
        var rate: Double
        var ttft: Double
        var hits: Double

        var description: String { "\(policy.rawValue) \(kind.rawValue) \(rate)" }
    }

    private static let trace = Trace.sessions(150, turns: 8, seed: 7)

    static let cells: [Cell] = [
        Cell(policy: .roundRobin, kind: .homogeneous, rate: 10, ttft: 0.8553, hits: 0.304),
        Cell(policy: .leastRequests, kind: .homogeneous, rate: 10, ttft: 0.9038, hits: 0.303),
        Cell(policy: .sglangCacheAware, kind: .homogeneous, rate: 10, ttft: 0.2168, hits: 0.780),
        Cell(policy: .gie, kind: .homogeneous, rate: 10, ttft: 0.2764, hits: 0.755),
        Cell(policy: .dynamo, kind: .homogeneous, rate: 10, ttft: 0.3854, hits: 0.591),
        Cell(policy: .lmetric, kind: .homogeneous, rate: 10, ttft: 0.2493, hits: 0.710),
        Cell(policy: .p2c, kind: .homogeneous, rate: 10, ttft: 1.1244, hits: 0.303),
        Cell(policy: .sglangCacheAware, kind: .heterogeneous, rate: 10, ttft: 0.3550, hits: 0.780),
        Cell(policy: .gie, kind: .heterogeneous, rate: 10, ttft: 0.3799, hits: 0.750),
        Cell(policy: .dynamo, kind: .heterogeneous, rate: 10, ttft: 0.6854, hits: 0.586),
        Cell(policy: .lmetric, kind: .heterogeneous, rate: 10, ttft: 0.3715, hits: 0.705),
        Cell(policy: .leastRequests, kind: .heterogeneous, rate: 10, ttft: 8.6978, hits: 0.312),
        Cell(policy: .p2c, kind: .heterogeneous, rate: 10, ttft: 9.4738, hits: 0.310),
    ]

    @Test(arguments: cells)
    func meanTTFTAgreesWithTheReference(cell: Cell) async {
        let runs = (1...3).map { seed in
            RunConfiguration(
                policy: cell.policy, fleet: FleetSpec(cell.kind, nodes: 8), rate: cell.rate, seed: UInt64(seed))
        }
        let results = await Sweep.run(runs, on: Self.trace).map(\.statistics)
        let ttft = RunStatistics.mean(results.map(\.ttftMean))
        #expect(abs(ttft / cell.ttft - 1) < 0.10, "\(ttft) s, the reference \(cell.ttft) s")
        #expect(abs(RunStatistics.mean(results.map(\.prefixHitRatio)) - cell.hits) < 0.03)
    }
}

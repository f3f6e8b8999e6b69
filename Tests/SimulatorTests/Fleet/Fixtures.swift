import Domain
import Routing
import Simulator
import Testing

/// A node whose times are easy to reckon: 1,000 tokens a second, steps of 10 ms, nothing for batch, KV or attention.
let plain: NodeProfile = {
    var profile = NodeProfile.h100
    profile.name = "plain"
    profile.prefillTokensPerSecond = 1_000
    profile.stepSeconds = 0.01
    profile.stepSecondsPerSequence = 0
    profile.stepSecondsPerKVToken = 0
    profile.attentionSecondsPerTokenPair = 0
    profile.kvCapacityBlocks = 16
    profile.stepTokensMax = 1_024
    profile.sequencesMax = 8
    return profile
}()

/// Blocks that no other seed's are.
func blocks(_ seed: UInt64, _ count: Int) -> [UInt64] {
    var random = SplitMix64(seed: seed)
    return (0..<count).map { _ in random.next() }
}

/// A node by reference, with what came of its steps and when.
final class NodeUnderTest {
    private(set) var node: VirtualNode
    private(set) var firstTokens: [Int32: Double] = [:]
    private(set) var ends: [Int32: Double] = [:]
    private(set) var cached: [Int32: Int] = [:]

    init(_ profile: NodeProfile = plain) { node = VirtualNode(profile) }

    func accept(_ id: Int32, prompt: Int, output: Int = 1, blocks: [UInt64] = [], at seconds: Double = 0) {
        run(until: seconds)
        node.accept(VirtualNode.Work(id: id, promptTokens: prompt, outputTokens: output, blocks: blocks), now: seconds)
    }

    func cancel(_ id: Int32, at seconds: Double) {
        run(until: seconds)
        node.cancel(id, now: seconds)
    }

    func setSpeed(_ speed: Double, at seconds: Double) {
        run(until: seconds)
        node.setSpeed(speed, now: seconds)
    }

    func run(until seconds: Double = .infinity) {
        while node.wakeAt <= seconds, node.wakeAt.isFinite {
            let now = node.wakeAt
            var outcomes: [VirtualNode.Outcome] = []
            node.advance(to: now, into: &outcomes)
            for outcome in outcomes {
                switch outcome {
                case .firstToken(let id, let cachedTokens):
                    firstTokens[id] = now
                    cached[id] = cachedTokens
                case .finished(let id): ends[id] = now
                case .decoded: Issue.record("tokens are not asked for")
                }
            }
        }
    }
}

extension Sweep {
    /// One run, to its end, with the simulation to look into.
    static func simulate(_ configuration: RunConfiguration, _ trace: Trace) -> (FleetSimulation, RunStatistics) {
        var simulation = FleetSimulation(
            configuration,
            workload: Workload(
                trace, rate: configuration.rate, seed: configuration.seed, gateways: configuration.gateways,
                orgs: configuration.orgs, surges: configuration.surges))
        let statistics = simulation.run()
        return (simulation, statistics)
    }
}

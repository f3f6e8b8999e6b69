import Domain
import Routing

let llama = ModelID(unchecked: "llama")
let qwen = ModelID(unchecked: "qwen")

func seconds(_ value: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(value * 1e9)) }

func node(_ id: String, models: [ModelID] = [llama], maxConcurrency: Int = 64, rtt: Int64 = 0) -> NodeSpec {
    NodeSpec(
        id: NodeID(unchecked: id), site: SiteID(unchecked: "austin"), engine: .vllm, speedClass: "h100",
        models: models.map { ServedModel(model: $0, upstreamName: "up/\($0)") }, maxConcurrency: maxConcurrency,
        rttNanoseconds: rtt)
}

func request(
    _ model: ModelID = llama, prompt: Int = 100, output: Int = 50, excluded: [Int] = []
) -> RoutingRequest {
    var tried = NodeSet()
    for index in excluded { tried.insert(index) }
    return RoutingRequest(model: model, promptTokens: prompt, expectedOutputTokens: output, excluded: tried)
}

/// A router by reference, since an expectation cannot call what mutates a value.
final class RouterUnderTest {
    private(set) var router: Router

    init(_ nodes: [NodeSpec], policy: RoutingPolicy = .leastTokens, seed: UInt64 = 1) {
        router = Router(fleet: FleetSnapshot(nodes: nodes), policy: policy, seed: seed)
    }

    /// All of whose nodes have passed a probe.
    static func ready(
        _ nodes: [NodeSpec], policy: RoutingPolicy = .leastTokens, seed: UInt64 = 1
    ) -> RouterUnderTest {
        let router = RouterUnderTest(nodes, policy: policy, seed: seed)
        for node in nodes { router.probe(node.id.rawValue, .healthy, now: 0) }
        return router
    }

    var fleet: FleetSnapshot { router.fleet }
    var inflightCount: Int { router.inflightCount }
    var servableModels: [ModelID] { router.servableModels() }

    func decide(_ request: RoutingRequest, now: Double = 1) -> RoutingDecision {
        router.decide(request, now: seconds(now))
    }

    func assign(_ request: RoutingRequest, now: Double = 1) -> Assignment? {
        guard case .dispatch(let assignment) = decide(request, now: now) else { return nil }
        return assignment
    }

    func assign(_ request: RoutingRequest, blocks: [UInt64], now: Double = 1) -> Assignment? {
        let decision = router.decide(request, blocks: blocks.span, now: seconds(now))
        guard case .dispatch(let assignment) = decision else { return nil }
        return assignment
    }

    func start(_ assignment: Assignment, now: Double = 1) { router.started(assignment, now: seconds(now)) }
    func firstToken(_ assignment: Assignment, now: Double = 1) { router.firstToken(assignment, now: seconds(now)) }

    func finish(_ assignment: Assignment, _ outcome: RoutingOutcome, now: Double = 1) {
        router.finished(assignment, outcome: outcome, now: seconds(now))
    }

    func fail(_ assignment: Assignment, now: Double = 1) { finish(assignment, .failed, now: now) }
    func complete(_ assignment: Assignment, now: Double = 1) { finish(assignment, .completed(nil), now: now) }

    func probe(_ node: String, _ result: ProbeResult, now: Double) {
        router.probed(NodeID(unchecked: node), result, now: seconds(now))
    }

    func cordon(_ isCordoned: Bool, _ node: String) { router.setCordoned(isCordoned, node: NodeID(unchecked: node)) }
    func drain(_ isDraining: Bool, _ node: String) { router.setDraining(isDraining, node: NodeID(unchecked: node)) }

    func curtail(_ node: String, to share: Double, endsAt: Double? = nil, now: Double = 1) {
        router.curtailed(NodeID(unchecked: node), to: share, endsAt: endsAt.map { seconds($0) }, now: seconds(now))
    }

    func report(_ node: String, _ report: NodeReport, now: Double) {
        router.reported(NodeID(unchecked: node), report, now: seconds(now))
    }

    func stored(_ node: String, _ blocks: [UInt64], now: Double) {
        router.stored(NodeID(unchecked: node), blocks: blocks.span, now: seconds(now))
    }

    func tell(now: Double) -> GossipMessage { router.gossip(now: seconds(now)) }

    func farewell() -> GossipMessage { router.gossipFarewell() }

    func hear(_ message: GossipMessage, from peer: UInt64, now: Double) {
        router.gossiped(message, from: peer, now: seconds(now))
    }

    func leastWait(_ request: RoutingRequest, now: Double) -> Double {
        router.leastWaitSeconds(for: request, now: seconds(now))
    }

    func finish(_ assignment: Assignment, usage: TokenUsage, now: Double) {
        router.finished(assignment, outcome: .completed(usage), now: seconds(now))
    }

    func replace(_ nodes: [NodeSpec]) { router.replaceFleet(router.fleet.succeeded(by: nodes)) }

    func status(now: Double = 1) -> [RoutingNodeStatus] { router.status(now: seconds(now)) }
    func states(now: Double = 1) -> [String] { status(now: now).map { "\($0.id)=\($0.state.rawValue)" } }
}

import Domain
import Routing
import Synchronization

/// The process's one router, behind its mutex. What a request calls holds it for a few microseconds, with a thousand
/// nodes too (`tollgate bench decisions` tells); gossip, metrics and fleet changes longer, and seldom.
package final class SharedRouter: Sendable {
    let router: Mutex<Router>
    /// Locked before ``router`` where both are.
    let waitingRoom = Mutex(WaitingRoom())
    /// Requests in ``waitingRoom``, and one more while one comes: whoever has changed the router and sees 0 here need not look.
    let waitingCount = Atomic<Int>(0)
    private let expectedOutput = Mutex(ExpectedOutput())
    /// Whether the policy makes anything of a prompt's blocks and of what its answer will be.
    package let weighsPrompts: Bool
    /// Whether the policy makes anything of nodes' own metrics.
    package var readsMetrics: Bool { weighsPrompts }

    package init(_ router: consuming sending Router) {
        weighsPrompts = router.policyName.weighsPrompts
        self.router = Mutex(router)
    }

    package func decide(_ request: RoutingRequest, now: MonotonicTime) -> RoutingDecision {
        router.withLock { $0.decide(request, now: now) }
    }

    package func decide(_ request: RoutingRequest, blocks: PromptBlocks, now: MonotonicTime) -> RoutingDecision {
        router.withLock { $0.decide(request, blocks: blocks.hashes.span, now: now) }
    }

    /// How many tokens the next answer under this key is expected to have.
    package func expectedOutput(_ key: UInt64, tokensMax: Int) -> Int {
        expectedOutput.withLock { $0.tokens(key: key, tokensMax: tokensMax) }
    }

    /// An answer under this key had so many tokens.
    package func answered(_ key: UInt64, tokens: Int) {
        expectedOutput.withLock { $0.answered(key: key, tokens: tokens) }
    }

    /// What to tell the other gateways.
    package func gossip(now: MonotonicTime) -> GossipMessage { router.withLock { $0.gossip(now: now) } }

    /// What to tell them last.
    package func gossipFarewell() -> GossipMessage { router.withLock { $0.gossipFarewell() } }

    /// Another gateway told something.
    package func gossiped(_ message: GossipMessage, from peer: UInt64, now: MonotonicTime) {
        router.withLock { $0.gossiped(message, from: peer, now: now) }
        admitWaiting(now: now)
    }

    /// The node's metrics are those of a model that it is not configured with.
    package func reportedOtherModel(_ node: NodeID, now: MonotonicTime) {
        router.withLock { $0.reportedOtherModel(node, now: now) }
    }

    /// What the node's metrics said.
    package func reported(_ node: NodeID, _ report: NodeReport, now: MonotonicTime) {
        router.withLock { $0.reported(node, report, now: now) }
        admitWaiting(now: now)
    }

    /// The request was written to the node.
    package func started(_ assignment: Assignment, now: MonotonicTime) {
        router.withLock { $0.started(assignment, now: now) }
    }

    /// The first token of a stream came.
    package func firstToken(_ assignment: Assignment, now: MonotonicTime) {
        router.withLock { $0.firstToken(assignment, now: now) }
        admitWaiting(now: now)
    }

    /// Exactly once for each dispatched decision, on every exit.
    package func finished(_ assignment: Assignment, outcome: RoutingOutcome, now: MonotonicTime) {
        router.withLock { $0.finished(assignment, outcome: outcome, now: now) }
        admitWaiting(now: now)
    }

    /// - Returns: The node's state before and after.
    package func probed(
        _ node: NodeID, _ result: ProbeResult, now: MonotonicTime
    ) -> (before: RoutingNodeState, after: RoutingNodeState)? {
        defer { admitWaiting(now: now) }
        return router.withLock { router in
            guard let before = router.state(of: node) else { return nil }
            router.probed(node, result, now: now)
            return (before, router.state(of: node) ?? before)
        }
    }

    package func setCordoned(_ isCordoned: Bool, node: NodeID) {
        router.withLock { $0.setCordoned(isCordoned, node: node) }
        admitWaiting(now: .now())
    }

    package func setDraining(_ isDraining: Bool, node: NodeID) {
        router.withLock { $0.setDraining(isDraining, node: node) }
        admitWaiting(now: .now())
    }

    /// The node runs at `share` of its power, or until `endsAt` and then not at all.
    package func curtailed(_ node: NodeID, to share: Double, endsAt: MonotonicTime?) {
        router.withLock { $0.curtailed(node, to: share, endsAt: endsAt, now: .now()) }
        admitWaiting(now: .now())
    }

    package func serverReplaced(_ node: NodeID) {
        router.withLock { $0.serverReplaced(node) }
    }

    /// Nodes that stay, by id, keep their index, in-flight work, health and cordon.
    package func replaceFleet(with nodes: [NodeSpec]) -> FleetSnapshot {
        defer { admitWaiting(now: .now()) }
        return router.withLock { router in
            let next = router.fleet.succeeded(by: nodes)
            router.replaceFleet(next)
            return next
        }
    }

    package var fleet: FleetSnapshot { router.withLock { $0.fleet } }

    /// Every node, in the operator's order.
    package func status(now: MonotonicTime) -> [RoutingNodeStatus] { router.withLock { $0.status(now: now) } }

    /// More of one node; nil where it is not in the fleet.
    package func detail(of node: NodeID, now: MonotonicTime) -> RoutingNodeDetail? {
        router.withLock { $0.detail(of: node, now: now) }
    }

    /// The node's round trip was measured.
    package func measured(_ node: NodeID, rttNanoseconds: Int64) {
        router.withLock { $0.measured(node, rttNanoseconds: rttNanoseconds, now: .now()) }
    }

    /// Whether a node outside `excluded` takes requests for the model now.
    package func takesRequests(
        _ model: ModelID, on engines: EngineSet = .all, excluding excluded: NodeSet = NodeSet(),
        in region: String? = nil
    ) -> Bool {
        router.withLock { $0.takesRequests(model, on: engines, excluding: excluded, in: region) }
    }

    package func servableModels(in region: String? = nil) -> [ModelID] {
        router.withLock { $0.servableModels(in: region) }
    }

    package var inflightCount: Int { router.withLock { $0.inflightCount } }
}

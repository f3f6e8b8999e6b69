import Domain
import Routing

/// What decisions cost: the product's router, driven steadily, each of its calls timed by itself.
package enum DecisionTiming {
    package static let nodeCount = 1_000
    /// Measured decisions of one case.
    package static let countDefault = 50_000
    /// Requests in flight on each node.
    private static let inflightPerNode = 4
    private static let warmUpMin = 20_000

    /// Nanoseconds, the reading of the clock taken off.
    package struct Figures: Sendable {
        /// ``Router/decide(_:blocks:now:)``: what a request waits for.
        package var median = 0.0
        package var p99 = 0.0
        package var mean = 0.0
        /// The other calls of a request's life together, the mean: what the router is kept from others for besides.
        package var restMean = 0.0
        /// The longest that 99 of 100 calls of ``Router/started(_:now:)`` took: it indexes the prompt.
        package var startedP99 = 0.0
    }

    /// What measuring nothing costs here: the least of it is taken off each figure, the rest is the machine's.
    package struct Clock: Sendable {
        package var least = 0.0
        package var p99 = 0.0
    }

    /// - Parameter count: Decisions that are measured, after as many as it takes to fill the nodes' index.
    package static func measure(
        _ policy: RoutingPolicy, nodes: Int, index: DecisionWorkload.Index, count: Int = countDefault
    ) -> Figures {
        var workload = DecisionWorkload(index, nodes: nodes, seed: 1)
        let warmUp = max(warmUpMin, workload.warmUpCount)
        return run(policy, nodes: nodes, warmUp: warmUp, count: count) { _, body in
            let request = workload.next()
            body(request, workload.blocks)
        }
    }

    /// The same with a trace's prompts, over and over.
    package static func measure(
        _ trace: Trace, policy: RoutingPolicy = .predictedCost, nodes: Int = nodeCount, count: Int = countDefault
    ) -> Figures {
        run(policy, nodes: nodes, warmUp: warmUpMin, count: count) { number, body in
            let asked = trace.requests[number % trace.requests.count]
            let request = RoutingRequest(
                model: FleetSpec.model, promptTokens: asked.promptTokens, expectedOutputTokens: 300,
                session: asked.session)
            body(request, asked.blocks)
        }
    }

    private static func run(
        _ policy: RoutingPolicy, nodes count: Int, warmUp: Int, count measured: Int,
        _ next: (_ number: Int, _ body: (RoutingRequest, [UInt64]) -> Void) -> Void
    ) -> Figures {
        var drive = DecisionDrive(policy, nodes: count, inflightMax: count * inflightPerNode, count: measured)
        for number in 0..<(warmUp + measured) {
            next(number) { drive.step($0, $1.span, isMeasured: number >= warmUp) }
        }
        return drive.figures(clock: clock().least)
    }

    /// Reads the clock twice, over and over.
    package static func clock() -> Clock {
        var nanoseconds: [Int64] = []
        nanoseconds.reserveCapacity(countDefault)
        for _ in 0..<countDefault {
            let start = MonotonicTime.now()
            nanoseconds.append(MonotonicTime.now().nanoseconds(since: start))
        }
        nanoseconds.sort()
        return Clock(
            least: Double(nanoseconds[nanoseconds.count / 100]),
            p99: Double(nanoseconds[nanoseconds.count * 99 / 100]))
    }
}

/// A router in steady use, in virtual time: a request comes, one is at its first token, one ends.
struct DecisionDrive {
    private(set) var router: Router
    private var inflight = RingBuffer<(assignment: Assignment, usage: TokenUsage)>()
    private var decoding = RingBuffer<(assignment: Assignment, usage: TokenUsage)>()
    private let inflightMax: Int
    private let stepNanoseconds: Int64
    private var now = MonotonicTime(nanoseconds: 1_000_000_000)
    private var decided: [Int32] = []
    private var started: [Int32] = []
    private var restSum: Int64 = 0

    /// What a request stays on a node, so that ``inflightMax`` of them make the load.
    private static let stayNanoseconds: Int64 = 4_000_000_000

    init(_ policy: RoutingPolicy, nodes count: Int, inflightMax: Int, count measured: Int) {
        let fleet = FleetSpec(.heterogeneous, nodes: count)
        let nodes = fleet.nodeSpecs(fleet.nodes.indices, gateway: 0)
        router = Router(fleet: FleetSnapshot(nodes: nodes), policy: policy, seed: 1)
        for node in nodes { router.probed(node.id, .healthy, now: now) }
        self.inflightMax = inflightMax
        stepNanoseconds = Self.stayNanoseconds / Int64(inflightMax)
        decided.reserveCapacity(measured)
        started.reserveCapacity(measured)
    }

    mutating func step(_ request: RoutingRequest, _ blocks: Span<UInt64>, isMeasured: Bool) {
        now = now.advanced(byNanoseconds: stepNanoseconds)
        let begun = MonotonicTime.now()
        let decision = router.decide(request, blocks: blocks, now: now)
        let decidedAt = MonotonicTime.now()
        guard case .dispatch(let assignment) = decision else { return }
        router.started(assignment, now: now)
        let startedAt = MonotonicTime.now()
        let usage = TokenUsage(promptTokens: request.promptTokens, cachedTokens: 0, completionTokens: 300)
        inflight.append((assignment, usage))
        let endBegun = MonotonicTime.now()
        if inflight.count > inflightMax / 2, let oldest = inflight.popFirst() {
            router.firstToken(oldest.assignment, now: now)
            decoding.append(oldest)
        }
        if decoding.count > inflightMax / 2, let oldest = decoding.popFirst() {
            router.finished(oldest.assignment, outcome: .completed(oldest.usage), now: now)
        }
        guard isMeasured else { return }
        let endedAt = MonotonicTime.now()
        decided.append(Int32(clamping: decidedAt.nanoseconds(since: begun)))
        started.append(Int32(clamping: startedAt.nanoseconds(since: decidedAt)))
        restSum += startedAt.nanoseconds(since: decidedAt) + endedAt.nanoseconds(since: endBegun)
    }

    /// - Parameter clock: What reading it costs, nanoseconds.
    func figures(clock: Double) -> DecisionTiming.Figures {
        guard !decided.isEmpty else { return DecisionTiming.Figures() }
        let decided = decided.sorted()
        let started = started.sorted()
        func net(_ nanoseconds: Double) -> Double { max(0, nanoseconds - clock) }
        return DecisionTiming.Figures(
            median: net(Double(decided[decided.count / 2])), p99: net(Double(decided[decided.count * 99 / 100])),
            mean: net(decided.reduce(0) { $0 + Double($1) } / Double(decided.count)),
            restMean: max(0, Double(restSum) / Double(decided.count) - 2 * clock),
            startedP99: net(Double(started[started.count * 99 / 100])))
    }
}

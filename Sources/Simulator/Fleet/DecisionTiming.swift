import Domain
import Routing

/// What one decision costs: the product's router over a large fleet, its index warm.
package enum DecisionTiming {
    package static let nodeCount = 1_000
    private static let warmUpCount = 20_000
    private static let countMax = 20_000
    private static let inflightMax = 4_000

    /// - Parameter trace: Whose prompts are placed, over and over.
    /// - Returns: The 99th percentile and the median, seconds; a reading of the clock is taken off.
    package static func measure(_ trace: Trace, policy: RoutingPolicy = .predictedCost) -> (p99: Double, median: Double)
    {
        let fleet = FleetSpec(.heterogeneous, nodes: nodeCount)
        var gateway = SimulatedGateway(
            policy: policy, nodes: fleet.nodeSpecs(fleet.nodes.indices, gateway: 0), seed: 1)
        var inflight = RingBuffer<Assignment>()
        var seconds: [Double] = []
        seconds.reserveCapacity(countMax)
        let clock = clockSeconds()
        for number in 0..<(warmUpCount + countMax) {
            let request = trace.requests[number % trace.requests.count]
            let flight = Flight(request: number, org: 0, gateway: 0, arrival: 0)
            let now = Double(number) * 1e-3
            let start = MonotonicTime.now()
            let assignment = gateway.place(flight, request, now: now)
            let elapsed = MonotonicTime.now().seconds(since: start)
            if number >= warmUpCount { seconds.append(max(0, elapsed - clock)) }
            guard let assignment else { continue }
            inflight.append(assignment)
            if inflight.count > inflightMax, let oldest = inflight.popFirst() {
                gateway.firstToken(oldest, now: now)
                gateway.completed(
                    oldest, usage: TokenUsage(promptTokens: request.promptTokens, cachedTokens: 0, completionTokens: 1),
                    now: now)
            }
        }
        seconds.sort()
        return (RunStatistics.percentile(seconds, 0.99), RunStatistics.percentile(seconds, 0.5))
    }

    private static func clockSeconds() -> Double {
        var shortest = Double.infinity
        for _ in 0..<1_000 {
            let start = MonotonicTime.now()
            shortest = min(shortest, MonotonicTime.now().seconds(since: start))
        }
        return shortest
    }
}

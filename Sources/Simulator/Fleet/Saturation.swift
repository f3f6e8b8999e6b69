import Routing

/// The rate at which a fleet has no more to give, under a trace: what `--load 1` means.
///
/// For the traces and fleets of the project's reference figures it is the reference's number. For others it is
/// measured: the highest rate at which the best of three published policies that know the caches (GIE, LMetric, SMetric)
/// keeps its mean time to first token within ``slowdownMax`` times what it is on a fleet with next to nothing to do (the
/// factor is the one that gives the reference's numbers to within a few percent), to within
/// ``precision``. Beyond that point queues grow with the length of the trace rather than with the load, whatever the
/// policy. `predicted_cost` has no part in it, so that improving it does not move its own yardstick.
package enum Saturation {
    package static let judges: [RoutingPolicy] = [.gie, .lmetric, .smetric]
    package static let slowdownMax = 2.2
    package static let precision = 0.01
    /// Of the rate that fills the nodes' prefill if nothing is cached: the fleet is as good as idle.
    private static let idleShare = 0.02
    private static let doublingsMax = 12

    private static let referenceRates: [String: [FleetSpec.Kind: Double]] = [
        "mooncake_conversation_trace.jsonl": [.homogeneous: 10, .heterogeneous: 6.6],
        "agentic_dev_mooncake_fmt.jsonl": [.heterogeneous: 4.3],
    ]
    private static let referenceNodes = 8

    /// The reference's number where it has one.
    package static func referenceRate(_ trace: Trace, _ fleet: FleetSpec) -> Double? {
        fleet.nodes.count == referenceNodes ? referenceRates[trace.name]?[fleet.kind] : nil
    }

    /// - Parameter progress: Called with each rate that is tried.
    /// - Returns: Requests a second.
    package static func measure(
        _ trace: Trace, _ fleet: FleetSpec, progress: (Double) -> Void = { _ in }
    ) async -> Double {
        let tokens = trace.requests.reduce(0) { $0 + $1.promptTokens } / max(1, trace.requests.count)
        let prefill = fleet.nodes.reduce(0) { $0 + $1.profile.prefillTokensPerSecond }
        let uncachedRate = prefill / Double(max(1, tokens))
        progress(uncachedRate * idleShare)
        let idle = await ttft(trace, fleet, rate: uncachedRate * idleShare)

        var low = uncachedRate * idleShare
        var high = uncachedRate / 2
        for _ in 0..<doublingsMax {
            progress(high)
            if await ttft(trace, fleet, rate: high) > slowdownMax * idle { break }
            low = high
            high *= 2
        }
        while high / low > 1 + precision {
            let middle = (low * high).squareRoot()
            progress(middle)
            if await ttft(trace, fleet, rate: middle) > slowdownMax * idle { high = middle } else { low = middle }
        }
        return low
    }

    /// The least mean time to first token of the three.
    private static func ttft(_ trace: Trace, _ fleet: FleetSpec, rate: Double) async -> Double {
        let runs = judges.map { RunConfiguration(policy: $0, fleet: fleet, rate: rate) }
        return await Sweep.run(runs, on: trace).map(\.statistics.ttftMean).min() ?? .infinity
    }
}

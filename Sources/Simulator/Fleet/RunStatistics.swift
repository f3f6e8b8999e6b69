/// What a run showed, without its first tenth, in which the caches fill.
package struct RunStatistics: Hashable, Sendable {
    /// Answers that come sooner and flow faster than these are good.
    package static let goodTTFTSeconds = 2.0
    package static let goodTPOTSeconds = 0.05
    package static let predictedWorkMin: Float = 2_000
    private static let warmUpShare = 0.1

    /// Requests that completed, were refused, and failed, in the whole run.
    package var completed = 0
    package var refused = 0
    package var failed = 0
    package var ttftMean = Double.nan
    package var ttftP50 = Double.nan
    package var ttftP90 = Double.nan
    package var ttftP99 = Double.nan
    package var tpotMean = Double.nan
    package var tpotP50 = Double.nan
    package var tpotP99 = Double.nan
    /// Share of the prompt tokens that nodes found cached, over the whole run.
    package var prefixHitRatio = 0.0
    /// Share of the requests that were answered well; a refused or failed one was not.
    package var goodput = 0.0
    /// Completed, a second, from the first arrival that counts to the last end.
    package var requestsPerSecond = 0.0
    package var preemptions = 0
    /// Median of predicted over actual seconds to the first token, of works over ``predictedWorkMin``; nil where the
    /// policy predicts nothing.
    package var predictionRatio: Double?
    /// 90th percentile of TTFT by org; nil for one without requests.
    package var ttftP90ByOrg: [Double?] = []
    /// TTFT, ascending, at even ranks: for plots.
    package var ttftQuantiles: [Double] = []

    package static let quantileCount = 200

    /// The mean over the orgs but one of their 90th percentiles of TTFT.
    package func ttftP90(without org: Int) -> Double {
        Self.mean(ttftP90ByOrg.enumerated().compactMap { $0.offset == org ? nil : $0.element })
    }

    init(
        flights: ContiguousArray<Flight>, requests: [Trace.Request], promptTokens: Int, cachedTokens: Int,
        preemptions: Int
    ) {
        let done = flights.filter { $0.state == .completed }
        self.completed = done.count
        self.refused = flights.count { $0.state == .refused }
        self.failed = flights.count { $0.state == .failed }
        self.preemptions = preemptions
        self.prefixHitRatio = promptTokens == 0 ? 0 : Double(cachedTokens) / Double(promptTokens)
        let counted = done.dropFirst(Int(Double(done.count) * Self.warmUpShare))
        guard let first = counted.first else { return }

        let ttfts = counted.map(\.ttftSeconds).sorted()
        let tpots = counted.compactMap { Self.tpot(of: $0, requests) }.sorted()
        ttftMean = Self.mean(ttfts)
        ttftP50 = Self.percentile(ttfts, 0.5)
        ttftP90 = Self.percentile(ttfts, 0.9)
        ttftP99 = Self.percentile(ttfts, 0.99)
        tpotMean = Self.mean(tpots)
        tpotP50 = Self.percentile(tpots, 0.5)
        tpotP99 = Self.percentile(tpots, 0.99)
        ttftQuantiles = (0..<Self.quantileCount).map {
            Self.percentile(ttfts, Double($0) / Double(Self.quantileCount - 1))
        }
        let good = counted.count {
            $0.ttftSeconds < Self.goodTTFTSeconds && (Self.tpot(of: $0, requests) ?? 0) < Self.goodTPOTSeconds
        }
        goodput = Double(good) / Double(counted.count + refused + failed)
        let ratios = counted.filter { $0.predictedSeconds > 0 && $0.predictedWork > Self.predictedWorkMin }.map {
            Double($0.predictedSeconds) / ($0.firstTokenAt - $0.placedAt)
        }
        predictionRatio = ratios.isEmpty ? nil : Self.percentile(ratios.sorted(), 0.5)
        let orgs = (counted.map { Int($0.org) }.max() ?? 0) + 1
        ttftP90ByOrg = (0..<orgs).map { org -> Double? in
            let own = counted.filter { $0.org == org }.map(\.ttftSeconds).sorted()
            return own.isEmpty ? nil : Self.percentile(own, 0.9)
        }
        let end = counted.reduce(0) { max($0, $1.endAt) }
        requestsPerSecond = Double(counted.count) / max(end - first.arrival, 1e-9)
    }

    /// nil for an answer of one token, which has no gaps.
    private static func tpot(of flight: Flight, _ requests: [Trace.Request]) -> Double? {
        let gaps = requests[Int(flight.request)].outputTokens - 1
        return gaps > 0 ? (flight.endAt - flight.firstTokenAt) / Double(gaps) : nil
    }

    package static func mean(_ values: [Double]) -> Double {
        values.isEmpty ? .nan : values.reduce(0, +) / Double(values.count)
    }

    /// - Parameter sorted: Ascending.
    package static func percentile(_ sorted: [Double], _ share: Double) -> Double {
        sorted.isEmpty ? .nan : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
    }
}

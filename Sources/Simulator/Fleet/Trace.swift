import Domain

/// What was asked of some service, in the order of arrival.
package struct Trace: Sendable {
    package struct Request: Sendable {
        /// Since the trace's first request, as recorded.
        package var seconds: Double
        package var promptTokens: Int
        /// At least 1.
        package var outputTokens: Int
        /// Chained hashes of the prompt's whole 512-token blocks.
        package var blocks: [UInt64]

        package init(seconds: Double, promptTokens: Int, outputTokens: Int, blocks: [UInt64]) {
            self.seconds = seconds
            self.promptTokens = promptTokens
            self.outputTokens = outputTokens
            self.blocks = blocks
        }

        /// What ties requests together: the first two blocks, since the first is often everybody's system prompt.
        ///
        /// - Returns: 0 for a prompt of less than a block.
        package var session: UInt64 { blocks.count > 1 ? blocks[1] : blocks.first ?? 0 }
    }

    /// The file's name without its folder.
    package let name: String
    package let requests: [Request]
    /// The step in which the recorder counted time, in seconds, where it is coarse; else 0.
    package let quantumSeconds: Double
    /// Requests left out because their prompt is over ``promptTokensMax``.
    package let skippedCount: Int

    /// The longest prompt that the simulated model takes.
    package static let promptTokensMax = 131_072
    /// What a further seed moves arrivals by, at most, where the trace leaves no quantum to draw from.
    private static let jitterSeconds = 2.0

    /// - Parameter requests: In any order.
    package init(name: String, requests: [Request]) {
        let kept = requests.filter { $0.promptTokens <= Self.promptTokensMax }
        let order = kept.indices.sorted { (kept[$0].seconds, $0) < (kept[$1].seconds, $1) }
        let start = order.first.map { kept[$0].seconds } ?? 0
        self.name = name
        self.requests = order.map { index in
            var request = kept[index]
            request.seconds -= start
            return request
        }
        self.skippedCount = requests.count - kept.count
        self.quantumSeconds = Self.quantum(of: self.requests)
    }

    /// The first requests only.
    package func prefix(_ count: Int) -> Trace {
        count >= requests.count ? self : Trace(name: name, requests: Array(requests.prefix(count)))
    }

    /// Arrivals at a mean rate: the trace's order and its relative gaps, stretched.
    ///
    /// Times that the recorder rounded are spread within their quantum, by the seed. Where time is fine enough, seed 1
    /// takes it as it is and further seeds move each arrival by up to two seconds of the trace's time.
    /// - Parameters:
    ///   - rate: Requests a second, over 0.
    ///   - seed: From 1.
    package func arrivals(rate: Double, seed: UInt64) -> [Arrival] {
        let span = requests.last?.seconds ?? 0
        let stretch = span > 0 ? Double(requests.count) / rate / span : 1 / rate
        let spread = quantumSeconds > 0 ? quantumSeconds : seed > 1 ? Self.jitterSeconds : 0
        var random = SplitMix64(seed: seed)
        var arrivals = requests.indices.map { index in
            Arrival(seconds: (requests[index].seconds + random.unit() * spread) * stretch, index: index)
        }
        arrivals.sort { ($0.seconds, $0.index) < ($1.seconds, $1.index) }
        return arrivals
    }

    package struct Arrival: Hashable, Sendable {
        /// Since the start of the run.
        package var seconds: Double
        /// Into ``Trace/requests``.
        package var index: Int
    }

    /// The usual step between times, where most requests share theirs with another: nobody's customers do.
    private static func quantum(of requests: [Request]) -> Double {
        var steps: [Double] = []
        for (earlier, later) in zip(requests, requests.dropFirst()) where later.seconds > earlier.seconds {
            steps.append(later.seconds - earlier.seconds)
        }
        guard !steps.isEmpty, requests.count >= 2 * (steps.count + 1) else { return 0 }
        steps.sort()
        return (steps[steps.count / 2] * 1_000).rounded() / 1_000
    }
}

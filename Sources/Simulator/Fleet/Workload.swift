import Domain

/// The requests of one run, in the order of arrival: a trace at a rate, its sessions dealt to orgs, each request to a
/// gateway.
package struct Workload: Sendable {
    package let requests: [Trace.Request]
    package let flights: ContiguousArray<Flight>

    /// - Parameters:
    ///   - gateways: Requests are dealt to them at random: a load balancer that knows nothing stands in front.
    ///   - surges: More requests of an org: what it asks anyway, several times over, with other prompts of the same lengths.
    package init(
        _ trace: Trace, rate: Double, seed: UInt64, gateways: Int = 1, orgs: Int = 1, surges: [Surge] = []
    ) {
        var requests = trace.requests
        var owners = requests.map { Self.org(of: $0, among: orgs) }
        var arrivals = trace.arrivals(rate: rate, seed: seed).map { (seconds: $0.seconds, request: $0.index) }
        for surge in surges {
            let own = arrivals.filter { owners[$0.request] == surge.org }
            arrivals += Self.added(by: surge, own: own, to: &requests, seed: seed)
            owners += Array(repeating: surge.org, count: requests.count - owners.count)
        }
        arrivals.sort { ($0.seconds, $0.request) < ($1.seconds, $1.request) }
        var random = SplitMix64(seed: seed ^ Self.gatewayStream)
        self.flights = ContiguousArray(
            arrivals.map { arrival in
                Flight(
                    request: arrival.request, org: owners[arrival.request],
                    gateway: gateways > 1 ? random.below(gateways) : 0, arrival: arrival.seconds)
            })
        self.requests = requests
    }

    private static let gatewayStream: UInt64 = 0x6761_7465_7761_7973

    /// Copies of one request do not come at the same instant.
    private static let jitterSeconds = 2.0

    /// A session belongs to one org. Its third block tells it from others: two are often a system prompt.
    private static func org(of request: Trace.Request, among orgs: Int) -> Int {
        let session = request.blocks.isEmpty ? 0 : request.blocks[min(2, request.blocks.count - 1)]
        return Int(SplitMix64.mix(session ^ 0x6F72_67).multipliedFullWidth(by: UInt64(orgs)).high)
    }

    /// Copies of what the org asks in those seconds, each with blocks of its own: its sessions, several times over.
    private static func added(
        by surge: Surge, own: [(seconds: Double, request: Int)], to requests: inout [Trace.Request], seed: UInt64
    ) -> [(seconds: Double, request: Int)] {
        let window = own.filter { (surge.start..<surge.start + surge.seconds).contains($0.seconds) }
        var random = SplitMix64(seed: seed ^ UInt64(truncatingIfNeeded: surge.org))
        var added: [(seconds: Double, request: Int)] = []
        var copies = surge.factor - 1
        while copies > 0 {
            let salt = random.next()
            for arrival in window where random.unit() < copies {
                var request = requests[arrival.request]
                request.blocks = request.blocks.map { SplitMix64.mix($0 ^ salt) }
                let seconds = min(arrival.seconds + random.unit() * jitterSeconds, surge.start + surge.seconds)
                added.append((seconds, requests.count))
                requests.append(request)
            }
            copies -= 1
        }
        return added
    }
}

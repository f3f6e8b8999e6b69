import Domain

/// A node's round trip as its probes measure it: the least time from a probe's request to the head of its answer, over
/// the last minutes. The least, since all else that a probe meets (a busy server, a busy gateway) only adds to it; of
/// minutes, so that a path that became longer is noticed.
///
/// An answered request rather than a TCP connection: in a mesh a proxy at hand accepts connections for a node far away.
struct RoundTripEstimate: Hashable, Sendable {
    /// Fewer say nothing yet: what the operator configured counts until then.
    static let samplesMin = 3
    /// Two halves of the window; the older one is dropped whole.
    static let halfNanoseconds: Int64 = 150_000_000_000
    private var samples = 0
    private var halfBeganAt = MonotonicTime(nanoseconds: 0)
    private var least = Int64.max
    private var leastBefore = Int64.max
    /// nil until enough was measured.
    var nanoseconds: Int64? { samples < Self.samplesMin ? nil : min(least, leastBefore) }

    mutating func measured(_ sample: Int64, now: MonotonicTime) {
        guard sample > 0 else { return }
        if now.nanoseconds(since: halfBeganAt) > Self.halfNanoseconds {
            // After a gap of a whole window nothing that is held is recent.
            leastBefore = now.nanoseconds(since: halfBeganAt) > 2 * Self.halfNanoseconds ? .max : least
            least = .max
            halfBeganAt = now
        }
        samples = min(samples + 1, Self.samplesMin)
        least = min(least, sample)
    }
}

/// What a site's nodes measure together: the network path is the site's, so all its nodes count as equally far, at the
/// least that any of them measured.
struct SiteRoundTrips: Sendable {
    /// The router is told whole multiples of this: below it servers differ more than paths, and nodes that differ by
    /// nothing else must not all come after the one that answers its probes a little sooner.
    static let quantumNanoseconds: Int64 = 2_000_000

    private var byNode: [NodeID: RoundTripEstimate] = [:]
    /// What the router was told.
    private(set) var told: [SiteID: Int64] = [:]

    /// Nodes that left, or moved, are forgotten.
    mutating func keep(_ isKept: (NodeID) -> Bool, sites: Set<SiteID>) {
        byNode = byNode.filter { isKept($0.key) }
        told = told.filter { sites.contains($0.key) }
    }

    func nanoseconds(of node: NodeID) -> Int64? { byNode[node]?.nanoseconds }

    func nanoseconds(of nodes: some Sequence<NodeID>) -> Int64? { nodes.compactMap(nanoseconds(of:)).min() }

    /// - Parameter nodes: All nodes of the site.
    /// - Returns: What to tell the router of all of them; nil where it knows.
    mutating func measured(
        _ node: NodeID, at site: SiteID, _ sample: Int64, nodes: some Sequence<NodeID>, now: MonotonicTime
    ) -> Int64? {
        byNode[node, default: RoundTripEstimate()].measured(sample, now: now)
        guard let least = nanoseconds(of: nodes) else { return nil }
        let rounded = least / Self.quantumNanoseconds * Self.quantumNanoseconds
        guard told[site] != rounded else { return nil }
        told[site] = rounded
        return rounded
    }
}

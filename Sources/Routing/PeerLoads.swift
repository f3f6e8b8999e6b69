import Domain

/// What the other gateways have in flight, by node.
///
/// Gossip is believed while it is fresh. Where a peer is silent, or none was ever heard, there may be requests that
/// nobody tells of: what the node itself reports beyond those told is added then. When every peer speaks nothing is
/// added, since a report is older than the gossip.
struct PeerLoads: Sendable {
    /// Gateways of one fleet that are listened to.
    static let peersMax = 64
    /// Ten intervals: a peer silent for longer is not believed any more.
    static let silenceNanoseconds: Int64 = 1_000_000_000
    /// A peer silent for longer has gone, its requests with it.
    static let forgetNanoseconds: Int64 = 600_000_000_000

    /// What a report claimed is believed for so long: nodes whose metrics have stopped are known by what is told.
    static let reportNanoseconds: Int64 = 10_000_000_000

    private struct Peer: Sendable {
        var id: UInt64
        var sequence: UInt64 = 0
        var heardAt: MonotonicTime
        var isSilent = false
        /// By node index.
        var work: ContiguousArray<InflightWork>
    }

    private var peers: ContiguousArray<Peer> = []
    /// By node index: the peers' together, and what the node reported beyond all that was told.
    private var told: ContiguousArray<InflightWork> = []
    private var beyond: ContiguousArray<InflightWork> = []
    /// When the last report that was believed came; nil where none has.
    private var reportedAt: ContiguousArray<MonotonicTime?> = []
    /// Our own requests in reports, and those in them that nobody tells of, over the last few hundred reports: how many
    /// others there are for each of ours.
    private var ownReported = 0.0
    private var untoldReported = 0.0
    private static let reportedDecay = 0.998
    /// For each of our requests others have so many at most.
    static let othersMax = 31.0

    var peerCount: Int { peers.count }

    /// Whether every gateway that may have requests in flight tells of them.
    var isComplete: Bool { !peers.isEmpty && peers.allSatisfy { !$0.isSilent } }

    mutating func fleetChanged(count: Int, renewed: [Int]) {
        func fit(_ column: inout ContiguousArray<InflightWork>) {
            if column.count > count { column.removeLast(column.count - count) }
            while column.count < count { column.append(.zero) }
            for node in renewed { column[node] = .zero }
        }
        fit(&told)
        fit(&beyond)
        reportedAt.fit(count: count, renewed: renewed, nil)
        for peer in peers.indices { fit(&peers[peer].work) }
    }

    // MARK: Gossip

    /// - Parameter changed: Called for each node of which something else is told now.
    /// - Returns: Whether the message is news: not one that came late or twice, nor of a peer too many.
    mutating func heard(
        _ message: GossipMessage, from id: UInt64, fleet: FleetSnapshot, now: MonotonicTime, changed: (Int) -> Void
    ) -> Bool {
        guard let peer = position(of: id, now: now), message.sequence > peers[peer].sequence else { return false }
        peers[peer].sequence = message.sequence
        peers[peer].heardAt = now
        peers[peer].isSilent = false
        if message.isFull || message.isLast { clear(peer, changed: changed) }
        guard !message.isLast else {
            peers.remove(at: peer)
            return true
        }
        for news in message.nodes {
            guard let node = fleet.index(of: news.id), node < told.count else { continue }
            told[node] = told[node] - peers[peer].work[node]
            peers[peer].work[node] = news.work.clamped
            told[node] = told[node] + peers[peer].work[node]
            changed(node)
        }
        return true
    }

    /// Stops believing peers that are silent.
    ///
    /// - Parameter changed: Called for each node of which something else is told now.
    mutating func expire(now: MonotonicTime, changed: (Int) -> Void) {
        for peer in peers.indices.reversed() {
            let silence = now.nanoseconds(since: peers[peer].heardAt)
            guard silence > Self.silenceNanoseconds else { continue }
            if !peers[peer].isSilent {
                peers[peer].isSilent = true
                clear(peer, changed: changed)
            }
            if silence > Self.forgetNanoseconds { peers.remove(at: peer) }
        }
        for node in beyond.indices where beyond[node] != .zero && !isReported(node, now: now) {
            beyond[node] = .zero
            changed(node)
        }
    }

    private func isReported(_ node: Int, now: MonotonicTime) -> Bool {
        reportedAt[node].map { now.nanoseconds(since: $0) <= Self.reportNanoseconds } ?? false
    }

    private mutating func clear(_ peer: Int, changed: (Int) -> Void) {
        for node in told.indices where peers[peer].work[node] != .zero {
            told[node] = told[node] - peers[peer].work[node]
            peers[peer].work[node] = .zero
            changed(node)
        }
    }

    private mutating func position(of id: UInt64, now: MonotonicTime) -> Int? {
        if let known = peers.firstIndex(where: { $0.id == id }) { return known }
        if peers.count >= Self.peersMax {
            // A gateway that restarts comes under another name: the old one is silent by then.
            guard let silent = peers.firstIndex(where: \.isSilent) else { return nil }
            peers.remove(at: silent)
        }
        peers.append(
            Peer(id: id, heardAt: now, work: ContiguousArray(repeating: .zero, count: told.count)))
        return peers.count - 1
    }

    // MARK: Reports

    /// What the node says that it has, less what we and the peers say: requests of gateways that nobody hears.
    ///
    /// - Parameters:
    ///   - report: nil where it is not to be believed, or there is none.
    ///   - meanWork: Of a queued request of which nothing else is known.
    mutating func reported(
        _ node: Int, _ report: NodeReport?, load: NodeLoad, meanWork: Double, now: MonotonicTime
    ) {
        guard let report else {
            (beyond[node], reportedAt[node]) = (.zero, nil)
            return
        }
        reportedAt[node] = now
        let told = told[node]
        let requests = report.runningRequests + report.waitingRequests
        let own = Double(load.own.requests)
        ownReported = ownReported * Self.reportedDecay + own
        untoldReported = untoldReported * Self.reportedDecay + max(0, requests - own - Double(told.requests))
        var work = InflightWork.zero
        work.requests = Self.rest(requests, load.own.requests, told.requests)
        work.queuedRequests = Self.rest(report.waitingRequests, load.own.queuedRequests, told.queuedRequests)
        work.queuedWork = Double(work.queuedRequests) * meanWork
        work.queuedTokens = Int64(work.queuedWork)
        if let usage = report.kvUsage {
            let held = Int64(min(1, usage) * Double(load.kvCapacityTokens))
            work.kvTokens = max(0, held - load.own.kvTokens - told.kvTokens)
        }
        work.promptTokens = work.kvTokens
        beyond[node] = work.clamped
    }

    /// Requests of gateways that nobody hears, for each of ours; 0 where all are heard.
    var unheard: Double {
        guard !isComplete, ownReported > 0 else { return 0 }
        return min(Self.othersMax, untoldReported / ownReported)
    }

    /// We placed work on a node. Gateways that nobody hears will have placed theirs since the last report: they see the
    /// same fleet and do as we do. Where no report comes that would set it right, nothing is supposed.
    mutating func placed(_ node: Int, work: Double, now: MonotonicTime) {
        guard isReported(node, now: now) else { return }
        beyond[node].queuedWork += work * unheard
    }

    private static func rest(_ reported: Double, _ own: Int32, _ told: Int32) -> Int32 {
        Int32(clamping: Int64(reported) - Int64(own) - Int64(told))
    }

    /// What others have in flight on a node.
    func work(_ node: Int) -> InflightWork {
        isComplete ? told[node] : told[node] + beyond[node]
    }
}

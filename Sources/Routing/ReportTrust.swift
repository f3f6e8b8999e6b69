import Domain

/// Why a node's metrics are not believed.
package enum ReportDistrust: String, Hashable, Sendable, CaseIterable {
    /// Negative, NaN or enormous, or of a server that starts anew with every report.
    case implausible
    /// The same for half a minute, though requests came and went.
    case frozen
    /// Of fewer requests than the node is answering for us: another server's, or another model's.
    case contradicted
    /// They name a model that the node is not configured with.
    case otherModel = "other_model"
}

/// Whether one node's metrics are to be believed: judged report by report against what the gateway knows itself.
///
/// Our own requests are the truth and metrics only correct it, so the doubt is free: what is not believed is left out,
/// and the node loses nothing else by it.
struct ReportTrust: Hashable, Sendable {
    /// An unchanged report is flagged after this.
    static let frozenNanoseconds: Int64 = 30_000_000_000
    /// It is left out, without a flag, after this and so many of our requests placed or ended: each of them would have
    /// changed something.
    static let staleNanoseconds: Int64 = 3_000_000_000
    static let staleEvents: Int64 = 4
    /// Reports in a row that claim too little before that is more than the delay of a scrape.
    static let contradictionsMax = 10
    /// Reports in a row that each name another start of the server, after which none of them is a start.
    static let startsMax = 3
    /// Plausible reports in a row after which a node that talked nonsense is believed again.
    static let plausibleMin = 3

    private(set) var distrust: ReportDistrust?
    private var last: NodeReport?
    private var changedAt = MonotonicTime(nanoseconds: 0)
    private var eventsAtChange: Int64 = 0
    private var contradictions = 0
    private var plausible = 0
    private var starts = 0
    /// The start of the server that the last report which was believed named.
    private var serverStart: UInt64?

    /// A report that is believed names the start of the server.
    ///
    /// - Returns: Whether that is another than the last one: what it had cached is gone.
    mutating func believes(serverStart start: UInt64?) -> Bool {
        guard let start else { return false }
        defer { serverStart = start }
        return serverStart.map { $0 != start } ?? false
    }

    /// Metrics came that are about another model: none of their numbers are taken.
    mutating func sawOtherModel() { distrust = .otherModel }

    /// - Parameters:
    ///   - own: Our requests in flight there.
    ///   - events: How many requests we have placed and ended there, ever.
    /// - Returns: Whether the report is believed.
    mutating func judge(_ report: NodeReport, own: InflightWork, events: Int64, now: MonotonicTime) -> Bool {
        let isStart = last?.serverStart != nil && report.serverStart != nil && last?.serverStart != report.serverStart
        starts = isStart ? min(starts + 1, Self.startsMax) : 0
        guard report.isPlausible, starts < Self.startsMax else {
            last = report
            distrust = .implausible
            plausible = 0
            return false
        }
        if distrust == .otherModel { distrust = nil }
        plausible = min(plausible + 1, Self.plausibleMin)
        if distrust == .implausible, plausible >= Self.plausibleMin { distrust = nil }

        if report != last {
            last = report
            changedAt = now
            eventsAtChange = events
            if distrust == .frozen { distrust = nil }
        }
        let unchanged = now.nanoseconds(since: changedAt)
        let isStale = unchanged >= Self.staleNanoseconds && events - eventsAtChange >= Self.staleEvents
        if unchanged >= Self.frozenNanoseconds, events > eventsAtChange, distrust == nil { distrust = .frozen }

        // Half, since some may have ended at the node of which we have not heard yet.
        let decoding = Double(own.requests - own.queuedRequests)
        let claims = report.runningRequests + report.waitingRequests
        contradictions = claims + 1 < decoding / 2 ? min(contradictions + 1, Self.contradictionsMax) : 0
        if contradictions >= Self.contradictionsMax, distrust == nil { distrust = .contradicted }
        if contradictions == 0, distrust == .contradicted { distrust = nil }
        return distrust == nil && !isStale
    }
}

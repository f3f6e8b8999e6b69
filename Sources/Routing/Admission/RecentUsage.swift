import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What each org was let through with of late, in tokens of work, the older the less.
///
/// At most ``orgsMax`` orgs are kept: beyond, those with the least are forgotten, which can only be to their good.
struct RecentUsage: Sendable {
    static let fadeSeconds = 30.0
    static let orgsMax = 4_096
    /// So many times what the others had in the mean is more than they.
    static let beyondMultiple = 2.0
    /// Others who had less than this share of all are no reason to hold anybody back: the fleet is there for whoever uses it.
    static let othersShareMin = 0.1
    /// Below this it is nothing.
    private static let least = 1.0
    private static let fadeIntervalSeconds = 0.5

    private var byOrg: [OrgID: Double] = [:]
    private var total = 0.0
    private var fadedAt: MonotonicTime?

    var count: Int { byOrg.count }

    mutating func fade(now: MonotonicTime) {
        guard let last = fadedAt else { return fadedAt = now }
        let seconds = now.seconds(since: last)
        guard seconds >= Self.fadeIntervalSeconds else { return }
        fadedAt = now
        let rest = exp(-seconds / Self.fadeSeconds)
        byOrg = byOrg.compactMapValues { $0 * rest < Self.least ? nil : $0 * rest }
        total = byOrg.values.reduce(0, +)
    }

    mutating func add(_ org: OrgID, cost: Double) {
        byOrg[org, default: 0] += cost
        total += cost
        if byOrg.count > Self.orgsMax { forgetLeast() }
    }

    func isBeyondOthers(_ org: OrgID) -> Bool {
        guard let own = byOrg[org], byOrg.count > 1 else { return false }
        let others = total - own
        return others >= Self.othersShareMin * total && own > Self.beyondMultiple * others / Double(byOrg.count - 1)
    }

    /// Half of them at a time, so that it is seldom.
    private mutating func forgetLeast() {
        let kept = byOrg.sorted { ($0.value, $1.key) > ($1.value, $0.key) }.prefix(Self.orgsMax / 2)
        byOrg = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
        total = byOrg.values.reduce(0, +)
    }
}

import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What each org was let through with of late, and what it usually is, in tokens of work a second.
///
/// An org is beyond the others when it has far more than they, and far more than it usually has: a customer who always
/// sends the most of all is what the fleet was built for, one who sends ten times as much as yesterday makes others wait.
/// At most ``orgsMax`` orgs are kept: beyond, those with the least are forgotten, which can only be to their good.
struct RecentUsage: Sendable {
    /// Of late: the older the less.
    static let fadeSeconds = 90.0
    /// What is usual follows so slowly, and by no more than ``habitGrowth`` times itself at a time: a surge does not
    /// become a habit while it lasts.
    static let habitSeconds = 900.0
    static let habitGrowth = 1.5
    /// In a gateway that has just started nothing is usual yet, and what is follows whatever it sees.
    static let learningSeconds = 600.0
    static let orgsMax = 4_096
    /// So many times what the others had in the mean is more than they.
    static let beyondMultiple = 3.75
    /// So many times what is usual is more than that.
    static let habitMultiple = 2.0
    /// Others who had less than this share of all are no reason to hold anybody back: the fleet is there for whoever uses it.
    static let othersShareMin = 0.1
    /// Below this many tokens it is nothing.
    private static let least = 1.0
    private static let fadeIntervalSeconds = 0.5

    private struct Usage: Sendable {
        /// Tokens, faded.
        var recent = 0.0
        /// Tokens a second.
        var habit = 0.0
    }

    private var byOrg: [OrgID: Usage] = [:]
    private var total = 0.0
    private var habits = 0.0
    private var startedAt: MonotonicTime?
    private var fadedAt: MonotonicTime?

    var count: Int { byOrg.count }

    mutating func fade(now: MonotonicTime) {
        guard let started = startedAt, let last = fadedAt else {
            (startedAt, fadedAt) = (now, now)
            return
        }
        let seconds = now.seconds(since: last)
        guard seconds >= Self.fadeIntervalSeconds else { return }
        fadedAt = now
        let age = now.seconds(since: started)
        let rest = exp(-seconds / Self.fadeSeconds)
        // The sum of what has faded says how much a second only once as much time has passed.
        let window = Self.fadeSeconds * (1 - exp(-age / Self.fadeSeconds))
        let isLearning = age < Self.learningSeconds
        let weight = 1 - exp(-seconds / Self.habitSeconds)
        let usual = byOrg.isEmpty ? 0 : habits / Double(byOrg.count)
        byOrg = byOrg.compactMapValues { usage in
            var usage = usage
            let rate = usage.recent / window
            let most = isLearning ? rate : Self.habitGrowth * max(usage.habit, usual)
            usage.habit += weight * (min(rate, most) - usage.habit)
            usage.recent *= rest
            return usage.recent < Self.least && usage.habit * Self.habitSeconds < Self.least ? nil : usage
        }
        sum()
    }

    mutating func add(_ org: OrgID, cost: Double) {
        byOrg[org, default: Usage()].recent += cost
        total += cost
        if byOrg.count > Self.orgsMax { forgetLeast() }
    }

    func isBeyondOthers(_ org: OrgID) -> Bool {
        guard let own = byOrg[org], byOrg.count > 1 else { return false }
        let others = total - own.recent
        let count = Double(byOrg.count - 1)
        guard others >= Self.othersShareMin * total, own.recent > Self.beyondMultiple * others / count else {
            return false
        }
        // A newcomer is measured by what the others usually have.
        let usual = max(own.habit, (habits - own.habit) / count)
        return own.recent > Self.habitMultiple * usual * Self.fadeSeconds
    }

    private mutating func sum() {
        total = byOrg.values.reduce(0) { $0 + $1.recent }
        habits = byOrg.values.reduce(0) { $0 + $1.habit }
    }

    /// Half of them at a time, so that it is seldom.
    private mutating func forgetLeast() {
        func size(_ usage: Usage) -> Double { usage.recent + usage.habit * Self.habitSeconds }
        let kept = byOrg.sorted { (size($0.value), $1.key) > (size($1.value), $0.key) }.prefix(Self.orgsMax / 2)
        byOrg = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
        sum()
    }
}

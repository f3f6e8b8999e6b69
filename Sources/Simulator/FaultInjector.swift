import Domain

/// The faults that one request meets. Where several rules of a kind apply, the first in the plan wins.
struct RequestFaults: Equatable {
    static let none = RequestFaults()

    var refuse = false
    var loading = false
    var status: Int?
    var firstToken: Duration?
    var dieAfterTokens: Int?
    var stallAfterTokens: Int?
    var badJSON = false
    var close = false
    var usagePercent: Int?
    var noUsage = false
    var noDone = false
    var overrunTokens: Int?
}

/// Applies a ``FaultPlan`` to requests in the order of their arrival: counts, draws and dates them. Pure; the only state
/// is since when the plan stands, how many requests it has seen, and the generator for `@p`.
struct FaultInjector {
    let plan: FaultPlan
    private let since: MonotonicTime
    private var requests = 0
    private var generator: SplitMix64

    init(plan: FaultPlan, since: MonotonicTime, seed: UInt64) {
        self.plan = plan
        self.since = since
        generator = SplitMix64(seed: seed)
    }

    /// - Returns: What this inference request meets; it counts for `@every` and `@after`.
    mutating func requestArrived(at now: MonotonicTime) -> RequestFaults {
        guard !plan.rules.isEmpty else { return .none }
        requests += 1
        var faults = RequestFaults.none
        for rule in plan.rules where triggers(rule.trigger) { apply(rule.kind, to: &faults, at: now) }
        return faults
    }

    /// What health checks, metrics and lists meet: only a node that refuses or loads altogether fails them, and they
    /// never count, so that probes in between do not shift which request a rule hits.
    func probeArrived(at now: MonotonicTime) -> RequestFaults {
        var faults = RequestFaults.none
        for rule in plan.rules where rule.trigger == .always {
            switch rule.kind {
            case .refuse, .loading: apply(rule.kind, to: &faults, at: now)
            default: break
            }
        }
        return faults
    }

    private mutating func triggers(_ trigger: FaultPlan.Trigger) -> Bool {
        switch trigger {
        case .always: true
        case .every(let number): requests.isMultiple(of: number)
        case .after(let number): requests > number
        case .probability(let probability): generator.unit() < probability
        }
    }

    private func apply(_ kind: FaultPlan.Kind, to faults: inout RequestFaults, at now: MonotonicTime) {
        switch kind {
        case .refuse: faults.refuse = true
        case .status(let status): faults.status = faults.status ?? status
        case .loading(let duration): faults.loading = faults.loading || now < since.advanced(by: duration)
        case .firstToken(let delay): faults.firstToken = faults.firstToken ?? delay
        case .die(let tokens): faults.dieAfterTokens = faults.dieAfterTokens ?? tokens
        case .stall(let tokens): faults.stallAfterTokens = faults.stallAfterTokens ?? tokens
        case .badJSON: faults.badJSON = true
        case .close: faults.close = true
        case .usage(let percent): faults.usagePercent = faults.usagePercent ?? percent
        case .noUsage: faults.noUsage = true
        case .noDone: faults.noDone = true
        case .overrun(let tokens): faults.overrunTokens = faults.overrunTokens ?? tokens
        }
    }
}

import Domain

/// Requests that wait in the gateway while the fleet is saturated, rather than pile up on some node.
///
/// Three rules, one above the other. A class goes before the classes below it. Within a class orgs take turns by deficit
/// round robin (Shreedhar and Varghese 1995), charged in work and not in requests: each turn gives an org
/// ``quantum`` tokens, and what it does not use it keeps for the next, so that over time all who wait get the same.
/// Within an org the earliest deadline goes first.
///
/// Bounded in number and bytes. When it is full an org that holds more than its even share is refused; another takes
/// the place of the last request of whoever holds the most in the lowest class. Nobody waits in vain: who would be
/// served after his deadline is refused at once, and told when it would be worth coming back.
///
/// Pure: the caller says how long the least busy node is behind (``Router/leastWaitSeconds(for:now:)``) and does what is
/// decided.
package struct AdmissionQueue: Sendable {
    /// What one turn gives at most, in tokens of work: a few ordinary requests. Where those that wait are smaller, a turn
    /// gives what one of them costs in the mean, or an org with many small ones would have hundreds of them in a turn.
    package static let quantum = 32_768.0
    /// An output token keeps a node about as busy as two of prompt.
    package static let outputTokenCost = 2.0
    /// No request is charged more, whatever it claims.
    package static let costMax = 1e8
    package static let retryAfterSecondsMax = 3_600
    private static let rateWeight = 0.2
    private static let rateIntervalSeconds = 0.5

    package var limits: AdmissionLimits
    private var classes: [ClassQueue]
    private var places = AdmissionPlaces()
    /// What each org has in flight, of those that have something.
    private var inflight: [OrgID: Double] = [:]
    private var inflightTotal = 0.0
    /// What each org was let through with of late, of those that were.
    private var usage = RecentUsage()
    package private(set) var bytes = 0
    // How fast cost leaves for the nodes while something waits.
    private var rate: Double
    private var rateSince: MonotonicTime?
    private var rateCost = 0.0
    private var hopelessNext = 0

    /// - Parameter costPerSecond: What the fleet may be expected to take, until it has been seen.
    package init(limits: AdmissionLimits = AdmissionLimits(), costPerSecond: Double = 10_000) {
        self.limits = limits
        self.rate = costPerSecond.isFinite ? max(1, costPerSecond) : 1
        self.classes = AdmissionClass.allCases.map { _ in ClassQueue() }
    }

    /// What a request is charged.
    ///
    /// - Parameter work: New prompt tokens, weighted for attention: ``Attempt/work``, or the prompt where unknown.
    package static func cost(work: Double, expectedOutputTokens: Int) -> Double {
        let cost = work + outputTokenCost * Double(max(0, expectedOutputTokens))
        return cost.isFinite ? min(max(1, cost), costMax) : costMax
    }

    package var count: Int { places.count }
    package var isEmpty: Bool { places.count == 0 }
    /// Nobody waits, and nothing that was let in is still on its way.
    package var isIdle: Bool { isEmpty && inflight.isEmpty }

    // MARK: Events

    /// Whether a request that came need not wait: ``began(_:cost:now:)`` is next then, once it is known what it costs.
    ///
    /// - Parameters:
    ///   - leastWaitSeconds: How long the least busy node that could take it is behind; infinite where none can.
    ///   - meanWaitSeconds: How busy they are in the mean (``Router/meanWaitSeconds(for:stepSecondsMax:now:)``): tells when
    ///     orgs beyond their share have to wait. Asked only of such.
    package mutating func letsThrough(
        _ request: AdmissionRequest, leastWaitSeconds: Double, meanWaitSeconds: () -> Double, now: MonotonicTime
    ) -> Bool {
        usage.fade(now: now)
        guard leastWaitSeconds < limits.waitSecondsMax else { return false }
        let mayGo =
            !Self.isBeyondShare(request.org, inflight, inflightTotal, usage)
            || meanWaitSeconds() < limits.shareWaitSeconds
        guard mayGo else { return false }
        // Nobody waits, nearly always.
        if isEmpty { return true }
        let ahead = classes[...request.priority.rawValue]
        return !ahead.contains { $0.hasWork(of: request.org) } && !isOvertaking(request)
    }

    /// A request that may not go yet joins those that wait, if there is room for it.
    package mutating func enqueued(_ request: AdmissionRequest, now: MonotonicTime) -> AdmissionDecision {
        var request = request
        request.cost = Self.cost(work: request.cost, expectedOutputTokens: 0)
        request.bytes = max(0, request.bytes)
        let wait = waitSeconds(for: request, now: now)
        let patience = request.deadline.seconds(since: now)
        guard wait <= patience else {
            return .reject(retryAfterSeconds: Self.retryAfter(wait - patience), evicted: [])
        }
        let (fits, evicted) = makeRoom(for: request)
        guard fits else { return .reject(retryAfterSeconds: Self.retryAfter(wait), evicted: evicted) }
        if rateSince == nil { (rateSince, rateCost) = (now, 0) }
        let ticket = places.insert(request)
        classes[request.priority.rawValue].insert(ticket.index, &places)
        bytes += request.bytes
        return .wait(AdmissionTicket(value: ticket.value), evicted: evicted)
    }

    /// Whose turn it is; nil while nobody's who may go. It counts as in flight from here on.
    ///
    /// - Parameters: As of ``letsThrough(_:leastWaitSeconds:meanWaitSeconds:now:)``, over all nodes.
    package mutating func next(
        leastWaitSeconds: Double, meanWaitSeconds: () -> Double, now: MonotonicTime
    ) -> (ticket: AdmissionTicket, request: AdmissionRequest)? {
        guard leastWaitSeconds < limits.waitSecondsMax, !isEmpty else { return nil }
        usage.fade(now: now)
        var mean: Double?
        func isTight() -> Bool {
            let known = mean ?? meanWaitSeconds()
            mean = known
            return known >= limits.shareWaitSeconds
        }
        for priority in classes.indices {
            let (inflight, total, usage) = (inflight, inflightTotal, usage)
            let taken = classes[priority].next(&places) { org in
                !Self.isBeyondShare(org, inflight, total, usage) || !isTight()
            }
            guard let taken else { continue }
            let value = places.value(of: taken)
            guard let request = places.remove(taken) else { continue }
            bytes -= request.bytes
            began(request.org, cost: request.cost, now: now)
            // Or the time until somebody waits again would count as time in which nothing could leave.
            if isEmpty { rateSince = nil }
            return (AdmissionTicket(value: value), request)
        }
        return nil
    }

    /// The same where nothing is known of the mean: the least stands for it.
    package mutating func next(
        leastWaitSeconds: Double, now: MonotonicTime
    ) -> (ticket: AdmissionTicket, request: AdmissionRequest)? {
        next(leastWaitSeconds: leastWaitSeconds, meanWaitSeconds: { leastWaitSeconds }, now: now)
    }

    /// A client left, or the caller gives the request up: forgotten at once. One that is over is ignored.
    package mutating func left(_ ticket: AdmissionTicket) {
        guard let index = places.index(of: ticket.value) else { return }
        drop(index)
    }

    /// Those whose deadline has passed, forgotten; each is to be refused.
    package mutating func expired(now: MonotonicTime) -> [AdmissionTicket] {
        var tickets: [AdmissionTicket] = []
        for priority in classes.indices {
            while let index = classes[priority].earliestPast(now, places) {
                tickets.append(AdmissionTicket(value: places.value(of: index)))
                drop(index)
            }
        }
        return tickets
    }

    /// A dispatched request is over.
    package mutating func ended(_ org: OrgID, cost: Double) {
        let cost = Self.cost(work: cost, expectedOutputTokens: 0)
        guard let held = inflight[org] else { return }
        let rest = held - cost
        // Fractions drift: what is left of less than a token is nothing.
        inflight[org] = rest < 0.5 ? nil : rest
        inflightTotal = inflight.isEmpty ? 0 : inflightTotal - (held - max(0, rest < 0.5 ? 0 : rest))
    }

    // MARK: What is predicted

    /// How long a request would wait now.
    package func waitSeconds(for request: AdmissionRequest, now: MonotonicTime) -> Double {
        let own = classes[request.priority.rawValue].costBefore(request, places)
        var ahead = own
        for priority in classes.indices where priority <= request.priority.rawValue {
            ahead +=
                priority < request.priority.rawValue
                ? classes[priority].cost
                : classes[priority].costOfOthers(than: request.org, upTo: own + request.cost)
        }
        return ahead / rate(now: now)
    }

    /// What leaves in a second: what was seen to, and no more than could have since it was last seen, were all that is
    /// with the nodes to leave just now. So nodes that stand still are noticed while they do.
    private func rate(now: MonotonicTime) -> Double {
        guard let rateSince, inflightTotal > 0 else { return max(1, rate) }
        let seconds = max(Self.rateIntervalSeconds, now.seconds(since: rateSince))
        return max(1, min(rate, (rateCost + inflightTotal) / seconds))
    }

    /// How long requests are with the nodes now, in the mean: with what is there, that tells what leaves in a second
    /// (Little's law). For when somebody begins to wait, and nothing has been seen to leave yet.
    package mutating func serviceTakes(seconds: Double) {
        guard isEmpty, seconds > 0, inflightTotal > 0 else { return }
        rate = max(1, inflightTotal / seconds)
    }

    /// When it would be worth coming back, for one that does not wait any longer.
    package func retryAfterSeconds(for request: AdmissionRequest, patienceSeconds: Double, now: MonotonicTime) -> Int {
        Self.retryAfter(waitSeconds(for: request, now: now) - patienceSeconds)
    }

    private static func retryAfter(_ seconds: Double) -> Int {
        seconds.isFinite ? max(1, min(retryAfterSecondsMax, Int(seconds.rounded(.up)))) : retryAfterSecondsMax
    }

    // MARK: Inside

    /// Whether an org has far more in flight than the others have in the mean, and has had more than they of late: one
    /// that asks for a lot at once, once, is not beyond its share.
    private static func isBeyondShare(
        _ org: OrgID, _ inflight: [OrgID: Double], _ total: Double, _ usage: RecentUsage
    ) -> Bool {
        guard let own = inflight[org], inflight.count > 1 else { return false }
        let others = (total - own) / Double(inflight.count - 1)
        return own > AdmissionLimits.shareMultiple * others && usage.isBeyondOthers(org)
    }

    /// Whether others who may go now wait already: those beyond their share may not, and nobody waits for them.
    private func isOvertaking(_ request: AdmissionRequest) -> Bool {
        let (inflight, total, usage) = (inflight, inflightTotal, usage)
        return classes[...request.priority.rawValue].contains { queue in
            queue.hasOrg { !Self.isBeyondShare($0, inflight, total, usage) }
        }
    }

    /// A request of the org goes to a node. It counts as in flight until ``ended(_:cost:)``.
    package mutating func began(_ org: OrgID, cost: Double, now: MonotonicTime) {
        let cost = Self.cost(work: cost, expectedOutputTokens: 0)
        inflight[org, default: 0] += cost
        inflightTotal += cost
        usage.add(org, cost: cost)
        guard let since = rateSince else { return }
        rateCost += cost
        let seconds = now.seconds(since: since)
        guard seconds >= Self.rateIntervalSeconds else { return }
        rate += Self.rateWeight * (rateCost / seconds - rate)
        (rateSince, rateCost) = (isEmpty ? nil : now, 0)
    }

    private mutating func drop(_ index: Int) {
        guard let request = places[index] else { return }
        classes[request.priority.rawValue].remove(index, &places)
        _ = places.remove(index)
        bytes -= request.bytes
        if isEmpty { rateSince = nil }
    }

    /// Those that wait in vain as things stand: the last of an org, while it would be served after its deadline. Forgotten;
    /// each is to be refused, when it would have been served later than its deadline by so much.
    ///
    /// Looks at ``hopelessOrgsMax`` orgs of each class at a time, the next ones at the next call.
    package mutating func hopeless(now: MonotonicTime) -> [(ticket: AdmissionTicket, retryAfterSeconds: Int)] {
        var found: [(ticket: AdmissionTicket, retryAfterSeconds: Int)] = []
        for priority in classes.indices {
            let orgs = classes[priority].waiting
            for offset in 0..<min(orgs.count, Self.hopelessOrgsMax) {
                let org = orgs[(hopelessNext + offset) % orgs.count]
                for _ in 0..<Self.hopelessDropsMax {
                    guard let index = classes[priority].last(of: org, places), let request = places[index] else {
                        break
                    }
                    // Its own cost is among what is ahead of it, once it is in the queue.
                    let late =
                        waitSeconds(for: request, now: now) - request.cost / rate(now: now)
                        - request.deadline.seconds(since: now)
                    guard late > Self.hopelessSeconds else { break }
                    found.append((AdmissionTicket(value: places.value(of: index)), Self.retryAfter(late)))
                    drop(index)
                }
            }
        }
        hopelessNext = (hopelessNext + Self.hopelessOrgsMax) % (1 << 20)
        return found
    }

    /// Each costs a walk over all orgs that wait.
    private static let hopelessOrgsMax = 16
    /// Of one org at a time: each costs a walk over all that it has waiting.
    private static let hopelessDropsMax = 32
    /// A prediction errs by this much without anybody being refused who was let in.
    private static let hopelessSeconds = 1.0

    /// Makes way for a request of another queue, with which this one shares its bounds: as for one of its own.
    package mutating func giveWay(to request: AdmissionRequest) -> AdmissionTicket? {
        guard let index = victim(for: request) else { return nil }
        let ticket = AdmissionTicket(value: places.value(of: index))
        drop(index)
        return ticket
    }

    private mutating func makeRoom(for request: AdmissionRequest) -> (fits: Bool, evicted: [AdmissionTicket]) {
        var evicted: [AdmissionTicket] = []
        guard request.bytes <= limits.bytesMax else { return (false, evicted) }
        while count >= limits.requestsMax || bytes + request.bytes > limits.bytesMax {
            guard let index = victim(for: request) else { return (false, evicted) }
            evicted.append(AdmissionTicket(value: places.value(of: index)))
            drop(index)
        }
        return (true, evicted)
    }

    /// The last of the org that holds the most in the lowest class, if the newcomer's org holds less or stands above.
    private func victim(for request: AdmissionRequest) -> Int? {
        for priority in classes.indices.reversed() where priority >= request.priority.rawValue {
            guard let largest = classes[priority].largest() else { continue }
            if priority > request.priority.rawValue { return classes[priority].last(of: largest.org, places) }
            let own = classes[priority].cost(of: request.org) + request.cost
            guard largest.org != request.org, largest.cost > own else { return nil }
            return classes[priority].last(of: largest.org, places)
        }
        return nil
    }
}

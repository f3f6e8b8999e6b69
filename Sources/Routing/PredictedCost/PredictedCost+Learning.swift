import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// What the policy learns from its requests, and how it keeps its table.
extension PredictedCost {
    mutating func fleetChanged(count: Int, renewed: [Int], loads: Span<NodeLoad>, now: MonotonicTime) {
        while estimates.count > count { estimates.removeLast() }
        while estimates.count < count { estimates.append(NodeEstimate()) }
        fleetMeans.resize(to: count)
        resize(to: count)
        let newcomers = Set(renewed)
        for node in renewed {
            estimates[node] = newcomer(loads[node].speedClass, beside: loads, except: newcomers)
            rendezvous.set(node, identity: 0, weight: 0)
        }
        for node in 0..<count {
            estimates[node].speedClass = loads[node].speedClass
            update(node, load: loads[node], now: now)
        }
    }

    /// A node of a class that is known starts at half of its median rate; of one that is not, at a middling rate.
    private func newcomer(
        _ speedClass: UInt64, beside loads: Span<NodeLoad>, except newcomers: Set<Int>
    ) -> NodeEstimate {
        var estimate = NodeEstimate()
        var ofClass: [Double] = []
        for node in estimates.indices where !newcomers.contains(node) && estimates[node].rate.samples > 0 {
            estimate.isStarting = true
            if loads[node].speedClass == speedClass { ofClass.append(estimates[node].rate.tokensPerSecond) }
        }
        ofClass.sort()
        if !ofClass.isEmpty { estimate.rate = PrefillRate(prior: ofClass[ofClass.count / 2]) }
        return estimate
    }

    mutating func placed(_ attempt: inout Attempt, load: NodeLoad, now: MonotonicTime) {
        let node = attempt.nodeIndex
        let cached = Double(attempt.promptTokens - attempt.newTokens)
        attempt.work = Self.work(
            newTokens: Double(attempt.newTokens), cachedTokens: cached, attempt.attentionTokens)
        let waiting = Double(table.wait(node, nowMilliseconds: Self.milliseconds(now)))
        let rate = estimates[node].tokensPerSecond
        attempt.workAhead = waiting * rate
        attempt.predictedSeconds =
            Double(load.rttNanoseconds) / 1e9 + waiting + attempt.work / rate + Double(table.rows[node].step)
        attempt.hintSlot = hintSlot(node, promptTokens: attempt.promptTokens).map { Int8($0) }
        estimates[node].placedLast = now
    }

    /// A prompt was placed where the end of what is cached of it had last been used so long ago.
    mutating func reused(after seconds: Double) {
        reuseSeconds += 0.01 * (seconds - reuseSeconds)
    }

    mutating func firstToken(_ attempt: Attempt, load: NodeLoad, now: MonotonicTime) {
        estimates[attempt.nodeIndex].answeredOne()
        if let cached = attempt.cachedTokens { learn(attempt, cachedTokens: cached, load: load) }
    }

    mutating func completed(_ attempt: Attempt, usage: TokenUsage?, load: NodeLoad, now: MonotonicTime) {
        guard let firstTokenAt = attempt.firstTokenAt else {
            // It came whole. Nothing is known but that the node gave it: slow start has seen enough.
            estimates[attempt.nodeIndex].isStarting = false
            return
        }
        if attempt.cachedTokens == nil { learn(attempt, cachedTokens: usage?.cachedTokens, load: load) }
        guard estimates[attempt.nodeIndex].isTelling(attempt) else { return }
        let decoding = Double(max(0, load.requests))
        estimates[attempt.nodeIndex].step.learn(
            tokens: usage?.completionTokens ?? 0, seconds: now.seconds(since: firstTokenAt), decoding: decoding)
    }

    /// - Parameter cachedTokens: As the node said; nil where it does not say, and what we believed must do.
    private mutating func learn(_ attempt: Attempt, cachedTokens: Int?, load: NodeLoad) {
        guard let firstTokenAt = attempt.firstTokenAt else { return }
        let node = attempt.nodeIndex
        let believed = attempt.promptTokens - attempt.newTokens
        let cached = min(max(0, cachedTokens ?? believed), attempt.promptTokens - 1)
        if let slot = attempt.hintSlot, cachedTokens != nil {
            hint.learn(
                Int(slot), promptTokens: attempt.promptTokens, believedTokens: believed, cachedTokens: cached)
        }
        let seconds =
            firstTokenAt.seconds(since: attempt.sentAt) - Double(load.rttNanoseconds) / 1e9
            - estimates[node].step.seconds
        guard estimates[node].isTelling(attempt) else { return }
        guard attempt.workAhead + attempt.work > PrefillRate.workMin else { return }
        let done = Self.work(
            newTokens: Double(attempt.promptTokens - cached), cachedTokens: Double(cached), attempt.attentionTokens)
        estimates[node].rate.learn(work: attempt.workAhead + done, seconds: seconds)
        estimates[node].sampledLast = firstTokenAt
        teachClass(of: node, now: firstTokenAt)
    }

    /// Nodes of a class are equally fast: those that were never measured, or not for long, are taken for what the
    /// measured one is, or a fleet with little to do would know one node and ask no other.
    private mutating func teachClass(of teacher: Int, now: MonotonicTime) {
        let samples = estimates[teacher].rate.samples
        guard samples <= NodeEstimate.startSamples || samples.isMultiple(of: 16) else { return }
        for node in estimates.indices where node != teacher {
            guard estimates[node].speedClass == estimates[teacher].speedClass, !estimates[node].isStarting else {
                continue
            }
            let share = estimates[node].powerShare / max(0.01, estimates[teacher].powerShare)
            let rate = estimates[teacher].rate.tokensPerSecond * share
            if estimates[node].rate.samples == 0 {
                estimates[node].rate = PrefillRate(prior: rate)
            } else if let last = estimates[node].sampledLast,
                now.nanoseconds(since: last) > NodeEstimate.staleNanoseconds, samples.isMultiple(of: 16)
            {
                estimates[node].rate.drift(to: rate)
            }
        }
    }

    mutating func loadChanged(_ index: Int, load: NodeLoad, now: MonotonicTime) {
        update(index, load: load, now: now)
    }

    /// Whether the scan may give the node more: not while its slow start holds it back, nor where it will stop.
    func takesMore(_ node: Int) -> Bool { table.rows[node].fixed < CostTable.closed }

    /// How long the node is behind, its decoding considered: see ``Router/leastWaitSeconds(for:stepSecondsMax:now:)``.
    func waitSeconds(_ node: Int, stepSecondsMax: Double, now: MonotonicTime) -> Double {
        let step = Double(table.rows[node].step)
        // A node that is slow when it answers one alone has an objective of its own: no waiting makes it faster.
        let stepSecondsMax = max(stepSecondsMax, 1.5 * estimates[node].step.seconds(decoding: 0))
        guard step <= 2 * stepSecondsMax else { return .infinity }
        let wait = Double(table.wait(node, nowMilliseconds: Self.milliseconds(now)))
        return step > 0.7 * stepSecondsMax ? max(1, wait) : wait
    }

    /// How long the node is behind, as far as others would feel that it has more to do: one that decodes many at once is
    /// behind by ``decodingCounts`` at least.
    func busySeconds(_ node: Int, stepSecondsMax: Double, now: MonotonicTime) -> Double {
        let wait = waitSeconds(node, stepSecondsMax: stepSecondsMax, now: now)
        let isDecoding = Double(table.rows[node].step) > Self.busyStep * estimates[node].step.seconds(decoding: 0)
        return isDecoding ? max(Self.decodingCounts, wait) : wait
    }

    /// As many times the step of a node that answers one alone: with two others, that is.
    private static let busyStep = 1.15
    private static let decodingCounts = 0.2

    /// nil until measured.
    func prefillTokensPerSecond(_ node: Int) -> Double? {
        estimates[node].rate.samples > 0 ? estimates[node].rate.tokensPerSecond : nil
    }

    /// Brings the node's row of the table up to date.
    mutating func update(_ node: Int, load: NodeLoad, now: MonotonicTime) {
        if load.powerShare != estimates[node].powerShare { estimates[node].repowered(to: load.powerShare, now: now) }
        if (load.endsAt != nil) != ending.contains(Int32(node)) {
            if load.endsAt == nil { ending.removeAll { $0 == Int32(node) } } else { ending.append(Int32(node)) }
        }
        let rate = estimates[node].tokensPerSecond
        let rtt = Double(load.rttNanoseconds) / 1e9
        let requests = Double(max(0, load.requests))
        let queued = Int64(load.own.queuedRequests) + Int64(load.peers.queuedRequests)
        let decoding = max(0, requests - Double(queued))
        let isClosed =
            !load.isOpen || load.powerShare <= 0 || load.endsAt != nil || estimates[node].isHeldBack(now: now)
        var row = CostTable.Row()
        row.fixed = isClosed ? CostTable.closed : Float(rtt + load.penaltySeconds(now: now))
        row.step = Float(estimates[node].step.seconds(decoding: decoding))
        row.wait = Float(max(0, load.own.queuedWork + load.peers.queuedWork) / rate)
        row.inverseRate = Float(1 / rate)
        if let head = load.head {
            let arrived = head.sentAt.nanoseconds + load.rttNanoseconds / 2
            let free = load.firstTokenLast.map { $0.nanoseconds - load.rttNanoseconds / 2 } ?? arrived
            row.head = Float(head.work / rate)
            row.headStart = Self.milliseconds(MonotonicTime(nanoseconds: max(arrived, free)))
            let dueAfter = head.predictedSeconds * weights.overdueFactor + weights.overdueSeconds
            let dueAt = head.sentAt.advanced(bySeconds: dueAfter)
            row.due = Self.milliseconds(dueAt)
            row.overdue = Float(weights.overdue)
        }
        var evict = 0.0
        if let tailUsedAt = load.tailUsedAt {
            let age = max(0, now.seconds(since: tailUsedAt))
            evict = weights.evict / (1 + age / max(0.1, reuseSeconds))
        }
        estimates[node].queuedChanged(to: Double(queued), now: now)
        let busy =
            duplicateQueuedHereWeight * estimates[node].usualQueued * rate / max(1, fleetMeans.tokensPerSecond)
        row.slowing = Float(
            weights.decodeSlowing * (1 + weights.decodeSlowingQueued * min(1, usualQueued)) * decoding)
        row.busy = Float(busy)
        row.runFactor = Float(1 + evict + busy) + row.slowing
        let capacity = Double(max(1, load.kvCapacityTokens))
        row.kv = Float(Double(max(0, load.own.kvTokens &+ load.peers.kvTokens)) / capacity)
        row.kvPerToken = Float(1 / capacity)
        table.set(node, row, nowMilliseconds: Self.milliseconds(now))
        fleetMeans.set(node, queued: log1p(Double(max(0, queued))), rate: load.takesRequests ? rate : 0)
        if load.takesRequests {
            rendezvous.set(node, identity: load.identity, weight: Float(load.kvCapacityTokens))
        }
    }
}

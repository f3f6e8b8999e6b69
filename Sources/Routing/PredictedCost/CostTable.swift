/// What each node's next request would cost, in seconds, but for what depends on the request: one column per figure, so
/// that a thousand nodes are scored in a few vector instructions each.
///
///     cost = RTT + penalty
///          + step * (1 + output weight * expected output)
///          + wait                                        what is queued, less what the head has had of the node
///          + run * (1 + slowing * decoding + eviction)   our prefill, those it slows, those it makes come back to nothing
///          + memory                                      (above a share of the KV cache) * (1 + wait + run)
///
/// and for each W of work the same everywhere, the duplicated work. Times are Float32: none is more exact than that.
struct CostTable: Sendable {
    /// Closed: it costs more than any node that is open.
    static let closed = Float.infinity

    /// Nodes that share a bound, so that a group that cannot have the cheapest is passed over.
    static let groupSize = 64

    /// ``fixed`` and how long the node is behind, as of its last refresh.
    var base: ContiguousArray<Float> = []
    /// RTT, penalty; ``closed``.
    var fixed: ContiguousArray<Float> = []
    /// A decode step with this request in the batch.
    var step: ContiguousArray<Float> = []
    /// Queued work, as time.
    var wait: ContiguousArray<Float> = []
    /// The head's part of it, and when the node could start on it, in milliseconds of a clock that wraps.
    var head: ContiguousArray<Float> = []
    var headStart: ContiguousArray<Int32> = []
    /// When the head's first token was due, on the same clock, and what each second since then weighs.
    var due: ContiguousArray<Int32> = []
    var overdue: ContiguousArray<Float> = []
    /// Seconds per token of work.
    var inverseRate: ContiguousArray<Float> = []
    var runFactor: ContiguousArray<Float> = []
    /// Share of the KV cache taken, and what a token takes of it.
    var kv: ContiguousArray<Float> = []
    var kvPerToken: ContiguousArray<Float> = []
    private var bounds: ContiguousArray<Bound> = []

    /// What all nodes see alike of a request.
    struct Request {
        var nowMilliseconds: Int32
        /// Step times that the request is worth: one and a share of its expected output.
        var steps: Float
        /// For each token of work.
        var duplicate: Float
        var expectedOutput: Float
        var kvShareFree: Float
        /// Seconds for the whole KV cache above that.
        var kvPrice: Float
    }

    var count: Int { fixed.count }

    mutating func resize(to count: Int) {
        func fit<Value>(_ column: inout ContiguousArray<Value>, _ value: Value, _ length: Int? = nil) {
            let count = length ?? count
            if column.count > count { column.removeLast(column.count - count) }
            while column.count < count { column.append(value) }
        }
        fit(&base, Self.closed)
        fit(&fixed, Self.closed)
        fit(&step, 0)
        fit(&wait, 0)
        fit(&head, 0)
        fit(&headStart, 0)
        fit(&due, 0)
        fit(&overdue, 0)
        fit(&inverseRate, 0)
        fit(&runFactor, 1)
        fit(&kv, 0)
        fit(&kvPerToken, 0)
        fit(&bounds, Bound(), (count + Self.groupSize - 1) / Self.groupSize)
    }

    /// Seconds until the node would begin on a new request.
    @inline(__always)
    func wait(_ node: Int, nowMilliseconds: Int32) -> Float {
        // A clock that wraps or a start in the future gives a negative time: no credit.
        let since = Float(max(0, nowMilliseconds &- headStart[node])) * 0.001
        let served = head[node] < since ? head[node] : since
        let late = Float(max(0, nowMilliseconds &- due[node])) * 0.001 * overdue[node]
        return max(0, wait[node] - served) + late
    }

    /// - Parameters:
    ///   - work: Of this request on this node.
    ///   - newTokens: What it adds to the node's cache.
    @inline(__always)
    func cost(_ node: Int, work: Float, newTokens: Float, _ request: Request) -> Float {
        fixed[node] + costBeyondFixed(node, work: work, newTokens: newTokens, request)
    }

    @inline(__always)
    func costBeyondFixed(_ node: Int, work: Float, newTokens: Float, _ request: Request) -> Float {
        let wait = wait(node, nowMilliseconds: request.nowMilliseconds)
        let run = work * inverseRate[node]
        let above = kv[node] + (newTokens + request.expectedOutput) * kvPerToken[node] - request.kvShareFree
        let memory = (above > 0 ? above : 0) * request.kvPrice * (1 + wait + run)
        return step[node] * request.steps + wait + run * runFactor[node] + work * request.duplicate + memory
    }

    // MARK: Groups

    /// Below what no node of a group can be, column by column. A bound may be too low, never too high.
    struct Bound: Sendable {
        var base = closed
        var step = Float(0)
        var inverseRate = Float(0)
        var runFactor = Float(1)
    }

    var groupCount: Int { bounds.count }

    /// No node of the group costs less for a request that finds nothing cached.
    func bound(_ group: Int, work: Float, _ request: Request) -> Float {
        let bound = bounds[group]
        return bound.base + bound.step * request.steps + work * bound.inverseRate * bound.runFactor
            + work * request.duplicate
    }

    /// Brings up to date what only time changes of one group: how long its nodes are behind.
    mutating func refresh(group: Int, nowMilliseconds: Int32) {
        // Taken out while it is written to, since the spans of the others hold the table; nothing is copied.
        var base: ContiguousArray<Float> = []
        swap(&base, &self.base)
        let bound = rebase(group, nowMilliseconds: nowMilliseconds, into: &base)
        swap(&base, &self.base)
        bounds[group] = bound
    }

    private func rebase(_ group: Int, nowMilliseconds: Int32, into base: inout ContiguousArray<Float>) -> Bound {
        let start = group * Self.groupSize
        let end = min(start + Self.groupSize, count)
        let (fixed, step, wait, head) = (fixed.span, step.span, wait.span, head.span)
        let (headStart, due, overdue) = (headStart.span, due.span, overdue.span)
        let (inverseRate, runFactor) = (inverseRate.span, runFactor.span)
        precondition(
            base.count >= end && fixed.count >= end && step.count >= end && wait.count >= end && head.count >= end
                && headStart.count >= end && due.count >= end && overdue.count >= end && inverseRate.count >= end
                && runFactor.count >= end)
        var base = base.mutableSpan
        // None of the figures is negative, so their bits order as they do; integers have a minimum that vectorizes.
        let most = Int32(bitPattern: Self.closed.bitPattern)
        var (leastBase, leastStep, leastRate, leastFactor) = (most, most, most, most)
        for node in start..<end {
            // SAFETY: below `end`, which no column is shorter than, as just checked; a check per lane would forbid
            // vectors.
            let ticks = nowMilliseconds &- headStart[unchecked: node]
            let since = Float(ticks > 0 ? ticks : 0) * 0.001
            let all = head[unchecked: node]
            let rest = wait[unchecked: node] - (all < since ? all : since)
            let past = nowMilliseconds &- due[unchecked: node]
            let late = Float(past > 0 ? past : 0) * 0.001 * overdue[unchecked: node]
            let behind = fixed[unchecked: node] + (rest > 0 ? rest : 0) + late
            base[unchecked: node] = behind
            leastBase = min(leastBase, Int32(bitPattern: behind.bitPattern))
            leastStep = min(leastStep, Int32(bitPattern: step[unchecked: node].bitPattern))
            leastRate = min(leastRate, Int32(bitPattern: inverseRate[unchecked: node].bitPattern))
            leastFactor = min(leastFactor, Int32(bitPattern: runFactor[unchecked: node].bitPattern))
        }
        return Bound(
            base: Self.float(leastBase), step: Self.float(leastStep), inverseRate: Self.float(leastRate),
            runFactor: Self.float(leastFactor))
    }

    private static func float(_ bits: Int32) -> Float { Float(bitPattern: UInt32(bitPattern: bits)) }

    /// The node's row changed.
    mutating func refresh(_ node: Int, nowMilliseconds: Int32) {
        base[node] = fixed[node] + wait(node, nowMilliseconds: nowMilliseconds)
        let group = node / Self.groupSize
        bounds[group].base = min(bounds[group].base, base[node])
        bounds[group].step = min(bounds[group].step, step[node])
        bounds[group].inverseRate = min(bounds[group].inverseRate, inverseRate[node])
        bounds[group].runFactor = min(bounds[group].runFactor, runFactor[node])
    }

    /// Writes what the same work would cost on each node of a group, by ``base`` as it was refreshed last.
    ///
    /// - Returns: The least of them.
    func costs(
        group: Int, work: Float, newTokens: Float, _ request: Request, into costs: inout ContiguousArray<Float>
    ) -> Float {
        let start = group * Self.groupSize
        let end = min(start + Self.groupSize, count)
        let added = newTokens + request.expectedOutput
        let duplicate = work * request.duplicate
        let (base, step, inverseRate, runFactor) = (base.span, step.span, inverseRate.span, runFactor.span)
        let (kv, kvPerToken) = (kv.span, kvPerToken.span)
        precondition(
            costs.count >= end && base.count >= end && step.count >= end && inverseRate.count >= end
                && runFactor.count >= end && kv.count >= end && kvPerToken.count >= end)
        var costs = costs.mutableSpan
        var least = Int32(bitPattern: Self.closed.bitPattern)
        for node in start..<end {
            // SAFETY: as in ``refresh(group:nowMilliseconds:)``.
            let run = work * inverseRate[unchecked: node]
            let above = kv[unchecked: node] + added * kvPerToken[unchecked: node] - request.kvShareFree
            let behind = base[unchecked: node]
            let memory = (above > 0 ? above : 0) * request.kvPrice * (1 + behind + run)
            let cost =
                behind + step[unchecked: node] * request.steps + run * runFactor[unchecked: node] + duplicate + memory
            costs[unchecked: node] = cost
            least = min(least, Int32(bitPattern: cost.bitPattern))
        }
        return Self.float(least)
    }
}

/// What each node's next request would cost, in seconds, but for what depends on the request.
///
///     cost = RTT + penalty
///          + step * (1 + output weight * expected output)
///          + wait                                        what is queued, less what the head has had of the node
///          + run * (1 + slowing * decoding + eviction    our prefill, those it slows, those it makes come back to nothing
///                     + busy)                            and those that usually wait on this node
///          + memory                                      (above a share of the KV cache) * (1 + wait + run)
///
/// and for each W of work the same everywhere, the duplicated work. Times are Float32: none is more exact than that.
///
/// Kept twice. ``rows`` has all of one node together: what a node costs that is looked at by itself, exactly and now.
/// ``lanes`` has the three figures that a scan of all nodes reads, of eight nodes side by side: a product and a sum for
/// each, twelve bytes a node, so that a thousand nodes take some 150 steps of vectors and fit the innermost cache. There
/// a node is as far behind as it was when the row changed or its group was refreshed. Without memory a cost is too low
/// or right: memory is read only for the few lanes that could still hold the cheapest.
struct CostTable: Sendable {
    /// Closed: it costs more than any node that is open.
    static let closed = Float.infinity

    /// Nodes that share a bound, so that a group that cannot have the cheapest is passed over.
    static let groupSize = 64
    /// Nodes side by side.
    static let laneWidth = 8
    private static let groupLanes = groupSize / laneWidth
    typealias Lane = SIMD8<Float>

    /// One node.
    struct Row: Sendable {
        /// RTT, penalty; ``closed``.
        var fixed = closed
        /// A decode step with this request in the batch.
        var step = Float(0)
        /// Queued work, as time.
        var wait = Float(0)
        /// The head's part of it, and when the node could start on it, in milliseconds of a clock that wraps.
        var head = Float(0)
        var headStart = Int32(0)
        /// When the head's first token was due, on the same clock, and what each second since then weighs.
        var due = Int32(0)
        var overdue = Float(0)
        /// Seconds per token of work.
        var inverseRate = Float(0)
        var runFactor = Float(1)
        /// Of it, what slowed decoding makes, and the requests that usually wait here.
        var slowing = Float(0)
        var busy = Float(0)
        /// Share of the KV cache taken, and what a token takes of it.
        var kv = Float(0)
        var kvPerToken = Float(0)

        /// Seconds until the node would begin on a new request.
        @inline(__always)
        func wait(nowMilliseconds: Int32) -> Float {
            // A clock that wraps or a start in the future gives a negative time: no credit.
            let since = Float(max(0, nowMilliseconds &- headStart)) * 0.001
            let rest = wait - (head < since ? head : since)
            return (rest > 0 ? rest : 0) + Float(max(0, nowMilliseconds &- due)) * 0.001 * overdue
        }
    }

    /// What the scan reads of eight nodes.
    private struct Lanes: Sendable {
        /// What is due before any work: fixed, and how long the node is behind.
        var base = Lane(repeating: closed)
        var step = Lane.zero
        /// Seconds per token of work, those it slows and evicts included.
        var run = Lane.zero

        /// Memory and duplicated work left out.
        @inline(__always)
        func lowest(_ steps: Lane, _ works: Lane) -> Lane { base + step * steps + run * works }
    }

    /// What it reads besides of the few.
    private struct MemoryLanes: Sendable {
        /// The part of the base that is no wait.
        var fixed = Lane.zero
        var kv = Lane.zero
        var kvPerToken = Lane.zero
        var inverseRate = Lane.zero
    }

    /// What no node of a group is below. May be too low by a change since the last refresh: then a group is looked at in
    /// vain.
    private struct Bound: Sendable {
        var base = closed
        var step = Float(0)
        var run = Float(0)
    }

    /// What all nodes see alike of a request.
    struct Request {
        var nowMilliseconds: Int32
        /// Step times that the request is worth: one and a share of its expected output.
        var steps: Float
        /// For each token of work.
        var duplicate: Float
        /// The part of it that counts where more waits than the fleet can do: saved by what is known to be cached alone.
        var overload: Float
        var expectedOutput: Float
        var kvShareFree: Float
        /// Seconds for the whole KV cache above that.
        var kvPrice: Float
    }

    /// Whole groups of them, those beyond ``count`` closed.
    private(set) var rows: ContiguousArray<Row> = []
    private var lanes: ContiguousArray<Lanes> = []
    private var memory: ContiguousArray<MemoryLanes> = []
    private var bounds: ContiguousArray<Bound> = []
    private(set) var count = 0

    var groupCount: Int { bounds.count }

    mutating func resize(to count: Int) {
        let groups = (count + Self.groupSize - 1) / Self.groupSize
        for node in min(count, self.count)..<self.count { set(node, Row(), nowMilliseconds: 0) }
        rows.fit(count: groups * Self.groupSize, Row())
        lanes.fit(count: groups * Self.groupLanes, Lanes())
        memory.fit(count: groups * Self.groupLanes, MemoryLanes())
        bounds.fit(count: groups, Bound())
        self.count = count
    }

    // MARK: One node

    mutating func set(_ node: Int, _ row: Row, nowMilliseconds: Int32) {
        rows[node] = row
        let (place, lane) = (node / Self.laneWidth, node % Self.laneWidth)
        let base = row.fixed + row.wait(nowMilliseconds: nowMilliseconds)
        let run = row.inverseRate * row.runFactor
        lanes[place].base[lane] = base
        lanes[place].step[lane] = row.step
        lanes[place].run[lane] = run
        memory[place].fixed[lane] = row.fixed
        memory[place].kv[lane] = row.kv
        memory[place].kvPerToken[lane] = row.kvPerToken
        memory[place].inverseRate[lane] = row.inverseRate
        var bound = bounds[node / Self.groupSize]
        bound.base = min(bound.base, base)
        bound.step = min(bound.step, row.step)
        bound.run = min(bound.run, run)
        bounds[node / Self.groupSize] = bound
    }

    /// Seconds until the node would begin on a new request.
    @inline(__always)
    func wait(_ node: Int, nowMilliseconds: Int32) -> Float { rows[node].wait(nowMilliseconds: nowMilliseconds) }

    /// - Parameters:
    ///   - work: Of this request on this node.
    ///   - newTokens: What it adds to the node's cache.
    @inline(__always)
    func cost(_ node: Int, work: Float, newTokens: Float, _ request: Request) -> Float {
        rows[node].fixed + costBeyondFixed(node, work: work, newTokens: newTokens, request)
    }

    @inline(__always)
    func costBeyondFixed(_ node: Int, work: Float, newTokens: Float, _ request: Request) -> Float {
        let row = rows[node]
        let wait = row.wait(nowMilliseconds: request.nowMilliseconds)
        let run = work * row.inverseRate
        let above = row.kv + (newTokens + request.expectedOutput) * row.kvPerToken - request.kvShareFree
        let memory = (above > 0 ? above : 0) * request.kvPrice * (1 + wait + run)
        return row.step * request.steps + wait + run * row.runFactor + work * request.duplicate + memory
    }

    // MARK: Groups

    /// Brings up to date what time changes of one group: how long its nodes are behind.
    mutating func refresh(group: Int, nowMilliseconds: Int32) {
        bounds[group] = Self.refresh(group: group, rows, &lanes, nowMilliseconds: nowMilliseconds)
    }

    /// Static, since a span taken of one column would hold all of `self` while the other changes.
    private static func refresh(
        group: Int, _ rows: ContiguousArray<Row>, _ lanes: inout ContiguousArray<Lanes>, nowMilliseconds: Int32
    ) -> Bound {
        let start = group * Self.groupSize
        precondition(rows.count >= start + Self.groupSize && lanes.count * Self.laneWidth >= start + Self.groupSize)
        let rows = rows.span
        var lanes = lanes.mutableSpan
        var bound = Bound(step: Self.closed, run: Self.closed)
        for place in (start / Self.laneWidth)..<(start / Self.laneWidth + Self.groupLanes) {
            var base = Lane.zero
            for lane in 0..<Self.laneWidth {
                // SAFETY: a whole group from `start` on, as just checked.
                let row = rows[unchecked: place * Self.laneWidth + lane]
                let behind = row.fixed + row.wait(nowMilliseconds: nowMilliseconds)
                base[lane] = behind
                guard behind < Self.closed else { continue }
                let run = row.inverseRate * row.runFactor
                bound.base = behind < bound.base ? behind : bound.base
                bound.step = row.step < bound.step ? row.step : bound.step
                bound.run = run < bound.run ? run : bound.run
            }
            lanes[unchecked: place].base = base
        }
        return bound
    }

    /// No node of the group costs less for a request that finds nothing cached.
    func bound(_ group: Int, work: Float, _ request: Request) -> Float {
        let bound = bounds[group]
        return bound.base + bound.step * request.steps + work * bound.run + work * request.duplicate
    }

    /// What a scan has found so far.
    struct Finding {
        /// Of equals within this share and so many seconds, any is as good.
        let tieShare: Float
        let tieSeconds: Float
        /// Whether it looks for all equals of the cheapest, to choose among them. Otherwise what could better the best so
        /// far by no more than a tie is not looked at: where loads are balanced, most nodes of a large fleet.
        let isExhaustive: Bool
        /// What every node that has nothing of the prompt costs alike: no part of what a share is taken of, or the more
        /// that weighed, the longer the queues that passed for equal.
        let common: Float
        private(set) var least = closed
        /// Up to there a node equals the least.
        private(set) var limit = closed
        /// Up to there a node is looked at.
        private(set) var bar = closed

        init(least: Float, common: Float, tieShare: Float, tieSeconds: Float, isExhaustive: Bool) {
            (self.tieShare, self.tieSeconds, self.isExhaustive) = (tieShare, tieSeconds, isExhaustive)
            self.common = common
            found(least)
        }

        @inline(__always)
        fileprivate mutating func found(_ cost: Float) {
            guard cost < least else { return }
            least = cost
            let own = cost - common
            limit = cost + max(0, own) * tieShare + tieSeconds
            bar =
                isExhaustive
                ? limit : own > tieSeconds ? common + (own - tieSeconds) / (1 + tieShare) : cost - tieSeconds
        }
    }

    /// Finds what the same work would cost on those nodes of a group that are allowed and not beyond the bar.
    ///
    /// - Parameters:
    ///   - allowed: A bit for each node, the first the lowest.
    ///   - finding: Its bar falls as cheaper nodes are found.
    ///   - costs: Lanes of the whole table; written where a lane may have a node within the bar, ``closed`` for those
    ///     that are not allowed.
    /// - Returns: A bit for each lane of the group that was written, the first the lowest.
    func scan(
        group: Int, allowed: UInt64, work: Float, addedTokens: Float, _ request: Request, _ finding: inout Finding,
        into costs: inout ContiguousArray<Lane>
    ) -> UInt8 {
        let start = group * Self.groupLanes
        precondition(lanes.count >= start + Self.groupLanes && costs.count >= start + Self.groupLanes)
        let lanes = lanes.span
        let (steps, works) = (Lane(repeating: request.steps), Lane(repeating: work))
        let duplicate = work * request.duplicate
        var written: UInt8 = 0
        for place in stride(from: start, to: start + Self.groupLanes, by: 4) {
            // SAFETY: within the group's lanes, which the table has, as just checked.
            var lowest = lanes[unchecked: place].lowest(steps, works)
            for other in 1..<4 {
                let next = lanes[unchecked: place + other].lowest(steps, works)
                lowest.replace(with: next, where: next .< lowest)
            }
            guard Self.least(lowest) + duplicate <= finding.bar else { continue }
            for place in place..<(place + 4) {
                let lane = lanes[unchecked: place]
                let lowest = lane.lowest(steps, works)
                guard Self.least(lowest) + duplicate <= finding.bar else { continue }
                let mine = UInt8(truncatingIfNeeded: allowed >> UInt64((place - start) * Self.laneWidth))
                let memory = memory(place, base: lane.base, works, addedTokens, request)
                let cost = Self.masked(lowest + Lane(repeating: duplicate) + memory, mine)
                finding.found(Self.least(cost))
                costs[place] = cost
                written |= 1 << UInt8(place - start)
            }
        }
        return written
    }

    /// Closes the nodes whose bit is not set.
    @inline(__always)
    private static func masked(_ cost: Lane, _ allowed: UInt8) -> Lane {
        let bits = SIMD8<UInt32>(repeating: UInt32(allowed)) & SIMD8<UInt32>(1, 2, 4, 8, 16, 32, 64, 128)
        return cost.replacing(with: Lane(repeating: closed), where: bits .== SIMD8<UInt32>.zero)
    }

    /// What the memory that eight nodes are short of costs; of a closed one, infinite already, nothing.
    @inline(__always)
    private func memory(_ place: Int, base: Lane, _ works: Lane, _ addedTokens: Float, _ request: Request) -> Lane {
        let held = memory[place]
        let above = held.kv + held.kvPerToken * Lane(repeating: addedTokens) - Lane(repeating: request.kvShareFree)
        let waitAndRun = base - held.fixed + held.inverseRate * works
        let price = above * Lane(repeating: request.kvPrice) * (Lane(repeating: 1) + waitAndRun)
        let isFree = (above .<= Lane.zero) .| (base .== Lane(repeating: Self.closed))
        return price.replacing(with: Lane.zero, where: isFree)
    }

    @inline(__always)
    private static func least(_ lane: Lane) -> Float {
        let half = lane.lowHalf.replacing(with: lane.highHalf, where: lane.highHalf .< lane.lowHalf)
        let first = half[0] < half[1] ? half[0] : half[1]
        let second = half[2] < half[3] ? half[2] : half[3]
        return first < second ? first : second
    }
}

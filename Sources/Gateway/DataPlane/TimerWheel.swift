import Domain
import NIOCore

/// Who a timer calls.
package protocol TimerTarget: AnyObject {
    /// - Parameter kind: What was given to `schedule`; the target's own numbering.
    func timerFired(_ kind: UInt8)
}

/// Names one scheduled timer. Once that has fired or was cancelled, the token names nothing: a late `cancel` with it
/// never hits a stranger's timer.
package struct TimerToken: Hashable, Sendable {
    package static let none = TimerToken(index: .max, generation: 0)

    fileprivate let index: UInt32
    fileprivate let generation: UInt32
}

/// The timeouts of one event loop.
///
/// NIO's own `scheduleTask` costs 1.3 us and two allocations, and a request has several timeouts of which almost none
/// ever fires. So timers stand in a hashed wheel: `slotCount` lists, a timer due at tick `t` in list `t mod slotCount`,
/// whatever the turn. Scheduling and cancelling link and unlink a node of a slab: O(1), no allocation once the slab has
/// grown to the most timers that were ever open at once (callers bound them: a few for each connection).
///
/// A bitmap of the lists that hold something tells the next tick worth waking for, so a quiet loop sleeps up to a turn
/// and an empty wheel is parked: no task is outstanding. Cancelling leaves the outstanding task alone; it finds nothing
/// and re-arms. A new timer only re-arms where it is due before the outstanding wake, which is never further than one
/// turn away: timeouts longer than a turn therefore touch NIO not at all.
///
/// Timers never fire early, and late by up to a tick. Timers of one tick fire in the order they were scheduled in.
/// Loop-bound: not Sendable, every call on the loop.
package final class TimerWheel {
    package static let tickNanoseconds: Int64 = 10_000_000
    /// A power of two; one turn is 5.12 s.
    package static let slotCount = 512

    private static let slotMask = Int64(slotCount - 1)
    /// The list after the last slot: what is due and is being fired.
    private static let firingList = slotCount
    private static let absent: Int32 = -1

    private struct Node {
        var target: (any TimerTarget)?
        var dueTick: Int64 = 0
        var next: Int32 = absent
        var previous: Int32 = absent
        /// Grows when the node is freed; a token of an earlier one no longer matches.
        var generation: UInt32 = 0
        var list: Int32 = absent
        var kind: UInt8 = 0
    }

    private struct List {
        var first: Int32 = absent
        var last: Int32 = absent
    }

    private let eventLoop: any EventLoop
    private let clock: () -> MonotonicTime
    private var nodes: ContiguousArray<Node> = []
    private var firstFree: Int32 = absent
    private var lists: ContiguousArray<List>
    /// One bit a slot: whether its list holds something.
    private var occupied: ContiguousArray<UInt64>
    /// Every tick up to here has been fired.
    private var currentTick: Int64
    /// When the outstanding task wakes the wheel; `.max` while it is parked.
    private var wakeTick: Int64 = .max
    private var wake: Scheduled<Void>?

    /// How many timers are open.
    package private(set) var count = 0

    /// - Parameters:
    ///   - eventLoop: The loop this lives on.
    ///   - clock: What time it is; must advance as the loop's own clock does.
    package init(eventLoop: any EventLoop, clock: @escaping () -> MonotonicTime = MonotonicTime.now) {
        self.eventLoop = eventLoop
        self.clock = clock
        self.lists = ContiguousArray(repeating: List(), count: Self.slotCount + 1)
        self.occupied = ContiguousArray(repeating: 0, count: Self.slotCount / 64)
        self.currentTick = clock().nanoseconds / Self.tickNanoseconds
    }

    /// Reads the wheel's clock.
    package func now() -> MonotonicTime { clock() }

    /// Whether nothing will wake the loop on this wheel's behalf.
    package var isParked: Bool { wake == nil }

    /// Calls `target` once at or after `deadline`. The wheel keeps the target alive until then, or until `cancel`.
    package func schedule(at deadline: MonotonicTime, target: any TimerTarget, kind: UInt8) -> TimerToken {
        let index = takeNode()
        let due = tick(of: deadline)
        nodes[index].target = target
        nodes[index].kind = kind
        nodes[index].dueTick = due
        append(Int32(truncatingIfNeeded: index), to: Int(due & Self.slotMask))
        count += 1
        armIfEarlier(due)
        return TimerToken(index: UInt32(truncatingIfNeeded: index), generation: nodes[index].generation)
    }

    /// As `schedule(at:)`, counted from now. Reads the clock.
    package func schedule(after delay: Duration, target: any TimerTarget, kind: UInt8) -> TimerToken {
        schedule(at: clock().advanced(by: delay), target: target, kind: kind)
    }

    /// Takes the timer back. Harmless where it has fired, was cancelled, or is `.none`.
    /// - Returns: Whether it was open.
    @discardableResult
    package func cancel(_ token: TimerToken) -> Bool {
        guard let index = openNode(token) else { return false }
        remove(index)
        free(index)
        return true
    }

    /// Moves the timer to another deadline, earlier or later; the token stays good.
    /// - Returns: False where it has fired or was cancelled: nothing is scheduled then.
    @discardableResult
    package func reschedule(_ token: TimerToken, at deadline: MonotonicTime) -> Bool {
        guard let index = openNode(token) else { return false }
        let due = tick(of: deadline)
        remove(index)
        nodes[Int(index)].dueTick = due
        append(index, to: Int(due & Self.slotMask))
        armIfEarlier(due)
        return true
    }

    /// As `reschedule(_:at:)`, counted from now. Reads the clock.
    @discardableResult
    package func reschedule(_ token: TimerToken, after delay: Duration) -> Bool {
        reschedule(token, at: clock().advanced(by: delay))
    }

    /// Drops every timer without firing and takes back the outstanding task: the loop is ending.
    package func close() {
        for list in lists.indices {
            while lists[list].first != Self.absent {
                let index = lists[list].first
                remove(index)
                free(index)
            }
        }
        wake?.cancel()
        wake = nil
        wakeTick = .max
    }

    // MARK: - Time

    /// The first tick that does not come before `deadline`, and that has not been fired yet.
    private func tick(of deadline: MonotonicTime) -> Int64 {
        // Rounded up without adding first: a deadline near Int64.max must not overflow.
        let (whole, rest) = deadline.nanoseconds.quotientAndRemainder(dividingBy: Self.tickNanoseconds)
        return max(rest > 0 ? whole + 1 : whole, currentTick + 1)
    }

    private func armIfEarlier(_ due: Int64) {
        guard due < wakeTick else { return }
        let now = clock()
        let turnEnd = now.nanoseconds / Self.tickNanoseconds + Int64(Self.slotCount)
        // Where the outstanding task is as near as we would arm anyway, it stays.
        guard min(due, turnEnd) < wakeTick else { return }
        arm(min(due, turnEnd), now: now)
    }

    private func arm(_ tick: Int64, now: MonotonicTime) {
        wake?.cancel()
        wakeTick = tick
        let delay = max(0, tick * Self.tickNanoseconds - now.nanoseconds)
        wake = eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(delay)) { self.woke() }
    }

    private func woke() {
        wake = nil
        wakeTick = .max
        fireDue()
        guard count > 0, wake == nil || nextOccupiedTick() < wakeTick else { return }
        arm(nextOccupiedTick(), now: clock())
    }

    private func fireDue() {
        let nowTick = clock().nanoseconds / Self.tickNanoseconds
        guard nowTick > currentTick else { return }
        let first = max(currentTick + 1, nowTick - Int64(Self.slotCount) + 1)
        currentTick = nowTick
        for tick in first...nowTick {
            let slot = Int(tick & Self.slotMask)
            guard occupied[slot >> 6] & (1 << UInt64(slot & 63)) != 0 else { continue }
            var index = lists[slot].first
            while index != Self.absent {
                let next = nodes[Int(index)].next
                if nodes[Int(index)].dueTick <= nowTick {
                    remove(index)
                    append(index, to: Self.firingList)
                }
                index = next
            }
        }
        // From a list rather than in place: a target may cancel or move what is to fire after it.
        while lists[Self.firingList].first != Self.absent {
            let index = lists[Self.firingList].first
            let target = nodes[Int(index)].target
            let kind = nodes[Int(index)].kind
            remove(index)
            free(index)
            target?.timerFired(kind)
        }
    }

    /// The next tick whose list holds something, this turn's timers or a later one's: at most a turn away.
    private func nextOccupiedTick() -> Int64 {
        let start = Int((currentTick + 1) & Self.slotMask)
        for step in 0...occupied.count {
            let word = ((start >> 6) + step) % occupied.count
            var bits = occupied[word]
            if step == 0 { bits &= ~0 << UInt64(start & 63) }
            guard bits != 0 else { continue }
            let slot = word << 6 + bits.trailingZeroBitCount
            return currentTick + 1 + Int64((slot - start) & (Self.slotCount - 1))
        }
        return currentTick + Int64(Self.slotCount)
    }

    // MARK: - Slab and lists

    private func openNode(_ token: TimerToken) -> Int32? {
        guard token.index < UInt32(nodes.count) else { return nil }
        let node = nodes[Int(token.index)]
        guard node.generation == token.generation, node.list != Self.absent else { return nil }
        return Int32(truncatingIfNeeded: token.index)
    }

    private func takeNode() -> Int {
        guard firstFree != Self.absent else {
            nodes.append(Node())
            return nodes.count - 1
        }
        let index = Int(firstFree)
        firstFree = nodes[index].next
        return index
    }

    private func free(_ index: Int32) {
        let at = Int(index)
        nodes[at].target = nil
        nodes[at].generation &+= 1
        nodes[at].next = firstFree
        firstFree = index
        count -= 1
    }

    private func append(_ index: Int32, to list: Int) {
        let last = lists[list].last
        nodes[Int(index)].previous = last
        nodes[Int(index)].next = Self.absent
        nodes[Int(index)].list = Int32(truncatingIfNeeded: list)
        if last == Self.absent {
            lists[list].first = index
            if list < Self.slotCount { occupied[list >> 6] |= 1 << UInt64(list & 63) }
        } else {
            nodes[Int(last)].next = index
        }
        lists[list].last = index
    }

    private func remove(_ index: Int32) {
        let (previous, next) = (nodes[Int(index)].previous, nodes[Int(index)].next)
        let list = Int(nodes[Int(index)].list)
        if previous == Self.absent { lists[list].first = next } else { nodes[Int(previous)].next = next }
        if next == Self.absent { lists[list].last = previous } else { nodes[Int(next)].previous = previous }
        nodes[Int(index)].list = Self.absent
        if previous == Self.absent, next == Self.absent, list < Self.slotCount {
            occupied[list >> 6] &= ~(1 << UInt64(list & 63))
        }
    }
}

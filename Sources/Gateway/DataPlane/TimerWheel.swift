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

    private let eventLoop: any EventLoop
    private let clock: () -> MonotonicTime
    private var slab: TimerSlab
    /// When the outstanding task wakes the wheel; `.max` while it is parked.
    private var wakeTick: Int64 = .max
    private var wake: Scheduled<Void>?

    /// - Parameters:
    ///   - eventLoop: The loop this lives on.
    ///   - clock: What time it is; must advance as the loop's own clock does.
    package init(eventLoop: any EventLoop, clock: @escaping () -> MonotonicTime = MonotonicTime.now) {
        self.eventLoop = eventLoop
        self.clock = clock
        slab = TimerSlab(currentTick: clock().nanoseconds / Self.tickNanoseconds)
    }

    /// How many timers are open.
    package var count: Int { slab.count }

    /// Reads the wheel's clock.
    package func now() -> MonotonicTime { clock() }

    /// Whether nothing will wake the loop on this wheel's behalf.
    package var isParked: Bool { wake == nil }

    /// Calls `target` once at or after `deadline`. The wheel keeps the target alive until then, or until `cancel`.
    package func schedule(at deadline: MonotonicTime, target: any TimerTarget, kind: UInt8) -> TimerToken {
        let (token, due) = slab.insert(dueTick: Self.tick(of: deadline), target: target, kind: kind)
        if due < wakeTick { armEarlier(due) }
        return token
    }

    /// As `schedule(at:)`, counted from now. Reads the clock.
    package func schedule(after delay: Duration, target: any TimerTarget, kind: UInt8) -> TimerToken {
        schedule(at: clock().advanced(by: delay), target: target, kind: kind)
    }

    /// Takes the timer back. Harmless where it has fired, was cancelled, or is `.none`.
    /// - Returns: Whether it was open.
    @discardableResult
    package func cancel(_ token: TimerToken) -> Bool {
        // The target goes when the slab is no longer being changed: its end may cancel other timers.
        let target = slab.cancel(token)
        return target != nil
    }

    /// Moves the timer to another deadline, earlier or later; the token stays good.
    /// - Returns: False where it has fired or was cancelled: nothing is scheduled then.
    @discardableResult
    package func reschedule(_ token: TimerToken, at deadline: MonotonicTime) -> Bool {
        guard let due = slab.move(token, dueTick: Self.tick(of: deadline)) else { return false }
        if due < wakeTick { armEarlier(due) }
        return true
    }

    /// As `reschedule(_:at:)`, counted from now. Reads the clock.
    @discardableResult
    package func reschedule(_ token: TimerToken, after delay: Duration) -> Bool {
        reschedule(token, at: clock().advanced(by: delay))
    }

    /// Drops every timer without firing and takes back the outstanding task: the loop is ending.
    package func close() {
        let old = slab
        slab = TimerSlab(currentTick: old.currentTick)
        wake?.cancel()
        wake = nil
        wakeTick = .max
    }

    /// The first tick that does not come before `deadline`.
    private static func tick(of deadline: MonotonicTime) -> Int64 {
        // Rounded up without adding first: a deadline near Int64.max must not overflow.
        let (whole, rest) = deadline.nanoseconds.quotientAndRemainder(dividingBy: tickNanoseconds)
        return rest > 0 ? whole + 1 : whole
    }

    private func armEarlier(_ due: Int64) {
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
        slab.collectDue(nowTick: clock().nanoseconds / Self.tickNanoseconds)
        // One by one: a target may cancel or move what is to fire after it, and schedule more.
        while let (target, kind) = slab.takeDue() { target.timerFired(kind) }
        guard slab.count > 0 else { return }
        let next = slab.nextOccupiedTick()
        if next < wakeTick { arm(next, now: clock()) }
    }
}

/// The timers of a wheel: a slab of nodes, each in one of the intrusive lists. A struct, so that an operation is one
/// access to its owner's memory.
private struct TimerSlab {
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

    private static let slotMask = Int64(TimerWheel.slotCount - 1)
    /// The list after the last slot: what is due and is being fired.
    private static let firingList = Int32(TimerWheel.slotCount)
    private static let absent: Int32 = -1

    private var nodes: ContiguousArray<Node> = []
    private var firstFree: Int32 = absent
    private var lists = ContiguousArray(repeating: List(), count: TimerWheel.slotCount + 1)
    /// One bit a slot: whether its list holds something.
    private var occupied = ContiguousArray<UInt64>(repeating: 0, count: TimerWheel.slotCount / 64)
    /// Every tick up to here has been collected.
    private(set) var currentTick: Int64
    private(set) var count = 0

    init(currentTick: Int64) {
        self.currentTick = currentTick
    }

    /// - Returns: The tick at which it fires, too: at the earliest the next one.
    mutating func insert(dueTick: Int64, target: any TimerTarget, kind: UInt8) -> (TimerToken, Int64) {
        let due = max(dueTick, currentTick + 1)
        var index = firstFree
        if index == Self.absent {
            index = Int32(truncatingIfNeeded: nodes.count)
            nodes.append(Node())
        } else {
            firstFree = nodes[Int(index)].next
        }
        nodes[Int(index)].target = target
        nodes[Int(index)].kind = kind
        nodes[Int(index)].dueTick = due
        append(index, to: Int32(truncatingIfNeeded: due & Self.slotMask))
        count += 1
        return (TimerToken(index: UInt32(bitPattern: index), generation: nodes[Int(index)].generation), due)
    }

    mutating func cancel(_ token: TimerToken) -> (any TimerTarget)? {
        guard let index = openNode(token) else { return nil }
        remove(index)
        return free(index)
    }

    mutating func move(_ token: TimerToken, dueTick: Int64) -> Int64? {
        guard let index = openNode(token) else { return nil }
        let due = max(dueTick, currentTick + 1)
        remove(index)
        nodes[Int(index)].dueTick = due
        append(index, to: Int32(truncatingIfNeeded: due & Self.slotMask))
        return due
    }

    /// Moves what is due by `nowTick` to the firing list, in the order of its ticks.
    mutating func collectDue(nowTick: Int64) {
        guard nowTick > currentTick else { return }
        let first = max(currentTick + 1, nowTick - Int64(TimerWheel.slotCount) + 1)
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
    }

    mutating func takeDue() -> (any TimerTarget, UInt8)? {
        let index = lists[Int(Self.firingList)].first
        guard index != Self.absent else { return nil }
        let kind = nodes[Int(index)].kind
        remove(index)
        return free(index).map { ($0, kind) }
    }

    /// The next tick whose list holds something, this turn's timers or a later one's: at most a turn away.
    func nextOccupiedTick() -> Int64 {
        let start = Int((currentTick + 1) & Self.slotMask)
        for step in 0...occupied.count {
            let word = ((start >> 6) + step) % occupied.count
            var bits = occupied[word]
            if step == 0 { bits &= ~0 << UInt64(start & 63) }
            guard bits != 0 else { continue }
            let slot = word << 6 + bits.trailingZeroBitCount
            return currentTick + 1 + ((Int64(slot) - Int64(start)) & Self.slotMask)
        }
        return currentTick + Int64(TimerWheel.slotCount)
    }

    private func openNode(_ token: TimerToken) -> Int32? {
        guard token.index < UInt32(nodes.count) else { return nil }
        let index = Int(token.index)
        guard nodes[index].generation == token.generation, nodes[index].list != Self.absent else { return nil }
        return Int32(bitPattern: token.index)
    }

    private mutating func free(_ index: Int32) -> (any TimerTarget)? {
        let at = Int(index)
        let target = nodes[at].target.take()
        nodes[at].generation &+= 1
        nodes[at].next = firstFree
        firstFree = index
        count -= 1
        return target
    }

    private mutating func append(_ index: Int32, to list: Int32) {
        let at = Int(list)
        let last = lists[at].last
        nodes[Int(index)].previous = last
        nodes[Int(index)].next = Self.absent
        nodes[Int(index)].list = list
        if last == Self.absent {
            lists[at].first = index
            if list < Self.firingList { occupied[at >> 6] |= 1 << UInt64(at & 63) }
        } else {
            nodes[Int(last)].next = index
        }
        lists[at].last = index
    }

    private mutating func remove(_ index: Int32) {
        let (previous, next) = (nodes[Int(index)].previous, nodes[Int(index)].next)
        let list = nodes[Int(index)].list
        let at = Int(list)
        if previous == Self.absent { lists[at].first = next } else { nodes[Int(previous)].next = next }
        if next == Self.absent { lists[at].last = previous } else { nodes[Int(next)].previous = previous }
        nodes[Int(index)].list = Self.absent
        if previous == Self.absent, next == Self.absent, list < Self.firingList {
            occupied[at >> 6] &= ~(1 << UInt64(at & 63))
        }
    }
}

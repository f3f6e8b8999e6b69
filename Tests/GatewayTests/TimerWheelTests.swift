import Domain
import Gateway
import NIOCore
import NIOEmbedded
import Testing

private final class Recorder: TimerTarget {
    var fired: [UInt8] = []
    var onFire: ((UInt8) -> Void)?

    func timerFired(_ kind: UInt8) {
        fired.append(kind)
        onFire?(kind)
    }
}

/// A wheel on a loop whose time stands still until it is advanced.
private struct VirtualWheel {
    let loop = EmbeddedEventLoop()
    let wheel: TimerWheel

    init() {
        let loop = loop
        wheel = TimerWheel(eventLoop: loop) { MonotonicTime(nanoseconds: Int64(loop.now.uptimeNanoseconds)) }
    }

    func advance(milliseconds: Int64) { loop.advanceTime(by: .milliseconds(milliseconds)) }
}

@Test func timerFiresNeverEarlyAndAtMostATickLate() {
    let virtual = VirtualWheel()
    let target = Recorder()
    virtual.advance(milliseconds: 3)
    _ = virtual.wheel.schedule(after: .milliseconds(50), target: target, kind: 7)
    virtual.advance(milliseconds: 49)
    #expect(target.fired.isEmpty)
    virtual.advance(milliseconds: 11)
    #expect(target.fired == [7])
    #expect(virtual.wheel.count == 0)
}

@Test func emptyWheelIsParked() {
    let virtual = VirtualWheel()
    #expect(virtual.wheel.isParked)
    let target = Recorder()
    let token = virtual.wheel.schedule(after: .seconds(3600), target: target, kind: 0)
    #expect(!virtual.wheel.isParked)
    #expect(virtual.wheel.cancel(token))
    // The task that is outstanding is left to find nothing.
    virtual.advance(milliseconds: 6_000)
    #expect(virtual.wheel.isParked)
    #expect(target.fired.isEmpty)
}

@Test func staleTokenTouchesNoOtherTimer() {
    let virtual = VirtualWheel()
    let target = Recorder()
    let first = virtual.wheel.schedule(after: .milliseconds(100), target: target, kind: 1)
    #expect(virtual.wheel.cancel(first))
    #expect(!virtual.wheel.cancel(first))
    let second = virtual.wheel.schedule(after: .milliseconds(100), target: target, kind: 2)
    #expect(first != second)
    #expect(!virtual.wheel.cancel(first))
    #expect(!virtual.wheel.reschedule(first, after: .zero))
    #expect(!virtual.wheel.cancel(.none))
    virtual.advance(milliseconds: 200)
    #expect(target.fired == [2])
    #expect(!virtual.wheel.cancel(second))
}

@Test func timersLongerThanATurnWaitTheirTurns() {
    let virtual = VirtualWheel()
    let target = Recorder()
    let turn = Int64(TimerWheel.slotCount) * TimerWheel.tickNanoseconds / 1_000_000
    _ = virtual.wheel.schedule(after: .milliseconds(3 * turn + 40), target: target, kind: 3)
    _ = virtual.wheel.schedule(after: .milliseconds(40), target: target, kind: 0)
    _ = virtual.wheel.schedule(after: .milliseconds(turn + 40), target: target, kind: 1)
    for expected in [[0], [0, 1], [0, 1], [0, 1, 3]] as [[UInt8]] {
        virtual.advance(milliseconds: 50)
        #expect(target.fired == expected)
        virtual.advance(milliseconds: turn - 50)
    }
}

@Test func timerThatIsMovedFiresOnceAtItsNewTime() {
    let virtual = VirtualWheel()
    let target = Recorder()
    let token = virtual.wheel.schedule(after: .milliseconds(100), target: target, kind: 1)
    #expect(virtual.wheel.reschedule(token, after: .milliseconds(300)))
    virtual.advance(milliseconds: 290)
    #expect(target.fired.isEmpty)
    #expect(virtual.wheel.reschedule(token, after: .milliseconds(20)))
    virtual.advance(milliseconds: 30)
    #expect(target.fired == [1])
    virtual.advance(milliseconds: 1_000)
    #expect(target.fired == [1])
}

@Test func targetMayCancelAndScheduleWhileTimersFire() {
    let virtual = VirtualWheel()
    let target = Recorder()
    let wheel = virtual.wheel
    var second = TimerToken.none
    target.onFire = { kind in
        guard kind == 1 else { return }
        #expect(wheel.cancel(second))
        _ = wheel.schedule(after: .zero, target: target, kind: 3)
    }
    _ = wheel.schedule(after: .milliseconds(20), target: target, kind: 1)
    second = wheel.schedule(after: .milliseconds(20), target: target, kind: 2)
    _ = wheel.schedule(after: .milliseconds(20), target: target, kind: 4)
    virtual.advance(milliseconds: 20)
    #expect(target.fired == [1, 4])
    virtual.advance(milliseconds: 10)
    #expect(target.fired == [1, 4, 3])
    target.onFire = nil
}

@Test func firedAndCancelledTimersLetTheirTargetsGo() {
    let virtual = VirtualWheel()
    weak var fired: Recorder?
    weak var cancelled: Recorder?
    do {
        let (one, two) = (Recorder(), Recorder())
        (fired, cancelled) = (one, two)
        _ = virtual.wheel.schedule(after: .milliseconds(10), target: one, kind: 0)
        let token = virtual.wheel.schedule(after: .milliseconds(10), target: two, kind: 0)
        virtual.wheel.cancel(token)
    }
    #expect(cancelled == nil)
    #expect(fired?.fired == [])
    virtual.advance(milliseconds: 20)
    #expect(fired == nil)
}

@Test func closedWheelFiresNothing() {
    let virtual = VirtualWheel()
    let target = Recorder()
    _ = virtual.wheel.schedule(after: .milliseconds(10), target: target, kind: 0)
    virtual.wheel.close()
    #expect(virtual.wheel.isParked)
    #expect(virtual.wheel.count == 0)
    virtual.advance(milliseconds: 100)
    #expect(target.fired.isEmpty)
}

/// Against a list: random schedules, cancels and moves, at random steps of time.
@Test(arguments: [UInt64.random(in: 0 ... .max), 1, 2, 3])
private func wheelFiresWhatAListWould(_ seed: UInt64) {
    print("wheelFiresWhatAListWould seed \(seed)")
    var generator = SplitMix64(seed: seed)
    let virtual = VirtualWheel()
    let wheel = virtual.wheel
    let target = Recorder()
    let tick = TimerWheel.tickNanoseconds
    var now: Int64 = 0
    /// Deadline and token by kind; a kind is one timer at a time.
    var open: [UInt8: (due: Int64, token: TimerToken)] = [:]
    for step in 0..<4_000 {
        let kind = UInt8.random(in: 0...200, using: &generator)
        // Short, about a turn, and many turns.
        let span = [100, 6_000, 60_000].randomElement(using: &generator) ?? 100
        let deadline = now + Int64.random(in: -20...Int64(span), using: &generator) * 1_000_000
        switch (Int.random(in: 0..<10, using: &generator), open[kind]) {
        case (0..<6, nil):
            let token = wheel.schedule(at: MonotonicTime(nanoseconds: deadline), target: target, kind: kind)
            open[kind] = (deadline, token)
        case (0..<3, .some(let timer)):
            #expect(wheel.cancel(timer.token))
            open[kind] = nil
        case (3..<6, .some(let timer)):
            #expect(wheel.reschedule(timer.token, at: MonotonicTime(nanoseconds: deadline)))
            open[kind] = (deadline, timer.token)
        default:
            let advance = Int64.random(in: 0...Int64(span) / 10, using: &generator) * 1_000_000 + 123_457
            target.fired = []
            let before = now
            virtual.loop.advanceTime(by: .nanoseconds(advance))
            now += advance
            let fired = Set(target.fired)
            #expect(fired.count == target.fired.count, "seed \(seed), step \(step): fired twice")
            for (kind, timer) in open {
                // Due by the last whole tick: must have fired. Due later than now: must not.
                if timer.due <= now / tick * tick, max(timer.due, before) / tick < now / tick {
                    #expect(fired.contains(kind), "seed \(seed), step \(step): \(kind) missing")
                }
                if timer.due > now { #expect(!fired.contains(kind), "seed \(seed), step \(step): \(kind) early") }
            }
            #expect(fired.isSubset(of: open.keys))
            for kind in fired { open[kind] = nil }
        }
        guard wheel.count == open.count else {
            Issue.record("seed \(seed), step \(step): \(wheel.count) timers rather than \(open.count)")
            return
        }
    }
    virtual.loop.advanceTime(by: .seconds(120))
    #expect(wheel.count == 0)
    #expect(wheel.isParked)
}

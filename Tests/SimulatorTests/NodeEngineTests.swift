import Domain
import Testing

@testable import Simulator

/// Drives the engine in virtual time and keeps when each token came.
private struct EngineRun {
    var engine: NodeEngine
    var now = MonotonicTime(nanoseconds: 0)
    /// Seconds at which each token of each work came; for each work in the order of its tokens.
    var tokens: [UInt64: [Double]] = [:]
    var finished: [UInt64: Double] = [:]
    var cached: [UInt64: Int] = [:]

    init(_ profile: NodeProfile = .h100, speed: Double = 1) {
        engine = NodeEngine(profile: profile, speed: speed)
    }

    mutating func add(_ id: UInt64, prompt: Int, output: [Int], blocks: [UInt64] = []) {
        note(
            engine.workArrived(
                .init(id: id, promptTokens: prompt, blocks: blocks, outputTokens: output), at: now))
    }

    /// Steps until `until` says so, or nothing is left.
    mutating func run(until: (EngineRun) -> Bool = { _ in false }) {
        while let end = engine.nextStepEnd, !until(self) {
            now = end
            note(engine.timeAdvanced(to: end))
        }
    }

    mutating func note(_ events: [NodeEngine.Event]) {
        let seconds = Double(now.nanoseconds) / 1e9
        for event in events {
            switch event {
            case .admitted(let id, let tokens): cached[id] = tokens
            case .decoded(let id, let count):
                tokens[id, default: []].append(seconds)
                #expect(tokens[id]?.count == count)
            case .finished(let id): finished[id] = seconds
            }
        }
    }

    var metrics: VirtualNode.Metrics { engine.metrics(now: now) }

    func firstToken(_ id: UInt64) throws -> Double { try #require(tokens[id]?.first) }
}

@Suite struct NodeEngineTests {
    /// A chunk's seconds on an H100, from the formula by hand.
    private func chunk(_ tokens: Double, after done: Double) -> Double {
        tokens / 25_000 + 1.31e-9 * tokens * (done + tokens / 2)
    }

    @Test func prefillTakesWhatTheProfileSays() throws {
        var run = EngineRun()
        run.add(1, prompt: 5_000, output: [1])
        run.run()
        let expected = 3 * 0.007 + chunk(2_048, after: 0) + chunk(2_048, after: 2_048) + chunk(904, after: 4_096)
        #expect(abs(try run.firstToken(1) - expected) < 1e-6)
        #expect(run.finished[1] == run.tokens[1]?.first)
    }

    @Test func twoEqualPromptsShareThePrefillInOrder() throws {
        var alone = EngineRun()
        alone.add(1, prompt: 20_000, output: [1])
        alone.run()
        var both = EngineRun()
        both.add(1, prompt: 20_000, output: [1])
        both.add(2, prompt: 20_000, output: [1])
        both.run()
        let single = try alone.firstToken(1)
        #expect(abs(try both.firstToken(1) / single - 1) < 0.02)
        #expect(abs(try both.firstToken(2) / single - 2) < 0.05)
    }

    @Test func decodeStepGrowsWithTheBatchAndItsContexts() throws {
        func step(sequences: Int, prompt: Int) throws -> Double {
            var run = EngineRun()
            for id in 0..<UInt64(sequences) { run.add(id, prompt: prompt, output: [200]) }
            run.run { $0.tokens.values.count { $0.count >= 100 } == sequences }
            let times = try #require(run.tokens[0])
            return times[times.count - 1] - times[times.count - 2]
        }
        let one = try step(sequences: 1, prompt: 10)
        #expect(abs(one - (0.007 + 50e-6 + 24e-9 * 109)) < 1e-6)
        let sixtyFour = try step(sequences: 64, prompt: 10)
        #expect(sixtyFour - one > 63 * 50e-6)
        let long = try step(sequences: 1, prompt: 100_000)
        #expect(abs(long - one - 24e-9 * 99_990) < 1e-6)
    }

    @Test func newPromptSlowsTheDecodeOfOthers() throws {
        var run = EngineRun()
        run.add(1, prompt: 10, output: [50])
        run.run { $0.tokens[1]?.count == 10 }
        run.add(2, prompt: 2_000, output: [1])
        run.run()
        let times = try #require(run.tokens[1])
        let gaps = zip(times.dropFirst(), times).map { $0 - $1 }
        #expect(gaps.max() ?? 0 > 0.08)
        #expect(gaps.count { $0 > 0.01 } == 1)
    }

    @Test func workPastTheSequenceLimitWaitsForAnEnd() throws {
        var run = EngineRun()
        for id in 0..<UInt64(257) { run.add(id, prompt: 4, output: [50]) }
        run.run { $0.tokens.count >= 256 }
        #expect(run.metrics.runningRequests == 256)
        #expect(run.metrics.waitingRequests == 1)
        run.run()
        #expect(try run.firstToken(256) > (run.finished[0] ?? .infinity))
        #expect(run.finished.count == 257)
    }

    @Test func choicesCountAgainstTheSequenceLimit() {
        var run = EngineRun()
        for id in 0..<UInt64(3) { run.add(id, prompt: 4, output: Array(repeating: 20, count: 128)) }
        run.run { $0.tokens.count >= 2 }
        #expect(run.metrics.runningRequests == 256)
        #expect(run.metrics.waitingRequests == 128)
    }

    @Test func workThatDoesNotFitTheMemoryWaits() throws {
        var run = EngineRun(.l40)
        run.add(1, prompt: 200_000, output: [10])
        run.add(2, prompt: 100_000, output: [10])
        run.run { $0.tokens[1] != nil }
        #expect(run.metrics.waitingRequests == 1)
        #expect(run.metrics.kvUsage > 0.78)
        run.run()
        #expect(try run.firstToken(2) > (run.finished[1] ?? .infinity))
        #expect(run.metrics.kvUsage == 0)
    }

    @Test func abortFreesTheSlotAtOnce() throws {
        var run = EngineRun(.l40)
        run.add(1, prompt: 200_000, output: [1_000])
        run.add(2, prompt: 100_000, output: [10])
        run.run { $0.tokens[1]?.count == 5 }
        run.note(run.engine.workAborted(1, at: run.now))
        #expect(run.metrics.kvUsage == 0)
        #expect(run.metrics.runningRequests == 0)
        run.run()
        #expect(run.tokens[1]?.count == 5)
        #expect(run.tokens[2]?.count == 10)
        #expect(run.finished[1] == nil)
    }

    @Test func abortWhileWaitingOrPrefillingLeavesNothing() {
        var run = EngineRun()
        run.add(1, prompt: 10_000, output: [3])
        run.add(2, prompt: 10_000, output: [3])
        run.note(run.engine.workAborted(2, at: run.now))
        run.note(run.engine.workAborted(1, at: run.now))
        run.note(run.engine.workAborted(1, at: run.now))
        #expect(run.metrics.runningRequests + run.metrics.waitingRequests == 0)
        run.run()
        #expect(run.tokens.isEmpty && run.finished.isEmpty)
        #expect(run.engine.nextStepEnd == nil)
    }

    @Test func speedDividesEveryTime() throws {
        var slow = EngineRun()
        var fast = EngineRun(speed: 10)
        for id in 1...3 as ClosedRange<UInt64> {
            slow.add(id, prompt: 3_000, output: [20])
            fast.add(id, prompt: 3_000, output: [20])
        }
        slow.run()
        fast.run()
        #expect(abs(try #require(slow.finished[3]) / #require(fast.finished[3]) - 10) < 1e-3)
    }

    @Test func slowerProfilesAreSlowerByTheirFactor() throws {
        func seconds(_ profile: NodeProfile) throws -> Double {
            var run = EngineRun(profile)
            run.add(1, prompt: 4_000, output: [20])
            run.run()
            return try #require(run.finished[1])
        }
        let h100 = try seconds(.h100)
        #expect(abs(try seconds(.a100) * 0.6 / h100 - 1) < 1e-6)
        #expect(abs(try seconds(.l40) * 0.3 / h100 - 1) < 1e-6)
    }

    @Test func choicesOfDifferentLengthEndWithTheLongest() {
        var run = EngineRun()
        run.add(1, prompt: 10, output: [3, 9, 1])
        run.run()
        #expect(run.tokens[1]?.count == 9)
        #expect(run.finished[1] == run.tokens[1]?.last)
    }

    @Test func workWithoutOutputEndsWithItsPrefill() {
        var run = EngineRun()
        run.add(1, prompt: 100, output: [])
        run.run()
        #expect(run.tokens[1] == nil)
        #expect(abs((run.finished[1] ?? 0) - 0.007 - chunk(100, after: 0)) < 1e-6)
    }

    @Test func knownPrefixIsNotComputedAgain() throws {
        let blocks = (0..<UInt64(625)).map { $0 &+ 1 }
        var run = EngineRun()
        run.add(1, prompt: 10_000, output: [1], blocks: blocks)
        run.run()
        let cold = try run.firstToken(1)
        let before = run.now
        run.add(2, prompt: 10_000, output: [1], blocks: blocks)
        run.run()
        #expect(run.cached[1] == 0)
        #expect(run.cached[2] == 9_984)
        #expect(try run.firstToken(2) - Double(before.nanoseconds) / 1e9 < cold / 20)
    }

    /// Step by step for the live node, many decode steps at a time for the fleet: the same times, preemptions included.
    @Test func tokensComeWhenTheFleetSimulationSaysSo() throws {
        let seed = UInt64.random(in: .min ... .max)
        var generator = SplitMix64(seed: seed)
        var profile = NodeProfile.l40
        // So little that decode outgrows it.
        profile.kvTokensCapacity = 3_000
        var run = EngineRun(profile)
        var virtual = VirtualNode(profile, blockTokens: NodeEngine.blockTokens)
        var outcomes: [VirtualNode.Outcome] = []
        var firstTokens: [UInt64: Double] = [:]
        var ends: [UInt64: Double] = [:]
        func advanceVirtual(to now: Double) {
            while virtual.wakeAt <= now, virtual.wakeAt.isFinite {
                let end = virtual.wakeAt
                virtual.advance(to: end, into: &outcomes)
                for outcome in outcomes {
                    switch outcome {
                    case .firstToken(let id, _): firstTokens[UInt64(id)] = end
                    case .finished(let id): ends[UInt64(id)] = end
                    case .decoded: Issue.record("tokens are not asked for")
                    }
                }
                outcomes.removeAll()
            }
        }
        for id in 0..<UInt64(20) {
            // The first two fit when they come together, and outgrow the cache whatever the seed.
            let isOneOfTwo = id < 2
            let gap = isOneOfTwo ? 0 : generator.below(200_000_000)
            let arrival = MonotonicTime(nanoseconds: run.now.nanoseconds + Int64(gap))
            while let end = run.engine.nextStepEnd, end <= arrival {
                run.now = end
                run.note(run.engine.timeAdvanced(to: end))
            }
            run.now = arrival
            let seconds = Double(arrival.nanoseconds) / 1e9
            advanceVirtual(to: seconds)
            let (prompt, output) = isOneOfTwo ? (1_400, 250) : (1 + generator.below(1_500), 1 + generator.below(250))
            let blocks = (0..<UInt64(prompt / NodeEngine.blockTokens)).map { UInt64(id % 7) << 32 | $0 }
            run.add(id, prompt: prompt, output: [output], blocks: blocks)
            virtual.accept(
                .init(id: Int32(id), promptTokens: prompt, outputTokens: output, blocks: blocks), now: seconds)
        }
        run.run()
        advanceVirtual(to: .infinity)
        #expect(virtual.preemptions > 0, "seed \(seed)")
        #expect(run.finished.count == 20, "seed \(seed)")
        for (id, end) in run.finished {
            #expect(abs(end - (ends[id] ?? 0)) < 1e-6, "seed \(seed), work \(id)")
            #expect(abs(try run.firstToken(id) - (firstTokens[id] ?? 0)) < 1e-6, "seed \(seed), work \(id)")
        }
    }

    @Test func lateCallsChangeNothing() {
        func works(_ run: inout EngineRun) {
            for id in 1...20 as ClosedRange<UInt64> {
                run.add(id, prompt: Int(id) * 300, output: [Int(id)])
            }
        }
        var punctual = EngineRun()
        works(&punctual)
        punctual.run()
        var late = NodeEngine(profile: .h100, speed: 1)
        var events: [NodeEngine.Event] = []
        for id in 1...20 as ClosedRange<UInt64> {
            events += late.workArrived(
                .init(id: id, promptTokens: Int(id) * 300, blocks: [], outputTokens: [Int(id)]),
                at: .init(nanoseconds: 0))
        }
        events += late.timeAdvanced(to: .init(nanoseconds: 3_600_000_000_000))
        let finished = events.compactMap { if case .finished(let id) = $0 { id } else { nil } }
        #expect(finished.count == 20)
        #expect(finished == punctual.finished.sorted { ($0.value, $0.key) < ($1.value, $1.key) }.map(\.key))
        #expect(late.nextStepEnd == nil)
    }
}

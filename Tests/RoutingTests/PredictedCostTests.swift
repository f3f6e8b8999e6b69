import Domain
import Testing

@testable import Routing

/// Blocks of a session's prompt: each longer prompt of the session begins with the shorter ones.
private func blocks(_ session: UInt64, _ count: Int) -> [UInt64] {
    (0..<count).map { (session &* 7_919 &+ UInt64($0) &+ 1) &* 0x9E37_79B9_7F4A_7C15 }
}

struct PredictedCostTests {
    private func fleet(_ count: Int, rtt: Int64 = 0) -> RouterUnderTest {
        RouterUnderTest.ready(
            (0..<count).map { node("n\($0)", maxConcurrency: 10_000, rtt: rtt) }, policy: .predictedCost)
    }

    /// Answers a request after so long.
    private func serve(
        _ router: RouterUnderTest, _ assignment: Assignment, from start: Double, firstAfter: Double, cached: Int = 0,
        prompt: Int
    ) {
        router.firstToken(assignment, now: start + firstAfter)
        let usage = TokenUsage(promptTokens: prompt, cachedTokens: cached, completionTokens: 50)
        router.finish(assignment, usage: usage, now: start + firstAfter + 0.5)
    }

    @Test func sessionReturnsToTheNodeThatHasItsPrefix() throws {
        let router = fleet(8)
        let first = try #require(router.assign(request(prompt: 20_480), blocks: blocks(1, 40), now: 1))
        serve(router, first, from: 1, firstAfter: 1.5, prompt: 20_480)
        for turn in 1...5 {
            let now = 1 + Double(turn) * 5
            let count = 40 + 2 * turn
            let again = try #require(
                router.assign(request(prompt: count * 512), blocks: blocks(1, count), now: now))
            #expect(again.nodeIndex == first.nodeIndex)
            serve(router, again, from: now, firstAfter: 0.1, cached: (count - 2) * 512, prompt: count * 512)
        }
    }

    @Test(arguments: [8_000.0, 32_000, 100_000])
    func workGrowsWithTheModelsAttention(attentionTokens: Double) throws {
        let router = fleet(1)
        var long = request(prompt: 20_000)
        long.attentionTokens = attentionTokens
        let first = try #require(router.assign(long, blocks: blocks(1, 30), now: 1))
        #expect(router.router.attempt(first)?.work == 20_000 * (1 + 10_000 / attentionTokens))
        serve(router, first, from: 1, firstAfter: 1, prompt: 20_000)
        // The new part reads all that is cached before it.
        long.promptTokens = 16_384
        let again = try #require(router.assign(long, blocks: blocks(1, 30), now: 5))
        let cached = 30.0 * 512
        let new = 16_384 - cached
        #expect(router.router.attempt(again)?.work == new * (1 + (cached + new / 2) / attentionTokens))
    }

    @Test func longQueueOutweighsAPrefix() throws {
        let router = fleet(2)
        let first = try #require(router.assign(request(prompt: 4_096), blocks: blocks(1, 8), now: 1))
        serve(router, first, from: 1, firstAfter: 0.4, prompt: 4_096)
        let other = "n\(1 - first.nodeIndex)"
        router.cordon(true, other)
        for _ in 0..<5 { _ = router.assign(request(prompt: 60_000), now: 3) }
        router.cordon(false, other)
        #expect(router.assign(request(prompt: 4_200), blocks: blocks(1, 8), now: 3)?.nodeIndex == 1 - first.nodeIndex)
    }

    /// Where more waits than the fleet can do, all that is left to save is work done twice.
    @Test func aPrefixOutweighsALongerQueueWhereAllQueuesAreLong() throws {
        let router = fleet(2)
        var waiting: [Assignment] = []
        for _ in 0..<600 {
            waiting.append(try #require(router.assign(request(prompt: 4_000), now: 3)))
            if waiting.count > 12 { router.complete(waiting.removeFirst(), now: 3) }
        }
        let first = try #require(router.assign(request(prompt: 4_096), blocks: blocks(1, 8), now: 3))
        let other = "n\(1 - first.nodeIndex)"
        router.cordon(true, other)
        for _ in 0..<6 { _ = router.assign(request(prompt: 60_000), now: 3) }
        router.cordon(false, other)
        #expect(router.assign(request(prompt: 4_200), blocks: blocks(1, 8), now: 3)?.nodeIndex == first.nodeIndex)
        // Whoever has nothing there goes where less waits.
        #expect(router.assign(request(prompt: 4_200), now: 3)?.nodeIndex == 1 - first.nodeIndex)
    }

    @Test func fasterNodesGetMoreWorkOnceTheirRatesAreLearned() throws {
        let router = fleet(2)
        var placed = [0, 0]
        for step in 0..<200 {
            let now = Double(step) * 2
            let one = try #require(router.assign(request(prompt: 10_000), now: now))
            let two = try #require(router.assign(request(prompt: 10_000), now: now))
            for assignment in [one, two] {
                placed[assignment.nodeIndex] += step < 100 ? 0 : 1
                // Node 0 does 20,000 tokens a second, node 1 5,000; one behind the other where both are here.
                let behind = one.nodeIndex == two.nodeIndex && assignment == two ? 2.0 : 1.0
                let seconds = 11_600.0 / (assignment.nodeIndex == 0 ? 20_000 : 5_000) * behind
                serve(router, assignment, from: now, firstAfter: seconds, prompt: 10_000)
            }
        }
        #expect(placed[0] > placed[1])
        let rates = router.status().map { $0.prefillTokensPerSecond ?? 0 }
        #expect(rates[0] > 2 * rates[1], "\(rates)")
    }

    @Test func curtailedNodeIsReckonedWithAtItsShareAtOnce() throws {
        let router = fleet(2)
        for step in 0..<40 {
            let now = Double(step)
            let one = try #require(router.assign(request(prompt: 8_000), now: now))
            serve(router, one, from: now, firstAfter: 0.5, prompt: 8_000)
        }
        let before = router.status().map { $0.prefillTokensPerSecond ?? 0 }
        router.curtail("n0", to: 0.35, now: 41)
        let after = router.status().map { $0.prefillTokensPerSecond ?? 0 }
        #expect(abs(after[0] / before[0] - 0.35) < 0.01 && after[1] == before[1], "\(before) \(after)")
        #expect(router.states() == ["n0=curtailed", "n1=ready"])
        #expect(router.assign(request(prompt: 8_000), now: 42)?.nodeIndex == 1)
        router.curtail("n0", to: 1, now: 50)
        #expect(router.states() == ["n0=ready", "n1=ready"])
    }

    @Test func siteThatWillStopTakesOnlyWhatEndsBefore() {
        let router = fleet(1)
        router.curtail("n0", to: 0, endsAt: 60, now: 1)
        #expect(router.assign(request(prompt: 1_000, output: 50), now: 2)?.nodeIndex == 0)
        #expect(router.assign(request(prompt: 1_000, output: 500_000), now: 2) == nil)
        #expect(router.assign(request(prompt: 1_000, output: 50), now: 59.9) == nil)
        #expect(router.assign(request(prompt: 1_000, output: 50), now: 61) == nil)
    }

    @Test func powerThatComesBackInPartIsAShareOfAll() throws {
        let router = fleet(1)
        let first = try #require(router.assign(request(prompt: 20_480), now: 1))
        serve(router, first, from: 1, firstAfter: 1.5, prompt: 20_480)
        let full = try #require(router.status()[0].prefillTokensPerSecond)
        for share in [0.35, 0, 0.4, 0.2, 1] {
            router.curtail("n0", to: share, now: 2)
            let rate = try #require(router.status(now: 2)[0].prefillTokensPerSecond)
            // Below a hundredth, and below the slowest that is believed, it makes no difference.
            #expect(abs(rate - max(500, full * max(share, 0.01))) < 1, "\(share): \(rate) of \(full)")
        }
    }

    /// Answers too short to measure end the slow start too.
    @Test func aNewNodeGetsItsShareOfShortPrompts() throws {
        let router = fleet(2)
        for index in 0..<2 {
            let node = try #require(router.assign(request(prompt: 20_480, excluded: [1 - index]), now: 1))
            serve(router, node, from: 1, firstAfter: 1.5, prompt: 20_480)
        }
        router.replace((0..<3).map { node("n\($0)", maxConcurrency: 10_000) })
        router.probe("n2", .healthy, now: 4)
        // A hundred a second, answered after half a second each: some sixteen at once a node.
        var counts = Array(repeating: 0, count: 20)
        var running: [(assignment: Assignment, at: Double)] = []
        for step in 0..<2_000 {
            let now = 5 + Double(step) / 100
            while let oldest = running.first, now - oldest.at >= 0.5 {
                router.firstToken(oldest.assignment, now: now)
                router.complete(running.removeFirst().assignment, now: now)
            }
            let short = try #require(router.assign(request(prompt: 200), now: now))
            if short.nodeIndex == 2 { counts[step / 100] += 1 }
            running.append((short, now))
        }
        #expect(counts[0] <= 1 && counts[1] <= 1, "\(counts)")
        #expect(counts.suffix(5).allSatisfy { $0 >= 20 }, "\(counts)")
    }

    /// What a prompt costs everywhere alike makes no queues equal.
    @Test func whereAllQueuesAreLongTheShorterIsStillTaken() throws {
        for seed in 1...8 {
            let router = RouterUnderTest.ready(
                (0..<2).map { node("n\($0)", maxConcurrency: 10_000) }, policy: .predictedCost, seed: UInt64(seed))
            var waiting: [Assignment] = []
            for _ in 0..<600 {
                waiting.append(try #require(router.assign(request(prompt: 4_000), now: 3)))
                if waiting.count > 12 { router.complete(waiting.removeFirst(), now: 3) }
            }
            router.cordon(true, "n1")
            for _ in 0..<2 { _ = router.assign(request(prompt: 12_000), now: 3) }
            router.cordon(false, "n1")
            #expect(router.assign(request(prompt: 20_000), now: 3)?.nodeIndex == 1, "seed \(seed)")
        }
    }

    @Test func whatTheOperatorChangesOfANodeHoldsAtOnce() {
        let router = fleet(1)
        let before = router.status()[0].kvCapacityTokens
        let spec = node("n0", maxConcurrency: 10_000)
        router.replace([
            NodeSpec(
                id: spec.id, site: spec.site, engine: spec.engine, speedClass: "l40", models: spec.models,
                maxConcurrency: spec.maxConcurrency, rttNanoseconds: 0)
        ])
        #expect(router.status()[0].kvCapacityTokens == SpeedClass.kvCapacityTokens(of: "l40"))
        #expect(router.status()[0].kvCapacityTokens < before)
    }

    @Test func nodeWithoutPowerTakesNothing() {
        let router = fleet(2)
        router.curtail("n0", to: 0, now: 1)
        for _ in 0..<20 { #expect(router.assign(request(), now: 2)?.nodeIndex == 1) }
    }

    @Test func drainingNodeTakesNothingNewAndKeepsWhatItHas() throws {
        let router = fleet(2)
        let before = try #require(router.assign(request(), now: 1))
        router.drain(true, "n0")
        router.drain(true, "n1")
        #expect(router.assign(request(), now: 2) == nil)
        #expect(router.states() == ["n0=draining", "n1=draining"])
        #expect(router.inflightCount == 1)
        router.complete(before, now: 3)
        router.drain(false, "n0")
        #expect(router.assign(request(), now: 4)?.nodeIndex == 0)
    }

    @Test func restartEmptiesTheIndexOfTheNode() throws {
        let router = fleet(4)
        let report = { NodeReport(runningRequests: 0, waitingRequests: 0, serverStart: $0) }
        let first = try #require(router.assign(request(prompt: 20_480), blocks: blocks(1, 40), now: 1))
        router.start(first, now: 1)
        let id = "n\(first.nodeIndex)"
        router.report(id, report(1), now: 1)
        #expect(router.status()[first.nodeIndex].prefixBlocks == 40)
        router.report(id, report(2), now: 2)
        #expect(router.status()[first.nodeIndex].prefixBlocks == 0)
    }

    /// The server that talked nonsense was restarted: its first reports are not believed yet.
    @Test func restartIsSeenOnceReportsAreBelievedAgain() throws {
        let router = fleet(1)
        let first = try #require(router.assign(request(prompt: 20_480), blocks: blocks(1, 40), now: 1))
        router.start(first, now: 1)
        router.report("n0", NodeReport(runningRequests: 0, waitingRequests: 0, serverStart: 1), now: 1)
        router.report("n0", NodeReport(runningRequests: .nan, waitingRequests: 0, serverStart: 1), now: 2)
        for second in 3...5 {
            #expect(router.status()[0].prefixBlocks == 40)
            router.report("n0", NodeReport(runningRequests: 0, waitingRequests: 0, serverStart: 2), now: Double(second))
        }
        #expect(router.status()[0].prefixBlocks == 0)
    }

    @Test func nodeThatIsLateWithItsHeadIsAvoided() throws {
        let router = fleet(2)
        let stuck = try #require(router.assign(request(prompt: 1_000), now: 1))
        for step in 0..<10 {
            let now = 31 + Double(step)
            let next = try #require(router.assign(request(prompt: 1_000), now: now))
            #expect(next.nodeIndex != stuck.nodeIndex)
            serve(router, next, from: now, firstAfter: 0.1, prompt: 1_000)
        }
    }

    @Test func plainAnswersDoNotCountAsQueuedForEver() throws {
        let router = fleet(1)
        var plain = request(prompt: 10_000)
        plain.isStreamed = false
        _ = try #require(router.assign(plain, now: 1))
        #expect(router.leastWait(request(), now: 1) > 0.5)
        // Nobody else has come: whoever asks for room finds out.
        #expect(router.leastWait(request(), now: 30) < 0.1)
        _ = try #require(router.assign(request(prompt: 1), now: 30))
        #expect(router.leastWait(request(), now: 30) < 0.1)
    }

    @Test func plainAnswersTeachNoRates() throws {
        let router = fleet(1)
        for step in 0..<20 {
            let now = 1 + 10 * Double(step)
            var plain = request(prompt: 5_000)
            plain.isStreamed = false
            let assignment = try #require(router.assign(plain, now: now))
            router.start(assignment, now: now)
            // All of it at once, after the prompt and four hundred tokens.
            router.finish(
                assignment, usage: TokenUsage(promptTokens: 5_000, cachedTokens: 0, completionTokens: 400), now: now + 8
            )
        }
        #expect(router.status(now: 300)[0].prefillTokensPerSecond == nil)
    }

    @Test func nodeThatWillStopIsNoRoomBesideOneThatIsFull() throws {
        let router = fleet(2)
        router.curtail("n1", to: 0, endsAt: 600, now: 1)
        // Too long for the node that will stop.
        for _ in 0..<40 {
            let long = try #require(router.assign(request(prompt: 20_000, output: 500_000), now: 2))
            #expect(long.nodeIndex == 0)
        }
        #expect(router.leastWait(request(), now: 2) > 3)
        router.cordon(true, "n0")
        #expect(router.leastWait(request(), now: 2) == 0)
    }

    @Test func reportsOfNonsenseChangeNoDecision() throws {
        func run(_ reports: [NodeReport]) -> [Int] {
            let router = fleet(4)
            return (0..<60).map { step in
                for (number, report) in reports.enumerated() {
                    router.report("n\(number % 4)", report, now: Double(step))
                }
                let next = router.assign(request(prompt: 5_000), now: Double(step) / 4)
                return next?.nodeIndex ?? -1
            }
        }
        let nonsense = [
            NodeReport(runningRequests: .nan, waitingRequests: 3), NodeReport(runningRequests: -4, waitingRequests: 0),
            NodeReport(runningRequests: 1, waitingRequests: 1e30, kvUsage: 7),
            NodeReport(runningRequests: 1, waitingRequests: 1, kvCapacityTokens: -5),
        ]
        #expect(run(nonsense) == run([]))
    }

    @Test func largeFleetIsSampledAndStillKeepsSessions() throws {
        let router = fleet(3_000)
        let first = try #require(router.assign(request(prompt: 20_480), blocks: blocks(9, 40), now: 1))
        serve(router, first, from: 1, firstAfter: 1.5, prompt: 20_480)
        let again = try #require(router.assign(request(prompt: 21_000), blocks: blocks(9, 41), now: 5))
        #expect(again.nodeIndex == first.nodeIndex)
        var seen: Set<Int> = []
        for session in 0..<200 {
            let next = try #require(
                router.assign(request(prompt: 5_000), blocks: blocks(UInt64(session + 100), 9), now: 6))
            seen.insert(next.nodeIndex)
        }
        #expect(seen.count > 150)
    }
}

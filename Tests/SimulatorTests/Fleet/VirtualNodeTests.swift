import Simulator
import Testing

@Suite struct NodeModelTests {
    @Test func aPromptTakesItsPrefillAndAStepForEachChunk() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 2_000)
        node.run()
        // Two chunks, 1,024 and 976 tokens.
        #expect(abs((node.firstTokens[1] ?? 0) - 2.02) < 1e-9)
        #expect(node.ends[1] == node.firstTokens[1])
        #expect(node.node.wakeAt == .infinity)
    }

    @Test func anAnswerTakesAStepForEachTokenAfterTheFirst() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 1_000, output: 11)
        node.run()
        #expect(abs((node.ends[1] ?? 0) - (1.01 + 0.10)) < 1e-9)
    }

    @Test func attentionMakesTheSecondHalfOfAPromptDearer() {
        var profile = plain
        profile.attentionSecondsPerTokenPair = 1e-6
        let node = NodeUnderTest(profile)
        node.accept(1, prompt: 2_048)
        node.run()
        let first = 0.01 + 1.024 + 1e-6 * 1_024 * 512
        let second = 0.01 + 1.024 + 1e-6 * 1_024 * (1_024 + 512)
        #expect(abs((node.firstTokens[1] ?? 0) - first - second) < 1e-9)
    }

    @Test func wholeBlocksOfAPromptAreReusedAndTheRestIsComputed() {
        let node = NodeUnderTest()
        let shared = blocks(1, 4)
        node.accept(1, prompt: 2_100, blocks: shared)
        node.run()
        node.accept(2, prompt: 2_100, blocks: shared, at: 10)
        node.run()
        #expect(node.cached[1] == 0)
        #expect(node.cached[2] == 2_048)
        #expect(abs((node.firstTokens[2] ?? 0) - 10.062) < 1e-9)
    }

    @Test func aPromptThatIsCachedWholeStillComputesItsLastBlock() {
        let node = NodeUnderTest()
        let shared = blocks(1, 4)
        node.accept(1, prompt: 2_048, blocks: shared)
        node.run()
        node.accept(2, prompt: 2_048, blocks: shared, at: 10)
        node.run()
        #expect(node.cached[2] == 1_536)
    }

    @Test func anArrivalCutsDecodeShortAtTheStepsEnd() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 1_000, output: 1_001)
        // Steps end at 1.01 + n x 0.01.
        node.accept(2, prompt: 500, at: 2.005)
        node.run()
        #expect(abs((node.firstTokens[2] ?? 0) - (2.01 + 0.51)) < 1e-6)
    }

    @Test func decodeGoesOnDuringAnothersPrefillAStepForEachChunk() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 1_000, output: 4)
        node.accept(2, prompt: 3_000, at: 1.0)
        node.run()
        // The first token at 1.01; three more with the three chunks of the other.
        #expect(abs((node.ends[1] ?? 0) - (node.firstTokens[2] ?? 1)) < 1e-9)
    }

    @Test func whatDoesNotFitWaitsUntilMemoryIsFree() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 6_000, output: 100)
        node.accept(2, prompt: 6_000)
        node.run()
        #expect((node.firstTokens[2] ?? 0) > (node.ends[1] ?? .infinity))
    }

    @Test func aPromptLargerThanTheMemoryIsTakenByAnIdleNode() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 20_000, blocks: blocks(1, 39))
        node.run()
        #expect(node.ends[1] != nil)
    }

    @Test func theYoungestIsPreemptedWhenDecodeOutgrowsTheMemoryAndEndsAllTheSame() {
        let node = NodeUnderTest()
        // 8,192 tokens of memory, two answers that need 4,000 + 3,000 each.
        node.accept(1, prompt: 4_000, output: 3_000)
        node.accept(2, prompt: 3_900, output: 3_000)
        node.run()
        #expect(node.node.preemptions >= 1)
        #expect((node.ends[1] ?? .infinity) < (node.ends[2] ?? 0))
        #expect(node.node.metrics(now: 1e6).kvUsage == 0)
    }

    @Test func halfTheSpeedTakesTwiceTheTimeFromTheNextStepOn() {
        let node = NodeUnderTest()
        node.accept(1, prompt: 1_000, output: 1_001)
        // In the midst of the step that ends at 2.01: 100 of 1,000 done, 900 at 20 ms.
        node.setSpeed(0.5, at: 2.005)
        node.run()
        #expect(abs((node.ends[1] ?? 0) - (2.01 + 900 * 0.02)) < 1e-6)
    }

    @Test(arguments: [0.0, 0.5, 1.5, 30.0])
    func aCancelledRequestLeavesNothingBehind(at seconds: Double) {
        let node = NodeUnderTest()
        node.accept(1, prompt: 1_000, output: 2_000, blocks: blocks(1, 1))
        node.accept(2, prompt: 1_000, output: 2_000, blocks: blocks(2, 1))
        node.cancel(1, at: seconds)
        node.run()
        #expect(node.ends[2] != nil)
        #expect((node.ends[1] == nil) == (seconds < 20))
        let metrics = node.node.metrics(now: 1e6)
        #expect(metrics.runningRequests == 0 && metrics.waitingRequests == 0)
        #expect(metrics.kvUsage == 0 && metrics.waitingTokens == 0 && metrics.prefillTokens == 0)
        #expect(node.node.workIDs.isEmpty)
    }

    @Test func metricsCountWhatRunsAndWhatWaits() {
        let node = NodeUnderTest()
        for id in Int32(0)..<12 { node.accept(id, prompt: 600) }
        let metrics = node.node.metrics(now: 0)
        // One was admitted with the first arrival, others are not before its step ends.
        #expect(metrics.runningRequests == 1)
        #expect(metrics.waitingRequests == 11)
        #expect(metrics.waitingTokens == 6_600)
        #expect(metrics.prefillTokens == 600)
    }

    @Test func cacheEventsAddUpToTheCache() {
        var node = VirtualNode(plain)
        node.recordsCacheEvents = true
        var known: Set<UInt64> = []
        var outcomes: [VirtualNode.Outcome] = []
        for id in Int32(0)..<20 {
            let prompt = blocks(UInt64(id % 7), 3)
            node.accept(.init(id: id, promptTokens: 1_600, outputTokens: 2, blocks: prompt), now: Double(id) * 10)
            node.advance(to: Double(id) * 10 + 9, into: &outcomes)
            let (stored, evicted) = node.takeCacheEvents()
            known.subtract(evicted)
            known.formUnion(stored)
            for other in UInt64(0)..<7 {
                #expect(node.matchCount(blocks(other, 3)) == blocks(other, 3).prefix { known.contains($0) }.count)
            }
        }
        #expect(!known.isEmpty && known.count <= plain.kvCapacityBlocks)
    }
}

import Domain
import Support
import Testing

@testable import Routing

/// By reference, since an expectation cannot call what mutates a value.
private final class IndexUnderTest {
    private(set) var index: PrefixIndex

    init(nodes: Int, blocks: Int, _ indexing: PrefixIndexing = .kvCapacity) {
        index = PrefixIndex(indexing)
        index.fleetChanged(count: nodes)
        index.setCapacities((0..<nodes).map { ($0, blocks * PrefixIndex.blockTokens) })
    }

    /// Blocks matched by node.
    func match(_ blocks: [UInt64]) -> [Int: Int] {
        index.match(blocks.span)
        return Dictionary(uniqueKeysWithValues: index.matches.map { (Int($0.node), Int($0.blocks)) })
    }

    func insert(_ blocks: [UInt64], node: Int, now: Double = 1) {
        index.insert(blocks.span, node: node, now: seconds(now))
    }

    func heardEvent() { index.heardEvent() }

    func stored(_ blocks: [UInt64], node: Int) { index.stored(blocks.span, node: node, now: seconds(1)) }
    func evicted(_ blocks: [UInt64], node: Int) { index.evicted(blocks.span, node: node) }
    func empty(_ node: Int) { index.empty(node) }
    func count(_ node: Int) -> Int { index.count(node) }
    func capacity(_ node: Int) -> Int { index.capacity(node) }

    func observed(_ node: Int, believed: Int, cached: Int) {
        index.observed(node, believedTokens: believed, cachedTokens: cached)
    }

    func setCapacity(_ node: Int, blocks: Int) { index.setCapacity(node, tokens: blocks * PrefixIndex.blockTokens) }
}

/// Hashes as a prompt's would be: each covers all before it.
private func chain(_ session: UInt64, _ count: Int, sharing shared: [UInt64] = []) -> [UInt64] {
    let seed = session &* 1_000_003 &+ (shared.last ?? 0) &* 31
    return shared + (0..<max(0, count - shared.count)).map { (seed &+ UInt64($0)) &* 0x9E37_79B9_7F4A_7C15 | 1 }
}

struct PrefixIndexTests {
    @Test func longestKnownPrefixIsFoundForEachHolder() {
        let index = IndexUnderTest(nodes: 4, blocks: 1_000)
        let system = chain(1, 5)
        index.insert(chain(2, 40, sharing: system), node: 0)
        index.insert(Array(chain(2, 40, sharing: system).prefix(17)), node: 1)
        index.insert(chain(3, 9, sharing: system), node: 2)
        #expect(index.match(chain(2, 60, sharing: system)) == [0: 40, 1: 17, 2: 5])
        #expect(index.match(chain(9, 60)).isEmpty)
        #expect(index.match([]).isEmpty)
    }

    @Test(arguments: 1...10)
    func matchesAreThoseOfAPlainModelUnderRandomUse(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        let (nodes, capacity) = (6, 60)
        let index = IndexUnderTest(nodes: nodes, blocks: capacity)
        // Per node, newest last.
        var model: [[UInt64]] = Array(repeating: [], count: nodes)
        let systems = (0..<3).map { chain(UInt64(900 + $0), 6) }
        for step in 0..<400 {
            let node = random.int(0...nodes - 1)
            let prompt = chain(UInt64(random.int(1...12)), random.int(1...30), sharing: systems[random.int(0...2)])
            if step % 50 == 49 {
                index.empty(node)
                model[node] = []
            } else {
                index.insert(prompt, node: node, now: Double(step))
                for block in prompt.reversed() {
                    model[node].removeAll { $0 == block }
                    model[node].append(block)
                }
                if model[node].count > capacity { model[node].removeFirst(model[node].count - capacity) }
            }
            try #require(index.count(node) == model[node].count, "seed \(seed) step \(step)")
            let asked = chain(UInt64(random.int(1...12)), 40, sharing: systems[random.int(0...2)])
            var expected: [Int: Int] = [:]
            for node in 0..<nodes {
                let depth = asked.prefix { model[node].contains($0) }.count
                if depth > 0 { expected[node] = depth }
            }
            try #require(index.match(asked) == expected, "seed \(seed) step \(step)")
        }
    }

    /// Chained, its hashes all differ: the bounds of a prompt's blocks and of a node's entries hold it.
    @Test func promptOfOneRepeatedBlockFillsNoMoreThanItsNodesShare() {
        let index = IndexUnderTest(nodes: 2, blocks: 100)
        index.insert(chain(2, 60), node: 1)
        var blocks = PromptBlocks(key: SipHash.Key(low: 1, high: 2))
        blocks.begin(salt: 3)
        let block = [UInt8](repeating: 65, count: PromptBlocks.blockBytes)
        for _ in 0..<5_000 { block.withUnsafeBytes { blocks.append($0) } }
        #expect(blocks.hashes.count == PromptBlocks.blocksMax && Set(blocks.hashes).count == PromptBlocks.blocksMax)
        index.insert(Array(blocks.hashes), node: 0)
        #expect(index.count(0) == 100)
        #expect(index.match(chain(2, 60)) == [1: 60])
        // A cache event can name one block many times.
        index.insert(Array(repeating: 7, count: 5_000), node: 1)
        #expect(index.count(1) == 61)
    }

    @Test func blockHasEightHoldersAtMostAndTheStalestGivesWay() {
        let index = IndexUnderTest(nodes: 20, blocks: 100)
        let prompt = chain(1, 10)
        for node in 0..<20 { index.insert(prompt, node: node, now: Double(node)) }
        #expect(index.match(prompt) == Dictionary(uniqueKeysWithValues: (12..<20).map { ($0, 10) }))
        #expect((0..<12).allSatisfy { index.count($0) == 0 })
    }

    @Test func restartOrSmallerCacheForgets() {
        let index = IndexUnderTest(nodes: 2, blocks: 100)
        index.insert(chain(1, 50), node: 0)
        index.insert(chain(2, 50), node: 0, now: 2)
        index.setCapacity(0, blocks: 60)
        #expect(index.match(chain(2, 50)) == [0: 50])
        #expect(index.match(chain(1, 50)) == [0: 10])
        index.empty(0)
        #expect(index.match(chain(2, 50)).isEmpty && index.count(0) == 0)
    }

    @Test func overPredictionShrinksTheIndexAndBeingRightLetsItGrowBack() {
        let index = IndexUnderTest(nodes: 1, blocks: 1_000, .kvCapacityLearned)
        for _ in 0..<1_000 { index.observed(0, believed: 50_000, cached: 0) }
        #expect(index.capacity(0) == 300)
        for _ in 0..<1_300 { index.observed(0, believed: 50_000, cached: 50_000) }
        #expect(index.capacity(0) == 1_000)
        let fixed = IndexUnderTest(nodes: 1, blocks: 1_000, .kvCapacity)
        fixed.observed(0, believed: 50_000, cached: 0)
        #expect(fixed.capacity(0) == 1_000)
    }

    @Test func cacheEventsAreTakenExactly() {
        let index = IndexUnderTest(nodes: 1, blocks: 100, .events)
        index.insert(chain(1, 10), node: 0)
        #expect(index.match(chain(1, 10)) == [0: 10])
        // From the first event on nothing is guessed.
        index.heardEvent()
        #expect(index.match(chain(1, 10)).isEmpty)
        index.insert(chain(1, 10), node: 0)
        #expect(index.match(chain(1, 10)).isEmpty)
        index.stored(chain(1, 10), node: 0)
        index.evicted(Array(chain(1, 10).suffix(4)), node: 0)
        #expect(index.match(chain(1, 10)) == [0: 6])
    }

    @Test func memoryOfAThousandNodesStaysUnderAHundredMegabytes() {
        let index = IndexUnderTest(nodes: 1_000, blocks: 1_500)
        #expect(index.index.memoryBytes < 100 << 20, "\(index.index.memoryBytes)")
        // Whatever the nodes claim to hold.
        let liars = IndexUnderTest(nodes: 1_000, blocks: 1 << 30)
        #expect(liars.index.memoryBytes < 110 << 20, "\(liars.index.memoryBytes)")
        #expect(IndexUnderTest(nodes: 1, blocks: 1_500).index.memoryBytes < 120_000)
    }
}

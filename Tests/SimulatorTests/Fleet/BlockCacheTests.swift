import Domain
import Simulator
import Testing

@Suite struct BlockCacheTests {
    private func expectEviction(from cache: inout BlockCache, _ expected: Bool) {
        let isEvicted = cache.evictOldest()
        #expect(isEvicted == expected)
    }

    @Test func theOldestUnpinnedIsEvictedAndAPrefixOutlivesItsContinuation() {
        var cache = BlockCache(reserving: 8)
        cache.pin([1, 2, 3])
        expectEviction(from: &cache, false)
        cache.unpin([1, 2, 3])
        expectEviction(from: &cache, true)
        #expect(cache.matchCount([1, 2, 3]) == 2)
        cache.pin([1])
        expectEviction(from: &cache, true)
        expectEviction(from: &cache, false)
        #expect(cache.matchCount([1, 2, 3]) == 1)
    }

    @Test func twoWhoPinABlockMustBothLetGo() {
        var cache = BlockCache(reserving: 4)
        cache.pin([7])
        cache.pin([7])
        cache.unpin([7])
        #expect(cache.pinnedCount == 1 && !cache.isUnpinned(7))
        cache.unpin([7])
        #expect(cache.pinnedCount == 0 && cache.isUnpinned(7))
    }

    /// Against an array of blocks in the order of their last use.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithAPlainModel(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var cache = BlockCache(reserving: 4)
        var pins: [UInt64: Int] = [:]
        var unpinned: [UInt64] = []
        for step in 0..<20_000 {
            let key = SplitMix64.mix(UInt64(random.below(200)))
            switch random.below(5) {
            case 0, 1:
                cache.pin([key])
                unpinned.removeAll { $0 == key }
                pins[key, default: 0] += 1
            case 2, 3:
                cache.unpin([key])
                if let count = pins[key], count > 0 {
                    pins[key] = count == 1 ? nil : count - 1
                    if count == 1 { unpinned.append(key) }
                }
            default:
                expectEviction(from: &cache, !unpinned.isEmpty)
                if !unpinned.isEmpty { unpinned.removeFirst() }
            }
            #expect(
                cache.pinnedCount == pins.count && cache.unpinnedCount == unpinned.count, "step \(step), seed \(seed)")
            #expect(cache.contains(key) == (pins[key] != nil || unpinned.contains(key)), "step \(step), seed \(seed)")
        }
    }
}

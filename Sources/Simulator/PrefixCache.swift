/// Which prompt blocks a node has keys and values of: an LRU over hash-chained blocks, as vLLM's prefix caching.
///
/// A block's hash covers all before it, so the longest known prefix is the run of known hashes from the front. The
/// capacity is the node's KV memory in blocks; the share that running requests pin is not modelled here.
struct PrefixCache {
    /// Tokens in a block: vLLM's default.
    static let blockTokens = 16

    private struct Entry {
        var hash: UInt64
        var older: Int
        var newer: Int
    }

    private static let nowhere = -1

    private let capacity: Int
    private var slots: [UInt64: Int] = [:]
    private var entries: [Entry] = []
    private var oldest = nowhere
    private var newest = nowhere

    /// - Parameter capacityTokens: What the node's memory holds; at least one block is kept.
    init(capacityTokens: Int) {
        capacity = max(1, capacityTokens / Self.blockTokens)
    }

    var count: Int { entries.count }

    /// How many tokens of a prompt need no computing, at most `promptTokens - 1`: the last one always runs, since its
    /// output is the first token. Touches what it finds.
    mutating func hitTokens(_ blocks: [UInt64], promptTokens: Int) -> Int {
        var hits = 0
        for hash in blocks {
            guard let slot = slots[hash] else { break }
            touch(slot)
            hits += 1
        }
        let whole = max(0, promptTokens - 1) / Self.blockTokens
        return min(hits, whole) * Self.blockTokens
    }

    /// Remembers a prompt's blocks. The chain's tail is the first to go, since it is of no use without its head.
    mutating func insert(_ blocks: [UInt64]) {
        for hash in blocks.prefix(capacity).reversed() {
            if let slot = slots[hash] {
                touch(slot)
            } else if entries.count < capacity {
                entries.append(Entry(hash: hash, older: Self.nowhere, newer: Self.nowhere))
                slots[hash] = entries.count - 1
                link(entries.count - 1)
            } else {
                let slot = oldest
                slots[entries[slot].hash] = nil
                unlink(slot)
                entries[slot].hash = hash
                slots[hash] = slot
                link(slot)
            }
        }
    }

    private mutating func touch(_ slot: Int) {
        guard slot != newest else { return }
        unlink(slot)
        link(slot)
    }

    private mutating func unlink(_ slot: Int) {
        let (older, newer) = (entries[slot].older, entries[slot].newer)
        if older == Self.nowhere { oldest = newer } else { entries[older].newer = newer }
        if newer == Self.nowhere { newest = older } else { entries[newer].older = older }
    }

    private mutating func link(_ slot: Int) {
        entries[slot].older = newest
        entries[slot].newer = Self.nowhere
        if newest == Self.nowhere { oldest = slot } else { entries[newest].newer = slot }
        newest = slot
    }
}

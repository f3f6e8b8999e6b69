import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Which prompt blocks each node has cached, as far as the gateway can know.
///
/// One entry per (block, node), found by the block's hash: entries of one block form a chain of at most ``holdersMax``,
/// entries of one node a list from its oldest to its newest, of at most as many as its cache holds blocks. A placed
/// prompt is touched from its last block to its first, so that a prefix is never older than what extends it: whoever
/// holds block i holds all before it, as in the node's own cache, and a match is found by halving rather than walking.
///
/// Bounds: ``entriesMax`` entries in all, 32 bytes each and 8 to 16 for their slot, 100 MB at the most; 1,500 entries
/// of a node take 72 kB. All of it is reserved when the fleet or a capacity changes; a decision allocates nothing. A
/// block that repeats within a prompt is one entry. Hashes are keyed by the caller, so that no client can choose which
/// of them meet in the table; they are mixed again here only to spread what a test or a trace makes up.
struct PrefixIndex: Sendable {
    /// Tokens of one block.
    package static let blockTokens = 512
    /// Nodes that one block is known to be on: beyond, the newcomer takes the place of the one longest untouched.
    static let holdersMax = 8
    /// Over all nodes. Where the capacities sum to more, each node gets its even share at most.
    static let entriesMax = 1 << 21
    /// Blocks of one node, whatever it says that it holds: 16.7 million tokens.
    static let nodeEntriesMax = 1 << 15
    /// A capacity that over-predicts shrinks to this share of what the node says, not further.
    static let learnedShareMin = 0.3
    /// A node's index counts as full from this share of its capacity.
    static let fullShare = 0.97

    struct Entry {
        var key: UInt64 = 0
        /// In the list of the node.
        var older = none
        var newer = none
        /// The next entry of the same block; the next free entry for one that is free.
        var sibling = none
        var touched: UInt32 = 0
        var node: UInt16 = 0
    }

    struct Holding {
        var oldest = none
        var newest = none
        var count: Int32 = 0
        /// What the node's cache holds, and what of that is used: the share learned from what it really had.
        var capacityFull: Int32 = 0
        var capacity: Int32 = 0
        var share = 1.0
        /// Where the last match stands, if it does: ``matches`` is the judge.
        var match: Int32 = 0
    }

    /// How much of a prompt one node has.
    struct Match {
        var node: Int32
        var blocks: Int32
        var entry: Int32
    }

    static let none: Int32 = -1

    let indexing: PrefixIndexing
    /// Whether nodes tell by events what they hold.
    private var hearsEvents = false
    var entries: ContiguousArray<Entry> = []
    var firstFree = none
    var nodes: ContiguousArray<Holding> = []
    /// Open addressing, linear probing: the high half is that of the hash, the low half the chain's first entry plus 1; 0
    /// is empty.
    var slots: ContiguousArray<UInt64> = []
    var slotShift: UInt64 = 64
    var matches: ContiguousArray<Match> = []

    init(_ indexing: PrefixIndexing) {
        self.indexing = indexing
    }

    var isUsed: Bool { indexing != .none }

    // MARK: Capacity

    /// Reserves for `count` nodes. Those whose index is at or above it are forgotten; others keep what is known of them.
    mutating func fleetChanged(count: Int) {
        guard isUsed else { return }
        let count = min(count, Int(UInt16.max))
        while nodes.count > count {
            empty(nodes.count - 1)
            nodes.removeLast()
        }
        while nodes.count < count { nodes.append(Holding()) }
        matches.reserveCapacity(count)
    }

    /// Sets how many tokens each of several nodes holds, and makes room for that.
    mutating func setCapacities(_ tokens: some Collection<(node: Int, tokens: Int)>) {
        guard isUsed else { return }
        for (node, tokens) in tokens where node < nodes.count { nodes[node].capacityFull = blocks(ofTokens: tokens) }
        let fairShare = Int32(Self.entriesMax / max(1, nodes.count))
        for node in nodes.indices { nodes[node].capacityFull = min(nodes[node].capacityFull, fairShare) }
        for node in nodes.indices { fitCapacity(node) }
        reserve(nodes.reduce(0) { $0 + Int($1.capacityFull) })
    }

    mutating func setCapacity(_ node: Int, tokens: Int) {
        setCapacities(CollectionOfOne((node: node, tokens: tokens)))
    }

    private func blocks(ofTokens tokens: Int) -> Int32 {
        switch indexing {
        case .none: 0
        case .blocks(let count): Int32(clamping: min(count, Self.nodeEntriesMax))
        case .kvCapacity, .kvCapacityLearned, .events:
            Int32(clamping: max(1, min(tokens / Self.blockTokens, Self.nodeEntriesMax)))
        }
    }

    private mutating func fitCapacity(_ node: Int) {
        let capacity = max(1, Int32(Double(nodes[node].capacityFull) * nodes[node].share))
        nodes[node].capacity = min(capacity, nodes[node].capacityFull)
        while nodes[node].count > nodes[node].capacity { remove(nodes[node].oldest) }
    }

    /// Grows the table of entries and the slots; never shrinks either.
    private mutating func reserve(_ total: Int) {
        guard total > entries.count else { return }
        var slotCount = 16
        while slotCount < total + total / 2 { slotCount *= 2 }
        let old = entries.count
        entries.reserveCapacity(total)
        Self.useHugePages(entries)
        for index in old..<total {
            var entry = Entry()
            entry.sibling = index + 1 < total ? Int32(index + 1) : firstFree
            entries.append(entry)
        }
        firstFree = Int32(old)
        guard slotCount > slots.count else { return }
        let chains = slots.filter { $0 != 0 }
        slots = []
        slots.reserveCapacity(slotCount)
        Self.useHugePages(slots)
        slots.append(contentsOf: repeatElement(0, count: slotCount))
        slotShift = UInt64(64 - slotCount.trailingZeroBitCount)
        for chain in chains {
            let first = Int32(truncatingIfNeeded: chain & 0xFFFF_FFFF) - 1
            slots[slot(of: entries[Int(first)].key).position] = chain
        }
    }

    /// Asks for large pages where a table has more small ones than a processor remembers: a look at a random place of it
    /// costs twice as much otherwise. Not being heard does no harm.
    private static func useHugePages<Element>(_ table: ContiguousArray<Element>) {
        #if os(Linux)
        let (page, bytes) = (1 << 21, table.capacity * MemoryLayout<Element>.stride)
        guard bytes >= 4 * page else { return }
        table.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            // SAFETY: whole pages within what the array has reserved; the advice changes no byte of them.
            let first = (UInt(bitPattern: base) + UInt(page) - 1) & ~UInt(page - 1)
            let end = (UInt(bitPattern: base) + UInt(bytes)) & ~UInt(page - 1)
            _ = madvise(UnsafeMutableRawPointer(bitPattern: first), Int(end - first), MADV_HUGEPAGE)
        }
        #endif
    }

    // MARK: Learning

    /// A prompt was placed on a node, which will have cached it.
    mutating func insert(_ blocks: Span<UInt64>, node: Int, now: MonotonicTime) {
        guard indexing != .events || !hearsEvents else { return }
        stored(blocks, node: node, now: now)
    }

    /// Nodes tell what they hold: what was guessed until now is forgotten.
    mutating func heardEvent() {
        guard indexing == .events, !hearsEvents else { return }
        hearsEvents = true
        for node in nodes.indices { empty(node) }
    }

    /// A node holds these blocks.
    mutating func stored(_ blocks: Span<UInt64>, node: Int, now: MonotonicTime) {
        guard isUsed, node < nodes.count, nodes[node].capacity > 0 else { return }
        let time = Self.ticks(now)
        var position = blocks.count - 1
        fetchAhead(blocks, from: position, count: Self.aheadCount)
        while position >= 0 {
            position = Self.touchKnown(
                blocks, from: position, node: node, time: time, &entries, &nodes[node], slots: slots, slotShift)
            guard position >= 0 else { break }
            fetchAhead(blocks, from: position - Self.aheadCount, count: 1)
            add(blocks[position], node: node, time: time)
            position -= 1
        }
    }

    mutating func evicted(_ blocks: Span<UInt64>, node: Int) {
        guard isUsed, node < nodes.count, !slots.isEmpty else { return }
        for position in 0..<blocks.count {
            let entry = holder(node, in: chain(blocks[position])).entry
            if entry != Self.none { remove(entry) }
        }
    }

    /// Compares what was believed cached with what the node says that it had. Believing too much shrinks the node's
    /// index, since its cache serves others too or is smaller than it says; being right lets it grow back.
    mutating func observed(_ node: Int, believedTokens: Int, cachedTokens: Int) {
        guard indexing == .kvCapacityLearned, node < nodes.count else { return }
        if believedTokens > cachedTokens + Self.blockTokens {
            nodes[node].share = max(Self.learnedShareMin, nodes[node].share * 0.995)
        } else if cachedTokens >= believedTokens, nodes[node].share < 1 {
            nodes[node].share = min(1, nodes[node].share * 1.001)
        } else {
            return
        }
        fitCapacity(node)
    }

    /// The node has nothing cached any more.
    mutating func empty(_ node: Int) {
        guard isUsed, node < nodes.count else { return }
        while nodes[node].oldest != Self.none { remove(nodes[node].oldest) }
        nodes[node].share = 1
    }

    /// Blocks of a node that are known.
    func count(_ node: Int) -> Int { node < nodes.count ? Int(nodes[node].count) : 0 }
    func capacity(_ node: Int) -> Int { node < nodes.count ? Int(nodes[node].capacity) : 0 }

    /// Bytes that the tables take.
    var memoryBytes: Int {
        entries.capacity * MemoryLayout<Entry>.stride + slots.capacity * MemoryLayout<UInt64>.stride
            + nodes.capacity * MemoryLayout<Holding>.stride + matches.capacity * MemoryLayout<Match>.stride
    }

    // MARK: Time

    /// Sixteenths of a second: eight years in 32 bits.
    static let tickNanoseconds: Int64 = 62_500_000

    static func ticks(_ time: MonotonicTime) -> UInt32 {
        UInt32(truncatingIfNeeded: time.nanoseconds / tickNanoseconds)
    }

    static func seconds(from touched: UInt32, to now: MonotonicTime) -> Double {
        Double(max(0, Int64(ticks(now)) - Int64(touched))) / 16
    }
}

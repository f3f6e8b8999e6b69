import CPrefetch
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

    private struct Entry {
        var key: UInt64 = 0
        /// In the list of the node.
        var older = none
        var newer = none
        /// The next entry of the same block; the next free entry for one that is free.
        var sibling = none
        var touched: UInt32 = 0
        var node: UInt16 = 0
    }

    private struct Holding {
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
        fileprivate(set) var entry: Int32
    }

    private static let none: Int32 = -1

    private let indexing: PrefixIndexing
    private var entries: ContiguousArray<Entry> = []
    private var firstFree = none
    private var nodes: ContiguousArray<Holding> = []
    /// Open addressing, linear probing: the high half is that of the hash, the low half the chain's first entry plus 1; 0
    /// is empty.
    private var slots: ContiguousArray<UInt64> = []
    private var slotShift: UInt64 = 64
    private(set) var matches: ContiguousArray<Match> = []

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

    // MARK: Matching

    /// Leaves in ``matches`` every node that is known to hold a beginning of `blocks`, with how much of it.
    mutating func match(_ blocks: Span<UInt64>) {
        matches.removeAll(keepingCapacity: true)
        guard isUsed, !slots.isEmpty, !blocks.isEmpty else { return }
        fetchAhead(blocks)
        let first = chain(blocks[0])
        guard first != Self.none else { return }
        // The deepest block that anyone holds: double the distance, then halve it.
        var low = 0
        var lowCount = note(first, depth: 1)
        var high = 1
        while high < blocks.count {
            let entry = chain(blocks[high])
            if entry == Self.none { return refine(blocks, from: low, lowCount, to: high, 0) }
            let count = note(entry, depth: high + 1)
            refine(blocks, from: low, lowCount, to: high, count)
            low = high
            lowCount = count
            high = high * 2 + 1
        }
        // A session that went on is known but for its last few blocks: the same from the end.
        high = blocks.count
        var distance = 1
        while blocks.count - distance > low {
            let entry = chain(blocks[blocks.count - distance])
            if entry != Self.none {
                let middle = blocks.count - distance
                let count = note(entry, depth: middle + 1)
                refine(blocks, from: low, lowCount, to: middle, count)
                (low, lowCount) = (middle, count)
                break
            }
            high = blocks.count - distance
            distance *= 2
        }
        refine(blocks, from: low, lowCount, to: high, 0)
    }

    /// Begins to load the slots that a match looks at first, then their entries: each is far from the others, and one by
    /// one they would cost more than all the rest of a decision.
    private func fetchAhead(_ blocks: Span<UInt64>) {
        let count = blocks.count
        slots.withUnsafeBufferPointer { slots in
            entries.withUnsafeBufferPointer { entries in
                // SAFETY: a slot's place is below their count by its shift, an entry's index is one that this table
                // handed out; and what is prefetched is not looked at.
                guard let slotBase = slots.baseAddress, let entryBase = entries.baseAddress else { return }
                Self.forEachProbe(count) { tollgate_prefetch(slotBase + Int(Self.mix(blocks[$0]) >> slotShift)) }
                Self.forEachProbe(count) {
                    let slot = slotBase[Int(Self.mix(blocks[$0]) >> slotShift)]
                    if slot != 0 { tollgate_prefetch(entryBase + (Int(truncatingIfNeeded: slot & 0xFFFF_FFFF) - 1)) }
                }
            }
        }
    }

    /// The positions at which ``match(_:)`` looks before it halves: 0, 1, 3, 7 and so on, and from the end.
    @inline(__always)
    private static func forEachProbe(_ count: Int, _ body: (Int) -> Void) {
        var low = 0
        while low < count {
            body(low)
            low = low * 2 + 1
        }
        low = (low - 1) / 2
        var distance = 1
        while count - distance > low {
            body(count - distance)
            distance *= 2
        }
    }

    /// Between two depths with different holders lie the depths at which some of them end.
    private mutating func refine(_ blocks: Span<UInt64>, from low: Int, _ lowCount: Int, to high: Int, _ highCount: Int)
    {
        guard high - low > 1, lowCount != highCount else { return }
        let middle = low + (high - low) / 2
        let entry = chain(blocks[middle])
        let count = entry == Self.none ? 0 : note(entry, depth: middle + 1)
        refine(blocks, from: low, lowCount, to: middle, count)
        refine(blocks, from: middle, count, to: high, highCount)
    }

    /// Every holder of the entry's block matches at least so deep.
    private mutating func note(_ first: Int32, depth: Int) -> Int {
        var entry = first
        var count = 0
        while entry != Self.none {
            let node = Int32(entries[Int(entry)].node)
            note(Match(node: node, blocks: Int32(depth), entry: entry))
            entry = entries[Int(entry)].sibling
            count += 1
        }
        return count
    }

    private mutating func note(_ match: Match) {
        let position = Int(nodes[Int(match.node)].match)
        if position < matches.count, matches[position].node == match.node {
            if matches[position].blocks < match.blocks { matches[position] = match }
            return
        }
        nodes[Int(match.node)].match = Int32(matches.count)
        matches.append(match)
    }

    /// How long ago the deepest block that the last match found on a node was used, in seconds; nil where it found at
    /// most two, since those are everyone's: a system prompt says nothing of how soon sessions come back.
    func reuseSeconds(of node: Int, now: MonotonicTime) -> Double? {
        guard let match = matches.first(where: { $0.node == Int32(node) }), match.blocks > 2 else { return nil }
        return Self.seconds(from: entries[Int(match.entry)].touched, to: now)
    }

    /// When the oldest block of a node was last used: what a new one would evict. nil while the node has room.
    func tailUsedAt(_ node: Int) -> MonotonicTime? {
        guard node < nodes.count, nodes[node].oldest != Self.none,
            Double(nodes[node].count) >= Double(nodes[node].capacity) * Self.fullShare
        else { return nil }
        return MonotonicTime(nanoseconds: Int64(entries[Int(nodes[node].oldest)].touched) * Self.tickNanoseconds)
    }

    // MARK: Learning

    /// A prompt was placed on a node, which will have cached it.
    mutating func insert(_ blocks: Span<UInt64>, node: Int, now: MonotonicTime) {
        guard indexing != .events else { return }
        stored(blocks, node: node, now: now)
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

    /// Blocks whose slots are being loaded while others are stored.
    private static let aheadCount = 8

    /// Begins to load the slots of blocks before they are stored.
    private func fetchAhead(_ blocks: Span<UInt64>, from last: Int, count: Int) {
        slots.withUnsafeBufferPointer { slots in
            guard let base = slots.baseAddress else { return }
            for position in max(0, last - count + 1)..<max(0, last + 1) {
                // SAFETY: as in ``fetchAhead(_:)``.
                tollgate_prefetch(base + Int(Self.mix(blocks[position]) >> slotShift))
            }
        }
    }

    /// Begins to load what removing the node's next oldest entry will look at, and the entry after it.
    private func fetchAhead(removalAfter entry: Int32) {
        let next = entries[Int(entry)].newer
        guard next != Self.none else { return }
        let (key, following) = (entries[Int(next)].key, entries[Int(next)].newer)
        // SAFETY: as in ``fetchAhead(_:)``.
        slots.withUnsafeBufferPointer { slots in
            if let base = slots.baseAddress { tollgate_prefetch(base + Int(Self.mix(key) >> slotShift)) }
        }
        guard following != Self.none else { return }
        entries.withUnsafeBufferPointer { if let base = $0.baseAddress { tollgate_prefetch(base + Int(following)) } }
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

    // MARK: Entries

    /// Makes the newest, from a block towards the first, those that the node is known to hold.
    ///
    /// - Returns: The first on the way that it is not known to hold; -1 where it is known to hold all.
    private static func touchKnown(
        _ blocks: Span<UInt64>, from last: Int, node: Int, time: UInt32, _ entries: inout ContiguousArray<Entry>,
        _ holding: inout Holding, slots: ContiguousArray<UInt64>, _ slotShift: UInt64
    ) -> Int {
        let mask = slots.count - 1
        let slots = slots.span
        var entries = entries.mutableSpan
        var position = last
        // SAFETY: entries, older, newer and sibling are indexes that this table handed out, below `entries.count`; slots
        // are masked by their count. This loop is most of what a decision costs beside the scan.
        while position >= 0 {
            if position >= aheadCount {
                let ahead = Int(truncatingIfNeeded: mix(blocks[position - aheadCount]) >> slotShift)
                slots.withUnsafeBufferPointer { if let base = $0.baseAddress { tollgate_prefetch(base + ahead) } }
            }
            if position >= aheadCount / 2 {
                let slot = slots[
                    unchecked: Int(truncatingIfNeeded: mix(blocks[position - aheadCount / 2]) >> slotShift)]
                let ahead = Int(truncatingIfNeeded: slot & 0xFFFF_FFFF) - 1
                entries.withUnsafeMutableBufferPointer {
                    if let base = $0.baseAddress, slot != 0 { tollgate_prefetch(base + ahead) }
                }
            }
            let key = blocks[position]
            let mixed = Self.mix(key)
            var place = Int(truncatingIfNeeded: mixed >> slotShift)
            var entry = Self.none
            while true {
                let slot = slots[unchecked: place]
                if slot == 0 { break }
                if slot >> 32 == mixed >> 32 {
                    let first = Int32(truncatingIfNeeded: slot & 0xFFFF_FFFF) - 1
                    if entries[unchecked: Int(first)].key == key {
                        entry = first
                        break
                    }
                }
                place = (place + 1) & mask
            }
            while entry != Self.none, Int(entries[unchecked: Int(entry)].node) != node {
                entry = entries[unchecked: Int(entry)].sibling
            }
            guard entry != Self.none else { break }
            entries[unchecked: Int(entry)].touched = time
            position -= 1
            if holding.newest == entry { continue }
            let (older, newer) = (entries[unchecked: Int(entry)].older, entries[unchecked: Int(entry)].newer)
            if older == Self.none { holding.oldest = newer } else { entries[unchecked: Int(older)].newer = newer }
            if newer != Self.none { entries[unchecked: Int(newer)].older = older }
            entries[unchecked: Int(entry)].older = holding.newest
            entries[unchecked: Int(entry)].newer = Self.none
            entries[unchecked: Int(holding.newest)].newer = entry
            holding.newest = entry
        }
        return position
    }

    /// The node holds a block that it was not known to hold.
    private mutating func add(_ key: UInt64, node: Int, time: UInt32) {
        let found = holder(node, in: chain(key))
        if found.count >= Self.holdersMax { remove(found.stalest) }
        if nodes[node].count >= nodes[node].capacity {
            fetchAhead(removalAfter: nodes[node].oldest)
            remove(nodes[node].oldest)
        }
        guard firstFree != Self.none else { return }
        let entry = firstFree
        firstFree = entries[Int(entry)].sibling
        entries[Int(entry)].key = key
        entries[Int(entry)].touched = time
        entries[Int(entry)].node = UInt16(truncatingIfNeeded: node)
        let (position, first) = slot(of: key)
        entries[Int(entry)].sibling = first
        slots[position] = Self.tag(key) | UInt64(UInt32(entry) + 1)
        linkAsNewest(entry, node: node)
        nodes[node].count += 1
    }

    /// The node's entry in a chain, how long the chain is, and which of it is the longest untouched.
    private func holder(_ node: Int, in first: Int32) -> (entry: Int32, count: Int, stalest: Int32) {
        var entry = first
        var stalest = first
        var count = 0
        while entry != Self.none {
            if Int(entries[Int(entry)].node) == node { return (entry, count, stalest) }
            if entries[Int(entry)].touched < entries[Int(stalest)].touched { stalest = entry }
            entry = entries[Int(entry)].sibling
            count += 1
        }
        return (Self.none, count, stalest)
    }

    private mutating func remove(_ entry: Int32) {
        guard entry != Self.none else { return }
        let node = Int(entries[Int(entry)].node)
        unlinkFromNode(entry)
        nodes[node].count -= 1
        let key = entries[Int(entry)].key
        let next = entries[Int(entry)].sibling
        let (position, first) = slot(of: key)
        if first != entry {
            var before = first
            while entries[Int(before)].sibling != entry { before = entries[Int(before)].sibling }
            entries[Int(before)].sibling = next
        } else if next != Self.none {
            slots[position] = Self.tag(key) | UInt64(UInt32(next) + 1)
        } else {
            clear(slot: position)
        }
        entries[Int(entry)].sibling = firstFree
        firstFree = entry
    }

    private mutating func unlinkFromNode(_ entry: Int32) {
        let node = Int(entries[Int(entry)].node)
        let older = entries[Int(entry)].older
        let newer = entries[Int(entry)].newer
        if older == Self.none { nodes[node].oldest = newer } else { entries[Int(older)].newer = newer }
        if newer == Self.none { nodes[node].newest = older } else { entries[Int(newer)].older = older }
    }

    private mutating func linkAsNewest(_ entry: Int32, node: Int) {
        let newest = nodes[node].newest
        entries[Int(entry)].older = newest
        entries[Int(entry)].newer = Self.none
        if newest == Self.none { nodes[node].oldest = entry } else { entries[Int(newest)].newer = entry }
        nodes[node].newest = entry
    }

    // MARK: Slots

    private static func mix(_ key: UInt64) -> UInt64 { (key ^ key >> 32) &* 0x9E37_79B9_7F4A_7C15 }

    /// The half of a slot that tells most other keys apart without looking at the entry.
    private static func tag(_ key: UInt64) -> UInt64 { mix(key) & ~0xFFFF_FFFF }

    /// The first entry of the block's chain.
    private func chain(_ key: UInt64) -> Int32 { slot(of: key).first }

    /// Where the key is, with its chain; where it would go, with none.
    private func slot(of key: UInt64) -> (position: Int, first: Int32) {
        let mixed = Self.mix(key)
        let mask = slots.count - 1
        var position = Int(truncatingIfNeeded: mixed >> slotShift)
        while true {
            let slot = slots[position]
            if slot == 0 { return (position, Self.none) }
            if slot >> 32 == mixed >> 32 {
                let first = Int32(truncatingIfNeeded: slot & 0xFFFF_FFFF) - 1
                if entries[Int(first)].key == key { return (position, first) }
            }
            position = (position + 1) & mask
        }
    }

    /// Empties a slot and moves those behind it up, so that no search stops short of them.
    private mutating func clear(slot position: Int) {
        let mask = slots.count - 1
        var hole = position
        var next = (position + 1) & mask
        while slots[next] != 0 {
            let home = Int(truncatingIfNeeded: slots[next] >> slotShift)
            if (next - home) & mask >= (next - hole) & mask {
                slots[hole] = slots[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        slots[hole] = 0
    }

    // MARK: Time

    /// Sixteenths of a second: eight years in 32 bits.
    private static let tickNanoseconds: Int64 = 62_500_000

    private static func ticks(_ time: MonotonicTime) -> UInt32 {
        UInt32(truncatingIfNeeded: time.nanoseconds / tickNanoseconds)
    }

    private static func seconds(from touched: UInt32, to now: MonotonicTime) -> Double {
        Double(max(0, Int64(ticks(now)) - Int64(touched))) / 16
    }
}

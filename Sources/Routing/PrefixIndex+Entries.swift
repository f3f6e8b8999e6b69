import CPrefetch

/// The table itself: entries in their node's list and their block's chain, and the slots that find the chains.
extension PrefixIndex {
    /// Blocks whose slots are being loaded while others are stored.
    static let aheadCount = 8

    /// Begins to load the slots of blocks before they are stored.
    func fetchAhead(_ blocks: Span<UInt64>, from last: Int, count: Int) {
        let slotShift = slotShift
        slots.withUnsafeBufferPointer { slots in
            guard let base = slots.baseAddress else { return }
            for position in max(0, last - count + 1)..<max(0, last + 1) {
                // SAFETY: as in ``fetchAhead(_:)``.
                tollgate_prefetch(base + Int(Self.mix(blocks[position]) >> slotShift))
            }
        }
    }

    /// Begins to load what removing the node's next oldest entry will look at, and the entry after it. Mutating although
    /// it changes nothing: within a mutating function the compiler calls any other kind on a copy of the whole index.
    private mutating func fetchAhead(removalAfter entry: Int32) {
        let next = entries[Int(entry)].newer
        guard next != Self.none else { return }
        let (slot, following) = (Int(Self.mix(entries[Int(next)].key) >> slotShift), entries[Int(next)].newer)
        // SAFETY: as in ``fetchAhead(_:)``.
        slots.withUnsafeBufferPointer { if let base = $0.baseAddress { tollgate_prefetch(base + slot) } }
        guard following != Self.none else { return }
        entries.withUnsafeBufferPointer { if let base = $0.baseAddress { tollgate_prefetch(base + Int(following)) } }
    }

    /// Makes the newest, from a block towards the first, those that the node is known to hold.
    ///
    /// - Returns: The first on the way that it is not known to hold; -1 where it is known to hold all.
    static func touchKnown(
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
    mutating func add(_ key: UInt64, node: Int, time: UInt32) {
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
    func holder(_ node: Int, in first: Int32) -> (entry: Int32, count: Int, stalest: Int32) {
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

    mutating func remove(_ entry: Int32) {
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

    static func mix(_ key: UInt64) -> UInt64 { (key ^ key >> 32) &* 0x9E37_79B9_7F4A_7C15 }

    /// The half of a slot that tells most other keys apart without looking at the entry.
    private static func tag(_ key: UInt64) -> UInt64 { mix(key) & ~0xFFFF_FFFF }

    /// The first entry of the block's chain.
    func chain(_ key: UInt64) -> Int32 { slot(of: key).first }

    /// Where the key is, with its chain; where it would go, with none.
    func slot(of key: UInt64) -> (position: Int, first: Int32) {
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
}

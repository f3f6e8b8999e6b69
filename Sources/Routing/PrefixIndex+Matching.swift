import CPrefetch
import Domain

/// Who holds a beginning of a prompt, found in a logarithm of its blocks.
extension PrefixIndex {
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
        let (count, slotShift) = (blocks.count, slotShift)
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
}

/// The blocks that a node holds, by chained hash: some pinned by running requests, the others in the order of their
/// last use, the oldest evicted first.
///
/// An open-addressed table of places in a slab, the slab's free ones in a list, the unpinned in another: no
/// allocation once grown. Chained hashes are uniform already, so they are not hashed again.
package struct BlockCache: Sendable {
    private static let none: Int32 = -1

    // The slab: by place.
    private var keys: ContiguousArray<UInt64> = []
    private var pins: ContiguousArray<Int32> = []
    private var previous: ContiguousArray<Int32> = []
    private var next: ContiguousArray<Int32> = []
    private var firstFree = Self.none

    /// Places by key, a power of two of them, at most half full.
    private var table: ContiguousArray<Int32>
    private var mask: Int

    private var oldest = Self.none
    private var newest = Self.none
    package private(set) var pinnedCount = 0
    package private(set) var unpinnedCount = 0

    /// Whether what comes and goes is noted for ``takeEvents()``.
    package var recordsEvents = false
    private var stored: [UInt64] = []
    private var evicted: [UInt64] = []

    package init(reserving capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        table = ContiguousArray(repeating: Self.none, count: size)
        mask = size - 1
    }

    package var count: Int { pinnedCount + unpinnedCount }

    package func contains(_ key: UInt64) -> Bool { place(of: key) != Self.none }

    /// Whether the block is here and unpinned.
    package func isUnpinned(_ key: UInt64) -> Bool {
        let place = place(of: key)
        return place != Self.none && pins[Int(place)] == 0
    }

    /// How many of the first blocks are here.
    package func matchCount(_ blocks: ArraySlice<UInt64>) -> Int {
        var count = 0
        for key in blocks {
            guard contains(key) else { break }
            count += 1
        }
        return count
    }

    /// Adds what is not here.
    package mutating func pin(_ blocks: ArraySlice<UInt64>) {
        for key in blocks {
            let held = place(of: key)
            if held == Self.none {
                insert(key)
                pinnedCount += 1
                continue
            }
            if pins[Int(held)] == 0 {
                unlink(held)
                pinnedCount += 1
            }
            pins[Int(held)] += 1
        }
    }

    /// The last block becomes the oldest: what a longer prefix needs is evicted after it.
    package mutating func unpin(_ blocks: ArraySlice<UInt64>) {
        for key in blocks.reversed() {
            let held = place(of: key)
            guard held != Self.none, pins[Int(held)] > 0 else { continue }
            pins[Int(held)] -= 1
            if pins[Int(held)] == 0 {
                pinnedCount -= 1
                linkNewest(held)
            }
        }
    }

    /// - Returns: Whether there was one to evict.
    package mutating func evictOldest() -> Bool {
        guard oldest != Self.none else { return false }
        let place = oldest
        if recordsEvents { evicted.append(keys[Int(place)]) }
        unlink(place)
        removeFromTable(place)
        next[Int(place)] = firstFree
        firstFree = place
        return true
    }

    /// What came and went since the last call: a block that did both is in neither.
    package mutating func takeEvents() -> (stored: [UInt64], evicted: [UInt64]) {
        defer {
            stored.removeAll(keepingCapacity: true)
            evicted.removeAll(keepingCapacity: true)
        }
        if stored.isEmpty || evicted.isEmpty { return (stored, evicted) }
        let (came, went) = (Set(stored), Set(evicted))
        return (stored.filter { !went.contains($0) && contains($0) }, evicted.filter { !came.contains($0) })
    }

    // MARK: The list of the unpinned

    private mutating func linkNewest(_ place: Int32) {
        previous[Int(place)] = newest
        next[Int(place)] = Self.none
        if newest == Self.none { oldest = place } else { next[Int(newest)] = place }
        newest = place
        unpinnedCount += 1
    }

    private mutating func unlink(_ place: Int32) {
        let before = previous[Int(place)]
        let after = next[Int(place)]
        if before == Self.none { oldest = after } else { next[Int(before)] = after }
        if after == Self.none { newest = before } else { previous[Int(after)] = before }
        unpinnedCount -= 1
    }

    // MARK: The table

    private func home(of key: UInt64) -> Int { Int(truncatingIfNeeded: key >> 7) & mask }

    private func place(of key: UInt64) -> Int32 {
        var position = home(of: key)
        while true {
            let place = table[position]
            if place == Self.none || keys[Int(place)] == key { return place }
            position = (position + 1) & mask
        }
    }

    private mutating func insert(_ key: UInt64) {
        if (count + 1) * 2 > table.count { grow() }
        var place = firstFree
        if place == Self.none {
            place = Int32(keys.count)
            keys.append(key)
            pins.append(1)
            previous.append(Self.none)
            next.append(Self.none)
        } else {
            firstFree = next[Int(place)]
            keys[Int(place)] = key
            pins[Int(place)] = 1
        }
        putInTable(place)
        if recordsEvents { stored.append(key) }
    }

    private mutating func putInTable(_ place: Int32) {
        var position = home(of: keys[Int(place)])
        while table[position] != Self.none { position = (position + 1) & mask }
        table[position] = place
    }

    /// Moves up what stood behind the hole, so that no search ends early.
    private mutating func removeFromTable(_ place: Int32) {
        var hole = home(of: keys[Int(place)])
        while table[hole] != place { hole = (hole + 1) & mask }
        var position = hole
        while true {
            position = (position + 1) & mask
            let candidate = table[position]
            if candidate == Self.none { break }
            let home = home(of: keys[Int(candidate)])
            if (position - home) & mask >= (position - hole) & mask {
                table[hole] = candidate
                hole = position
            }
        }
        table[hole] = Self.none
    }

    private mutating func grow() {
        let places = table.filter { $0 != Self.none }
        table = ContiguousArray(repeating: Self.none, count: table.count * 2)
        mask = table.count - 1
        for place in places { putInTable(place) }
    }
}

/// Byte-pair merging: while any two neighbours merge, merge the pair of least rank, the leftmost of equals.
///
/// Pieces of up to 64 symbols keep ids and ranks in two small arrays and look for the least by a scan (those of up to
/// 32, nearly all, are merged several at a time: ``MergeLanes``). Longer ones would take quadratic time; they keep the ranks in the leaves of a tree of minima with 16 children to a node, so
/// that finding the leftmost least and changing three ranks cost a few hundred comparisons for a piece of a megabyte.
/// Merged symbols stay where they were: a token lives in the cell of its first symbol, and its first and last cell
/// know each other. That is 4 bytes of id, 4 of the other end and 4 * 16/15 of ranks per symbol, and nothing grows.
struct BytePairMerger {
    // SAFETY: borrowed from the ``TokenizerScratch`` that lent them for this call; each holds `capacity` elements
    // (`tree` what ``treeCount(_:)`` says), and symbols are never more than `capacity`.
    let ids: UnsafeMutablePointer<UInt32>
    let ranks: UnsafeMutablePointer<UInt32>
    let ends: UnsafeMutablePointer<UInt32>

    /// Merges up to ``TokenizerLimits/scannedSymbolsMax`` symbols in `ids`, in place.
    ///
    /// Here and in ``mergeTree(_:_:)``, `ranks` holds the rank of each symbol with the next.
    /// - Returns: How many ids are left, at the start of `ids`.
    @inline(__always)
    func mergeScanned(_ symbols: Int, _ pairs: PairTable) -> Int {
        var count = symbols
        guard count > 1 else { return count }
        while true {
            var least = PairTable.none
            var place = 0
            for index in 0..<(count &- 1) where ranks[index] < least {
                least = ranks[index]
                place = index
            }
            if least == PairTable.none { return count }
            let id = pairs.result(ofRank: least)
            count &-= 1
            // Both look-ups start before anything waits for either.
            let before = place > 0 ? pairs.rank(ids[place &- 1], id) : PairTable.none
            let after = place &+ 1 < count ? pairs.rank(id, ids[place &+ 2]) : PairTable.none
            for index in (place &+ 1)..<max(count, place &+ 1) {
                ids[index] = ids[index &+ 1]
                ranks[index] = ranks[index &+ 1]
            }
            ids[place] = id
            ranks[place] = after
            if place > 0 { ranks[place &- 1] = before }
        }
    }

    /// Merges any number of symbols in `ids`, in place.
    ///
    /// - Returns: How many ids are left, at the start of `ids`.
    func mergeTree(_ symbols: Int, _ pairs: PairTable) -> Int {
        guard symbols > 1 else { return symbols }
        let tree = RankTree(ranks, count: symbols)
        for index in 0..<symbols {
            ends[index] = UInt32(truncatingIfNeeded: index)
        }
        tree.build()
        var count = symbols
        while let place = tree.leftmostLeast() {
            let right = Int(truncatingIfNeeded: ends[place]) &+ 1
            let last = Int(truncatingIfNeeded: ends[right])
            let id = pairs.result(ofRank: ranks[place])
            ids[place] = id
            ends[place] = UInt32(truncatingIfNeeded: last)
            ends[last] = UInt32(truncatingIfNeeded: place)
            count &-= 1
            tree.set(right, PairTable.none)
            let next = last &+ 1
            tree.set(place, next < symbols ? pairs.rank(id, ids[next]) : PairTable.none)
            if place > 0 {
                let before = Int(truncatingIfNeeded: ends[place &- 1])
                tree.set(before, pairs.rank(ids[before], id))
            }
        }
        var from = 0
        for to in 0..<count {
            ids[to] = ids[from]
            from = Int(truncatingIfNeeded: ends[from]) &+ 1
        }
        return count
    }
}

/// The least of many ranks, and the first place that has it: a tree of minima, each of 16 below.
struct RankTree {
    private static let fanOut = 16
    private static let levelsMax = 8

    // SAFETY: `ranks` has room for ``cells(for:)`` of `count`; level 0 is the ranks themselves, padded with `none` to a
    // multiple of 16, and each next level follows the one before it.
    private let ranks: UnsafeMutablePointer<UInt32>
    private let count: Int
    /// Where each level starts; only the first ``levels`` are used.
    private var starts: SIMD8<Int>
    private let levels: Int

    /// Cells that a tree over `count` ranks takes.
    static func cells(for count: Int) -> Int {
        var total = 0
        var width = count
        repeat {
            width = (width + fanOut - 1) / fanOut
            total += width * fanOut
        } while width > 1
        return total
    }

    init(_ ranks: UnsafeMutablePointer<UInt32>, count: Int) {
        self.ranks = ranks
        self.count = count
        starts = SIMD8(repeating: 0)
        var level = 0
        var width = count
        var start = 0
        repeat {
            precondition(level < Self.levelsMax)
            starts[level] = start
            width = (width + Self.fanOut - 1) / Self.fanOut
            start += width * Self.fanOut
            level += 1
        } while width > 1
        levels = level
    }

    /// Fills the levels above the ranks.
    func build() {
        var width = count
        for level in 0..<levels {
            let padded = (width + Self.fanOut - 1) / Self.fanOut * Self.fanOut
            for index in width..<padded { ranks[starts[level] + index] = PairTable.none }
            width = padded / Self.fanOut
            guard level + 1 < levels else { return }
            for index in 0..<width { ranks[starts[level + 1] + index] = least(level, index) }
        }
    }

    /// The first place of the least rank; nil where no pair merges.
    func leftmostLeast() -> Int? {
        var level = levels &- 1
        let wanted = least(level, 0)
        guard wanted != PairTable.none else { return nil }
        var node = 0
        while true {
            let base = ranks + (starts[level] &+ node &* Self.fanOut)
            var child = 0
            while base[child] != wanted { child &+= 1 }
            node = node &* Self.fanOut &+ child
            if level == 0 { return node }
            level &-= 1
        }
    }

    @inline(__always)
    func set(_ place: Int, _ rank: UInt32) {
        guard ranks[place] != rank else { return }
        ranks[place] = rank
        var node = place
        var level = 0
        while level &+ 1 < levels {
            node /= Self.fanOut
            let minimum = least(level, node)
            let cell = starts[level &+ 1] &+ node
            if ranks[cell] == minimum { return }
            ranks[cell] = minimum
            level &+= 1
        }
    }

    @inline(__always)
    private func least(_ level: Int, _ node: Int) -> UInt32 {
        let base = UnsafeRawPointer(ranks + (starts[level] &+ node &* Self.fanOut))
        return base.loadUnaligned(as: SIMD16<UInt32>.self).min()
    }
}

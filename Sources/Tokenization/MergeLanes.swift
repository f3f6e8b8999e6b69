/// Pieces that are merged side by side, each in a lane of cells; a token lives in the cell of its first symbol.
///
/// All pairs that the lanes ask for are looked up together, in steps: first what is asked is begun to load, then those
/// that the filter knows are begun to load, then they are looked at. No step waits for the memory of a single one.
struct MergeLanes {
    /// Pieces that are merged side by side.
    static let lanesMax = 32
    /// Symbols of a piece; also the cells of a lane.
    static let symbolsMax = 32
    /// Of a pair that does not merge: at least this.
    private static let noRank: Int32 = 0x7FFF_FFE0
    private static let placeBits = UInt32(5)
    private static let cells = lanesMax * symbolsMax
    /// Of an asked pair the bits of its cell; above them are its two tokens.
    private static let cellBits = UInt64(10)

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning scratch calls. Cells are places below 32,
    // those of bits of `alive`, in lanes below 32; a cell asks for at most one pair before the queue is emptied.
    /// For each cell the rank of it with the next token, times 32, plus its place: the least of a lane is its leftmost
    /// pair of least rank.
    private let ranks: UnsafeMutablePointer<Int32>
    private let tokens: UnsafeMutablePointer<UInt32>
    /// For each lane a bit for each cell that has a token.
    private let alive: UnsafeMutablePointer<UInt32>
    /// For each lane the piece that is in it.
    let pieces: UnsafeMutablePointer<UInt8>
    /// The lanes in which something may still merge.
    let live: UnsafeMutablePointer<UInt8>
    /// Pairs that are to be looked up.
    private let asked: UnsafeMutablePointer<UInt64>
    private var askedCount = 0

    static let memoryBytes = cells * 16 + lanesMax * 6

    init() {
        ranks = .allocate(capacity: Self.cells)
        tokens = .allocate(capacity: Self.cells)
        alive = .allocate(capacity: Self.lanesMax)
        pieces = .allocate(capacity: Self.lanesMax)
        live = .allocate(capacity: Self.lanesMax)
        // And one that is written but does not count.
        asked = .allocate(capacity: Self.cells + 1)
    }

    func deallocate() {
        ranks.deallocate()
        tokens.deallocate()
        alive.deallocate()
        pieces.deallocate()
        live.deallocate()
        asked.deallocate()
    }

    /// Puts a piece into a lane and asks for its pairs.
    ///
    /// - Parameters:
    ///   - symbols: Readable for ``symbolsMax``.
    ///   - count: 1...``symbolsMax``.
    @inline(__always)
    mutating func begin(_ lane: Int, _ symbols: UnsafePointer<UInt32>, _ count: Int, piece: UInt8, _ pairs: PairTable) {
        let first = lane &* Self.symbolsMax
        UnsafeMutableRawPointer(tokens + first).copyMemory(from: symbols, byteCount: Self.symbolsMax &* 4)
        (ranks + first).update(repeating: Self.noRank, count: Self.symbolsMax)
        alive[lane] = UInt32.max &>> UInt32(truncatingIfNeeded: Self.symbolsMax &- count)
        pieces[lane] = piece
        for place in 0..<(count &- 1) { ask(symbols[place], symbols[place &+ 1], first &+ place, true, pairs) }
    }

    /// Notes that the pair of a cell is to be looked up.
    @inline(__always)
    private mutating func ask(_ left: UInt32, _ right: UInt32, _ cell: Int, _ isWanted: Bool, _ pairs: PairTable) {
        let key = PairTable.key(left, right)
        asked[askedCount] = key &<< Self.cellBits | UInt64(truncatingIfNeeded: cell)
        askedCount &+= isWanted ? 1 : 0
        pairs.prefetchFilter(key)
    }

    /// Looks up all that was asked.
    @inline(__always)
    mutating func answer(_ pairs: PairTable) {
        var known = 0
        for index in 0..<askedCount {
            let pair = asked[index]
            asked[known] = pair
            known &+= pairs.mayHave(pair &>> Self.cellBits, prefetching: true)
        }
        for index in 0..<known {
            let cell = Int(truncatingIfNeeded: asked[index] & ((1 &<< Self.cellBits) &- 1))
            let rank = pairs.knownRank(asked[index] &>> Self.cellBits)
            let place = UInt32(truncatingIfNeeded: cell & (Self.symbolsMax &- 1))
            ranks[cell] = Int32(truncatingIfNeeded: (rank &<< Self.placeBits | place) & 0x7FFF_FFFF)
        }
        askedCount = 0
    }

    /// Merges one pair of a lane, and asks for those of the new token.
    ///
    /// - Returns: False where none merges.
    @inline(__always)
    mutating func merge(_ lane: Int, _ pairs: PairTable) -> Bool {
        let first = lane &* Self.symbolsMax
        let least = least(first)
        guard least < Self.noRank else { return false }
        let place = UInt32(truncatingIfNeeded: least) & UInt32(Self.symbolsMax &- 1)
        let token = pairs.result(ofRank: UInt32(truncatingIfNeeded: least) &>> Self.placeBits)
        let alive = self.alive[lane]
        let above = alive & (~1 &<< place)
        let right = above.trailingZeroBitCount
        let after = above & (above &- 1)
        let below = alive & ((1 &<< place) &- 1)
        // Where there is no neighbour, some other cell, whose pair is then not asked for.
        let beyond = after.trailingZeroBitCount & (Self.symbolsMax &- 1)
        let before = below == 0 ? right : 31 &- below.leadingZeroBitCount
        self.alive[lane] = alive & ~(1 &<< UInt32(truncatingIfNeeded: right))
        let cell = first &+ Int(truncatingIfNeeded: place)
        tokens[cell] = token
        ranks[cell] = Self.noRank
        ranks[first &+ right] = Self.noRank
        ranks[first &+ before] = Self.noRank
        ask(token, tokens[first &+ beyond], cell, after != 0, pairs)
        ask(tokens[first &+ before], token, first &+ before, below != 0, pairs)
        return true
    }

    /// Moves the tokens that are left of a lane together.
    @inline(__always)
    func finish(_ lane: Int) -> (ids: UnsafePointer<UInt32>, count: Int) {
        let ids = tokens + lane &* Self.symbolsMax
        var alive = self.alive[lane]
        var count = 0
        while alive != 0 {
            ids[count] = ids[alive.trailingZeroBitCount]
            count &+= 1
            alive &= alive &- 1
        }
        return (UnsafePointer(ids), count)
    }

    /// The least of a lane's ranks.
    @inline(__always)
    private func least(_ first: Int) -> Int32 {
        let lane = UnsafeRawPointer(ranks + first)
        var four = lane.loadUnaligned(as: SIMD4<Int32>.self)
        for part in 1..<(Self.symbolsMax / 4) {
            four = Self.lesser(four, lane.loadUnaligned(fromByteOffset: part &* 16, as: SIMD4<Int32>.self))
        }
        return min(min(four.x, four.y), min(four.z, four.w))
    }

    /// The lesser of each two, which are not negative: arithmetic that every processor has for vectors.
    @inline(__always)
    private static func lesser(_ left: SIMD4<Int32>, _ right: SIMD4<Int32>) -> SIMD4<Int32> {
        let difference = left &- right
        return right &+ (difference & (difference &>> 31))
    }
}

extension PieceEncoder {
    /// Merges the first `count` pieces of the batch's `missing`.
    @inline(never)
    mutating func mergeTogether(_ count: Int) {
        var lanes = batch.lanes
        let pairs = vocabulary.pairs
        var started = 0
        while started < count {
            var active = 0
            while started < count, active < MergeLanes.lanesMax {
                if begin(active, batch.missing[started], &lanes) {
                    lanes.live[active] = UInt8(truncatingIfNeeded: active)
                    active &+= 1
                }
                started &+= 1
            }
            lanes.answer(pairs)
            while active > 0 {
                var left = 0
                for index in 0..<active {
                    let lane = lanes.live[index]
                    lanes.live[left] = lane
                    if lanes.merge(Int(lane), pairs) {
                        left &+= 1
                    } else {
                        let (ids, count) = lanes.finish(Int(lane))
                        keep(Int(lanes.pieces[Int(lane)]), ids, count)
                    }
                }
                active = left
                lanes.answer(pairs)
            }
        }
    }

    /// Puts the symbols of a piece into a lane.
    ///
    /// - Returns: False where they are too many: such a piece is merged at once.
    @inline(__always)
    private mutating func begin(_ lane: Int, _ number: UInt8, _ lanes: inout MergeLanes) -> Bool {
        let entry = batch.entries + Int(number)
        // SAFETY: a piece of the batch has at most 64 bytes, and the merger room for as many symbols.
        let merger = scratch.merger(symbols: TokenizerLimits.scannedSymbolsMax)
        let symbols = vocabulary.symbols.split(
            entry.pointee.start, Int(truncatingIfNeeded: entry.pointee.length), isText: true, vocabulary,
            into: merger.ids)
        guard symbols > 0, symbols <= MergeLanes.symbolsMax else {
            keep(Int(number), merger.ids, vocabulary.merge(symbols, merger))
            return false
        }
        lanes.begin(lane, merger.ids, symbols, piece: number, vocabulary.pairs)
        return true
    }
}

/// From the bytes of a token to its id: open addressing, 16 bytes a slot, linear probing, at most 5 slots in 8 used.
///
/// A token of up to 8 bytes is decided by its slot alone; a longer one also by comparing its bytes.
struct TokenTable {
    static let none = UInt32.max

    private struct Slot {
        var low: UInt64
        /// The length of tokens up to 8 bytes; of longer ones bits of the hash, with the top bit set.
        var tag: UInt32
        var id: UInt32
    }

    // SAFETY: allocated by `init`, freed by `deallocate`, which the owning ``Tokenizer`` calls in `deinit`. `bytes`
    // are of the same owner; indices are masked to the table's size.
    private let slots: UnsafeMutablePointer<Slot>
    private let slotCount: Int
    private let shift: UInt64
    private let bytes: TokenBytes
    /// A bit for each hash that some token has: small enough to stay near, for pieces that are no token.
    private let filter: UnsafeMutablePointer<UInt64>
    private let filterMask: UInt64
    let seed: PieceKey.Seed

    init(tokensMax: Int, bytes: TokenBytes, seed: PieceKey.Seed) {
        var bits = 4
        while (1 << bits) * 5 < tokensMax * 8 { bits += 1 }
        slotCount = 1 << bits
        shift = UInt64(64 - bits)
        slots = TableMemory.allocate(slotCount, repeating: Slot(low: 0, tag: 0, id: Self.none))
        self.bytes = bytes
        self.seed = seed
        var filterBits = 10
        while 1 << filterBits < tokensMax * 8 { filterBits += 1 }
        filterMask = (1 << UInt64(filterBits)) - 1
        filter = TableMemory.allocate((1 << filterBits) / 64, repeating: 0)
    }

    func deallocate() {
        TableMemory.deallocate(slots)
        TableMemory.deallocate(filter)
    }

    var memoryBytes: Int { slotCount * MemoryLayout<Slot>.stride + Int(filterMask + 1) / 8 }

    /// Begins to load what a key of that hash is looked for in.
    @inline(__always)
    func prefetch(_ hash: UInt64) {
        Tokenization.prefetch(filter + Int(truncatingIfNeeded: (hash & filterMask) &>> 6))
        Tokenization.prefetch(slots + Int(truncatingIfNeeded: hash &>> shift))
    }

    /// The id of the token that has exactly these bytes; ``none`` where there is none.
    ///
    /// - Parameters:
    ///   - low: A word of the bytes: that of ``PieceKey`` or, of longer ones, the first eight.
    ///   - hash: That of ``PieceKey`` or, of longer ones, ``longHash(_:_:)``.
    @inline(__always)
    func find(_ low: UInt64, hash: UInt64, _ start: UnsafeRawPointer, length: Int) -> UInt32 {
        let bit = hash & filterMask
        guard filter[Int(truncatingIfNeeded: bit &>> 6)] &>> (bit & 63) & 1 != 0 else { return Self.none }
        let tag = Self.tag(hash, length)
        var index = Int(truncatingIfNeeded: hash &>> shift)
        while true {
            let slot = slots[index]
            if slot.id == Self.none { return Self.none }
            if slot.low == low, slot.tag == tag, length <= 8 || bytes.equal(slot.id, start, length) {
                return slot.id
            }
            index = (index &+ 1) & (slotCount &- 1)
        }
    }

    /// As above, of more than ``PieceKey/shortMax`` bytes.
    @inline(__always)
    func find(long start: UnsafeRawPointer, length: Int) -> UInt32 {
        find(start.loadUnaligned(as: UInt64.self), hash: longHash(start, length), start, length: length)
    }

    func find(_ token: [UInt8]) -> UInt32 { token.withUnsafeBytes { find($0) } }

    func find(_ token: UnsafeRawBufferPointer) -> UInt32 {
        guard let start = token.baseAddress, token.count > 0 else { return Self.none }
        let (low, hash) = key(start, token.count)
        return find(low, hash: hash, start, length: token.count)
    }

    @inline(__always)
    private func key(_ start: UnsafeRawPointer, _ length: Int) -> (low: UInt64, hash: UInt64) {
        guard length <= PieceKey.shortMax else {
            return (start.loadUnaligned(as: UInt64.self), longHash(start, length))
        }
        let key = PieceKey(short: start, length: length, readable: length, seed: seed)
        return (key.first, key.hash)
    }

    /// - Parameter length: More than ``PieceKey/shortMax``; all of it may be read.
    @inline(__always)
    private func longHash(_ start: UnsafeRawPointer, _ length: Int) -> UInt64 {
        // SAFETY: reads are at most `length` bytes from `start`: the last two overlap what was read before.
        var hash = seed.first ^ UInt64(truncatingIfNeeded: length)
        var at = 0
        while at &+ 16 < length {
            hash = PieceKey.fold(
                start.loadUnaligned(fromByteOffset: at, as: UInt64.self) ^ hash,
                start.loadUnaligned(fromByteOffset: at &+ 8, as: UInt64.self) ^ seed.second)
            at &+= 16
        }
        return PieceKey.fold(
            start.loadUnaligned(fromByteOffset: length &- 16, as: UInt64.self) ^ hash,
            start.loadUnaligned(fromByteOffset: length &- 8, as: UInt64.self) ^ seed.second)
    }

    /// Adds the token `id`, whose bytes are in ``TokenBytes``.
    ///
    /// - Returns: ``none``, or the id that has these bytes already; then nothing is added.
    func insert(_ id: UInt32) -> UInt32 {
        let token = bytes[id]
        guard let start = token.baseAddress else { return Self.none }
        let (low, hash) = key(start, token.count)
        let found = find(low, hash: hash, start, length: token.count)
        guard found == Self.none else { return found }
        let bit = hash & filterMask
        filter[Int(bit >> 6)] |= 1 << (bit & 63)
        var index = Int(truncatingIfNeeded: hash >> shift)
        while slots[index].id != Self.none { index = (index + 1) & (slotCount - 1) }
        slots[index] = Slot(low: low, tag: Self.tag(hash, token.count), id: id)
        return Self.none
    }

    @inline(__always)
    private static func tag(_ hash: UInt64, _ length: Int) -> UInt32 {
        length <= 8 ? UInt32(truncatingIfNeeded: length) : UInt32(truncatingIfNeeded: hash) | 0x8000_0000
    }
}

/// The bytes of every token, by id; ids that are not used have none.
struct TokenBytes {
    // SAFETY: allocated by `init`, freed by `deallocate`. `offsets` has one more element than there are ids, each is at
    // most the number of bytes.
    private let bytes: UnsafeMutableRawPointer
    private let offsets: UnsafeMutablePointer<UInt32>
    let count: Int
    let memoryBytes: Int

    /// - Parameter tokens: The id, at most `count - 1`, and the place in `source` of each token; no id twice.
    init(_ tokens: [(id: UInt32, span: Range<Int>)], count: Int, source: UnsafeRawBufferPointer) {
        self.count = count
        offsets = .allocate(capacity: count + 1)
        offsets.initialize(repeating: 0, count: count + 1)
        for token in tokens { offsets[Int(token.id) + 1] = UInt32(token.span.count) }
        for id in 0..<count { offsets[id + 1] += offsets[id] }
        let total = Int(offsets[count])
        bytes = .allocate(byteCount: total + 1, alignment: 1)
        for token in tokens where !token.span.isEmpty {
            UnsafeMutableRawBufferPointer(start: bytes + Int(offsets[Int(token.id)]), count: token.span.count)
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[token.span]))
        }
        memoryBytes = total + (count + 1) * 4
    }

    func deallocate() {
        bytes.deallocate()
        offsets.deallocate()
    }

    subscript(id: UInt32) -> UnsafeRawBufferPointer {
        precondition(Int(id) < count)
        let start = Int(offsets[Int(id)])
        return UnsafeRawBufferPointer(start: bytes + start, count: Int(offsets[Int(id) + 1]) - start)
    }

    /// Whether a token that is in the vocabulary has exactly these bytes.
    @inline(__always)
    func equal(_ id: UInt32, _ other: UnsafeRawPointer, _ length: Int) -> Bool {
        let start = Int(truncatingIfNeeded: offsets[Int(truncatingIfNeeded: id)])
        guard Int(truncatingIfNeeded: offsets[Int(truncatingIfNeeded: id) &+ 1]) &- start == length else {
            return false
        }
        return sameBytes(UnsafeRawPointer(bytes + start), other, length)
    }
}

/// Whether two runs of `length` bytes are equal; of tens of bytes, where a call of `memcmp` would cost more.
@inline(__always)
func sameBytes(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ length: Int) -> Bool {
    // SAFETY: reads stay below `length`, which both callers own.
    var at = 0
    while at &+ 8 <= length {
        if left.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            != right.loadUnaligned(fromByteOffset: at, as: UInt64.self)
        {
            return false
        }
        at &+= 8
    }
    while at < length {
        if left.load(fromByteOffset: at, as: UInt8.self) != right.load(fromByteOffset: at, as: UInt8.self) {
            return false
        }
        at &+= 1
    }
    return true
}

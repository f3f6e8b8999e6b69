/// Where no merge can cross: neighbouring characters that no rule joins.
///
/// A rule joins two tokens, of which the left ends with some character and the right starts with one. Between two
/// characters that no rule has in these places nothing ever merges, so text may be cut there and the parts be merged
/// alone. Vocabularies have few such pairs (26,000 of the 10^10 there are), so that text without spaces, too, falls into
/// parts that repeat.
///
/// Tokens that start or end inside a character are looked up by the last byte on the left and the first on the right,
/// as are pairs of ASCII; other pairs of characters by a hash of both, where a collision only means a cut less.
struct CutTable {
    // SAFETY: 1024 words, a bit for each pair of bytes, and a power of two of words for the hashes; allocated by `init`,
    // freed by `deallocate`; indices are masked.
    private let bytePairs: UnsafeMutablePointer<UInt64>
    private let characterPairs: UnsafeMutablePointer<UInt64>
    private let shift: UInt64

    init(rules: Int) {
        bytePairs = TableMemory.allocate(1024, repeating: 0)
        var bits = 16
        while bits < TokenizerLimits.cutHashBitsMax, 1 << bits < rules * 8 { bits += 1 }
        characterPairs = TableMemory.allocate((1 << bits) / 64, repeating: 0)
        shift = UInt64(64 - bits)
    }

    func deallocate() {
        TableMemory.deallocate(bytePairs)
        TableMemory.deallocate(characterPairs)
    }

    var memoryBytes: Int { 8192 + (1 << Int(64 - shift)) / 8 }

    /// Notes a rule by the bytes of its two tokens.
    func join(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) {
        // Where the right one starts inside a character, the two meet inside one, and there is nothing to cut.
        guard let last = left.last, let first = right.first, first & 0xC0 != 0x80 else { return }
        var start = left.count - 1
        while start > 0, left[start] & 0xC0 == 0x80, left.count - start < 4 { start -= 1 }
        let width = Self.width(left[start])
        let isWhole = left[start] & 0xC0 != 0x80 && left.count - start == width
        // Where the left one ends with a character's beginning, too.
        if left[start] & 0xC0 != 0x80, left.count - start < width { return }
        if !isWhole || right.count < Self.width(first) || (last < 0x80 && first < 0x80) {
            let bit = Int(last) << 8 | Int(first)
            bytePairs[bit >> 6] |= 1 << UInt64(bit & 63)
        } else {
            let hash = hash(
                Self.character(UnsafeRawPointer(left.baseAddress.unsafelyUnwrapped + start), width),
                Self.character(UnsafeRawPointer(right.baseAddress.unsafelyUnwrapped), Self.width(first)))
            characterPairs[hash >> 6] |= 1 << UInt64(hash & 63)
        }
    }

    /// Says that anything may merge anywhere.
    func joinAll() { bytePairs.update(repeating: .max, count: 1024) }

    /// Whether a token that starts or ends inside a character, or a pair of ASCII, joins these bytes.
    @inline(__always)
    func joins(_ last: UInt8, _ first: UInt8) -> Bool {
        let bit = Int(last) &<< 8 | Int(first)
        return bytePairs[bit &>> 6] &>> UInt64(truncatingIfNeeded: bit & 63) & 1 != 0
    }

    /// Whether a merge may cross from a character to the next, of which at least one is not ASCII.
    @inline(__always)
    func joins(characters left: UInt32, _ right: UInt32) -> Bool {
        let hash = hash(left, right)
        return characterPairs[hash &>> 6] &>> UInt64(truncatingIfNeeded: hash & 63) & 1 != 0
    }

    @inline(__always)
    private func hash(_ left: UInt32, _ right: UInt32) -> Int {
        let both = UInt64(left) &<< 32 | UInt64(right)
        return Int(truncatingIfNeeded: ((both ^ both &>> 29) &* 0x9E37_79B9_7F4A_7C15) &>> shift)
    }

    /// Bytes of the character that a byte leads; 1 where it leads none.
    @inline(__always)
    static func width(_ lead: UInt8) -> Int { lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4 }

    /// The bytes of a character in one word.
    @inline(__always)
    static func character(_ start: UnsafeRawPointer, _ width: Int) -> UInt32 {
        var character: UInt32 = 0
        for index in 0..<width {
            character = character &<< 8 | UInt32(start.load(fromByteOffset: index, as: UInt8.self))
        }
        return character
    }

    /// Calls `body` with the bounds of each part between cuts.
    ///
    /// - Parameters:
    ///   - text: Valid UTF-8.
    ///   - atSpaces: Whether to cut before every space besides.
    @inline(__always)
    func forEachPart(of text: UnsafeRawBufferPointer, atSpaces: Bool, _ body: (_ start: Int, _ end: Int) -> Void) {
        guard let base = text.baseAddress, text.count > 0 else { return }
        var start = 0
        var lead = base.load(as: UInt8.self)
        var width = Self.width(lead)
        var at = 0
        while true {
            let next = at &+ width
            guard next < text.count else { break }
            let nextLead = base.load(fromByteOffset: next, as: UInt8.self)
            let nextWidth = min(Self.width(nextLead), text.count &- next)
            let last = base.load(fromByteOffset: next &- 1, as: UInt8.self)
            var joined = joins(last, nextLead)
            if !joined, (lead | nextLead) >= 0x80 {
                joined = joins(
                    characters: Self.character(base + at, width), Self.character(base + next, nextWidth))
            }
            if !joined || (atSpaces && nextLead == UInt8(ascii: " ")) {
                body(start, next)
                start = next
            }
            at = next
            lead = nextLead
            width = nextWidth
        }
        body(start, text.count)
    }
}

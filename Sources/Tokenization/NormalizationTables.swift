/// What normalization asks about one character.
struct NormalizationProperty {
    /// Flags above eight bits of combining class, as `UnicodeNormalizationTables.blocks` has them.
    private let rawValue: UInt32

    @inline(__always)
    init(rawValue: UInt32) { self.rawValue = rawValue }

    /// 0 for starters.
    @inline(__always)
    var combiningClass: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
    /// Whether `NFC_Quick_Check` is not `Yes`: the character always changes, or may compose with what is before it.
    @inline(__always)
    var mayChange: Bool { rawValue & 0x300 != 0 }
    @inline(__always)
    var mayComposeWithPrevious: Bool { rawValue & 0x200 != 0 }
    @inline(__always)
    var decomposes: Bool { rawValue & 0x400 != 0 }
    /// Whether nothing before the character can have to do with it or what follows.
    @inline(__always)
    var isBoundary: Bool { rawValue & 0x3FF == 0 }
}

/// The property of every character, from the generated tables.
struct NormalizationProperties {
    // SAFETY: Both point to static strings, and an index stays inside by construction of the tables: scalars are
    // compared with `UnicodeNormalizationTables.limit` first.
    private let blocks = UnicodeNormalizationTables.blocks.utf8Start
    private let index = UnicodeNormalizationTables.index.utf8Start

    /// Whether a character is of the commonest that are boundaries: all below U+0300, and U+4000 to U+9FFF, most of
    /// Chinese. Quicker than its property.
    @inline(__always)
    static func isCommonBoundary(_ scalar: UInt32) -> Bool { scalar < 0x300 || scalar &- 0x4000 < 0x6000 }

    @inline(__always)
    func of(_ scalar: UInt32) -> NormalizationProperty {
        guard scalar < UnicodeNormalizationTables.limit else { return NormalizationProperty(rawValue: 0) }
        let block = UnicodeNormalizationTables.number(index + Int(scalar >> 7) * 2, digits: 2)
        return NormalizationProperty(
            rawValue: UnicodeNormalizationTables.number(blocks + Int(block << 7 | scalar & 0x7F) * 2, digits: 2))
    }
}

extension UnicodeNormalizationTables {
    /// A number of the generated tables: digits of six bits, most significant first, each 0x30 plus its value.
    @inline(__always)
    static func number(_ digits: UnsafePointer<UInt8>, digits count: Int) -> UInt32 {
        var number: UInt32 = 0
        for place in 0..<count { number = number << 6 | UInt32(digits[place] &- 0x30) }
        return number
    }
}

/// Decompositions and compositions, unpacked once, when a text first needs them: 40 KB.
final class NormalizationTables: Sendable {
    static let shared = NormalizationTables()

    private struct Decomposition {
        var character: UInt32
        var first: UInt32
        /// 0 for none.
        var second: UInt32
    }

    private struct Composition {
        /// The first part, shifted by 32, and the second.
        var parts: UInt64
        var character: UInt32
    }

    /// Ascending by character.
    private let decompositions: [Decomposition]
    /// Ascending by parts.
    private let compositions: [Composition]

    private init() {
        var decompositions: [Decomposition] = []
        var compositions: [Composition] = []
        let number = UnicodeNormalizationTables.number
        for place in 0..<UnicodeNormalizationTables.singletonCount {
            let entry = UnicodeNormalizationTables.singletons.utf8Start + place * 6
            decompositions.append(Decomposition(character: number(entry, 3), first: number(entry + 3, 3), second: 0))
        }
        for place in 0..<UnicodeNormalizationTables.pairCount {
            let entry = UnicodeNormalizationTables.pairs.utf8Start + place * 10
            let character = number(entry + 1, 3)
            let (first, second) = (number(entry + 4, 3), number(entry + 7, 3))
            decompositions.append(Decomposition(character: character, first: first, second: second))
            if number(entry, 1) == 1 {
                compositions.append(Composition(parts: UInt64(first) << 32 | UInt64(second), character: character))
            }
        }
        self.decompositions = decompositions.sorted { $0.character < $1.character }
        self.compositions = compositions.sorted { $0.parts < $1.parts }
    }

    /// The direct decomposition of a character other than a Hangul syllable; its parts may decompose further.
    func decomposition(of character: UInt32) -> (first: UInt32, second: UInt32?)? {
        var (low, high) = (0, decompositions.count)
        while low < high {
            let middle = (low + high) / 2
            if decompositions[middle].character < character { low = middle + 1 } else { high = middle }
        }
        guard low < decompositions.count, decompositions[low].character == character else { return nil }
        let found = decompositions[low]
        return (found.first, found.second == 0 ? nil : found.second)
    }

    /// The primary composite of two characters.
    func composition(of first: UInt32, _ second: UInt32) -> UInt32? {
        guard NormalizationProperties().of(second).mayComposeWithPrevious else { return nil }
        if let syllable = Hangul.composition(of: first, second) { return syllable }
        let parts = UInt64(first) << 32 | UInt64(second)
        var (low, high) = (0, compositions.count)
        while low < high {
            let middle = (low + high) / 2
            if compositions[middle].parts < parts { low = middle + 1 } else { high = middle }
        }
        guard low < compositions.count, compositions[low].parts == parts else { return nil }
        return compositions[low].character
    }
}

/// Hangul syllables, which compose by arithmetic (The Unicode Standard, 3.12).
enum Hangul {
    private static let syllables: Range<UInt32> = 0xAC00..<0xD7A4
    private static let leadings: Range<UInt32> = 0x1100..<0x1113
    private static let vowels: Range<UInt32> = 0x1161..<0x1176
    /// The first stands for no trailing consonant, and is none itself.
    private static let trailings: Range<UInt32> = 0x11A7..<0x11C3

    static func decomposition(of scalar: UInt32) -> (leading: UInt32, vowel: UInt32, trailing: UInt32?)? {
        guard syllables.contains(scalar) else { return nil }
        let (pair, trailing) = (scalar - syllables.lowerBound).quotientAndRemainder(dividingBy: 28)
        return (
            leadings.lowerBound + pair / 21, vowels.lowerBound + pair % 21,
            trailing == 0 ? nil : trailings.lowerBound + trailing
        )
    }

    static func composition(of first: UInt32, _ second: UInt32) -> UInt32? {
        if leadings.contains(first), vowels.contains(second) {
            return syllables.lowerBound + ((first - leadings.lowerBound) * 21 + second - vowels.lowerBound) * 28
        }
        guard syllables.contains(first), (first - syllables.lowerBound) % 28 == 0,
            trailings.contains(second), second != trailings.lowerBound
        else { return nil }
        return first + second - trailings.lowerBound
    }
}

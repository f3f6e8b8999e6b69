/// One pass over the bytes of a JSON string: sixteen plain ASCII bytes at a time where there are as many, else one by
/// one; what is not ASCII character by character.
///
/// In a block the classes of bytes are masks with the high bit of each byte that is of them, told by additions that carry
/// into that bit and no further: arithmetic that every processor has for vectors.
struct FeatureScanner {
    private typealias Feature = TextFeatures.Feature
    private typealias Block = SIMD2<UInt64>

    private static let blockBytes = 16
    /// Blocks until a byte of a sum could overflow.
    private static let blocksMax = 255
    /// How far back a letter's features look.
    private static let lookBehind = 4
    private static let deepOtherAfter = 8
    private static let ones: UInt64 = 0x0101_0101_0101_0101
    private static let highs: UInt64 = 0x8080_8080_8080_8080

    /// Both outlive the scanner; counts by `Feature.rawValue`.
    private let text: UnsafeRawBufferPointer
    private let counts: UnsafeMutableBufferPointer<UInt32>
    private var at = 0
    /// Where plain ASCII bytes began without a break.
    private var plainSince = 0
    /// The byte before, unescaped; 0 before the first.
    private var previous: UInt8 = 0
    private var letterRun = 0
    private var otherRun = 0

    init(_ text: UnsafeRawBufferPointer, _ counts: UnsafeMutableBufferPointer<UInt32>) {
        self.text = text
        self.counts = counts
    }

    @inline(__always) private func count(_ feature: Feature) { counts[feature.rawValue] &+= 1 }

    mutating func scan() {
        var sums = Sums()
        while at < text.count {
            if at - plainSince >= Self.lookBehind, scanBlocks(&sums) { continue }
            let byte = text[at]
            if byte == UInt8(ascii: "\\") {
                at += 1
                escape()
                plainSince = at
            } else if byte >= 0x80 {
                others()
                plainSince = at
            } else {
                at += 1
                ascii(byte)
                // JSON has no bare controls: blocks need not tell them from spaces.
                if byte < 0x20 { plainSince = at }
            }
        }
        flush(&sums)
    }

    // MARK: Blocks

    /// Sums of a byte for each place in a block, of the features that a block can have.
    private struct Sums {
        var words = Block.zero
        var capitals = Block.zero
        var deepLetters = Block.zero
        var digits = Block.zero
        var digitRuns = Block.zero
        var moreSpaces = Block.zero
        var punctuation = Block.zero
        var repeated = Block.zero
        var afterPunctuation = Block.zero
        var afterSpace = Block.zero
        var blocks = 0
    }

    /// Reads plain bytes while there is a block more of any kind; whether there was one.
    private mutating func scanBlocks(_ sums: inout Sums) -> Bool {
        let start = at
        while at + Self.blockBytes <= text.count {
            let bytes = block(at)
            let isBackslash = ~Self.from(1, bytes ^ Self.all(0x5C))
            let special = (bytes | ~Self.from(0x20, bytes) | isBackslash) & Self.all(0x80)
            if sums.blocks == Self.blocksMax { flush(&sums) }
            guard special.x | special.y == 0 else {
                // The bytes before the first that is not plain; they are the low ones.
                let low = special.x.trailingZeroBitCount / 8
                let plain = low < 8 ? low : 8 + special.y.trailingZeroBitCount / 8
                if plain > 0 {
                    add(bytes, Block(Self.ones & Self.first(plain), Self.ones & Self.first(plain - 8)), &sums)
                }
                at += plain
                break
            }
            add(bytes, Self.all(1), &sums)
            at += Self.blockBytes
        }
        guard at > start else { return false }
        otherRun = 0
        previous = text[at - 1]
        letterRun = 0
        // Longer runs count no differently.
        while letterRun < Self.lookBehind, Self.isLetter(text[at - 1 - letterRun]) { letterRun += 1 }
        return true
    }

    private func flush(_ sums: inout Sums) {
        count(.words, sums.words)
        count(.capitals, sums.capitals)
        count(.deepLetters, sums.deepLetters)
        count(.digits, sums.digits)
        count(.digitRuns, sums.digitRuns)
        count(.moreSpaces, sums.moreSpaces)
        count(.punctuation, sums.punctuation)
        count(.repeatedPunctuation, sums.repeated)
        count(.wordsAfterPunctuation, sums.afterPunctuation)
        count(.wordsAfterSpace, sums.afterSpace)
        sums = Sums()
    }

    @inline(__always) private func block(_ offset: Int) -> Block {
        // SAFETY: callers keep offset at 0 or more, and offset + 16 within the text; blocks need not be aligned.
        let low = text.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        let high = text.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)
        return Block(UInt64(littleEndian: low), UInt64(littleEndian: high))
    }

    /// A byte, in every place.
    @inline(__always) private static func all(_ byte: UInt64) -> Block { Block(repeating: ones &* byte) }

    /// A mask of the low bytes, as many as there are: none where it is less, all eight where it is more.
    private static func first(_ bytes: Int) -> UInt64 {
        bytes <= 0 ? 0 : bytes >= 8 ? .max : (1 << (8 * UInt64(bytes))) - 1
    }

    /// The high bits of ASCII bytes that are `least` or more; the other bits are anything.
    @inline(__always) private static func from(_ least: UInt64, _ bytes: Block) -> Block {
        (bytes & all(0x7F)) &+ all(0x80 - least)
    }

    /// The high bits of ASCII bytes from `least` until before `end`; the other bits are anything.
    @inline(__always) private static func within(_ least: UInt64, _ end: UInt64, _ bytes: Block) -> Block {
        from(least, bytes) & ~from(end, bytes)
    }

    @inline(__always) private static func letters(_ bytes: Block) -> Block { within(0x61, 0x7B, bytes | all(0x20)) }

    /// - ones: The low bits of the bytes that are to be counted.
    @inline(__always) private func add(_ bytes: Block, _ ones: Block, _ sums: inout Sums) {
        // Bytes before the block are plain too, as many as are looked at.
        let before = block(at - 1)
        let letter = Self.letters(bytes)
        let letterBefore = Self.letters(before)
        let deep =
            letter & letterBefore & Self.letters(block(at - 2)) & Self.letters(block(at - 3))
            & Self.letters(block(at - 4))
        let digit = Self.within(0x30, 0x3A, bytes)
        let digitBefore = Self.within(0x30, 0x3A, before)
        let space = ~Self.from(0x21, bytes)
        let spaceBefore = ~Self.from(0x21, before)
        let punctuation = ~(letter | digit | space)
        let word = letter & ~letterBefore
        sums.blocks += 1
        sums.words &+= word &>> 7 & ones
        sums.capitals &+= (letter & ~Self.from(0x60, bytes)) &>> 7 & ones
        sums.deepLetters &+= deep &>> 7 & ones
        sums.digits &+= digit &>> 7 & ones
        sums.digitRuns &+= (digit & ~digitBefore) &>> 7 & ones
        sums.moreSpaces &+= (space & spaceBefore) &>> 7 & ones
        sums.punctuation &+= punctuation &>> 7 & ones
        sums.repeated &+= (punctuation & ~Self.from(1, bytes ^ before)) &>> 7 & ones
        sums.afterPunctuation &+= (word & ~(digitBefore | spaceBefore)) &>> 7 & ones
        sums.afterSpace &+= (word & spaceBefore) &>> 7 & ones
    }

    @inline(__always) private func count(_ feature: Feature, _ sum: Block) {
        let evens: UInt64 = 0x00FF_00FF_00FF_00FF
        let pairs = (sum.x & evens) &+ (sum.x >> 8 & evens) &+ (sum.y & evens) &+ (sum.y >> 8 & evens)
        counts[feature.rawValue] &+= UInt32(truncatingIfNeeded: (pairs &* 0x0001_0001_0001_0001) >> 48)
    }

    // MARK: Byte by byte

    private static func isLetter(_ byte: UInt8) -> Bool { (byte | 0x20) &- 0x61 < 26 }
    private static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }
    private static func isPunctuation(_ byte: UInt8) -> Bool {
        byte > 0x20 && byte < 0x80 && !isLetter(byte) && !isDigit(byte)
    }

    private mutating func ascii(_ byte: UInt8) {
        let isLetter = Self.isLetter(byte)
        if isLetter {
            if letterRun == 0 {
                count(.words)
                if previous == 0x20 { count(.wordsAfterSpace) }
                if Self.isPunctuation(previous) { count(.wordsAfterPunctuation) }
            }
            if letterRun >= Self.lookBehind { count(.deepLetters) }
            if byte < 0x60 { count(.capitals) }
        } else if Self.isDigit(byte) {
            count(.digits)
            if !Self.isDigit(previous) { count(.digitRuns) }
        } else if byte == 0x20 {
            if previous == 0x20 { count(.moreSpaces) }
        } else if byte == 0x0A {
            count(.newlines)
            if previous == 0x0A { count(.emptyLines) }
        } else if byte < 0x20 {
            count(.controls)
        } else {
            count(.punctuation)
            if byte == previous { count(.repeatedPunctuation) }
        }
        letterRun = isLetter ? letterRun + 1 : 0
        otherRun = 0
        previous = byte
    }

    // MARK: Above ASCII

    /// The characters above ASCII that come next; there is one. Invalid UTF-8 counts as whatever it looks like.
    private mutating func others() {
        // The loop keeps to registers: the scanner itself is in memory.
        let (text, counts, start) = (text, counts, at)
        var at = start
        while at < text.count {
            let lead = text[at]
            guard lead >= 0x80 else { break }
            at &+= 1
            switch lead {
            case 0x80..<0xC0: break
            case 0xE0..<0xF0:
                var character = UInt32(lead & 0xF) << 12
                if at &+ 1 < text.count, text[at] & 0xC0 == 0x80, text[at &+ 1] & 0xC0 == 0x80 {
                    character |= UInt32(text[at] & 0x3F) << 6 | UInt32(text[at &+ 1] & 0x3F)
                    at &+= 2
                }
                Self.count(threeBytes: character, counts)
            case 0xC0..<0xE0:
                counts[(lead & 0xFE == 0xD0 ? Feature.cyrillic : .twoByte).rawValue] &+= 1
                // The byte that follows would tell nothing.
                if at < text.count, text[at] & 0xC0 == 0x80 { at &+= 1 }
            default: counts[Feature.fourByte.rawValue] &+= 1
            }
        }
        self.at = at
        extendRun(at - start)
    }

    /// Counts a character of three bytes of UTF-8.
    @inline(__always)
    private static func count(threeBytes character: UInt32, _ counts: UnsafeMutableBufferPointer<UInt32>) {
        let feature: Feature
        switch character >> 12 {
        case 0x4...0x9:
            count(han: character, counts)
            feature = .han
        case 0x3: feature = .kana
        case 0xA...0xD: feature = .hangul
        default: feature = .threeByte
        }
        counts[feature.rawValue] &+= 1
    }

    /// Counts what tells Han characters apart.
    @inline(__always)
    private static func count(han character: UInt32, _ counts: UnsafeMutableBufferPointer<UInt32>) {
        let place = character &- FrequentHan.first
        if place < FrequentHan.count {
            // SAFETY: the table has a digit for every four characters of its count.
            let digit = UInt32(FrequentHan.digits.utf8Start[Int(place >> 2)])
            counts[Feature.frequentHan.rawValue] &+= digit &>> (place & 3) & 1
        }
        switch character >> 6 {
        // 糸, 言, 金, 門 and their neighbours as radicals.
        case 0x1F4...0x1F9, 0x228...0x22D, 0x247...0x251, 0x256...0x257:
            counts[Feature.traditionalHan.rawValue] &+= 1
        case 0x1FA...0x1FC, 0x22E...0x230, 0x252...0x255: counts[Feature.simplifiedHan.rawValue] &+= 1
        default: break
        }
    }

    /// Bytes more of a run that is not ASCII, or its first.
    private mutating func extendRun(_ bytes: Int) {
        if otherRun == 0 { count(.otherRuns) }
        let deep = max(otherRun + bytes, Self.deepOtherAfter) - max(otherRun, Self.deepOtherAfter)
        counts[Feature.deepOther.rawValue] &+= UInt32(truncatingIfNeeded: deep)
        otherRun += bytes
        letterRun = 0
        // Any that is neither ASCII nor 0.
        previous = 0x80
    }

    // MARK: Escapes

    /// What stands for itself after a backslash, or nothing of it where the text ends.
    private mutating func escape() {
        guard at < text.count else { return }
        let letter = text[at]
        at += 1
        switch letter {
        case UInt8(ascii: "n"): ascii(0x0A)
        case UInt8(ascii: "t"): ascii(0x09)
        case UInt8(ascii: "r"): ascii(0x0D)
        case UInt8(ascii: "b"), UInt8(ascii: "f"): ascii(0x08)
        case UInt8(ascii: "u"):
            guard let unit = codeUnit() else { return ascii(letter) }
            character(unit)
        default:
            guard letter < 0x80 else { return at -= 1 }
            ascii(letter)
        }
    }

    private mutating func codeUnit() -> UInt32? {
        guard at + 4 <= text.count else { return nil }
        var unit: UInt32 = 0
        for byte in text[at..<(at + 4)] {
            if Self.isDigit(byte) {
                unit = unit << 4 | UInt32(byte - 0x30)
            } else if (byte | 0x20) &- 0x61 < 6 {
                unit = unit << 4 | UInt32((byte | 0x20) - 0x61 + 10)
            } else {
                return nil
            }
        }
        at += 4
        return unit
    }

    /// What a `\u` stands for; the first half of a pair is a character of four bytes, the second adds none.
    private mutating func character(_ unit: UInt32) {
        switch unit {
        case 0..<0x80: ascii(UInt8(unit))
        case 0x80..<0x800:
            count(0x400..<0x480 ~= unit ? .cyrillic : .twoByte)
            extendRun(2)
        case 0xD800..<0xDC00:
            count(.fourByte)
            extendRun(2)
        case 0xDC00..<0xE000: extendRun(2)
        default:
            Self.count(threeBytes: unit, counts)
            extendRun(3)
        }
    }
}

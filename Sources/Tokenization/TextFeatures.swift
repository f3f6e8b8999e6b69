/// What of a prompt tells how many tokens it has, whatever the vocabulary: counts of classes of bytes and of where runs
/// of them begin. Of a fixed size, and holding nothing of the text itself.
package struct TextFeatures: Hashable, Sendable {
    /// What is counted. Byte-pair vocabularies have most words whole, so words and not letters are what costs; the other
    /// classes correct for that.
    package enum Feature: Int, CaseIterable, Sendable {
        /// Messages of the chat: what its template adds.
        case messages
        /// Runs of ASCII letters.
        case words
        case capitals
        /// ASCII letters after the fourth of their run: long words are made of several tokens.
        case deepLetters
        case digits, digitRuns
        case newlines
        /// Newlines after a newline.
        case emptyLines
        /// Tabs and other controls.
        case controls
        /// Spaces after a space.
        case moreSpaces
        case punctuation
        /// Punctuation after the same.
        case repeatedPunctuation
        /// Words right after punctuation, and right after a space.
        case wordsAfterPunctuation, wordsAfterSpace
        case cyrillic
        /// Other characters of two bytes of UTF-8.
        case twoByte
        /// Han characters: U+4000 to U+9FFF.
        case han
        /// U+3000 to U+3FFF: kana, and punctuation of Chinese and Japanese.
        case kana
        case hangul
        /// Other characters of three bytes, and of four.
        case threeByte, fourByte
        /// Runs of bytes that are not ASCII.
        case otherRuns
        /// Their bytes after the eighth of their run.
        case deepOther
        /// Han characters in ranges where radicals are written the traditional way, and the simplified way:
        /// vocabularies have far fewer of one than of the other.
        case traditionalHan, simplifiedHan
    }

    /// By `Feature.rawValue`; counts stop at `UInt32.max`.
    private var counts = SIMD32<UInt32>()
    /// Bytes that were read, escapes as they stand.
    package private(set) var bytes = 0

    package init() {}

    /// Counts the bytes of JSON strings: an escape counts as what it stands for. One pass, nothing allocated; any bytes
    /// will do.
    package init(_ text: UnsafeRawBufferPointer) {
        bytes = text.count
        withUnsafeMutableBytes(of: &counts) { counts in
            // SAFETY: a vector of 32 numbers, more than there are features, all zero; the scanner ends before it does.
            var scanner = FeatureScanner(text, counts.bindMemory(to: UInt32.self))
            scanner.scan()
        }
    }

    package var messages: Int {
        get { self[.messages] }
        set { self[.messages] = newValue }
    }

    private(set) subscript(_ feature: Feature) -> Int {
        get { Int(counts[feature.rawValue]) }
        set { counts[feature.rawValue] = UInt32(clamping: newValue) }
    }

    /// By `Feature.rawValue`.
    func copy(to numbers: inout [Double]) {
        withUnsafeBytes(of: counts) { counts in
            // SAFETY: a vector of 32 numbers, more than there are features.
            let counts = counts.assumingMemoryBound(to: UInt32.self)
            for index in numbers.indices { numbers[index] = Double(counts[index]) }
        }
    }

    package static func += (sum: inout Self, more: Self) {
        let (total, overflow) = sum.bytes.addingReportingOverflow(more.bytes)
        sum.bytes = overflow ? .max : total
        let added = sum.counts &+ more.counts
        sum.counts = added.replacing(with: .max, where: added .< more.counts)
    }

    package static func + (one: Self, other: Self) -> Self {
        var sum = one
        sum += other
        return sum
    }
}

/// One pass over the bytes of a JSON string: eight plain ASCII bytes at a time where there are as many, else one by one.
///
/// In a block the classes of bytes are masks with the high bit of each byte that is of them, told by additions that carry
/// into that bit and no further.
private struct FeatureScanner {
    private typealias Feature = TextFeatures.Feature

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
            at += 1
            if byte == UInt8(ascii: "\\") {
                escape()
                plainSince = at
            } else if byte >= 0x80 {
                other(byte)
                plainSince = at
            } else {
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
        var words: UInt64 = 0
        var capitals: UInt64 = 0
        var deepLetters: UInt64 = 0
        var digits: UInt64 = 0
        var digitRuns: UInt64 = 0
        var moreSpaces: UInt64 = 0
        var punctuation: UInt64 = 0
        var repeated: UInt64 = 0
        var afterPunctuation: UInt64 = 0
        var afterSpace: UInt64 = 0
        var blocks = 0
    }

    /// Reads plain bytes while there are eight more of any kind; whether there was one.
    private mutating func scanBlocks(_ sums: inout Sums) -> Bool {
        let start = at
        while at + 8 <= text.count {
            let bytes = block(at)
            let isBackslash = ~Self.from(1, bytes ^ (Self.ones &* 0x5C))
            let special = (bytes | ~Self.from(0x20, bytes) | isBackslash) & Self.highs
            if sums.blocks == Self.blocksMax { flush(&sums) }
            guard special == 0 else {
                // The bytes before the first that is not plain, where there is one: they are the low ones.
                let plain = special.trailingZeroBitCount / 8
                if plain > 0 { add(bytes, Self.ones & ((1 << (8 * UInt64(plain))) - 1), &sums) }
                at += plain
                break
            }
            add(bytes, Self.ones, &sums)
            at += 8
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

    @inline(__always) private func block(_ offset: Int) -> UInt64 {
        // SAFETY: callers keep offset at 0 or more, and offset + 8 within the text; blocks need not be aligned.
        UInt64(littleEndian: text.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    /// The high bits of ASCII bytes that are `least` or more; the other bits are anything.
    @inline(__always) private static func from(_ least: UInt64, _ bytes: UInt64) -> UInt64 {
        (bytes & ~highs) &+ ones &* (0x80 - least)
    }

    /// The high bits of ASCII bytes from `least` until before `end`; the other bits are anything.
    @inline(__always) private static func within(_ least: UInt64, _ end: UInt64, _ bytes: UInt64) -> UInt64 {
        from(least, bytes) & ~from(end, bytes)
    }

    @inline(__always) private static func letters(_ bytes: UInt64) -> UInt64 {
        within(0x61, 0x7B, bytes | ones &* 0x20) & highs
    }

    /// - ones: The low bits of the bytes that are to be counted.
    @inline(__always) private func add(_ bytes: UInt64, _ ones: UInt64, _ sums: inout Sums) {
        // Bytes before the block are plain too, as many as are looked at.
        let before = block(at - 1)
        let letter = Self.letters(bytes)
        let fourth = Self.letters(block(at - 4))
        let first = letter << 8 | fourth >> 24 & 0xFF
        let second = letter << 16 | fourth >> 16 & 0xFFFF
        let third = letter << 24 | fourth >> 8 & 0xFF_FFFF
        let digit = Self.within(0x30, 0x3A, bytes)
        let digitBefore = Self.within(0x30, 0x3A, before)
        let space = ~Self.from(0x21, bytes)
        let spaceBefore = ~Self.from(0x21, before)
        let punctuation = ~(letter | digit | space)
        let word = letter & ~first
        sums.blocks += 1
        sums.words &+= word >> 7 & ones
        sums.capitals &+= (letter & ~Self.from(0x60, bytes)) >> 7 & ones
        sums.deepLetters &+= (letter & first & second & third & fourth) >> 7 & ones
        sums.digits &+= digit >> 7 & ones
        sums.digitRuns &+= (digit & ~digitBefore) >> 7 & ones
        sums.moreSpaces &+= (space & spaceBefore) >> 7 & ones
        sums.punctuation &+= punctuation >> 7 & ones
        sums.repeated &+= (punctuation & ~Self.from(1, bytes ^ before)) >> 7 & ones
        sums.afterPunctuation &+= (word & ~(digitBefore | spaceBefore)) >> 7 & ones
        sums.afterSpace &+= (word & spaceBefore) >> 7 & ones
    }

    @inline(__always) private func count(_ feature: Feature, _ sum: UInt64) {
        let evens: UInt64 = 0x00FF_00FF_00FF_00FF
        let pairs = (sum & evens) &+ (sum >> 8 & evens)
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

    /// A byte above ASCII. Characters are told by their first byte; invalid UTF-8 counts as whatever it looks like.
    private mutating func other(_ byte: UInt8) {
        if otherRun == 0 { count(.otherRuns) }
        otherRun += 1
        if otherRun > Self.deepOtherAfter { count(.deepOther) }
        letterRun = 0
        switch byte {
        case 0x80..<0xC0:
            switch (previous, byte) {
            // 糸, 言, 金, 門 and their neighbours as radicals.
            case (0xE7, 0xB4...0xB9), (0xE8, 0xA8...0xAD), (0xE9, 0x87...0x91), (0xE9, 0x96...0x97):
                count(.traditionalHan)
            case (0xE7, 0xBA...0xBC), (0xE8, 0xAE...0xB0), (0xE9, 0x92...0x95): count(.simplifiedHan)
            default: break
            }
        case 0xD0, 0xD1: count(.cyrillic)
        case 0xC0..<0xE0: count(.twoByte)
        case 0xE4...0xE9: count(.han)
        case 0xE3: count(.kana)
        case 0xEA...0xED: count(.hangul)
        case 0xE0..<0xF0: count(.threeByte)
        default: count(.fourByte)
        }
        previous = byte
    }

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
        default: if letter < 0x80 { ascii(letter) } else { other(letter) }
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

    /// The bytes that a `\u` stands for; the first half of a pair is a character of four bytes, the second adds none.
    private mutating func character(_ unit: UInt32) {
        switch unit {
        case 0..<0x80: ascii(UInt8(unit))
        case 0x80..<0x800:
            other(UInt8(0xC0 | unit >> 6))
            other(UInt8(0x80 | unit & 0x3F))
        case 0xD800..<0xDC00:
            other(0xF0)
            other(0x80)
        case 0xDC00..<0xE000:
            other(0x80)
            other(0x80)
        default:
            other(UInt8(0xE0 | unit >> 12))
            other(UInt8(0x80 | unit >> 6 & 0x3F))
            other(UInt8(0x80 | unit & 0x3F))
        }
    }
}

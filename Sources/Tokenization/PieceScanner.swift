/// Finds the pieces of one text by one pattern: what its regular expression matches, alternatives tried in order, each
/// as a backtracking engine would, but written out so that no step looks at a byte more than a constant number of
/// times.
///
/// Why this is linear although the expressions look ahead: white space is the only run that may be cut before its end
/// (`\s+(?!\S)`, `\s*[\r\n]`), into three pieces at most, so that each of its bytes is seen at most three times; and a
/// word by case (`CasedWordScanner`) is cut at most once before the end of what was scanned.
protocol PieceScanner {
    var text: ClassifiedText { get }

    /// Where the piece that starts at `start` ends: greater than `start`.
    func end(from start: Int) -> Int
}

extension PieceScanner {
    /// `'(?i:[sdmt]|ll|ve|re)` at an apostrophe.
    ///
    /// Both reference engines fold case by Unicode, so that U+017F, the long s, is an `s` here; nothing else beyond
    /// ASCII folds to one of these letters.
    /// - Parameter apostrophe: Where the apostrophe is.
    /// - Returns: The end of the contraction, or nil if there is none.
    @inline(__always)
    func contractionEnd(from apostrophe: Int) -> Int? {
        let count = text.count
        guard apostrophe + 1 < count else { return nil }
        let first = text.byte(at: apostrophe + 1)
        // Setting bit 5 maps A-Z to a-z; no other byte lands on one of the letters asked for.
        switch first | 0x20 {
        case UInt8(ascii: "s"), UInt8(ascii: "d"), UInt8(ascii: "m"), UInt8(ascii: "t"): return apostrophe + 2
        case UInt8(ascii: "l"):
            return isLetter(UInt8(ascii: "l"), at: apostrophe + 2) ? apostrophe + 3 : nil
        case UInt8(ascii: "v"), UInt8(ascii: "r"):
            return isLetter(UInt8(ascii: "e"), at: apostrophe + 2) ? apostrophe + 3 : nil
        default:
            let isLongS = first == 0xC5 && apostrophe + 2 < count && text.byte(at: apostrophe + 2) == 0xBF
            return isLongS ? apostrophe + 3 : nil
        }
    }

    @inline(__always)
    private func isLetter(_ lowercase: UInt8, at position: Int) -> Bool {
        position < text.count && text.byte(at: position) | 0x20 == lowercase
    }

    /// A run of white space, and where it may have to be cut.
    @inline(__always)
    func whitespaceRun(from start: Int) -> WhitespaceRun {
        var run = WhitespaceRun(end: start, lastStart: start, newlineEnd: nil)
        while run.end < text.count {
            // Indentation comes in runs of one byte.
            if run.end + 8 <= text.count {
                let spaces = ASCIIBytes.runLength(ASCIIBytes.between(0x20, 0x20, text.word(at: run.end)))
                if spaces > 0 {
                    run.end += spaces
                    run.lastStart = run.end - 1
                    if spaces == 8 { continue }
                }
            }
            // Of eight bytes fewer than eight were spaces: there is another.
            let (classes, next) = text.character(at: run.end)
            guard classes.meets(.whitespace) else { break }
            run.lastStart = run.end
            run.end = next
            if classes.meets(.newline) { run.newlineEnd = next }
        }
        return run
    }

    /// `\s+(?!\S)|\s+`: all of the run at the end of the text; before something else all but its last character, which
    /// goes with what follows, unless it is the only one.
    @inline(__always)
    func endLeavingLast(of run: WhitespaceRun, from start: Int) -> Int {
        run.end == text.count || run.lastStart == start ? run.end : run.lastStart
    }
}

/// A run of white space: where it ends, where its last character starts, and where its last newline ends if it has one.
struct WhitespaceRun {
    var end: Int
    var lastStart: Int
    var newlineEnd: Int?
}

/// GPT-2's pattern: letters, numbers and the rest, each with a space before it.
///
/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s`
struct GPT2Scanner: PieceScanner {
    let text: ClassifiedText

    @inline(__always)
    func end(from start: Int) -> Int {
        let first = text.byte(at: start)
        if first == UInt8(ascii: "'"), let end = lowercaseContractionEnd(from: start) { return end }
        let body = first == UInt8(ascii: " ") && start + 1 < text.count ? start + 1 : start
        let (classes, next) = text.character(at: body)
        if classes.meets(.letter) { return text.letterRunEnd(from: next) }
        if classes.meets(.number) { return text.runEnd(of: .number, from: next) }
        if classes.meets(.other) { return text.runEnd(of: .other, from: next) }
        return endLeavingLast(of: whitespaceRun(from: start), from: start)
    }

    /// The contraction at `apostrophe`, in lower case only.
    @inline(__always)
    private func lowercaseContractionEnd(from apostrophe: Int) -> Int? {
        guard let end = contractionEnd(from: apostrophe) else { return nil }
        for position in apostrophe + 1..<end where text.byte(at: position) & 0xA0 != 0x20 { return nil }
        return end
    }
}

/// cl100k's pattern and its kin: letters with one character of another kind before them, short numbers, and newlines
/// that end a run.
///
/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]+|\s+(?!\S)|\s+`
struct LetterRunScanner: PieceScanner {
    let text: ClassifiedText
    /// `\p{N}{1,digitsMax}`
    let digitsMax: Int
    /// Whether `\s++$` comes before the alternatives that cut at newlines.
    let keepsTrailingWhitespace: Bool

    @inline(__always)
    func end(from start: Int) -> Int {
        let first = text.byte(at: start)
        if first == UInt8(ascii: "'"), let end = contractionEnd(from: start) { return end }
        let (classes, next) = text.character(at: start)
        if classes.meets(.letter) { return text.letterRunEnd(from: next) }
        if classes.meets(.number) { return text.runEnd(of: .number, from: next, atMost: digitsMax - 1) }
        if next < text.count {
            let (second, afterSecond) = text.character(at: next)
            if second.meets(.letter), classes.meets(.wordPrefix) { return text.letterRunEnd(from: afterSecond) }
            if first == UInt8(ascii: " "), second.meets(.other) {
                return text.runEnd(of: .newline, from: text.runEnd(of: .other, from: afterSecond))
            }
        }
        if classes.meets(.other) { return text.runEnd(of: .newline, from: text.runEnd(of: .other, from: next)) }
        let run = whitespaceRun(from: start)
        if keepsTrailingWhitespace, run.end == text.count { return run.end }
        return run.newlineEnd ?? endLeavingLast(of: run, from: start)
    }
}

/// o200k's pattern and tekken's: a word is upper case, then lower case; what has no case, marks included, goes with
/// both.
///
/// With U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]` and L = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`:
/// `[^\r\n\p{L}\p{N}]?U*L+('s)?|[^\r\n\p{L}\p{N}]?U+L*('s)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*` and white space.
///
/// What a backtracking engine makes of the first two. Let a run of U go from p to q, as far as it can.
/// - If an L comes at q, `U*L+` matches on through all L.
/// - If not, `U*` gives back characters until the first of them is also an L: the last caseless one of the run. All
///   after it are upper case, so `L+` matches just that one, and the piece ends after it.
/// - If the run has no caseless one, the first alternative fails, with the prefix and (if the prefix is no letter of
///   either kind) without it, and `U+L*` matches the run.
/// - A mark may be the prefix and may be a letter. As the prefix it goes first; if then `U*L+` fails, it is tried as
///   the word itself before the second alternative is tried at all, and `U*L+` matches it alone.
struct CasedWordScanner: PieceScanner {
    let text: ClassifiedText
    /// `\p{N}{1,digitsMax}`
    let digitsMax: Int
    /// Whether `(?i:'s|'t|'re|'ve|'m|'ll|'d)?` may end a word.
    let hasContractions: Bool

    @inline(__always)
    func end(from start: Int) -> Int {
        let first = text.byte(at: start)
        let (classes, next) = text.character(at: start)
        if classes.meets(.letter) { return withContraction(wordEnd(after: classes, from: start, next).end) }
        if classes.meets(.number) { return text.runEnd(of: .number, from: next, atMost: digitsMax - 1) }
        if next < text.count {
            let (second, afterSecond) = text.character(at: next)
            if classes.meets(.wordPrefix), second.meets(.letterOrMark) {
                let (end, isFirstAlternative) = wordEnd(after: second, from: next, afterSecond)
                let marksItself = classes.meets(.mark) && !isFirstAlternative
                return withContraction(marksItself ? next : end)
            }
            if first == UInt8(ascii: " "), second.meets(.other) { return otherEnd(from: afterSecond) }
        }
        if classes.meets(.mark) { return withContraction(next) }
        if classes.meets(.other) { return otherEnd(from: next) }
        let run = whitespaceRun(from: start)
        return run.newlineEnd ?? endLeavingLast(of: run, from: start)
    }

    /// Where the word without prefix at `start` ends, and whether `U*L+` matched it rather than `U+L*`.
    ///
    /// Most words begin in lower case, or have one upper-case letter: told by branches, which a processor predicts.
    /// - Parameters:
    ///   - first: The class of the character at `start`: a letter or a mark.
    ///   - next: Where the character after it is.
    @inline(__always)
    private func wordEnd(
        after first: CharacterClasses, from start: Int, _ next: Int
    ) -> (end: Int, isFirst: Bool) {
        if first.meets(.lowercase) { return (tailEnd(from: next), true) }
        if next < text.count, text.classes(ofASCII: text.byte(at: next)).meets(.lowercase), text.byte(at: next) < 0x80 {
            return (tailEnd(from: next + 1), true)
        }
        return wordEndByAlternative(from: start)
    }

    /// Where `L*` after at least one lower-case letter ends: ASCII letters eight bytes at a time.
    @inline(__always)
    private func tailEnd(from start: Int) -> Int {
        var position = start
        while position + 8 <= text.count {
            let run = ASCIIBytes.runLength(ASCIIBytes.lowercase(text.word(at: position)))
            position += run
            if run < 8 {
                return text.byte(at: position) < 0x80 ? position : text.runEnd(of: .wordTail, from: position)
            }
        }
        return text.runEnd(of: .wordTail, from: position)
    }

    /// The rest of `[^\s\p{L}\p{N}]+[\r\n/]*`.
    @inline(__always)
    private func otherEnd(from start: Int) -> Int {
        var position = text.runEnd(of: .other, from: start)
        while position < text.count {
            let byte = text.byte(at: position)
            guard byte == 0x0A || byte == 0x0D || byte == UInt8(ascii: "/") else { break }
            position += 1
        }
        return position
    }

    @inline(__always)
    private func withContraction(_ end: Int) -> Int {
        guard hasContractions, end < text.count, text.byte(at: end) == UInt8(ascii: "'") else { return end }
        return contractionEnd(from: end) ?? end
    }

    @inline(__always)
    private func wordEnd(from start: Int) -> Int { wordEndByAlternative(from: start).end }

    /// `wordEnd` of any word, as the essay above says.
    private func wordEndByAlternative(from start: Int) -> (end: Int, isFirst: Bool) {
        var position = start
        var caselessEnd: Int?
        while position < text.count {
            let (classes, next) = text.character(at: position)
            guard classes.meets(.wordHead) else {
                if classes.meets(.lowercase) { return (tailEnd(from: next), true) }
                break
            }
            if classes.meets(.caseless) { caselessEnd = next }
            position = next
        }
        guard let caselessEnd else { return (position, false) }
        return (caselessEnd, true)
    }
}

/// UTF-8 text that can be asked which classes its characters are in, and how far runs of them go.
///
/// The classes of text that is not valid mean nothing, but every read is in bounds, and every character has a class.
package struct ClassifiedText {
    let text: UTF8Text
    // SAFETY: Both point to static strings, and an index stays inside by construction of the tables: scalars are
    // compared with `UnicodeTables.limit` first.
    private let blocks: UnsafePointer<UInt8>
    private let index: UnsafePointer<UInt8>

    package init(_ text: UnsafeRawBufferPointer) {
        self.text = UTF8Text(text)
        blocks = UnicodeTables.blocks.utf8Start
        index = UnicodeTables.index.utf8Start
    }

    @inline(__always)
    var count: Int { text.count }

    @inline(__always)
    func byte(at position: Int) -> UInt8 { text.byte(at: position) }

    /// Eight bytes, the first of them lowest. - Parameter position: At most `count - 8`.
    @inline(__always)
    func word(at position: Int) -> UInt64 { text.word(at: position) }

    /// The class of an ASCII byte.
    @inline(__always)
    func classes(ofASCII byte: UInt8) -> CharacterClasses { CharacterClasses(tableEntry: blocks[Int(byte & 0x7F)]) }

    /// The class of a code point.
    @inline(__always)
    func classes(of scalar: UInt32) -> CharacterClasses {
        guard scalar < UnicodeTables.limit else {
            return UnicodeTables.marksBeyond.contains(scalar) ? .mark : .unassigned
        }
        let entry = Int(scalar >> 7) * 2
        let block = Int(index[entry] &- 0x30) << 6 | Int(index[entry + 1] &- 0x30)
        return CharacterClasses(tableEntry: blocks[block << 7 | Int(scalar & 0x7F)])
    }

    /// The class of the character at `position`, and where the next begins.
    @inline(__always)
    func character(at position: Int) -> (classes: CharacterClasses, next: Int) {
        let first = byte(at: position)
        if first < 0x80 { return (classes(ofASCII: first), position + 1) }
        let (scalar, next) = text.scalarBeyondASCII(at: position, first)
        return (classes(of: scalar), next)
    }

    /// Where the run of characters of `set` that begins at `start` ends; `start` if none is there.
    @inline(__always)
    func runEnd(of set: CharacterClasses, from start: Int) -> Int {
        var position = start
        while position < count {
            let (classes, next) = character(at: position)
            guard classes.meets(set) else { break }
            position = next
        }
        return position
    }

    /// `runEnd` of at most `limit` characters.
    @inline(__always)
    func runEnd(of set: CharacterClasses, from start: Int, atMost limit: Int) -> Int {
        var position = start
        for _ in 0..<limit where position < count {
            let (classes, next) = character(at: position)
            guard classes.meets(set) else { break }
            position = next
        }
        return position
    }

    /// Where the run of letters that begins at `start` ends: ASCII letters eight bytes at a time.
    @inline(__always)
    func letterRunEnd(from start: Int) -> Int {
        var position = start
        while position + 8 <= count {
            let letters = ASCIIBytes.letters(word(at: position))
            let run = ASCIIBytes.runLength(letters)
            position += run
            if run < 8 {
                return byte(at: position) < 0x80 ? position : runEnd(of: .letter, from: position)
            }
        }
        return runEnd(of: .letter, from: position)
    }
}

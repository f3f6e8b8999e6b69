/// Cuts text into pieces, left to right: every byte belongs to exactly one piece.
package struct Pretokenizer: Sendable {
    package let pattern: PretokenizerPattern

    package init(_ pattern: PretokenizerPattern) { self.pattern = pattern }

    /// Where the piece that starts at `start` ends.
    ///
    /// Chooses the scanner anew for every piece; `forEachPiece` does so once for a text.
    /// - Parameters:
    ///   - text: Valid UTF-8; with other bytes the pieces mean nothing, but no byte outside is read.
    ///   - start: The first byte of a piece; less than `text.count`.
    /// - Returns: The offset after its last byte; greater than `start`, at most `text.count`.
    package func end(in text: UnsafeRawBufferPointer, from start: Int) -> Int {
        precondition(start >= 0 && start < text.count)
        let text = ClassifiedText(text)
        switch pattern {
        case .gpt2: return GPT2Scanner(text: text).end(from: start)
        case .cl100k: return Self.cl100k(text).end(from: start)
        case .o200k: return Self.o200k(text).end(from: start)
        case .llama3: return Self.llama3(text).end(from: start)
        case .qwen2: return Self.qwen2(text).end(from: start)
        case .tekken: return Self.tekken(text).end(from: start)
        }
    }

    /// Calls `body` with the bounds of each piece of a text, in order, in time linear in its length.
    ///
    /// The loop is compiled once a pattern, with `body` in it: give it a body that is small or calls something that is
    /// not inlined.
    /// - Parameters:
    ///   - text: Valid UTF-8; with other bytes the pieces mean nothing, but no byte outside is read.
    ///   - body: Takes the offset of the first byte of a piece and of the byte after its last.
    /// - Throws: What `body` throws; no piece follows then.
    @inline(__always)
    package func forEachPiece<Failure: Error>(
        in text: UnsafeRawBufferPointer, _ body: (_ start: Int, _ end: Int) throws(Failure) -> Void
    ) throws(Failure) {
        let text = ClassifiedText(text)
        switch pattern {
        case .gpt2: try Self.forEachPiece(of: GPT2Scanner(text: text), body)
        case .cl100k: try Self.forEachPiece(of: Self.cl100k(text), body)
        case .o200k: try Self.forEachPiece(of: Self.o200k(text), body)
        case .llama3: try Self.forEachPiece(of: Self.llama3(text), body)
        case .qwen2: try Self.forEachPiece(of: Self.qwen2(text), body)
        case .tekken: try Self.forEachPiece(of: Self.tekken(text), body)
        }
    }

    @inline(__always)
    private static func forEachPiece<Failure: Error>(
        of scanner: some PieceScanner, _ body: (_ start: Int, _ end: Int) throws(Failure) -> Void
    ) throws(Failure) {
        let count = scanner.text.count
        var start = 0
        while start < count {
            let end = scanner.end(from: start)
            try body(start, end)
            start = end
        }
    }

    @inline(__always)
    private static func cl100k(_ text: ClassifiedText) -> LetterRunScanner {
        LetterRunScanner(text: text, digitsMax: 3, keepsTrailingWhitespace: true)
    }

    @inline(__always)
    private static func llama3(_ text: ClassifiedText) -> LetterRunScanner {
        LetterRunScanner(text: text, digitsMax: 3, keepsTrailingWhitespace: false)
    }

    @inline(__always)
    private static func qwen2(_ text: ClassifiedText) -> LetterRunScanner {
        LetterRunScanner(text: text, digitsMax: 1, keepsTrailingWhitespace: false)
    }

    @inline(__always)
    private static func o200k(_ text: ClassifiedText) -> CasedWordScanner {
        CasedWordScanner(text: text, digitsMax: 3, hasContractions: true)
    }

    @inline(__always)
    private static func tekken(_ text: ClassifiedText) -> CasedWordScanner {
        CasedWordScanner(text: text, digitsMax: 1, hasContractions: false)
    }
}

import Glibc

/// How text becomes pieces: what is done with it before any merging.
///
/// - Bytes that are not UTF-8: tiktoken's private `_encode_bytes` is followed for tiktoken files. The other libraries
///   take only strings, so for them each maximal subpart that is not UTF-8 is first replaced by U+FFFD, as Python's
///   `bytes.decode("utf-8", errors="replace")` does.
/// - Vocabularies that write a space as U+2581 are held with spaces instead, and U+2581 in the text becomes a space:
///   the same pieces, without a copy of the text three times as long.
struct TextRules {
    enum Splitter {
        case pattern(Pretokenizer)
        /// The whole text is one piece; cut where no merge can cross.
        case whole
        /// A piece starts at each space; cut where no merge can cross, too.
        case spaces
    }

    enum Prefix {
        case none
        /// A space before every part between added tokens.
        case always
        /// Unless there is one.
        case unlessSpace
        /// As before, but only at the start of the text.
        case unlessSpaceAtStart
    }

    var splitter: Splitter
    var isTiktoken = false
    var composes = false
    var marksSpaces = false
    var prefix = Prefix.none
    /// Looked for in the text as it is.
    var addedRaw: AddedTokens?
    /// Looked for in the normalized text.
    var addedNormalized: AddedTokens?

    @inline(__always)
    func encode<Sink>(_ text: UnsafeRawBufferPointer, _ encoder: inout PieceEncoder<Sink>) {
        guard !text.isEmpty else { return }
        let valid = UTF8Repair.validPrefixLength(of: text)
        if valid == text.count {
            encodeValid(text, &encoder)
        } else if isTiktoken {
            encodeInvalid(text, valid: valid, &encoder)
        } else {
            var repaired: [UInt8] = []
            _ = UTF8Repair.repaired(text, into: &repaired)
            repaired.withUnsafeBytes { encodeValid($0, &encoder) }
        }
    }

    @inline(never)
    private func encodeValid<Sink>(_ text: UnsafeRawBufferPointer, _ encoder: inout PieceEncoder<Sink>) {
        guard let addedRaw else { return encodePart(text, isFirst: true, &encoder) }
        var start = 0
        var taken = 0
        while let match = addedRaw.next(in: text, from: &start, taken: taken) {
            if taken < match.span.lowerBound {
                encodePart(
                    UnsafeRawBufferPointer(rebasing: text[taken..<match.span.lowerBound]), isFirst: taken == 0, &encoder
                )
            }
            encoder.sink.take(match.id)
            taken = match.span.upperBound
        }
        if taken < text.count {
            encodePart(UnsafeRawBufferPointer(rebasing: text[taken...]), isFirst: taken == 0, &encoder)
        }
    }

    // MARK: A part between added tokens

    private func encodePart<Sink>(
        _ part: UnsafeRawBufferPointer, isFirst: Bool, _ encoder: inout PieceEncoder<Sink>
    ) {
        guard changes(part) else { return encodeNormalized(part, &encoder) }
        normalized(part, isFirst: isFirst).withUnsafeBytes { encodeNormalized($0, &encoder) }
    }

    /// Whether ``normalized(_:isFirst:)`` may be other than the text itself.
    private func changes(_ part: UnsafeRawBufferPointer) -> Bool {
        prefix != .none || composes || (marksSpaces && SpaceMark.occurs(in: part))
    }

    /// The text as pieces are cut from it. It lives for one call; no copy is made where nothing needs to change.
    func normalized(_ part: UnsafeRawBufferPointer, isFirst: Bool) -> [UInt8] {
        var text: [UInt8] = []
        if !composes || !Normalizer.nfc.normalized(part, into: &text) { text = Array(part) }
        if marksSpaces {
            let left = text.withUnsafeMutableBytes { SpaceMark.replace(in: $0) }
            text.removeLast(left)
        }
        let startsWithSpace = text.first == UInt8(ascii: " ")
        let prefixes =
            switch prefix {
            case .none: false
            case .always: !text.isEmpty
            case .unlessSpace: !startsWithSpace
            case .unlessSpaceAtStart: isFirst && !startsWithSpace
            }
        if prefixes { text.insert(UInt8(ascii: " "), at: 0) }
        return text
    }

    private func encodeNormalized<Sink>(_ text: UnsafeRawBufferPointer, _ encoder: inout PieceEncoder<Sink>) {
        guard let addedNormalized else { return encodePieces(text, &encoder) }
        var start = 0
        var taken = 0
        while let match = addedNormalized.next(in: text, from: &start, taken: taken) {
            if taken < match.span.lowerBound {
                encodePieces(UnsafeRawBufferPointer(rebasing: text[taken..<match.span.lowerBound]), &encoder)
            }
            encoder.sink.take(match.id)
            taken = match.span.upperBound
        }
        if taken < text.count { encodePieces(UnsafeRawBufferPointer(rebasing: text[taken...]), &encoder) }
    }

    private func encodePieces<Sink>(_ text: UnsafeRawBufferPointer, _ encoder: inout PieceEncoder<Sink>) {
        guard let base = text.baseAddress else { return }
        switch splitter {
        case .pattern(let pretokenizer):
            pretokenizer.forEachPiece(in: text) { start, end in
                encoder.piece(base + start, end &- start, readable: text.count &- start)
            }
        case .whole: encodeCut(text, atSpaces: false, &encoder)
        case .spaces: encodeCut(text, atSpaces: true, &encoder)
        }
        encoder.flush()
    }

    @inline(never)
    private func encodeCut<Sink>(
        _ text: UnsafeRawBufferPointer, atSpaces: Bool, _ encoder: inout PieceEncoder<Sink>
    ) {
        guard let base = text.baseAddress else { return }
        encoder.vocabulary.cuts.forEachPart(of: text, atSpaces: atSpaces) { start, end in
            encoder.piece(base + start, end &- start, readable: text.count &- start)
        }
    }

    // MARK: tiktoken, bytes that are not UTF-8

    /// The last piece before the first invalid byte, and all tokens of spaces before it if it starts with one, are
    /// joined with everything that follows into one piece.
    @inline(never)
    private func encodeInvalid<Sink>(
        _ text: UnsafeRawBufferPointer, valid: Int, _ encoder: inout PieceEncoder<Sink>
    ) {
        guard let base = text.baseAddress else { return }
        var ids: [UInt32] = []
        var lastPiece = 0
        let prefix = UnsafeRawBufferPointer(rebasing: text[..<valid])
        let vocabulary = encoder.vocabulary
        withUnsafeMutablePointer(to: &ids) { ids in
            let sink = WritingSink(output: encoder.scratch.prefixOutput, ids: ids)
            var inner = PieceEncoder(vocabulary, scratch: encoder.scratch, sink: sink)
            if case .pattern(let pretokenizer) = splitter, valid > 0 {
                pretokenizer.forEachPiece(in: prefix) { start, end in
                    lastPiece = inner.sink.ids.pointee.count + inner.sink.count
                    inner.piece(base + start, end &- start, readable: valid &- start)
                    inner.flush()
                }
            }
            inner.sink.flush()
        }
        func isSpace(_ id: UInt32) -> Bool {
            vocabulary.bytes[id].allSatisfy { $0 == 0x20 || $0 == 0x0A || $0 == 0x09 }
        }
        if lastPiece < ids.count, isSpace(ids[lastPiece]) {
            while lastPiece > 0, isSpace(ids[lastPiece - 1]) { lastPiece -= 1 }
        }
        var unstable = valid
        for id in ids[lastPiece...] { unstable -= vocabulary.bytes[id].count }
        ids.withUnsafeBufferPointer { ids in
            if let ids = ids.baseAddress, lastPiece > 0 { encoder.sink.take(ids, lastPiece) }
        }
        encoder.pieceOfAnyBytes(UnsafeRawBufferPointer(rebasing: text[unstable...]))
    }
}

/// U+2581, which SentencePiece writes for a space.
enum SpaceMark {
    static let bytes: [UInt8] = [0xE2, 0x96, 0x81]

    static func occurs(in text: UnsafeRawBufferPointer) -> Bool { first(in: text, from: 0) < text.count }

    /// Where the first mark at or after `start` is; the end of the text where there is none.
    @inline(__always)
    private static func first(in text: UnsafeRawBufferPointer, from start: Int) -> Int {
        guard let base = text.baseAddress else { return text.count }
        var at = start
        let ones: UInt64 = 0x0101_0101_0101_0101
        while at &+ 3 <= text.count {
            // SAFETY: 8 bytes from `at` are inside the text.
            while at &+ 8 <= text.count {
                let different = base.loadUnaligned(fromByteOffset: at, as: UInt64.self) ^ (ones &* 0xE2)
                if (different &- ones) & ~different & (ones &* 0x80) != 0 { break }
                at &+= 8
            }
            let end = min(at &+ 8, text.count &- 2)
            while at < end {
                if base.load(fromByteOffset: at, as: UInt8.self) == 0xE2,
                    base.load(fromByteOffset: at &+ 1, as: UInt8.self) == 0x96,
                    base.load(fromByteOffset: at &+ 2, as: UInt8.self) == 0x81
                {
                    return at
                }
                at &+= 1
            }
        }
        return text.count
    }

    /// Makes a space of each mark, in place.
    ///
    /// - Returns: How many bytes at the end are left over.
    static func replace(in text: UnsafeMutableRawBufferPointer) -> Int {
        guard let base = text.baseAddress else { return 0 }
        var from = first(in: UnsafeRawBufferPointer(text), from: 0)
        var to = from
        while from < text.count {
            text[to] = UInt8(ascii: " ")
            to += 1
            from += 3
            let mark = first(in: UnsafeRawBufferPointer(text), from: from)
            // SAFETY: `to` is below `from`, and both runs end inside the text.
            memmove(base + to, base + from, mark - from)
            to += mark - from
            from = mark
        }
        return text.count - to
    }
}

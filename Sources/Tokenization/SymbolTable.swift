/// What a piece is made of before anything merges.
///
/// Where every byte is a symbol, most characters of several bytes still need not be merged byte by byte: if merging
/// makes one token of a character's bytes, and no rule joins a part of it to its neighbours, it becomes that token
/// whatever stands around it. As long as every rule comes after those that make its parts (``isOrdered``), it does not
/// matter when that happens, so it is done beforehand.
struct SymbolTable {
    enum Kind {
        /// Every byte is a symbol.
        case bytes
        /// Every character is one; the bytes of characters that the vocabulary does not have are.
        case charactersOrBytes
        /// Every character is one; unknown ones become the unknown token, a run of them one if `fused`, or nothing.
        case characters(unknown: UInt32?, fused: Bool)
    }

    private static let charactersCount = 0x10000

    let kind: Kind
    // SAFETY: all allocated by `init` and freed by `deallocate`; indices are bytes or scalars of at most three bytes in
    // UTF-8.
    /// The ids of bytes, or of ASCII characters.
    let units: UnsafeMutablePointer<UInt32>
    /// The ids of bytes of unknown characters.
    let fallback: UnsafeMutablePointer<UInt32>
    /// The ids of characters of two and three bytes; none where there is none, or it depends on what is around.
    private let characters: UnsafeMutablePointer<UInt32>

    init(_ kind: Kind) {
        self.kind = kind
        units = TableMemory.allocate(256, repeating: TokenTable.none)
        fallback = TableMemory.allocate(256, repeating: TokenTable.none)
        characters = TableMemory.allocate(Self.charactersCount, repeating: TokenTable.none)
    }

    func deallocate() {
        TableMemory.deallocate(units)
        TableMemory.deallocate(fallback)
        TableMemory.deallocate(characters)
    }

    var memoryBytes: Int { 2048 + Self.charactersCount * 4 }

    /// Notes the token of one character of two or three bytes.
    func setCharacter(_ token: UnsafeRawBufferPointer, _ id: UInt32) {
        guard let start = token.baseAddress, token.count == 2 || token.count == 3,
            token.count == CutTable.width(token[0]), token.dropFirst().allSatisfy({ $0 & 0xC0 == 0x80 })
        else { return }
        characters[Self.scalar(start, token.count)] = id
    }

    @inline(__always)
    private static func scalar(_ start: UnsafeRawPointer, _ width: Int) -> Int {
        let lead = Int(start.load(as: UInt8.self))
        let second = Int(start.load(fromByteOffset: 1, as: UInt8.self) & 0x3F)
        if width == 2 { return (lead & 0x1F) &<< 6 | second }
        return (lead & 0x0F) &<< 12 | second &<< 6 | Int(start.load(fromByteOffset: 2, as: UInt8.self) & 0x3F)
    }

    /// Writes the symbols of a piece.
    ///
    /// - Parameters:
    ///   - length: At least 1.
    ///   - isText: Whether the piece is valid UTF-8; it is where symbols are characters.
    ///   - ids: Room for `length` symbols.
    /// - Returns: How many symbols there are; at most `length`.
    @inline(__always)
    func split(
        _ start: UnsafeRawPointer, _ length: Int, isText: Bool, _ tables: Vocabulary,
        into ids: UnsafeMutablePointer<UInt32>
    ) -> Int {
        var writer = Writer(ids: ids)
        var at = 0
        while at < length {
            let lead = start.load(fromByteOffset: at, as: UInt8.self)
            if lead < 0x80 || !isText {
                let id = units[Int(lead)]
                if id != TokenTable.none {
                    writer.add(id)
                } else {
                    unknown(start + at, 1, &writer)
                }
                at &+= 1
            } else {
                let width = min(CutTable.width(lead), length &- at)
                character(start, at, width, length, tables, &writer)
                at &+= width
            }
        }
        return writer.count
    }

    @inline(__always)
    private func character(
        _ start: UnsafeRawPointer, _ at: Int, _ width: Int, _ length: Int, _ tables: Vocabulary, _ writer: inout Writer
    ) {
        let id = width < 4 && width > 1 ? characters[Self.scalar(start + at, width)] : TokenTable.none
        guard case .bytes = kind else {
            if id != TokenTable.none { return writer.add(id) }
            if width == 4 {
                let key = PieceKey(short: start + at, length: 4, readable: length &- at, seed: tables.pieces.seed)
                let id = tables.pieces.find(key.first, hash: key.hash, start + at, length: 4)
                if id != TokenTable.none { return writer.add(id) }
            }
            return unknown(start + at, width, &writer)
        }
        if id != TokenTable.none,
            at == 0
                || !tables.cuts.joins(
                    start.load(fromByteOffset: at &- 1, as: UInt8.self), start.load(fromByteOffset: at, as: UInt8.self)),
            at &+ width == length
                || !tables.cuts.joins(
                    start.load(fromByteOffset: at &+ width &- 1, as: UInt8.self),
                    start.load(fromByteOffset: at &+ width, as: UInt8.self))
        {
            return writer.add(id)
        }
        for index in at..<(at &+ width) {
            let byte = start.load(fromByteOffset: index, as: UInt8.self)
            writer.add(units[Int(byte)])
        }
    }

    @inline(never)
    private func unknown(_ start: UnsafeRawPointer, _ width: Int, _ writer: inout Writer) {
        guard case .characters(let unknown, let fused) = kind else {
            for index in 0..<width { writer.add(fallback[Int(start.load(fromByteOffset: index, as: UInt8.self))]) }
            return
        }
        guard let unknown, !(fused && writer.endsUnknown) else { return }
        writer.add(unknown)
        writer.endsUnknown = true
    }

    /// Appends symbols.
    private struct Writer {
        let ids: UnsafeMutablePointer<UInt32>
        var count = 0
        var endsUnknown = false

        @inline(__always)
        mutating func add(_ id: UInt32) {
            ids[count] = id
            count &+= 1
            endsUnknown = false
        }
    }
}

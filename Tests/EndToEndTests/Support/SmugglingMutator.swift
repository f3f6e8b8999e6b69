import Domain
import FuzzTargets
import Support

/// Changes requests of the corpus as those do who look for two servers that read one connection differently.
struct SmugglingMutator {
    static let changesMax = 3
    /// The corpus as bytes, the key's place included: what a seed makes does not depend on a key.
    private static let corpus = SmugglingCase.all.map { Array($0.text.utf8) }

    private var generator: SplitMix64

    init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    /// The next request, or requests.
    mutating func next() -> [UInt8] {
        var bytes = pick(Self.corpus)
        for _ in 0..<generator.int(1...Self.changesMax) { change(&bytes) }
        return bytes
    }

    private mutating func pick<Element>(_ list: [Element]) -> Element { generator.pick(list) }

    private mutating func place(in bytes: [UInt8]) -> Int { generator.int(0...bytes.count) }

    private mutating func change(_ bytes: inout [UInt8]) {
        switch generator.int(0...11) {
        case 0: changeLines(&bytes) { lines, mutator in lines.insert(mutator.pick(lines), at: mutator.line(lines)) }
        case 1: changeLines(&bytes) { lines, mutator in lines.remove(at: mutator.line(lines)) }
        case 2, 3:
            changeLines(&bytes) { lines, mutator in
                lines.insert(Array(mutator.pick(Self.framing).utf8), at: mutator.line(lines))
            }
        case 4: changeLines(&bytes) { lines, mutator in lines.swapAt(mutator.line(lines), mutator.line(lines)) }
        case 5: changeLines(&bytes) { lines, mutator in mutator.addBlank(to: &lines[mutator.line(lines)]) }
        case 6: changeLineEnd(&bytes)
        case 7: changeRequestLine(&bytes)
        case 8, 9: changeChunk(&bytes)
        case 10: bytes += pick([Array("\r\n".utf8), Array("junk\r\n".utf8), [0], pick(Self.corpus), pick(Self.corpus)])
        default: changeByte(&bytes)
        }
    }

    // MARK: Lines of the first head

    private mutating func changeLines(
        _ bytes: inout [UInt8], _ change: (inout [[UInt8]], inout Self) -> Void
    ) {
        let blank = Array("\r\n\r\n".utf8)
        guard let end = bytes.firstRange(of: blank) else { return }
        var lines = Self.lines(bytes[..<end.lowerBound])
        guard lines.count > 1 else { return }
        change(&lines, &self)
        bytes = Array(lines.joined(separator: Array("\r\n".utf8))) + bytes[end.lowerBound...]
    }

    private static func lines(_ bytes: ArraySlice<UInt8>) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var rest = bytes
        while let end = rest.firstRange(of: Array("\r\n".utf8)) {
            lines.append(Array(rest[..<end.lowerBound]))
            rest = rest[end.upperBound...]
        }
        return lines + [Array(rest)]
    }

    /// A header's line: never the request line.
    private mutating func line(_ lines: [[UInt8]]) -> Int { generator.int(1...max(1, lines.count - 1)) }

    private static let length = SmugglingCase.body.utf8.count
    private static let framing: [String] = [
        "Content-Length: \(length)", "Content-Length: 0", "Content-Length: 1", "Content-Length: \(length - 1)",
        "Content-Length: \(length + 1)", "Content-Length: \(length), \(length)", "Content-Length: +\(length)",
        "Content-Length: \(length) \(length)", "Content-Length: \(length);", "Content-Length:", "Content-Length",
        "Content-Length: 0\(length)", "content-length:\(length)", "Content-Length\u{0}: 0", "Content-Length_: 0",
        "Transfer-Encoding: chunked", "Transfer-Encoding:chunked", "transfer-encoding: Chunked",
        "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:  chunked ", "Transfer-Encoding: chunked\t", "Transfer-Encoding: \u{C}chunked",
        "Transfer-Encoding: \"chunked\"", "Transfer-Encoding", "Transfer-Encoding: cow", "TE: trailers",
        "Transfer-Encoding: chunk\u{E9}d", "Trailer: Content-Length", "Host: other", "Host:", "Expect: 100-continue",
        "Connection: keep-alive", "Connection: close, Transfer-Encoding", "Connection: Content-Length",
        "Upgrade: websocket", "Keep-Alive: timeout=5", " Content-Length: 0", "\tTransfer-Encoding: chunked",
        "X: a\r\n\tb", "X: a\nContent-Length: 0", "X: a\rTransfer-Encoding: chunked", ": empty", "", " ",
        "Content-Encoding: gzip", "X-HTTP-Method-Override: GET", "Content-Length: \u{660}", "GET / HTTP/1.1",
    ]

    private static let blanks: [[UInt8]] = [
        [0x20], [0x09], [0x0B], [0x0C], [0x0D], [0x0A], [0x00], [0xA0], [0x85], [0xFF], [0x20, 0x20],
        [0x0D, 0x0A, 0x20], [0x0D, 0x0A, 0x09], [0x0A, 0x20], [0x0D, 0x0D],
    ]

    /// At the line's ends, or on one side of its colon.
    private mutating func addBlank(to line: inout [UInt8]) {
        let colon = line.firstIndex(of: UInt8(ascii: ":")) ?? 0
        line.insert(contentsOf: pick(Self.blanks), at: pick([0, colon, min(colon + 1, line.count), line.count]))
    }

    // MARK: Anywhere

    private static let ends: [[UInt8]] = [
        "\n", "\r", "\r\r\n", "\n\r", "\r\n ", "\r\n\t", "\n ", "\r\n\r\n", "\n\n", "\0\r\n", " \r\n", "\r\n\0",
    ].map { Array($0.utf8) }

    private mutating func changeLineEnd(_ bytes: inout [UInt8]) {
        let places = bytes.indices.dropLast().filter { bytes[$0] == 0x0D && bytes[$0 + 1] == 0x0A }
        guard !places.isEmpty else { return }
        let place = pick(Array(places))
        bytes.replaceSubrange(place...place + 1, with: pick(Self.ends))
    }

    private static let targets = [
        "http://gateway/v1/chat/completions", "HTTP://gateway/v1/chat/completions", "http://other/v1/chat/completions",
        "//v1/chat/completions", "*", "gateway:80", "/v1/chat/completions?a=b", "/v1/chat/completions?\u{E9}",
        "/v1/chat/completions#x", "/v1/chat%2Fcompletions", "/v1/./chat/completions", "/v1/chat/completions/..",
        "/v1/chat/completions\t", "/v1/chat/completions\u{0}", "/v1/chat/completions%00", "\\v1\\chat\\completions",
        "/v1/chat/completions?a b", "/v1/chat/completions ?", "/v1/models",
    ]
    private static let methods = [
        "POST", "GET", "PUT", "HEAD", "OPTIONS", "post", "POST\0", "TRACE", "CONNECT", "P OST",
    ]
    private static let versions = [
        "HTTP/1.1", "HTTP/1.0", "HTTP/1.1 ", " HTTP/1.1", "HTTP/01.1", "HTTP/1.01", "HTTP/1.9", "HTTP/2", "http/1.1",
        "HTTP/1.1\t", "HTTP /1.1", "HTTP/1,1", "", "HTTP/1.\u{661}",
    ]

    private mutating func changeRequestLine(_ bytes: inout [UInt8]) {
        guard let end = bytes.firstRange(of: Array("\r\n".utf8))?.lowerBound else { return }
        var words = bytes[..<end].split(separator: 0x20, omittingEmptySubsequences: false).map(Array.init)
        guard words.count == 3 else { return }
        let index = generator.int(0...2)
        words[index] = Array(pick([Self.methods, Self.targets, Self.versions][index]).utf8)
        let blank = generator.chance(90) ? [0x20] : pick(Self.blanks)
        bytes.replaceSubrange(..<end, with: Array(words.joined(separator: blank)))
    }

    /// One of the lines behind the head that say how long a chunk is.
    private mutating func changeChunk(_ bytes: inout [UInt8]) {
        guard let head = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return changeByte(&bytes) }
        var start = head.upperBound
        var sizes: [Range<Int>] = []
        while let end = bytes[start...].firstRange(of: Array("\r\n".utf8)) {
            let line = bytes[start..<end.lowerBound]
            let isHex = line.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x46).contains($0 & 0xDF)
            }
            if !line.isEmpty, line.count <= 4, isHex { sizes.append(start..<end.lowerBound) }
            start = end.upperBound
        }
        guard !sizes.isEmpty else { return changeByte(&bytes) }
        let place = pick(sizes)
        let text = String(decoding: bytes[place], as: UTF8.self)
        let size = Int(text, radix: 16) ?? 0
        let made = [
            text.uppercased(), "0\(text)", "000000000000000\(text)", "\(text);a=b", "\(text) ;a", "\(text);\"\r\n\"",
            "\(text);a\n", "\(text) ", "\(text)\t", " \(text)", "+\(text)", "-\(text)", "0x\(text)", "\(text)h",
            String(size + 1, radix: 16), String(max(0, size - 1), radix: 16), "1000000000000000\(text)",
            "\(text)\n", "\(text)\r", "\(text)\0", "\(text),", "", "\(text)\r\n\r\n", "\(text);\u{E9}", "\(text)\u{B}",
        ]
        bytes.replaceSubrange(place, with: Array(pick(made).utf8))
    }

    private static let oddBytes: [UInt8] = [
        0x00, 0x01, 0x09, 0x0A, 0x0B, 0x0D, 0x20, 0x22, 0x2C, 0x3A, 0x3B, 0x7F, 0x80, 0xFF,
    ]

    private mutating func changeByte(_ bytes: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        let place = generator.int(0...bytes.count - 1)
        switch generator.int(0...2) {
        case 0: bytes.insert(pick(Self.oddBytes), at: place)
        case 1: bytes[place] = pick(Self.oddBytes)
        default: bytes.remove(at: place)
        }
    }
}

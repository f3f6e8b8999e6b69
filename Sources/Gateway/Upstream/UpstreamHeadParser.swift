#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Reads the head of a node's answer line by line, as the lines arrive.
///
/// Each whole line is checked, its meaning kept and its bytes given up at once, so work is linear however the head is
/// split. It is strict where lenience would let two parsers disagree about where an answer ends: line ends are CRLF,
/// names are tokens, values have no control bytes, no folding, one length.
struct UpstreamHeadParser {
    enum Outcome {
        /// The lines so far ended `consumed` bytes into the input.
        case needMore(consumed: Int)
        case complete(consumed: Int)
        case failed(UpstreamFailure)
    }

    enum Framing: Hashable {
        case none
        case length(Int)
        case chunked
        case untilClose
    }

    private(set) var status = 0
    private(set) var contentType = UpstreamResponseHead.ContentType.other
    private var contentLength = -1
    private var isChunked = false
    private var isHTTP10 = false
    private var saysClose = false
    private var saysKeepAlive = false
    private var isPastStatusLine = false
    /// Of the lines consumed, interim answers included: those are bounded by this, too.
    private var headBytes = 0
    /// How many bytes of the unfinished line hold no line feed.
    private var searchedBytes = 0

    var framing: Framing {
        if status == 204 || status == 304 { return .none }
        if isChunked { return .chunked }
        return contentLength >= 0 ? .length(contentLength) : .untilClose
    }

    var keepAlive: Bool {
        guard framing != .untilClose, !saysClose else { return false }
        return !isHTTP10 || saysKeepAlive
    }

    /// - Parameter bytes: Everything that no outcome said to be consumed yet, then what came since.
    mutating func parse(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        // SAFETY: every offset below stays within `bytes`, which outlives the call.
        guard let base = bytes.baseAddress else { return .needMore(consumed: 0) }
        var start = 0
        while true {
            let from = start + searchedBytes
            guard from < bytes.count, let found = memchr(base + from, 0x0A, bytes.count - from) else {
                searchedBytes = bytes.count - start
                guard headBytes + searchedBytes <= UpstreamResponseParser.headBytesMax else {
                    return .failed(.headTooLarge)
                }
                return .needMore(consumed: start)
            }
            searchedBytes = 0
            let lineFeed = UnsafeRawPointer(found) - base
            headBytes += lineFeed + 1 - start
            guard headBytes <= UpstreamResponseParser.headBytesMax else { return .failed(.headTooLarge) }
            guard lineFeed > start, bytes[lineFeed - 1] == 0x0D else {
                return .failed(.malformedResponse(.bareLineFeed))
            }
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<(lineFeed - 1)])
            start = lineFeed + 1
            if !isPastStatusLine {
                guard parseStatusLine(line) else { return .failed(.malformedResponse(.statusLine)) }
                isPastStatusLine = true
            } else if line.count > 0 {
                if let malformation = parseField(line) { return .failed(.malformedResponse(malformation)) }
            } else {
                if isChunked, contentLength >= 0 { return .failed(.malformedResponse(.conflictingLengths)) }
                if isChunked, isHTTP10 { return .failed(.malformedResponse(.transferEncoding)) }
                if status == 101 { return .failed(.malformedResponse(.switchedProtocols)) }
                guard status < 200 else { return .complete(consumed: start) }
                let headBytes = headBytes
                self = UpstreamHeadParser()
                self.headBytes = headBytes
            }
        }
    }

    /// `HTTP/1.1 200 OK`; the reason and the blank before it may be absent.
    private mutating func parseStatusLine(_ line: UnsafeRawBufferPointer) -> Bool {
        guard line.count >= 12, line[0] == UInt8(ascii: "H"), line[1] == UInt8(ascii: "T"),
            line[2] == UInt8(ascii: "T"), line[3] == UInt8(ascii: "P"), line[4] == UInt8(ascii: "/"),
            line[5] == UInt8(ascii: "1"), line[6] == UInt8(ascii: "."), line[8] == UInt8(ascii: " ")
        else { return false }
        switch line[7] {
        case UInt8(ascii: "0"): isHTTP10 = true
        case UInt8(ascii: "1"): isHTTP10 = false
        default: return false
        }
        var code = 0
        for index in 9..<12 {
            let digit = line[index] &- UInt8(ascii: "0")
            guard digit < 10 else { return false }
            code = code * 10 + Int(digit)
        }
        guard (100..<600).contains(code) else { return false }
        if line.count > 12 {
            guard line[12] == UInt8(ascii: " ") else { return false }
            guard Self.isFieldContent(UnsafeRawBufferPointer(rebasing: line[13...])) else { return false }
        }
        status = code
        return true
    }

    private mutating func parseField(_ line: UnsafeRawBufferPointer) -> UpstreamMalformation? {
        if line[0] == 0x20 || line[0] == 0x09 { return .foldedHeader }
        var colon = 0
        while colon < line.count, Self.isToken(line[colon]) { colon += 1 }
        guard colon > 0, colon < line.count, line[colon] == UInt8(ascii: ":") else { return .headerName }
        var first = colon + 1
        var end = line.count
        while first < end, line[first] == 0x20 || line[first] == 0x09 { first += 1 }
        while end > first, line[end - 1] == 0x20 || line[end - 1] == 0x09 { end -= 1 }
        let value = UnsafeRawBufferPointer(rebasing: line[first..<end])
        guard Self.isFieldContent(value) else { return .headerValue }
        let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
        switch colon {
        case 10 where Self.equals(name, "connection"): readConnection(value)
        case 12 where Self.equals(name, "content-type"): readContentType(value)
        case 14 where Self.equals(name, "content-length"): return readContentLength(value)
        case 17 where Self.equals(name, "transfer-encoding"):
            // Any other coding, or this one twice, would need decoding that nobody asked the node for.
            guard !isChunked, Self.equals(value, "chunked") else { return .transferEncoding }
            isChunked = true
        default: break
        }
        return nil
    }

    private mutating func readContentLength(_ value: UnsafeRawBufferPointer) -> UpstreamMalformation? {
        guard !value.isEmpty else { return .contentLength }
        var length = 0
        for byte in value {
            let digit = byte &- UInt8(ascii: "0")
            guard digit < 10 else { return .contentLength }
            length = length * 10 + Int(digit)
            guard length <= UpstreamResponseParser.contentLengthMax else { return .contentLength }
        }
        guard contentLength < 0 || contentLength == length else { return .conflictingLengths }
        contentLength = length
        return nil
    }

    private mutating func readContentType(_ value: UnsafeRawBufferPointer) {
        var end = 0
        while end < value.count, value[end] != UInt8(ascii: ";"), value[end] != 0x20, value[end] != 0x09 { end += 1 }
        let type = UnsafeRawBufferPointer(rebasing: value[..<end])
        switch end {
        case 16 where Self.equals(type, "application/json"): contentType = .json
        case 17 where Self.equals(type, "text/event-stream"): contentType = .eventStream
        default: contentType = .other
        }
    }

    /// A list of options; only two matter to us.
    private mutating func readConnection(_ value: UnsafeRawBufferPointer) {
        var start = 0
        while start < value.count {
            var end = start
            while end < value.count, value[end] != UInt8(ascii: ",") { end += 1 }
            var (first, last) = (start, end)
            while first < last, value[first] == 0x20 || value[first] == 0x09 { first += 1 }
            while last > first, value[last - 1] == 0x20 || value[last - 1] == 0x09 { last -= 1 }
            let option = UnsafeRawBufferPointer(rebasing: value[first..<last])
            if Self.equals(option, "close") { saysClose = true }
            if Self.equals(option, "keep-alive") { saysKeepAlive = true }
            start = end + 1
        }
    }

    // MARK: - Bytes

    /// Compares without regard to the case of letters. `text` is lower case.
    @inline(__always)
    private static func equals(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount else { return false }
        // SAFETY: a static string's bytes live for ever; the index stays below its count.
        let expected = text.utf8Start
        for index in 0..<bytes.count {
            let byte = bytes[index]
            guard (byte &- 65 < 26 ? byte | 0x20 : byte) == expected[index] else { return false }
        }
        return true
    }

    /// `tchar` of RFC 9110 as two 64-bit sets.
    @inline(__always)
    private static func isToken(_ byte: UInt8) -> Bool {
        // Low: ! # $ % & ' * + - . 0-9; high: A-Z ^ _ ` a-z | ~
        let low: UInt64 = 0x03FF_6CFA_0000_0000
        let high: UInt64 = 0x57FF_FFFF_C7FF_FFFE
        guard byte < 128 else { return false }
        return (byte < 64 ? low >> UInt64(byte) : high >> UInt64(byte - 64)) & 1 != 0
    }

    /// No control bytes but the tab; bytes above 127 are allowed, as RFC 9110 has it.
    @inline(__always)
    private static func isFieldContent(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        // Eight at a time. A byte below 0x20 borrows into its top bit; 0x7F is found by the xor. Either may also mark
        // an innocent neighbour, and tabs are innocent: then the slow loop below decides.
        while index + 8 <= bytes.count {
            let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            let delete = word ^ 0x7F7F_7F7F_7F7F_7F7F
            let below = (word &- 0x2020_2020_2020_2020) & ~word
            let isDelete = (delete &- 0x0101_0101_0101_0101) & ~delete
            guard (below | isDelete) & 0x8080_8080_8080_8080 == 0 else { break }
            index += 8
        }
        while index < bytes.count {
            let byte = bytes[index]
            guard byte >= 0x20 || byte == 0x09, byte != 0x7F else { return false }
            index += 1
        }
        return true
    }
}

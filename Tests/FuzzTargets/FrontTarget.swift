import Gateway
import NIOCore
import NIOEmbedded
import NIOHTTP1

/// A client's bytes as far as they decide where requests begin and end: NIO's decoder with the gateway's settings and
/// `IncomingHead`, which refuses what is ambiguous.
///
/// A request that is served has one framing, and it is the one that other readers of HTTP would see: the head is read
/// again here, once by CR LF alone and once with every liberty that some server has taken (lines that end with LF or CR,
/// blanks and controls within and behind names), and both readings must find the same lengths and codings. Names with `_`
/// for `-` are other names, as for nginx: no client header reaches a node.
enum FrontTarget {
    static let headerBytes = 32 << 10

    struct Request: Equatable {
        var method: String
        var uri: String
        var headers: [String]
        var isServed: Bool
        var contentLength: Int?
        var isChunked: Bool
        var body: [UInt8] = []
        var isWhole = false
    }

    struct Decoded: Equatable {
        var requests: [Request] = []
        var isBroken = false
    }

    static func finding(in bytes: [UInt8]) -> String? {
        // With the boundaries of reads every decoder may place its errors differently, but not its requests.
        if let found = Cuts.difference(bytes, { served(decode($0)) }) { return found }
        let decoded = decode([bytes])
        for request in decoded.requests.prefix(while: \.isServed) {
            if request.contentLength != nil, request.isChunked { return "two framings in \(request)" }
            if let length = request.contentLength {
                if length < 0 || request.body.count > length { return "a body longer than its length in \(request)" }
                if request.isWhole, request.body.count != length { return "a body shorter than its length: \(request)" }
            } else if !request.isChunked, !request.body.isEmpty {
                return "a body without framing in \(request)"
            }
            for text in [request.uri] + request.headers
            where text.utf8.contains(where: { $0 == 0x0D || $0 == 0x0A || $0 == 0 }) {
                return "a line's end or NUL in \(request)"
            }
        }
        return readings(bytes, decoded)
    }

    /// What is acted on: the requests up to the first that is refused.
    private static func served(_ decoded: Decoded) -> [Request] {
        var requests = Array(decoded.requests.prefix { $0.isServed })
        // An error in the body of the last one is answered as such, whichever part of the body had come before it.
        if decoded.isBroken, let last = requests.last, !last.isWhole { requests.removeLast() }
        return requests
    }

    private static func decode(_ pieces: [[UInt8]]) -> Decoded {
        let channel = EmbeddedChannel()
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = headerBytes
        limits.maxHeaderListSize = headerBytes
        var decoded = Decoded()
        do {
            try channel.pipeline.syncOperations.addHandler(
                ByteToMessageHandler(
                    HTTPRequestDecoder(
                        leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop,
                        limitConfiguration: limits)))
            for piece in pieces { try channel.writeInbound(ByteBuffer(bytes: piece)) }
        } catch {
            decoded.isBroken = true
        }
        while let part = try? channel.readInbound(as: HTTPServerRequestPart.self) {
            switch part {
            case .head(let head):
                let incoming = IncomingHead(head)
                let isServed =
                    if case .found = incoming.route { incoming.defect == nil } else { false }
                decoded.requests.append(
                    Request(
                        method: head.method.rawValue, uri: head.uri,
                        headers: head.headers.map { "\($0.name):\($0.value)" }, isServed: isServed,
                        contentLength: incoming.contentLength, isChunked: incoming.isChunked))
            case .body(let slice):
                guard !decoded.requests.isEmpty else { continue }
                decoded.requests[decoded.requests.count - 1].body += Array(slice.readableBytesView)
            case .end:
                guard !decoded.requests.isEmpty else { continue }
                decoded.requests[decoded.requests.count - 1].isWhole = true
            }
        }
        _ = try? channel.finish(acceptAlreadyClosed: true)
        return decoded
    }

    // MARK: Other readers

    private struct Reading: Equatable {
        var lengths: [String] = []
        var codings: [String] = []
    }

    /// The first request's head in several readings; only the first, since where a second one starts is what the readings
    /// must agree on.
    private static func readings(_ bytes: [UInt8], _ decoded: Decoded) -> String? {
        guard let first = decoded.requests.first, first.isServed else { return nil }
        // Empty lines before a request are passed over by all.
        let start = bytes.firstIndex { $0 != 0x0D && $0 != 0x0A } ?? 0
        guard let strictEnd = end(of: bytes[start...], [0x0D, 0x0A, 0x0D, 0x0A]) else {
            return "a head that is served without a blank line"
        }
        let looseEnd = min(end(of: bytes[start...], [0x0A, 0x0A]) ?? strictEnd, strictEnd)
        let strict = reading(bytes[start..<strictEnd], isLoose: false)
        let loose = reading(bytes[start..<looseEnd], isLoose: true)
        guard strict == loose else { return "\(strict) read strictly, \(loose) loosely, in \(first)" }
        let seen = first.contentLength.map { [String($0)] } ?? []
        let told = strict.lengths.map { String($0.drop { $0 == "0" }) }.map { $0.isEmpty ? "0" : $0 }
        if Set(told) != Set(seen) { return "lengths \(told) in the head, \(seen) in \(first)" }
        if strict.lengths.count > 1 { return "several lengths in \(first)" }
        if first.isChunked, strict.codings.map({ $0.lowercased() }) != ["chunked"] {
            return "codings \(strict.codings) that others may read otherwise, in \(first)"
        }
        if strict.codings.isEmpty == first.isChunked { return "codings \(strict.codings) in \(first)" }
        return nil
    }

    private static func end(of bytes: ArraySlice<UInt8>, _ blank: [UInt8]) -> Int? {
        bytes.firstRange(of: blank)?.upperBound
    }

    private static func reading(_ head: ArraySlice<UInt8>, isLoose: Bool) -> Reading {
        var lines: [[UInt8]] = [[]]
        for byte in head {
            if byte == 0x0A || (isLoose && byte == 0x0D) {
                lines.append([])
            } else {
                lines[lines.count - 1].append(byte)
            }
        }
        var reading = Reading()
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { continue }
            var name = line[..<colon].map { (65...90).contains($0) ? $0 | 0x20 : $0 }
            if isLoose {
                name = name.filter { $0 > 0x20 && $0 < 0x7F }
            }
            let value = String(decoding: line[(colon + 1)...].filter { $0 > 0x20 }, as: UTF8.self)
            if name.elementsEqual("content-length".utf8) { reading.lengths.append(value) }
            if name.elementsEqual("transfer-encoding".utf8) { reading.codings.append(value) }
        }
        return reading
    }
}

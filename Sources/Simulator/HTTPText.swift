import NIOCore

/// The bytes of HTTP/1.1 around an answer.
enum HTTPText {
    /// - Parameters:
    ///   - length: Of the body; nil for a stream, which is chunked, or (`isChunked` false, for HTTP/1.0) ends with the
    ///     connection.
    ///   - saysClose: Adds `Connection: close`.
    static func head(
        status: Int, contentType: String, length: Int?, isChunked: Bool, saysClose: Bool, into buffer: inout ByteBuffer
    ) {
        buffer.writeString("HTTP/1.1 \(status) \(reason(status))\r\nserver: uvicorn\r\n")
        buffer.writeString("content-type: \(contentType)\r\n")
        if let length {
            buffer.writeString("content-length: \(length)\r\n")
        } else if isChunked {
            buffer.writeStaticString("transfer-encoding: chunked\r\n")
        }
        if saysClose { buffer.writeStaticString("connection: close\r\n") }
        buffer.writeStaticString("\r\n")
    }

    /// A server-sent event in a chunk of its own.
    /// - Parameter name: Goes out as an `event:` line of its own; none where the protocol has no names.
    static func event(_ data: ByteBuffer, name: String? = nil, isChunked: Bool, into buffer: inout ByteBuffer) {
        // "data: " and the blank line after it; "event: " and its line's end.
        let named = name.map { $0.utf8.count + 8 } ?? 0
        if isChunked { buffer.writeString("\(String(data.readableBytes + 8 + named, radix: 16))\r\n") }
        if let name {
            buffer.writeStaticString("event: ")
            buffer.writeString(name)
            buffer.writeStaticString("\n")
        }
        buffer.writeStaticString("data: ")
        buffer.writeImmutableBuffer(data)
        buffer.writeStaticString("\n\n")
        if isChunked { buffer.writeStaticString("\r\n") }
    }

    private static func reason(_ status: Int) -> String {
        switch status {
        case 200: "OK"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 413: "Content Too Large"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        default: "Simulated"
        }
    }
}

/// Where a stream's events go: each framed as server-sent, in a chunk of its own.
struct EventSink {
    var out = ByteBuffer()
    let isChunked: Bool
    private var data = ByteBuffer()

    init(isChunked: Bool) {
        self.isChunked = isChunked
    }

    mutating func event(_ name: String? = nil, _ write: (inout ByteBuffer) -> Void) {
        data.clear()
        write(&data)
        HTTPText.event(data, name: name, isChunked: isChunked, into: &out)
    }

    mutating func end() {
        if isChunked { out.writeStaticString("0\r\n\r\n") }
    }
}

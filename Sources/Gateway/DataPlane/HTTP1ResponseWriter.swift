import Billing
import Domain
import NIOCore

/// Answers as HTTP/1.1 bytes on a channel: small answers in one buffer and one write, streams in chunks.
///
/// What a stream writes gathers in ``pending`` until the next flush, which comes with the end of each read from the
/// node: head, chunks and end that are there together leave as one buffer, in one call and one packet.
///
/// Owned by its ``DownstreamHandler`` and used by the requests of that connection one after the other.
package final class HTTP1ResponseWriter: ResponseWriter {
    /// Bodies up to this size share the head's buffer; larger ones are a second buffer of the same `writev`.
    static let coalescedBodyMax = 16 * 1024
    /// The largest storage that a stream keeps from one flush to the next.
    static let pendingCapacityKept = 4 * 1024
    /// What a head nearly always fits.
    private static let headBytesUsual = 768

    private unowned let handler: DownstreamHandler
    private let context: ChannelHandlerContext
    private let clock: HTTPDateClock
    package private(set) var bytesWritten = 0
    /// HTTP/1.0 knows no chunks: the stream ends with the connection.
    private var isChunked = true
    private var isClosing = false
    /// The answer's last byte is written; ``finish()`` is still to come.
    private var isAnswered = false
    /// The answer to a HEAD request: the head that a body would have, and none.
    private var isBodiless = false
    /// Written and not yet flushed.
    private var pending = ByteBuffer()

    init(handler: DownstreamHandler, context: ChannelHandlerContext, clock: HTTPDateClock) {
        self.handler = handler
        self.context = context
        self.clock = clock
    }

    /// - Parameters:
    ///   - isHTTP10: The client speaks HTTP/1.0.
    ///   - closes: The connection ends after this answer.
    ///   - isHEAD: The client reads the next answer's head where a body would begin.
    func reset(isHTTP10: Bool, closes: Bool, isHEAD: Bool = false) {
        bytesWritten = 0
        isBodiless = isHEAD
        isChunked = !isHTTP10
        isClosing = closes
    }

    /// The connection is to end after the answer that is being written, or the next one.
    package func closeAfterAnswer() {
        isClosing = true
    }

    package var isWritable: Bool { context.channel.isWritable }

    package func writeContinue() {
        gather { $0.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n") }
        sendPending(flushing: true)
    }

    package func writeAnswer(_ head: AnswerHead, body: ByteBuffer) {
        let size = body.readableBytes
        var buffer = context.channel.allocator.buffer(
            capacity: Self.headBytesUsual + (size <= Self.coalescedBodyMax ? size : 0))
        writeHead(head, into: &buffer) { cursor in
            if head.status != 204 {
                cursor.raw("content-length: ")
                cursor.decimal(Int64(size))
                cursor.raw("\r\n")
            }
        }
        if !isBodiless, size <= Self.coalescedBodyMax { buffer.writeImmutableBuffer(body) }
        bytesWritten += buffer.readableBytes
        if isBodiless || size <= Self.coalescedBodyMax {
            context.writeAndFlush(NIOAny(buffer), promise: nil)
        } else {
            context.write(NIOAny(buffer), promise: nil)
            bytesWritten += size
            context.writeAndFlush(NIOAny(body), promise: nil)
        }
        isAnswered = true
    }

    package func beginStream(_ head: AnswerHead) {
        if !isChunked { isClosing = true }
        gather { buffer in
            writeHead(head, into: &buffer) { if isChunked { $0.raw("transfer-encoding: chunked\r\n") } }
        }
    }

    package func writeStream(_ bytes: ByteBuffer) {
        let size = bytes.readableBytes
        guard size > 0 else { return }
        guard size > Self.coalescedBodyMax else {
            return gather { buffer in
                if isChunked { buffer.writeChunk(bytes) } else { buffer.writeImmutableBuffer(bytes) }
            }
        }
        if isChunked {
            gather { $0.writePieces(usually: 20) { $0.chunkSize(size) } }
        }
        sendPending(flushing: false)
        bytesWritten += size
        context.write(NIOAny(bytes), promise: nil)
        if isChunked { gather { $0.writeStaticString("\r\n") } }
    }

    package func flushStream() {
        sendPending(flushing: true)
    }

    package func endStream() {
        if isChunked { gather { $0.writeStaticString("0\r\n\r\n") } }
        sendPending(flushing: true)
        // The connection may now be idle for long.
        pending = ByteBuffer()
        isAnswered = true
    }

    package func finish() {
        guard isAnswered else { return }
        isAnswered = false
        handler.answerEnded(closes: isClosing)
    }

    package func truncate() {
        sendPending(flushing: true)
        context.close(promise: nil)
    }

    package func setBodyReading(_ isReading: Bool) {
        handler.setReading(isReading)
    }

    private func gather(_ write: (inout ByteBuffer) -> Void) {
        let before = pending.readableBytes
        write(&pending)
        bytesWritten += pending.readableBytes - before
    }

    private func sendPending(flushing: Bool) {
        // A body too large to copy may have gone before, so there can be something to flush all the same.
        guard pending.readableBytes > 0 else { return flushing ? context.flush() : () }
        var sent = ByteBuffer()
        // Taken out first: a write that fails calls back into the connection at once.
        swap(&sent, &pending)
        if flushing {
            context.writeAndFlush(NIOAny(sent), promise: nil)
        } else {
            context.write(NIOAny(sent), promise: nil)
        }
        // Where the socket took all of it the storage is ours alone again; else this makes a new one of that size.
        guard flushing, sent.storageCapacity <= Self.pendingCapacityKept, pending.storageCapacity == 0 else { return }
        sent.clear()
        pending = sent
    }

    /// - Parameter length: Writes the field that tells where the body ends.
    private func writeHead(
        _ head: AnswerHead, into buffer: inout ByteBuffer, length: (inout ByteCursor) -> Void
    ) {
        buffer.writePieces(usually: Self.headBytesUsual) { cursor in
            cursor.raw("HTTP/1.1 ")
            cursor.decimal(Int64(head.status))
            cursor.raw(" ")
            cursor.raw(HTTPStatusText.reason(head.status))
            cursor.raw("\r\ndate: ")
            clock.now().withUnsafeReadableBytes { cursor.bytes($0) }
            if head.status != 204 {
                cursor.raw("\r\ncontent-type: ")
                cursor.raw(head.contentType)
            }
            cursor.raw("\r\nx-request-id: ")
            cursor.text(head.requestID)
            if let milliseconds = head.processingMilliseconds {
                cursor.raw("\r\nopenai-processing-ms: ")
                cursor.decimal(milliseconds)
            }
            if let window = head.rates?.requests { cursor.rateFields(window, of: "requests") }
            if let window = head.rates?.tokens { cursor.rateFields(window, of: "tokens") }
            for (name, value) in head.extra {
                cursor.raw("\r\n")
                cursor.text(name)
                cursor.raw(": ")
                cursor.text(value)
            }
            cursor.raw(isClosing ? "\r\nconnection: close\r\n" : "\r\n")
            length(&cursor)
            cursor.raw("\r\n")
        }
    }
}

extension ByteBuffer {
    /// A whole chunk of a chunked body, in one access to the storage.
    fileprivate mutating func writeChunk(_ bytes: ByteBuffer) {
        writePieces(usually: bytes.readableBytes + 20) { cursor in
            cursor.chunkSize(bytes.readableBytes)
            bytes.withUnsafeReadableBytes { cursor.bytes($0) }
            cursor.raw("\r\n")
        }
    }
}

extension ByteCursor {
    /// The line that begins a chunk of `size` bytes.
    mutating func chunkSize(_ size: Int) {
        hexadecimal(UInt64(size), digits: max(1, (Int.bitWidth - size.leadingZeroBitCount + 3) / 4))
        raw("\r\n")
    }

    fileprivate mutating func rateFields(_ window: RateStatus.Window, of unit: StaticString) {
        raw("\r\nx-ratelimit-limit-")
        raw(unit)
        raw(": ")
        decimal(Int64(window.limit))
        raw("\r\nx-ratelimit-remaining-")
        raw(unit)
        raw(": ")
        decimal(Int64(max(0, window.remaining)))
        raw("\r\nx-ratelimit-reset-")
        raw(unit)
        raw(": ")
        duration(milliseconds: max(0, window.resetMilliseconds))
    }

    /// As OpenAI writes durations: `12ms`, `1s`, `6m0s`; fractions of a second as `1.25s`.
    mutating func duration(milliseconds: Int64) {
        guard milliseconds >= 1_000 else {
            decimal(milliseconds)
            return raw("ms")
        }
        let seconds = milliseconds / 1_000
        if seconds >= 60 {
            decimal(seconds / 60)
            raw("m")
        }
        decimal(seconds % 60)
        var (fraction, width) = (UInt64(milliseconds % 1_000), 3)
        if seconds < 60, fraction > 0 {
            raw(".")
            while fraction % 10 == 0 { (fraction, width) = (fraction / 10, width - 1) }
            digits(fraction, atLeast: width)
        }
        raw("s")
    }
}

/// Reason phrases of the statuses that the gateway sends or relays.
enum HTTPStatusText {
    static func reason(_ status: Int) -> StaticString {
        switch status {
        case 200: "OK"
        case 201: "Created"
        case 204: "No Content"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 402: "Payment Required"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 411: "Length Required"
        case 413: "Content Too Large"
        case 415: "Unsupported Media Type"
        case 422: "Unprocessable Content"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        default: "Status"
        }
    }
}

/// The `date` header's value, formatted once a second and shared by a loop's answers.
package final class HTTPDateClock {
    private var second: Int64 = -1
    private var text = ByteBuffer()

    package init() {}

    package func now() -> ByteBuffer {
        let current = WallTime.now().milliseconds / 1_000
        if current != second {
            second = current
            text = ByteBuffer(string: WallTime(milliseconds: current * 1_000).imfFixdate)
        }
        return text
    }
}

import Billing
import Domain
import NIOCore
import NIOHPACK
import NIOHTTP2

/// Answers as frames of one HTTP/2 stream.
///
/// As for HTTP/1.1, what a stream of events writes gathers until the next flush, so that the events of one read of the
/// node are one DATA frame, and the last of them carries the end. Frames beyond the client's window wait in the stream.
///
/// Owned by its ``HTTP2StreamHandler``; answers one request.
final class HTTP2ResponseWriter: ResponseWriter {
    /// Larger parts are not copied, but framed as they are.
    static let coalescedBytesMax = 16 * 1024

    weak var handler: HTTP2StreamHandler?
    private let frames: ChannelHandlerContext
    private let clock: HTTPDateClock
    /// Fields as they are before compression, and body bytes.
    private(set) var bytesWritten = 0
    /// The answer to a HEAD request.
    var isBodiless = false
    /// What the client still sends of its request is not wanted.
    private var resetsAfterAnswer = false
    private var isAnswered = false
    private var pending = ByteBuffer()

    init(frames: ChannelHandlerContext, clock: HTTPDateClock) {
        self.frames = frames
        self.clock = clock
    }

    var isWritable: Bool { frames.channel.isWritable }

    func closeAfterAnswer() { resetsAfterAnswer = true }

    func writeContinue() {
        var headers = HPACKHeaders()
        headers.add(name: ":status", value: "100")
        write(.headers(.init(headers: headers)))
        frames.flush()
    }

    func writeAnswer(_ head: AnswerHead, body: ByteBuffer) {
        let hasBody = !isBodiless && head.status != 204 && body.readableBytes > 0
        var headers = fields(head)
        if head.status != 204 { add("content-length", "\(body.readableBytes)", to: &headers) }
        guard hasBody else { return end(.headers(.init(headers: headers, endStream: true))) }
        write(.headers(.init(headers: headers)))
        bytesWritten += body.readableBytes
        end(.data(.init(data: .byteBuffer(body), endStream: true)))
    }

    func beginStream(_ head: AnswerHead) {
        write(.headers(.init(headers: fields(head))))
    }

    func writeStream(_ bytes: ByteBuffer) {
        guard bytes.readableBytes > 0 else { return }
        bytesWritten += bytes.readableBytes
        guard bytes.readableBytes > Self.coalescedBytesMax else { return _ = pending.writeImmutableBuffer(bytes) }
        sendPending()
        write(.data(.init(data: .byteBuffer(bytes))))
    }

    func flushStream() {
        sendPending()
        frames.flush()
    }

    func endStream() {
        end(.data(.init(data: .byteBuffer(pending), endStream: true)))
        pending = ByteBuffer()
    }

    func finish() {
        guard isAnswered else { return }
        isAnswered = false
        handler?.answerEnded()
    }

    func truncate() {
        sendPending()
        write(.rstStream(.internalError))
        frames.flush()
    }

    func setBodyReading(_ isReading: Bool) {
        handler?.setReading(isReading)
    }

    // MARK: Frames

    private func write(_ payload: HTTP2Frame.FramePayload) {
        frames.write(NIOAny(payload), promise: nil)
    }

    private func sendPending() {
        guard pending.readableBytes > 0 else { return }
        let sent = pending
        // Its storage belongs to the frame now, which may wait for the client's window.
        pending = ByteBuffer()
        write(.data(.init(data: .byteBuffer(sent))))
    }

    private func end(_ last: HTTP2Frame.FramePayload) {
        isAnswered = true
        guard resetsAfterAnswer else { return frames.writeAndFlush(NIOAny(last), promise: nil) }
        // Only when the answer has left: a reset drops what still waits (RFC 9113, 8.1).
        let written = frames.eventLoop.makePromise(of: Void.self)
        written.futureResult.assumeIsolated().whenSuccess { [frames, weak handler] in
            guard let handler, !handler.isRequestWhole, frames.channel.isActive else { return }
            frames.writeAndFlush(NIOAny(HTTP2Frame.FramePayload.rstStream(.noError)), promise: nil)
        }
        frames.writeAndFlush(NIOAny(last), promise: written)
    }

    private func fields(_ head: AnswerHead) -> HPACKHeaders {
        var headers = HPACKHeaders()
        headers.reserveCapacity(14)
        add(":status", "\(head.status)", to: &headers, indexing: .indexable)
        add("date", String(buffer: clock.now()), to: &headers)
        if head.status != 204 { add("content-type", "\(head.contentType)", to: &headers, indexing: .indexable) }
        add("x-request-id", head.requestID, to: &headers)
        if let milliseconds = head.processingMilliseconds {
            add("openai-processing-ms", "\(milliseconds)", to: &headers)
        }
        if let window = head.rates?.requests { addRates(window, of: "requests", to: &headers) }
        if let window = head.rates?.tokens { addRates(window, of: "tokens", to: &headers) }
        for (name, value) in head.extra { add(name, value, to: &headers) }
        return headers
    }

    private func addRates(_ window: RateStatus.Window, of unit: String, to headers: inout HPACKHeaders) {
        add("x-ratelimit-limit-\(unit)", "\(window.limit)", to: &headers)
        add("x-ratelimit-remaining-\(unit)", "\(max(0, window.remaining))", to: &headers)
        var duration = ByteBuffer()
        duration.writePieces(usually: 32) { $0.duration(milliseconds: max(0, window.resetMilliseconds)) }
        add("x-ratelimit-reset-\(unit)", String(buffer: duration), to: &headers)
    }

    /// - Parameter indexing: What differs with every answer would only push other fields out of the client's table.
    private func add(
        _ name: String, _ value: String, to headers: inout HPACKHeaders,
        indexing: HPACKIndexing = .nonIndexable
    ) {
        headers.add(name: name, value: value, indexing: indexing)
        bytesWritten += name.utf8.count + value.utf8.count
    }
}

import NIOCore

/// Turns the bytes of one connection into answers: head, body slices, end.
///
/// Feed what was read, then call ``next()`` until it returns nil. The output is the same for every split of the input
/// (but for where bodies are cut). Bodies are slices of what was fed; nothing of a body is copied or held. Interim
/// answers (1xx) and trailers are dropped. The first failure is final.
package struct UpstreamResponseParser {
    /// Status line and headers of one answer, interim answers before it included.
    package static let headBytesMax = 64 * 1024
    /// The largest `Content-Length` and chunk: 1 TiB.
    package static let contentLengthMax = 1 << 40
    /// A chunk's size line, extensions included.
    package static let chunkLineBytesMax = 1024
    /// All trailers of one answer.
    package static let trailerBytesMax = 8 * 1024

    package enum Event: Equatable {
        case head(UpstreamResponseHead)
        case body(ByteBuffer)
        case end
    }

    private enum State {
        case head
        case length(left: Int)
        case untilClose
        case chunked
        /// The body is whole; the end was not yet told.
        case complete
        case ended
        case failed(UpstreamFailure)
    }

    private var state = State.head
    private var headParser = UpstreamHeadParser()
    private var chunks = ChunkFraming()
    private var input = ByteBuffer()

    package init() {}

    /// Makes ready for the answer to the next request on this connection.
    package mutating func reset() {
        state = .head
        headParser = UpstreamHeadParser()
        input = ByteBuffer()
    }

    package mutating func feed(_ bytes: ByteBuffer) {
        if input.readableBytes == 0 {
            input = bytes
        } else {
            // Only the tail of an unfinished line of a head is ever left over, or what came after the end.
            var bytes = bytes
            input.writeBuffer(&bytes)
        }
    }

    /// Whether bytes came that no answer accounts for: the connection cannot be used again.
    package var hasExcess: Bool { input.readableBytes > 0 }

    /// The next event, or nil where more bytes are needed or the answer has ended.
    package mutating func next() throws(UpstreamFailure) -> Event? {
        switch state {
        case .head:
            return try nextHead()
        case .length(let left):
            guard let slice = input.readSlice(length: min(left, input.readableBytes)), slice.readableBytes > 0 else {
                input = ByteBuffer()
                return nil
            }
            let rest = left - slice.readableBytes
            state = rest == 0 ? .complete : .length(left: rest)
            return .body(slice)
        case .untilClose:
            guard input.readableBytes > 0 else { return nil }
            let slice = input
            input = ByteBuffer()
            return .body(slice)
        case .chunked:
            return try nextChunk()
        case .complete:
            state = .ended
            return .end
        case .ended:
            return nil
        case .failed(let failure):
            throw failure
        }
    }

    /// The connection's end of file.
    /// - Returns: Whether that ends the answer properly, which is so only for a body without a stated length.
    package mutating func finish() -> Bool {
        guard case .untilClose = state else { return false }
        state = .ended
        return true
    }

    private mutating func nextHead() throws(UpstreamFailure) -> Event? {
        guard input.readableBytes > 0 else { return nil }
        var parser = headParser
        let outcome = input.withUnsafeReadableBytes { parser.parse($0) }
        headParser = parser
        switch outcome {
        case .needMore(let consumed):
            input.moveReaderIndex(forwardBy: consumed)
            return nil
        case .failed(let failure):
            state = .failed(failure)
            throw failure
        case .complete(let consumed):
            input.moveReaderIndex(forwardBy: consumed)
        }
        var contentLength: Int?
        switch headParser.framing {
        case .none, .length(0):
            contentLength = 0
            state = .complete
        case .length(let length):
            contentLength = length
            state = .length(left: length)
        case .chunked:
            chunks = ChunkFraming()
            state = .chunked
        case .untilClose:
            state = .untilClose
        }
        return .head(
            UpstreamResponseHead(
                status: headParser.status, contentType: headParser.contentType, contentLength: contentLength,
                keepAlive: headParser.keepAlive))
    }

    private mutating func nextChunk() throws(UpstreamFailure) -> Event? {
        while input.readableBytes > 0 {
            if chunks.dataLeft > 0 {
                guard let slice = input.readSlice(length: min(chunks.dataLeft, input.readableBytes)) else { return nil }
                chunks.dataConsumed(slice.readableBytes)
                return .body(slice)
            }
            var framing = chunks
            let consumed = input.withUnsafeReadableBytes { framing.scan($0) }
            chunks = framing
            input.moveReaderIndex(forwardBy: consumed)
            if let malformation = chunks.malformation {
                let failure = UpstreamFailure.malformedResponse(malformation)
                state = .failed(failure)
                throw failure
            }
            if chunks.isComplete {
                state = .ended
                return .end
            }
        }
        // Lets go of what was read, so that its memory is not kept for an idle stream.
        input = ByteBuffer()
        return nil
    }
}

/// The framing between the data of a chunked body, byte by byte: nothing of it is ever held.
struct ChunkFraming {
    private enum State {
        case size
        case padding
        case extensions
        case sizeLineFeed
        case data
        case dataCarriageReturn
        case dataLineFeed
        case trailerStart
        case trailer
        case trailerLineFeed
        case endLineFeed
        case complete
        case failed
    }

    private var state = State.size
    private var size = 0
    private var digits = 0
    private var lineBytes = 0
    private var trailerBytes = 0
    /// Data bytes that the current chunk still owes; above 0 the caller takes data instead of scanning.
    private(set) var dataLeft = 0
    private(set) var malformation: UpstreamMalformation?

    var isComplete: Bool { state == .complete }

    mutating func dataConsumed(_ count: Int) {
        dataLeft -= count
        if dataLeft == 0 { state = .dataCarriageReturn }
    }

    /// - Returns: How many bytes were framing: all, unless data follows or the body is complete or wrong.
    mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Int {
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            switch state {
            case .size: scanSize(byte)
            case .padding, .extensions: scanExtensions(byte)
            case .sizeLineFeed:
                guard byte == 0x0A else { return fail(.chunkFraming, index) }
                if size == 0 {
                    state = .trailerStart
                } else {
                    state = .data
                    dataLeft = size
                    return index
                }
            case .dataCarriageReturn:
                guard byte == 0x0D else { return fail(.chunkFraming, index) }
                state = .dataLineFeed
            case .dataLineFeed:
                guard byte == 0x0A else { return fail(.chunkFraming, index) }
                (state, size, digits, lineBytes) = (.size, 0, 0, 0)
            case .trailerStart, .trailer: scanTrailer(byte)
            case .trailerLineFeed:
                guard byte == 0x0A else { return fail(.trailers, index) }
                state = .trailerStart
            case .endLineFeed:
                guard byte == 0x0A else { return fail(.trailers, index) }
                state = .complete
                return index
            case .data, .complete, .failed: return index - 1
            }
            if state == .failed { return index }
        }
        return index
    }

    private mutating func scanSize(_ byte: UInt8) {
        lineBytes += 1
        let digit: UInt8
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
        case 0x0D where digits > 0: return state = .sizeLineFeed
        case UInt8(ascii: ";") where digits > 0: return state = .extensions
        case 0x20 where digits > 0, 0x09 where digits > 0: return state = .padding
        default: return fail(.chunkSize)
        }
        digits += 1
        size = size << 4 | Int(digit)
        // Zeros may lead, but not without end.
        if size > UpstreamResponseParser.contentLengthMax || digits > 16 { fail(.chunkSize) }
    }

    private mutating func scanExtensions(_ byte: UInt8) {
        lineBytes += 1
        if lineBytes > UpstreamResponseParser.chunkLineBytesMax { return fail(.chunkFraming) }
        if byte == 0x0D { return state = .sizeLineFeed }
        switch state {
        case .padding:
            if byte == UInt8(ascii: ";") {
                state = .extensions
            } else if byte != 0x20, byte != 0x09 {
                fail(.chunkSize)
            }
        default:
            if byte < 0x20, byte != 0x09 { fail(.chunkFraming) }
        }
    }

    private mutating func scanTrailer(_ byte: UInt8) {
        trailerBytes += 1
        if trailerBytes > UpstreamResponseParser.trailerBytesMax { return fail(.trailers) }
        if byte == 0x0D {
            state = state == .trailerStart ? .endLineFeed : .trailerLineFeed
        } else if byte < 0x20, byte != 0x09 {
            fail(.trailers)
        } else {
            state = .trailer
        }
    }

    private mutating func fail(_ malformation: UpstreamMalformation) {
        self.malformation = malformation
        state = .failed
    }

    private mutating func fail(_ malformation: UpstreamMalformation, _ consumed: Int) -> Int {
        fail(malformation)
        return consumed
    }
}

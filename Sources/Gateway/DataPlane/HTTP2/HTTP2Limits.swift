import NIOCore
import NIOHTTP2

/// What one HTTP/2 connection may ask of the gateway. Every kind of flood has its bound: who passes one loses the
/// connection, and is told so in a GOAWAY.
package struct HTTP2Limits: Sendable {
    /// Streams open at once; one more ends the connection, when those that run have ended.
    static let streamsMax = 100
    /// Streams that the client resets in a ``rateWindow`` (CVE-2023-44487).
    static let resetsMax = 300
    /// Streams in a ``rateWindow`` that end by an error of the client's (CVE-2025-8671).
    static let streamErrorsMax = 100
    /// PING, SETTINGS and PRIORITY frames in a ``rateWindow``.
    static let controlFramesMax = 400
    /// Answers to those that wait to be written.
    static let controlFramesBufferedMax = 1_000
    static let rateWindow = TimeAmount.seconds(30)
    /// Oddities of all kinds in a connection's life.
    static let glitchesMax = 200
    /// Frames that one header block may be cut into (CVE-2024-27316).
    static let continuationsMax = 8
    static let emptyDataFramesMax = 8
    /// Body bytes that a client may have on their way, of a stream and of the connection: what a paused upload holds.
    static let streamWindowBytes = 256 << 10
    static let connectionWindowBytes = 1 << 20
    /// Answer bytes that wait for one stream's client: above the first the node is not read, below the second it is again.
    static let bufferedBytesHigh = 64 << 10
    static let bufferedBytesLow = 16 << 10
    /// A header block up to this many times `limits.header_bytes` is read to be answered with 431; a larger one ends the
    /// connection.
    static let headerBytesFactor = 4
    /// What RFC 9113 counts for each field besides its text.
    static let fieldOverheadBytes = 32

    /// `limits.header_bytes`, for one request.
    let headerBytes: Int
    let connection: NIOHTTP2Handler.ConnectionConfiguration
    let stream: NIOHTTP2Handler.StreamConfiguration

    package init(headerBytes: Int) {
        self.headerBytes = headerBytes
        var connection = NIOHTTP2Handler.ConnectionConfiguration()
        connection.initialSettings = [
            HTTP2Setting(parameter: .maxConcurrentStreams, value: Self.streamsMax),
            HTTP2Setting(parameter: .maxHeaderListSize, value: headerBytes * Self.headerBytesFactor),
            HTTP2Setting(parameter: .initialWindowSize, value: Self.streamWindowBytes),
        ]
        connection.targetWindowSize = Self.connectionWindowBytes
        connection.maximumBufferedControlFrames = Self.controlFramesBufferedMax
        connection.maximumSequentialContinuationFrames = Self.continuationsMax
        connection.maximumSequentialEmptyDataFrames = Self.emptyDataFramesMax
        connection.maximumConnectionGlitches = Self.glitchesMax
        connection.controlFrameRateLimit.maximumCount = Self.controlFramesMax
        connection.controlFrameRateLimit.windowLength = Self.rateWindow
        self.connection = connection
        var stream = NIOHTTP2Handler.StreamConfiguration()
        stream.targetWindowSize = Self.streamWindowBytes
        stream.outboundBufferSizeHighWatermark = Self.bufferedBytesHigh
        stream.outboundBufferSizeLowWatermark = Self.bufferedBytesLow
        stream.streamResetFrameRateLimit.maximumCount = Self.resetsMax
        stream.streamResetFrameRateLimit.windowLength = Self.rateWindow
        stream.streamErrorRateLimit.maximumCount = Self.streamErrorsMax
        stream.streamErrorRateLimit.windowLength = Self.rateWindow
        self.stream = stream
    }
}

import Billing
import Domain
import NIOCore

/// What an answer says before its body, whatever protocol carries it.
package struct AnswerHead: Sendable {
    package var status: Int
    package var contentType: StaticString
    /// `x-request-id`.
    package var requestID: String
    /// `openai-processing-ms`; nil leaves the header out.
    package var processingMilliseconds: Int64?
    /// `x-ratelimit-*`; nil before a key is known.
    package var rates: RateStatus?
    package var extra: [(name: String, value: String)] = []

    package init(
        status: Int, contentType: StaticString, requestID: String, processingMilliseconds: Int64?, rates: RateStatus?
    ) {
        self.status = status
        self.contentType = contentType
        self.requestID = requestID
        self.processingMilliseconds = processingMilliseconds
        self.rates = rates
    }
}

/// Where one request's answer goes: HTTP/1.1 here, HTTP/2 streams beside it. Bound to the request's loop.
///
/// Called by one ``Exchange`` at a time: either `writeAnswer` once, or `beginStream`, any number of `writeStream` and
/// `flushStream`, then `endStream` or `truncate`; and `finish` last.
package protocol ResponseWriter: AnyObject {
    /// Bytes that went to the socket for this answer, for the access log.
    var bytesWritten: Int { get }
    /// False above the high-water mark: the upstream's reads should stop.
    var isWritable: Bool { get }

    func writeContinue()
    func writeAnswer(_ head: AnswerHead, body: ByteBuffer)
    func beginStream(_ head: AnswerHead)
    func writeStream(_ bytes: ByteBuffer)
    func flushStream()
    func endStream()
    /// The request is settled and recorded: the connection may go on to its next. The last call for an answer.
    func finish()
    /// Ends the connection (or the stream) in a way that no client takes for a whole answer.
    func truncate()
    /// The connection (where it is one request's alone) ends after this answer.
    func closeAfterAnswer()
    /// Whether more of the request's body should be read.
    func setBodyReading(_ isReading: Bool)
}

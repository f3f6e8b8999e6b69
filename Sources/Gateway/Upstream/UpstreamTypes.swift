import NIOCore

/// One request as it goes to a node: bytes that are ready for the socket.
package struct UpstreamRequest {
    /// Request line, headers and the blank line. Reserve room for the body at its end where the body is small: it is
    /// then coalesced into this buffer without another allocation.
    package var head: ByteBuffer
    /// May be empty. Its length is what `head` says in `content-length`; nothing here checks that.
    package var body: ByteBuffer
    /// Until a fresh connection can take the request; nil takes the pool's.
    package var connectTimeout: Duration?

    package init(head: ByteBuffer, body: ByteBuffer, connectTimeout: Duration? = nil) {
        self.head = head
        self.body = body
        self.connectTimeout = connectTimeout
    }
}

/// What the head of a node's answer says, as far as a gateway needs it.
package struct UpstreamResponseHead: Hashable, Sendable {
    package enum ContentType: UInt8, Hashable, Sendable {
        case json, eventStream, other
    }

    /// 200 to 599; interim answers (1xx) never show.
    package var status: Int
    package var contentType: ContentType
    /// nil where the body is chunked or ends with the connection; 0 where the status allows no body.
    package var contentLength: Int?
    /// Whether the node lets the connection be used again.
    package var keepAlive: Bool

    package init(
        status: Int, contentType: ContentType, contentLength: Int?, keepAlive: Bool
    ) {
        self.status = status
        self.contentType = contentType
        self.contentLength = contentLength
        self.keepAlive = keepAlive
    }
}

/// Why a node gave no whole answer. A closed set: it is counted and logged by these names.
package enum UpstreamFailure: Error, Hashable, Sendable {
    /// Refused, unreachable or reset while connecting, at every address that was tried.
    case connectFailed
    case connectTimedOut
    /// The socket connected, and TLS did not come about.
    case tlsFailed(UpstreamTLSFailure)
    /// The connection ended before any byte of the answer, and the one retry (if it was a kept connection) is spent.
    case closedBeforeResponse
    /// The connection ended inside the head or the body.
    case closedMidResponse
    case malformedResponse(UpstreamMalformation)
    /// The head passes `UpstreamResponseParser.headBytesMax`.
    case headTooLarge
    /// No address is known for the node.
    case noAddress
    /// The pool has `connectionsMax` connections at work already.
    case poolExhausted
    /// The pool was closed: the loop is shutting down or the node was removed.
    case poolClosed

    /// The name in logs and metrics.
    package var label: String {
        switch self {
        case .connectFailed: "connect_failed"
        case .connectTimedOut: "connect_timed_out"
        case .tlsFailed: "tls_failed"
        case .closedBeforeResponse: "closed_before_response"
        case .closedMidResponse: "closed_mid_response"
        case .malformedResponse: "malformed_response"
        case .headTooLarge: "head_too_large"
        case .noAddress: "no_address"
        case .poolExhausted: "pool_exhausted"
        case .poolClosed: "pool_closed"
        }
    }
}

/// What is wrong with an answer that is not HTTP/1.1 as RFC 9112 has it.
package enum UpstreamMalformation: String, Hashable, Sendable, CaseIterable {
    case statusLine
    case bareLineFeed
    case foldedHeader
    case headerName
    case headerValue
    case contentLength
    case conflictingLengths
    case transferEncoding
    case switchedProtocols
    case chunkSize
    case chunkFraming
    case trailers
}

/// What a request hears of its call. Everything is called on the loop.
///
/// The order is: `upstreamStarted` once, `upstreamHead` once, `upstreamBody` any number of times, and as the last one
/// either `upstreamEnd` or `upstreamFailed`. A failure can come at any point. After the last one, and after
/// ``UpstreamCall/cancel()``, nothing comes.
package protocol UpstreamDelegate: AnyObject {
    /// The request was handed to the socket. May come before `dispatch` returns. Not repeated when a stale connection
    /// makes the pool send the request again.
    func upstreamStarted()
    func upstreamHead(_ head: UpstreamResponseHead)
    /// A part of the body without its transfer framing: a slice of what was read, never empty, not copied.
    func upstreamBody(_ bytes: ByteBuffer)
    /// What was readable has been delivered: the moment to flush downstream. Does not follow `upstreamEnd`.
    func upstreamReadComplete()
    func upstreamEnd()
    /// Never comes before `dispatch` returns.
    func upstreamFailed(_ failure: UpstreamFailure)
}

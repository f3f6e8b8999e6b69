import NIOCore

/// One request on its way through a pool: from `dispatch` to its end, over one connection or, if the first was stale,
/// two. Loop-bound.
package final class UpstreamCall {
    private let pool: UpstreamPool
    /// nil once the call is over: nothing is told any more.
    private(set) var delegate: (any UpstreamDelegate)?
    /// Kept until the first byte of the answer, for the retry; then emptied.
    var request: UpstreamRequest
    /// The connection at work, connecting ones too; nil before and between.
    var connection: UpstreamConnection?
    /// Addresses tried in vain.
    var addressesTried = 0
    var hasStarted = false
    private(set) var isReadingPaused = false

    init(pool: UpstreamPool, request: consuming UpstreamRequest, delegate: any UpstreamDelegate) {
        self.pool = pool
        self.request = request
        self.delegate = delegate
    }

    package var isOver: Bool { delegate == nil }

    /// Whether the request went out a second time because a kept connection turned out to be closed.
    package internal(set) var wasSentAgain = false

    /// Ends the call at once: the connection closes, so that the node stops working for nobody. In any phase, while
    /// connecting too. The delegate hears nothing more. Harmless when the call is over.
    package func cancel() {
        guard delegate != nil else { return }
        finish()?.callCancelled()
    }

    /// Stops reading from the node. What was read already is still delivered (at most one read).
    package func pauseReading() {
        guard delegate != nil, !isReadingPaused else { return }
        isReadingPaused = true
        connection?.setAutoRead(false)
    }

    package func resumeReading() {
        guard delegate != nil, isReadingPaused else { return }
        isReadingPaused = false
        connection?.setAutoRead(true)
    }

    /// Marks the call as over, drops what it holds and lets go of its connection.
    /// - Returns: The connection that it had.
    @discardableResult
    func finish() -> UpstreamConnection? {
        let connection = connection
        self.connection = nil
        delegate = nil
        releaseRequest()
        return connection
    }

    func releaseRequest() {
        request = UpstreamRequest(head: ByteBuffer(), body: ByteBuffer())
    }

    /// Tells of the failure as the last thing.
    func fail(_ failure: UpstreamFailure) {
        let delegate = delegate
        finish()
        delegate?.upstreamFailed(failure)
    }
}

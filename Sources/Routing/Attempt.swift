import Domain

/// One request on one node, as the router notes it: what policies learn from.
package struct Attempt: Hashable, Sendable {
    package let nodeIndex: Int
    /// The gateway's estimate of the prompt, at least 1.
    package let promptTokens: Int
    /// Of the prompt, what the index did not find cached on this node when the request was placed; at least 1.
    package let newTokens: Int
    package let expectedOutputTokens: Int
    /// ``RoutingRequest/session``.
    package let session: UInt64
    package let decidedAt: MonotonicTime
    package internal(set) var writtenAt: MonotonicTime?
    package internal(set) var firstTokenAt: MonotonicTime?
    /// What the node said that it had cached; nil until it says so, if it does.
    package internal(set) var cachedTokens: Int?

    /// ``RoutingRequest/attentionTokens``.
    package internal(set) var attentionTokens = RoutingRequest.attentionTokensDefault
    /// ``RoutingRequest/isStreamed``.
    package internal(set) var isStreamed = true

    // What the policy noted when it placed the request.

    /// The request's own new work: ``InflightWork/queuedWork`` grows by it until the first token.
    package internal(set) var work: Double
    /// Work that was pending on the node before it.
    package internal(set) var workAhead: Double = 0
    /// Seconds to the first token that the policy predicted; 0 where it does not.
    package internal(set) var predictedSeconds: Double = 0
    /// Where the session is likely to belong to the node and the work was discounted for it: by which chance.
    package internal(set) var hintSlot: Int8?

    init(
        nodeIndex: Int, promptTokens: Int, newTokens: Int, expectedOutputTokens: Int, session: UInt64,
        decidedAt: MonotonicTime
    ) {
        self.nodeIndex = nodeIndex
        self.promptTokens = max(1, promptTokens)
        self.newTokens = max(1, newTokens)
        self.expectedOutputTokens = expectedOutputTokens
        self.session = session
        self.decidedAt = decidedAt
        self.work = Double(max(1, newTokens))
    }

    /// When the node got it, as far as the gateway knows.
    package var sentAt: MonotonicTime { writtenAt ?? decidedAt }
}

import Domain

/// What one gateway tells the others of its own work, so that replicas see one another's load and caches.
///
/// Figures are absolute, never increments: a lost message costs its interval and no more. A delta names the nodes whose
/// figures changed since the last message and the prompts placed since; a full message names every node with work, and
/// what it does not name has none. The transport orders one gateway's messages or loses them; ``sequence`` lets the
/// receiver drop what comes late.
package struct GossipMessage: Hashable, Sendable {
    /// Blocks in one message: what is placed beyond that in one interval is not told, the load still is.
    package static let blocksMax = 16_384
    package static let deltaInterval = Duration.milliseconds(100)
    package static let fullInterval = Duration.seconds(5)

    package var sequence: UInt64
    package var isFull: Bool
    /// The sender stops now, and has nothing in flight any more: nobody need wait for more of it.
    package var isLast: Bool
    package var nodes: [GossipNode]
    package var placements: [GossipPlacement]

    package init(
        sequence: UInt64, isFull: Bool, isLast: Bool = false, nodes: [GossipNode], placements: [GossipPlacement]
    ) {
        self.sequence = sequence
        self.isFull = isFull
        self.isLast = isLast
        self.nodes = nodes
        self.placements = placements
    }
}

/// The sender's own requests in flight on one node.
package struct GossipNode: Hashable, Sendable {
    package var id: NodeID
    package var work: InflightWork

    package init(id: NodeID, work: InflightWork) {
        self.id = id
        self.work = work
    }
}

/// A prompt that the sender placed on a node: its whole blocks, which that node will have cached.
package struct GossipPlacement: Hashable, Sendable {
    package var node: NodeID
    package var blocks: [UInt64]

    package init(node: NodeID, blocks: [UInt64]) {
        self.node = node
        self.blocks = blocks
    }
}

/// Requests in flight on one node, in the measures that policies weigh.
package struct InflightWork: Hashable, Sendable {
    package static let zero = InflightWork()

    package var requests: Int32 = 0
    /// Of those, the ones without a first token.
    package var queuedRequests: Int32 = 0
    /// Whole prompts of all requests.
    package var promptTokens: Int64 = 0
    /// Prompt tokens that the queued requests did not find cached, by the index.
    package var queuedTokens: Int64 = 0
    /// The same, weighted for attention: predicted cost's W. Equal to the tokens under other policies.
    package var queuedWork: Double = 0
    /// Prompts and expected outputs of all requests: what they will hold of the KV cache.
    package var kvTokens: Int64 = 0

    package init() {}

    package init(
        requests: Int32, queuedRequests: Int32, promptTokens: Int64, queuedTokens: Int64, queuedWork: Double,
        kvTokens: Int64
    ) {
        self.requests = requests
        self.queuedRequests = queuedRequests
        self.promptTokens = promptTokens
        self.queuedTokens = queuedTokens
        self.queuedWork = queuedWork
        self.kvTokens = kvTokens
    }

    /// Takes out what a request counted as queued, and says what that was.
    mutating func endQueueing() -> Self {
        let queued = InflightWork(
            requests: 0, queuedRequests: queuedRequests, promptTokens: 0, queuedTokens: queuedTokens,
            queuedWork: queuedWork, kvTokens: 0)
        self = self - queued
        return queued
    }

    package static func - (left: Self, right: Self) -> Self {
        let requests = left.requests &- right.requests
        // Sums of fractions drift; an empty queue is the moment to be exact again.
        let queuedRequests = left.queuedRequests &- right.queuedRequests
        return InflightWork(
            requests: requests, queuedRequests: queuedRequests, promptTokens: left.promptTokens &- right.promptTokens,
            queuedTokens: left.queuedTokens &- right.queuedTokens,
            queuedWork: queuedRequests == 0 ? 0 : left.queuedWork - right.queuedWork,
            kvTokens: left.kvTokens &- right.kvTokens)
    }

    /// What peers claim may be anything (``clamped`` first), so sums do not trap.
    package static func + (left: Self, right: Self) -> Self {
        InflightWork(
            requests: left.requests &+ right.requests, queuedRequests: left.queuedRequests &+ right.queuedRequests,
            promptTokens: left.promptTokens &+ right.promptTokens,
            queuedTokens: left.queuedTokens &+ right.queuedTokens, queuedWork: left.queuedWork + right.queuedWork,
            kvTokens: left.kvTokens &+ right.kvTokens)
    }

    /// Brought into what one gateway can have in flight on one node, so that no sum of peers overflows.
    package var clamped: Self {
        let tokensMax: Int64 = 1 << 40
        return InflightWork(
            requests: max(0, min(requests, 1 << 20)), queuedRequests: max(0, min(queuedRequests, 1 << 20)),
            promptTokens: max(0, min(promptTokens, tokensMax)), queuedTokens: max(0, min(queuedTokens, tokensMax)),
            queuedWork: queuedWork.isFinite ? max(0, min(queuedWork, Double(tokensMax))) : 0,
            kvTokens: max(0, min(kvTokens, tokensMax)))
    }
}

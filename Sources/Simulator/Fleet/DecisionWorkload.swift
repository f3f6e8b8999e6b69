import Domain
import Routing

/// Requests that a router is timed with, over and over, as a fleet of a size would get them.
///
/// **Warm**: agents' sessions. Each begins with a system prompt that thousands share, so that eight nodes hold it, goes on
/// for about 60 blocks, and grows by a few at each turn; there are as many sessions as fill the caches of all nodes, and
/// they come in any order, so that what is looked up is seldom what the processor has just had. **Cold**: no prompt was
/// ever seen; each is as long as the others', is looked up in vain, and pushes an older one out.
package struct DecisionWorkload: Sendable {
    package enum Index: String, Hashable, Sendable, CaseIterable {
        case cold, warm
    }

    private static let systemBlocks = 4
    private static let blocksMin = 20
    private static let blocksMax = 100
    private static let turnBlocksMax = 4
    /// 768k tokens: as many blocks as an H100's cache has, of the mean session's.
    private static let sessionsPerNode = 25

    private struct Session {
        var hash: UInt64
        var blocks: Int
    }

    private var sessions: [Session]
    private let index: Index
    private var random: SplitMix64
    private var fresh: UInt64 = 0
    /// Of the request that ``next()`` returned.
    private(set) var blocks: [UInt64] = []

    init(_ index: Index, nodes: Int, seed: UInt64) {
        self.index = index
        var random = SplitMix64(seed: seed)
        sessions = (0..<(nodes * Self.sessionsPerNode)).map { number in
            Session(
                hash: SplitMix64.mix(UInt64(number) + 1),
                blocks: Self.blocksMin + random.below(Self.blocksMax - Self.blocksMin))
        }
        self.random = random
        blocks.reserveCapacity(Self.blocksMax + Self.turnBlocksMax)
    }

    /// Requests until every session has come about once.
    var warmUpCount: Int { sessions.count }

    /// - Returns: The request whose blocks are in ``blocks`` now.
    mutating func next() -> RoutingRequest {
        let count: Int
        let hash: UInt64
        switch index {
        case .cold:
            fresh += 1
            hash = SplitMix64.mix(fresh << 32)
            count = Self.blocksMin + random.below(Self.blocksMax - Self.blocksMin)
        case .warm:
            let number = random.below(sessions.count)
            sessions[number].blocks += 1 + random.below(Self.turnBlocksMax)
            if sessions[number].blocks > Self.blocksMax {
                sessions[number].blocks = Self.blocksMin
                sessions[number].hash = SplitMix64.mix(sessions[number].hash)
            }
            (hash, count) = (sessions[number].hash, sessions[number].blocks)
        }
        blocks.removeAll(keepingCapacity: true)
        for position in 0..<count {
            let isShared = index == .warm && position < Self.systemBlocks
            blocks.append(SplitMix64.mix((isShared ? 7 : hash) &+ UInt64(position) &* 0x9E37_79B9_7F4A_7C15))
        }
        return RoutingRequest(
            model: FleetSpec.model,
            promptTokens: count * NodeProfile.blockTokens + random.below(NodeProfile.blockTokens),
            expectedOutputTokens: 300, session: 0)
    }
}

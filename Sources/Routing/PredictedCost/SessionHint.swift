/// How much of the work a session's likely nodes save beyond what our own index knows of them: what other gateways have
/// sent there. Replicas that do not talk still agree where a session belongs.
///
/// Likely are the two that win the session's rendezvous and the one on which our index knows the most of the prompt:
/// other gateways that knew the same will have gone on there. Learned apart for each of these, and for prompts of which
/// we have seen little, some or most on any node: of a new session nobody has anything, while one that we have seen goes
/// on elsewhere too.
struct SessionHint: Sendable {
    /// What a node is to a session.
    enum Role: Int, CaseIterable {
        /// Wins the rendezvous, and nobody is known to have more of the prompt.
        case winner
        /// Wins the rendezvous, but another is known to have more.
        case winnerElsewhere
        /// Would win if the winner were gone, and another is known to have more.
        case second
        /// Is known to have the most, and wins nothing.
        case holder
    }

    /// It never dies quite for those that one may have to go to in order to learn: a gateway that stopped hinting would
    /// never learn that hints are good again.
    static let chanceMin = 0.03
    /// Shares of the prompt from which the next class begins.
    static let classStarts = (some: 0.3, most: 0.7)
    static let classCount = 3

    /// By slot.
    private(set) var chances: SIMD16<Double>
    private let weight: Double

    /// - Parameters:
    ///   - chance: Of a winner, before anything is known; of the others nothing is supposed.
    init(chance: Double, weight: Double) {
        chances = .zero
        for role in Role.allCases {
            for place in 0..<Self.classCount {
                chances[role.rawValue * Self.classCount + place] = Self.isSought(role) ? chance : 0
            }
        }
        self.weight = weight
    }

    private static func isSought(_ role: Role) -> Bool { role == .winner || role == .winnerElsewhere }

    /// Where the chance of a role stands for a class of prompts.
    ///
    /// - Parameter seenTokens: The most of the prompt that our index knows on any one node.
    static func slot(_ role: Role, seenTokens: Double, of promptTokens: Double) -> Int {
        let share = seenTokens / max(1, promptTokens)
        let place = share < classStarts.some ? 0 : share < classStarts.most ? 1 : 2
        return role.rawValue * classCount + place
    }

    /// - Parameters:
    ///   - slot: Of the prompt.
    ///   - believedTokens: Of the prompt, what our own index had on the node.
    ///   - cachedTokens: What it really had.
    mutating func learn(_ slot: Int, promptTokens: Int, believedTokens: Int, cachedTokens: Int) {
        let rest = Double(max(1, promptTokens - believedTokens))
        let found = min(max(Double(cachedTokens - believedTokens) / rest, 0), 1)
        let least = slot / Self.classCount <= Role.winnerElsewhere.rawValue ? Self.chanceMin : 0
        chances[slot] = max(least, chances[slot] + weight * (found - chances[slot]))
    }
}

/// The nodes to which the present decision's session is likely to belong; -1 where there is none.
struct SessionPlaces: Sendable {
    var winner = -1
    var second = -1
    /// Our index knows the most of the prompt there, and how much that is.
    var holder = -1
    var seenTokens = Int64(0)

    /// Our index knows so much of the prompt on a node.
    mutating func held(_ node: Int, tokens: Int64, isWinner: Bool) {
        guard tokens > seenTokens || (tokens == seenTokens && isWinner) else { return }
        holder = node
        seenTokens = tokens
    }

    /// nil where a node is none of them.
    func role(of node: Int) -> SessionHint.Role? {
        if node == winner { return winner == holder || holder < 0 ? .winner : .winnerElsewhere }
        if node == holder { return .holder }
        return node == second ? .second : nil
    }
}

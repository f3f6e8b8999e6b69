/// Something that happens to the fleet or its customers in mid-run.
package struct ScriptedEvent: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        /// The node's process dies with all it was doing.
        case kill(node: Int)
        /// The node starts, its cache empty: one that was killed, or a new one.
        case join(node: Int)
        /// The nodes run at a share of their speed, over 0, and the gateways are told.
        case curtail(nodes: [Int], share: Double)
        /// The nodes' metrics stay what they are now, or flow again.
        case freeze(nodes: [Int], isFrozen: Bool)
    }

    /// Seconds since the start of the run.
    package var seconds: Double
    package var action: Action

    package init(seconds: Double, action: Action) {
        self.seconds = seconds
        self.action = action
    }
}

/// One customer sends a multiple of its traffic for a while.
package struct Surge: Hashable, Sendable {
    package var org: Int
    /// Of its usual rate, over 1.
    package var factor: Double
    package var start: Double
    package var seconds: Double

    package init(org: Int, factor: Double, start: Double, seconds: Double) {
        self.org = org
        self.factor = factor
        self.start = start
        self.seconds = seconds
    }
}

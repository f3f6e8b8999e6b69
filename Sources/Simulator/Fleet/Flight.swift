import Routing

/// One request of a run, from its arrival at a gateway to its end.
package struct Flight: Sendable {
    package enum State: Hashable, Sendable {
        case pending, completed
        /// No node was found for it, or the gateway would not let it wait.
        case refused
        /// Its node died under it and it could not be tried elsewhere.
        case failed
    }

    /// Into the run's requests.
    package let request: Int32
    package let org: Int32
    package let gateway: Int16
    /// Seconds since the start of the run.
    package let arrival: Double
    package internal(set) var state = State.pending
    /// Placements so far; what belongs to an earlier one is ignored.
    var attempt: UInt8 = 0
    package internal(set) var node: Int16 = -1
    var assignment: Assignment?
    var excluded = NodeSet()
    /// What it is charged while it waits and runs, where the gateway admits by turns.
    var admissionCost = 0.0
    /// When the present node was chosen.
    package internal(set) var placedAt = 0.0
    package internal(set) var firstTokenAt = Double.nan
    package internal(set) var endAt = Double.nan
    package internal(set) var cachedTokens: Int32 = 0
    /// From the present placement to the first token, as the policy predicted, and the work it predicted from.
    package internal(set) var predictedSeconds: Float = 0
    package internal(set) var predictedWork: Float = 0

    package init(request: Int, org: Int, gateway: Int, arrival: Double) {
        self.request = Int32(request)
        self.org = Int32(org)
        self.gateway = Int16(gateway)
        self.arrival = arrival
    }

    /// As the gateway's client sees it.
    package var ttftSeconds: Double { firstTokenAt - arrival }
}

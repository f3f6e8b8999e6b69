/// What is to happen in a run, least time first; of equal times the first one scheduled.
struct SimulationEvent: Comparable, Sendable {
    enum Kind: Sendable {
        /// A node's step ends, unless another step was begun since (`serial`).
        case stepEnds(node: Int32, serial: UInt32)
        case reachesNode(flight: Int32, attempt: UInt8)
        /// A token, the end, or the loss of the connection is seen at the gateway.
        case firstToken(flight: Int32, attempt: UInt8, cachedTokens: Int32)
        case finished(flight: Int32, attempt: UInt8)
        case lost(flight: Int32, attempt: UInt8)
        case poll(gateway: Int32)
        case probe(gateway: Int32)
        case gossip
        case scripted(index: Int32)
    }

    var seconds: Double
    var serial: Int64
    var kind: Kind

    static func == (left: Self, right: Self) -> Bool { left.serial == right.serial }

    static func < (left: Self, right: Self) -> Bool {
        left.seconds == right.seconds ? left.serial < right.serial : left.seconds < right.seconds
    }
}

extension NodeProfile {
    /// Tokens of a block of the simulated prefix cache: those of the traces' hashes.
    package static let blockTokens = 512

    package var kvCapacityBlocks: Int {
        get { kvTokensCapacity / Self.blockTokens }
        set { kvTokensCapacity = newValue * Self.blockTokens }
    }

    /// The same machine at a share of its speed: curtailed power slows prefill and decode alike.
    ///
    /// - Parameter factor: Over 0.
    package func atSpeed(_ factor: Double) -> NodeProfile {
        scaled(by: factor, name: name, kvTokensCapacity: kvTokensCapacity)
    }
}

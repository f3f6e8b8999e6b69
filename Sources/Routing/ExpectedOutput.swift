import Domain

/// How many tokens the answers of a customer's key with a model have had of late: what a node that gets the next one is
/// expected to decode, and to hold in memory.
///
/// A table of means in places chosen by a hash: two pairs that meet in one place share it in turns, which costs an
/// estimate and nothing else. Some 256 kB, whatever the number of keys.
package struct ExpectedOutput: Sendable {
    /// A power of two.
    package static let places = 1 << 14
    /// Before anything is known, tokens: chats and code of public traces have some 200 to 400.
    package static let tokensInitial = 300.0
    /// Weight of the newest answer, once there are many.
    private static let weightMin = 0.05

    private struct Place: Sendable {
        var key: UInt64 = 0
        var mean: Float = 0
        var count: Float = 0
    }

    private var table = ContiguousArray(repeating: Place(), count: places)

    package init() {}

    /// - Parameters:
    ///   - key: A hash of the key and the model, well mixed.
    ///   - tokensMax: What the request allows.
    package func tokens(key: UInt64, tokensMax: Int) -> Int {
        let place = table[Int(truncatingIfNeeded: key & UInt64(Self.places - 1))]
        let mean = place.key == key && place.count > 0 ? Double(place.mean) : Self.tokensInitial
        return min(max(0, tokensMax), max(1, Int(mean.rounded())))
    }

    /// An answer had so many tokens.
    package mutating func answered(key: UInt64, tokens: Int) {
        guard tokens >= 0 else { return }
        let index = Int(truncatingIfNeeded: key & UInt64(Self.places - 1))
        var place = table[index]
        if place.key != key { place = Place(key: key) }
        // No answer is longer; a node that claims it must not blind the mean.
        let sample = Float(min(tokens, Router.requestTokensMax))
        place.count = min(place.count + 1, 1_000)
        place.mean += (sample - place.mean) * max(Float(Self.weightMin), 1 / place.count)
        table[index] = place
    }
}

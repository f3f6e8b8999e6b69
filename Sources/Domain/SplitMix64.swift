/// Steele, Lea and Flood's SplitMix64 with Vigna's constants: a stream of draws that a seed repeats on every machine.
///
/// Its whole state is one word. For ties, simulations and tests: whoever has seen one draw knows the rest, so keys, ids and
/// secret salts come of the system's generator.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    /// In 0..<1, to 53 bits.
    package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// In 0..<bound, which is positive; its bias is below one in 2^50 for bounds up to 2^14.
    package mutating func below(_ bound: Int) -> Int {
        assert(bound > 0)
        return Int(next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// The generator's finaliser: a bijection that spreads each bit over the whole word.
    package static func mix(_ word: UInt64) -> UInt64 {
        var word = word
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

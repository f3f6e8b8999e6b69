/// Steele, Lea and Flood's SplitMix64: a seeded generator whose whole state is one word, good enough for lengths, faults
/// and filler text, and the same on every machine.
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    /// Its finaliser: a bijection that spreads every input bit over the whole word.
    static func mix(_ word: UInt64) -> UInt64 {
        var mixed = word
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1), of 53 bits.
    mutating func unitInterval() -> Double { Double(next() >> 11) * 0x1p-53 }
}

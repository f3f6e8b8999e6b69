import Domain
import Testing

struct SipHashTests {
    /// Of an implementation of its own in Python, which agrees with the authors' vectors for 2-4 rounds; the first is
    /// also the first of the vectors in Rust's standard library.
    @Test(
        arguments: [
            (0, 0xabac_0158_050f_c4dc), (1, 0xc9f4_9bf3_7d57_ca93), (7, 0xd392_7d98_9bb1_1140),
            (8, 0x3690_9511_8d29_9a8e), (15, 0xd320_d86d_2a51_9956), (63, 0x9d19_9062_b7bb_b3a8),
        ] as [(Int, UInt64)])
    func hashIsThatOfOthers(length: Int, expected: UInt64) {
        let key = SipHash.Key(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908)
        let bytes = (0..<length).map { UInt8($0) }
        #expect(bytes.withUnsafeBytes { SipHash.hash($0, key: key) } == expected)
    }

    @Test func everyBitOfTheKeyCounts() {
        let text = Array("prompt".utf8)
        var seen: Set<UInt64> = []
        for bit in 0..<128 {
            let key = SipHash.Key(low: bit < 64 ? 1 << UInt64(bit) : 0, high: bit < 64 ? 0 : 1 << UInt64(bit - 64))
            seen.insert(text.withUnsafeBytes { SipHash.hash($0, key: key) })
        }
        #expect(seen.count == 128)
    }
}

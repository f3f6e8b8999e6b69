/// The characters by which byte-level files write bytes: printable ones of Latin-1 as themselves, the others, in order,
/// as U+0100 and on. From GPT-2's `bytes_to_unicode`.
enum ByteAlphabet {
    /// From a character less than U+0144 to its byte, or -1.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        var next = 0x100
        for byte in 0..<256 {
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: table[byte] = Int16(byte)
            default:
                table[next] = Int16(byte)
                next += 1
            }
        }
        return table
    }()

    /// - Parameter text: Valid UTF-8.
    /// - Returns: Nil if a character stands for no byte.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        var decoded: [UInt8] = []
        decoded.reserveCapacity(text.count)
        var iterator = text.makeIterator()
        while let lead = iterator.next() {
            var scalar = Int(lead)
            if lead >= 0x80 {
                // Characters up to U+0143 have two bytes, of which the first is at most 0xC5.
                guard lead <= 0xC5, let second = iterator.next() else { return nil }
                scalar = (scalar & 0x1F) << 6 | Int(second & 0x3F)
            }
            guard scalar < bytes.count, bytes[scalar] >= 0 else { return nil }
            decoded.append(UInt8(bytes[scalar]))
        }
        return decoded
    }
}

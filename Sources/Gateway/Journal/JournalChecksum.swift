/// CRC-32C (Castagnoli) as in Billing, but eight bytes a step through eight tables ("slicing by 8"): the journal's
/// records are short, and this is fast enough that the system call is what an append costs.
enum JournalChecksum {
    /// The checksum of `bytes`, going on from `seed` (another checksum, or 0).
    static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        let tables = Self.tables
        var crc = ~seed
        var offset = 0
        // SAFETY: every load lies inside `bytes`, whose count bounds the loops; table indexes are below 8 * 256.
        while bytes.count - offset >= 8 {
            let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(crc)
            crc =
                tables[1792 + Int(word & 0xFF)] ^ tables[1536 + Int(word >> 8 & 0xFF)]
                ^ tables[1280 + Int(word >> 16 & 0xFF)] ^ tables[1024 + Int(word >> 24 & 0xFF)]
                ^ tables[768 + Int(word >> 32 & 0xFF)] ^ tables[512 + Int(word >> 40 & 0xFF)]
                ^ tables[256 + Int(word >> 48 & 0xFF)] ^ tables[Int(word >> 56)]
            offset += 8
        }
        while offset < bytes.count {
            crc = tables[Int((crc ^ UInt32(bytes[offset])) & 0xFF)] ^ crc >> 8
            offset += 1
        }
        return ~crc
    }

    /// Table `n` at 256 * n: what a byte contributes when n more bytes follow it in the step.
    ///
    /// SAFETY: written once, before the pointer is published, and never freed.
    private nonisolated(unsafe) static let tables: UnsafePointer<UInt32> = {
        let tables = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 256)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
            tables[byte] = crc
        }
        for byte in 0..<256 {
            for table in 1..<8 {
                let previous = tables[(table - 1) * 256 + byte]
                tables[table * 256 + byte] = tables[Int(previous & 0xFF)] ^ previous >> 8
            }
        }
        return UnsafePointer(tables)
    }()
}

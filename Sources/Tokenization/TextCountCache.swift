import Synchronization

/// How many tokens a text has that was counted before: the earlier turns of a chat come again with each request.
///
/// Shared by all loops, keyed by a hash of the content under a key drawn at start, so that nobody can choose texts that
/// meet in one slot. Direct-mapped in shards with a short lock each: a newer text takes the place of an older one. Holds
/// hashes and numbers, never text.
///
/// A hit is right unless two texts of one length have one 64-bit hash: at a million texts counted that is one chance in
/// 10^13 for each, and an attacker does not know the key.
package final class TextCountCache: Sendable {
    package static let shards = 16
    package static let slotsPerShard = 4_096
    /// Shorter texts are counted anew: that costs less than the lock.
    package static let bytesMin = 64

    private struct Slot {
        var hash: UInt64
        /// Length and tokenizer, mixed; 0 where the slot is empty.
        var check: UInt64
        var tokens: UInt32
    }

    private final class Shard: Sendable {
        let slots: Mutex<[Slot]>

        init(_ count: Int) {
            slots = Mutex([Slot](repeating: Slot(hash: 0, check: 0, tokens: 0), count: count))
        }
    }

    private let table: [Shard]
    private let slotsPerShard: Int
    private let key: (UInt64, UInt64)

    /// - Parameter slotsPerShard: A power of two.
    package init(slotsPerShard: Int = TextCountCache.slotsPerShard) {
        self.slotsPerShard = slotsPerShard
        table = (0..<Self.shards).map { _ in Shard(slotsPerShard) }
        var system = SystemRandomNumberGenerator()
        key = (system.next(), system.next())
    }

    /// Bytes of the table.
    package static var memoryBytes: Int { shards * slotsPerShard * MemoryLayout<Slot>.stride }

    /// The count of `text`, from here or from `count`.
    ///
    /// - Parameters:
    ///   - text: As it stands in the body: the same text written with other escapes is counted again.
    ///   - owner: The tokenizer's ``Tokenizer/cacheOwner``.
    ///   - count: nil where it is not to be counted now.
    func tokens(of text: UnsafeRawBufferPointer, owner: UInt32, count: () -> Int?) -> Int? {
        guard text.count >= Self.bytesMin else { return count() }
        var hasher = Hasher()
        hasher.combine(key.0)
        hasher.combine(key.1)
        hasher.combine(bytes: text)
        let hash = UInt64(bitPattern: Int64(hasher.finalize()))
        let check = UInt64(owner) << 32 | UInt64(truncatingIfNeeded: text.count) & 0xFFFF_FFFF | 1 << 63
        let index = Int(hash >> 8 & UInt64(slotsPerShard - 1))
        let shard = table[Int(hash & UInt64(Self.shards - 1))]
        let known = shard.slots.withLock { slots -> UInt32? in
            let slot = slots[index]
            return slot.hash == hash && slot.check == check ? slot.tokens : nil
        }
        if let known { return Int(known) }
        guard let tokens = count(), let number = UInt32(exactly: tokens) else { return nil }
        shard.slots.withLock { $0[index] = Slot(hash: hash, check: check, tokens: number) }
        return tokens
    }
}

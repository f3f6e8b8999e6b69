import Domain

/// The hashes of a prompt's blocks, each chained to those before: two prompts share their first n hashes where they share
/// their first n blocks and were salted alike, and else by a chance of one in 2^64 for each two blocks.
///
/// Blocks are of bytes as the client sent them, not of tokens: the next turn of a chat repeats its history byte for byte,
/// so hashing it costs less than finding out what it was cut into last time, and needs no vocabulary. How many tokens a
/// block has follows from the count of the whole prompt. What is less than a block at the end has no hash, and so has
/// what is beyond `blocksMax`.
///
/// One per event loop: it keeps its memory from one prompt to the next.
package struct PromptBlocks: Sendable {
    package static let blockBytes = 2_048
    /// 2 MiB of prompt.
    package static let blocksMax = 1_024

    /// By place.
    package private(set) var hashes: ContiguousArray<UInt64> = []
    /// Bytes of the prompt, those without a hash too.
    package private(set) var bytes = 0

    private let key: SipHash.Key
    /// A block that began in an earlier part, and room for the chain after it.
    private var pending: ContiguousArray<UInt8> = []
    private var chain: UInt64 = 0

    /// - Parameter key: Of all replicas: their hashes meet in gossip.
    package init(key: SipHash.Key) {
        self.key = key
        hashes.reserveCapacity(Self.blocksMax)
        pending.reserveCapacity(Self.blockBytes + 8)
    }

    /// Forgets the prompt before.
    ///
    /// - Parameter salt: Parts prompts that share no cache on a node: of other orgs, models or adapters.
    package mutating func begin(salt: UInt64) {
        hashes.removeAll(keepingCapacity: true)
        pending.removeAll(keepingCapacity: true)
        bytes = 0
        chain = salt
    }

    /// Goes on with the prompt.
    package mutating func append(_ part: UnsafeRawBufferPointer) {
        bytes += part.count
        var rest = part[...]
        while !rest.isEmpty, hashes.count < Self.blocksMax {
            let taken = rest.prefix(Self.blockBytes - pending.count)
            pending.append(contentsOf: taken)
            rest = rest.dropFirst(taken.count)
            if pending.count == Self.blockBytes { finishBlock() }
        }
    }

    /// A keyed hash of a name, chained to `salt`.
    package func hash(_ name: String, salt: UInt64) -> UInt64 {
        var name = name
        return name.withUTF8 { SipHash.hash(UnsafeRawBufferPointer($0), key: key) } &* 0x9E37_79B9_7F4A_7C15 ^ salt
    }

    private mutating func finishBlock() {
        withUnsafeBytes(of: chain.littleEndian) { pending.append(contentsOf: $0) }
        chain = pending.withUnsafeBytes { SipHash.hash($0, key: key) }
        hashes.append(chain)
        pending.removeAll(keepingCapacity: true)
    }
}

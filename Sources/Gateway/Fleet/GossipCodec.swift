import Domain
import Routing

/// ``GossipMessage`` as bytes: little-endian, lengths before lists, ids as UTF-8.
///
/// A message that is longer than it says, shorter, or of another version is none: gateways of two versions then route
/// without one another's news, as they do when the store is away.
enum GossipCodec {
    private static let version: UInt8 = 1
    /// Bytes of a message that is looked at: some 1,000 nodes and all the blocks that a message may tell of.
    static let bytesMax = 1 << 20
    private static let idBytesMax = 255

    static func encode(_ message: GossipMessage) -> [UInt8] {
        var bytes: [UInt8] = [version, Flags(message).rawValue]
        bytes.reserveCapacity(64 * message.nodes.count + 8 * message.placements.reduce(64) { $0 + $1.blocks.count })
        put(message.sequence, &bytes)
        put(UInt32(clamping: message.nodes.count), &bytes)
        for node in message.nodes {
            put(node.id, &bytes)
            put(node.work.requests, &bytes)
            put(node.work.queuedRequests, &bytes)
            put(node.work.promptTokens, &bytes)
            put(node.work.queuedTokens, &bytes)
            put(node.work.queuedWork.bitPattern, &bytes)
            put(node.work.kvTokens, &bytes)
        }
        put(UInt32(clamping: message.placements.count), &bytes)
        for placement in message.placements {
            put(placement.node, &bytes)
            put(UInt32(clamping: placement.blocks.count), &bytes)
            for block in placement.blocks { put(block, &bytes) }
        }
        return bytes
    }

    /// - Returns: nil for what is no message of this version, whole and within its bounds.
    static func decode(_ bytes: [UInt8]) -> GossipMessage? {
        guard bytes.count <= bytesMax else { return nil }
        return bytes.withUnsafeBytes { bytes in
            var reader = Reader(bytes)
            guard let version = reader.integer(UInt8.self), version == Self.version,
                let flags = reader.integer(UInt8.self), let sequence = reader.integer(UInt64.self),
                let nodes = reader.list({ $0.node() }), let placements = reader.list({ $0.placement() }),
                reader.isAtEnd, placements.reduce(0, { $0 + $1.blocks.count }) <= GossipMessage.blocksMax
            else { return nil }
            let known = Flags(rawValue: flags)
            return GossipMessage(
                sequence: sequence, isFull: known.contains(.isFull), isLast: known.contains(.isLast), nodes: nodes,
                placements: placements)
        }
    }

    /// Those that are not known are ignored.
    private struct Flags: OptionSet {
        static let isFull = Flags(rawValue: 1)
        static let isLast = Flags(rawValue: 2)
        let rawValue: UInt8

        init(rawValue: UInt8) { self.rawValue = rawValue }

        init(_ message: GossipMessage) {
            self = []
            if message.isFull { insert(.isFull) }
            if message.isLast { insert(.isLast) }
        }
    }

    private static func put(_ value: some FixedWidthInteger, _ bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    private static func put(_ id: NodeID, _ bytes: inout [UInt8]) {
        let text = id.rawValue.utf8.prefix(idBytesMax)
        bytes.append(UInt8(text.count))
        bytes.append(contentsOf: text)
    }

    private struct Reader {
        // SAFETY: borrowed for the call of `decode`; reads are bounded by `take`.
        private var rest: UnsafeRawBufferPointer.SubSequence

        init(_ bytes: UnsafeRawBufferPointer) { rest = bytes[...] }

        var isAtEnd: Bool { rest.isEmpty }

        private mutating func take(_ count: Int) -> UnsafeRawBufferPointer.SubSequence? {
            guard count <= rest.count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }

        mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
            take(MemoryLayout<Value>.size).map { bytes in
                Value(littleEndian: UnsafeRawBufferPointer(rebasing: bytes).loadUnaligned(as: Value.self))
            }
        }

        /// Never more than there are bytes for: a length that lies ends with the bytes.
        mutating func list<Element>(_ element: (inout Reader) -> Element?) -> [Element]? {
            guard let count = integer(UInt32.self), count <= rest.count else { return nil }
            var elements: [Element] = []
            for _ in 0..<count {
                guard let next = element(&self) else { return nil }
                elements.append(next)
            }
            return elements
        }

        private mutating func id() -> NodeID? {
            guard let count = integer(UInt8.self), let bytes = take(Int(count)) else { return nil }
            return NodeID(String(decoding: bytes, as: UTF8.self))
        }

        mutating func node() -> GossipNode? {
            guard let id = id(), let requests = integer(Int32.self), let queued = integer(Int32.self),
                let prompts = integer(Int64.self), let queuedTokens = integer(Int64.self),
                let work = integer(UInt64.self), let kv = integer(Int64.self)
            else { return nil }
            return GossipNode(
                id: id,
                work: InflightWork(
                    requests: requests, queuedRequests: queued, promptTokens: prompts, queuedTokens: queuedTokens,
                    queuedWork: Double(bitPattern: work), kvTokens: kv))
        }

        mutating func placement() -> GossipPlacement? {
            guard let id = id(), let blocks = list({ $0.integer(UInt64.self) }) else { return nil }
            return GossipPlacement(node: id, blocks: blocks)
        }
    }
}

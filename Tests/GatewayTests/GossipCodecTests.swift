import Domain
import Routing
import Testing

@testable import Gateway

struct GossipCodecTests {
    private func message(_ random: inout SplitMix64) throws -> GossipMessage {
        let nodes = try (0..<Int.random(in: 0...5, using: &random)).map { index in
            GossipNode(
                id: try #require(NodeID("node-\(index)")),
                work: InflightWork(
                    requests: .random(in: 0...1_000, using: &random),
                    queuedRequests: .random(in: 0...9, using: &random),
                    promptTokens: .random(in: 0...(1 << 40), using: &random), queuedTokens: 7, queuedWork: 8.5,
                    kvTokens: .random(in: -5...5, using: &random)))
        }
        let placements = try (0..<Int.random(in: 0...5, using: &random)).map { index in
            GossipPlacement(
                node: try #require(NodeID("n\(index)")),
                blocks: (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt64.random(in: 0 ... .max) })
        }
        return GossipMessage(
            sequence: .random(in: 0 ... .max, using: &random), isFull: Bool.random(using: &random),
            isLast: Bool.random(using: &random), nodes: nodes, placements: placements)
    }

    @Test func messagesComeBackAsTheyWere() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<300 {
            let message = try message(&random)
            #expect(GossipCodec.decode(GossipCodec.encode(message)) == message, "seed \(seed)")
        }
    }

    @Test func whatIsTornOrTooLongIsNone() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<30 {
            let bytes = GossipCodec.encode(try message(&random))
            for count in 0..<bytes.count { #expect(GossipCodec.decode(Array(bytes[..<count])) == nil, "seed \(seed)") }
            #expect(GossipCodec.decode(bytes + [0]) == nil, "seed \(seed)")
        }
        #expect(GossipCodec.decode([UInt8](repeating: 1, count: GossipCodec.bytesMax + 1)) == nil)
    }

    @Test func anyBytesAreReadWithoutHarm() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        for _ in 0..<2_000 {
            var bytes = GossipCodec.encode(try message(&random))
            for _ in 0..<3 {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            if let message = GossipCodec.decode(bytes) {
                #expect(message.placements.reduce(0) { $0 + $1.blocks.count } <= GossipMessage.blocksMax)
            }
        }
    }
}

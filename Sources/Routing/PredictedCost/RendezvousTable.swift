import Domain

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The two nodes that win weighted rendezvous hashing for each of many classes of sessions.
///
/// Rendezvous hashing asks every node for each session; over a thousand nodes that is the whole budget of a decision.
/// So sessions are first put into ``classCount`` classes by their hash, and the winners of each class are worked out
/// when the fleet changes: a node that comes asks each class once, one that leaves makes only the classes that it led
/// ask again. Gateways agree on the winners if they agree on the nodes and their weights, in whatever order they came.
///
/// A node's score for a class is exponentially distributed with its weight as rate, and the lowest wins: so a node of
/// twice the weight wins twice the classes (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker
/// 2005). 256 kB.
struct RendezvousTable: Sendable {
    static let classCount = 1 << 13

    private struct Winner {
        var node: Int32 = -1
        var score = Float.infinity
    }

    private struct Class {
        var first = Winner()
        var second = Winner()
    }

    private struct Node {
        var identity: UInt64 = 0
        var weight: Float = 0
    }

    private var classes: ContiguousArray<Class> = []
    private var nodes: ContiguousArray<Node> = []

    mutating func resize(to count: Int) {
        if classes.isEmpty { classes = ContiguousArray(repeating: Class(), count: Self.classCount) }
        while nodes.count > count {
            set(nodes.count - 1, identity: 0, weight: 0)
            nodes.removeLast()
        }
        while nodes.count < count { nodes.append(Node()) }
    }

    /// - Parameters:
    ///   - identity: A hash of the node's name, the same at every gateway.
    ///   - weight: 0 takes it out.
    mutating func set(_ node: Int, identity: UInt64, weight: Float) {
        guard nodes[node].identity != identity || nodes[node].weight != weight else { return }
        let wasIn = nodes[node].weight > 0
        nodes[node] = Node(identity: identity, weight: weight)
        for position in classes.indices {
            if wasIn, classes[position].first.node == Int32(node) || classes[position].second.node == Int32(node) {
                ask(position)
            } else if weight > 0 {
                offer(position, node)
            }
        }
    }

    /// The two best for a session, best first; -1 where there is none.
    func winners(session: UInt64) -> (first: Int, second: Int) {
        guard !classes.isEmpty else { return (-1, -1) }
        let position = Int(truncatingIfNeeded: SplitMix64.mix(session) % UInt64(Self.classCount))
        return (Int(classes[position].first.node), Int(classes[position].second.node))
    }

    private mutating func ask(_ position: Int) {
        classes[position] = Class()
        for node in nodes.indices where nodes[node].weight > 0 { offer(position, node) }
    }

    private mutating func offer(_ position: Int, _ node: Int) {
        let score = score(position, nodes[node])
        let candidate = Winner(node: Int32(node), score: score)
        if score < classes[position].first.score {
            classes[position].second = classes[position].first
            classes[position].first = candidate
        } else if score < classes[position].second.score {
            classes[position].second = candidate
        }
    }

    private func score(_ position: Int, _ node: Node) -> Float {
        let bits = SplitMix64.mix(node.identity &+ UInt64(position) &* 0x9E37_79B9_7F4A_7C15)
        // 24 bits, in the open interval from 0 to 1.
        let uniform = (Float(bits >> 40) + 0.5) / 16_777_216
        return -log(uniform) / node.weight
    }
}

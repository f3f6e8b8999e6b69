import Domain
import Redis

/// Where what operators say of nodes is kept, so that it reaches every replica and outlives every restart.
package protocol OperatorWordStore: Sendable {
    /// Which of `nodes` are cordoned.
    func cordoned(among nodes: [NodeID]) async throws(OperatorWordFailure) -> Set<NodeID>
    func setCordoned(_ isCordoned: Bool, node: NodeID) async throws(OperatorWordFailure)
}

/// The store did not answer, or not as expected. What was to be written may have been.
package struct OperatorWordFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// The hash `tg:{fleet}`: field `cordon:<node>` is `1` while the node is cordoned, and absent otherwise.
package struct RedisOperatorWordStore: OperatorWordStore {
    package static let key = "tg:{fleet}"

    private let session: RedisSession
    private let timeout: Duration

    package init(session: RedisSession, timeout: Duration = .seconds(1)) {
        self.session = session
        self.timeout = timeout
    }

    package static func cordonField(_ node: NodeID) -> String { "cordon:\(node)" }

    package func cordoned(among nodes: [NodeID]) async throws(OperatorWordFailure) -> Set<NodeID> {
        guard !nodes.isEmpty else { return [] }
        let fields = nodes.map { RESPArgument.string(Self.cordonField($0)) }
        let reply = try await command(["HMGET", .string(Self.key)] + fields)
        guard let values = reply.array, values.count == nodes.count else {
            throw OperatorWordFailure("Redis answered HMGET with something else than a list of its fields")
        }
        return Set(zip(nodes, values).filter { $0.1.string == "1" }.map(\.0))
    }

    package func setCordoned(_ isCordoned: Bool, node: NodeID) async throws(OperatorWordFailure) {
        let field = RESPArgument.string(Self.cordonField(node))
        _ = try await command(
            isCordoned ? ["HSET", .string(Self.key), field, "1"] : ["HDEL", .string(Self.key), field])
    }

    private func command(_ arguments: [RESPArgument]) async throws(OperatorWordFailure) -> RESPValue {
        do throws(RedisError) {
            return try await session.command(arguments, timeout: timeout)
        } catch {
            throw OperatorWordFailure(error.description)
        }
    }
}

import Domain
import Redis

/// Where nodes are kept that are not in the file.
protocol NodeStore: Sendable {
    /// Nodes whose heartbeat stopped leave now, for all gateways. Time in which no gateway asked does not count: nobody
    /// heard them.
    ///
    /// - Returns: All of them; nil where the version is `known`.
    func nodes(since known: String?) async throws(OperatorWordFailure) -> (version: String, nodes: [StoredNode])?
    /// - Parameter lifetime: How long it stays without another call; nil for ever.
    func put(_ node: StoredNode, lifetime: Duration?) async throws(OperatorWordFailure) -> NodeStoreAnswer
    /// - Returns: Whether it was there.
    func remove(_ node: NodeID) async throws(OperatorWordFailure) -> Bool
}

enum NodeStoreAnswer: String, Hashable, Sendable {
    case created
    /// It is there with other properties now.
    case changed
    case renewed
    /// Somebody else's: what an operator added no node may register as, and the other way round.
    case taken
    /// There are ``GatewayConfiguration/nodesMax``.
    case full
}

/// The hash `tg:{fleet}:nodes` (node to JSON; under `#version` a count of its changes, under `#read` the millisecond of
/// Redis' clock at which a gateway read it last) and the sorted set `tg:{fleet}:heartbeats` (node to the millisecond at
/// which it leaves).
struct RedisNodeStore: NodeStore {
    static let key = "tg:{fleet}:nodes"
    static let heartbeatsKey = "tg:{fleet}:heartbeats"

    private let session: RedisSession
    private let timeout: Duration

    init(session: RedisSession, timeout: Duration = .seconds(1)) {
        self.session = session
        self.timeout = timeout
    }

    /// Of the hash's fields, those that are no node.
    private static let ownFields = 2
    /// Gateways read twice a second and note it once a second: after a longer silence there was none, or none that reached
    /// the store.
    private static let silence = Duration.milliseconds(2_500)
    /// Gives back the time in which nobody listened. ARGV[1]: ``silence`` in milliseconds.
    private static let listening = """
        local t = redis.call('TIME')
        local now = t[1] * 1000 + math.floor(t[2] / 1000)
        local unheard = now - (redis.call('HGET', KEYS[1], '#read') or now)
        if unheard > tonumber(ARGV[1]) then
          for _, node in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
            redis.call('ZINCRBY', KEYS[2], string.format('%d', unheard), node)
          end
        end
        if unheard <= 0 or unheard >= 1000 then redis.call('HSET', KEYS[1], '#read', string.format('%d', now)) end

        """

    /// Removes at most a hundred silent nodes at a time. ARGV[2]: the version that is known.
    private static let read = RedisScript(
        source: listening + """
            local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)
            for _, node in ipairs(gone) do
              redis.call('ZREM', KEYS[2], node)
              redis.call('HDEL', KEYS[1], node)
            end
            if #gone > 0 then redis.call('HINCRBY', KEYS[1], '#version', 1) end
            local version = redis.call('HGET', KEYS[1], '#version') or '0'
            if version == ARGV[2] then return {version} end
            return {version, redis.call('HGETALL', KEYS[1])}
            """)
    /// ARGV[2] on: the node, its origin, its JSON, its lifetime in milliseconds or `-`, how many fields there may be.
    private static let put = RedisScript(
        source: listening + """
            local held = redis.call('HGET', KEYS[1], ARGV[2])
            if held then
              local origin = cjson.decode(held).origin
              if origin ~= ARGV[3] then return 'taken' end
            elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then
              return 'full'
            end
            if ARGV[5] ~= '-' then
              redis.call('ZADD', KEYS[2], string.format('%d', now + ARGV[5]), ARGV[2])
            end
            if held == ARGV[4] then return 'renewed' end
            redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
            redis.call('HINCRBY', KEYS[1], '#version', 1)
            return held and 'changed' or 'created'
            """)
    /// Also what operators said of it. ARGV: the node, the fields of the words.
    private static let remove = RedisScript(
        source: """
            redis.call('ZREM', KEYS[2], ARGV[1])
            if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
            redis.call('HINCRBY', KEYS[1], '#version', 1)
            redis.call('HDEL', KEYS[3], ARGV[2], ARGV[3])
            return 1
            """)

    private static let keys: [RESPArgument] = [.string(key), .string(heartbeatsKey)]

    func nodes(
        since known: String?
    ) async throws(OperatorWordFailure) -> (version: String, nodes: [StoredNode])? {
        let reply = try await evaluate(
            Self.read, [.integer(Self.silence.milliseconds), .string(known ?? "")])
        guard let parts = reply.array, let version = parts.first?.string else {
            throw OperatorWordFailure("Redis answered with something else than a version and a hash")
        }
        guard parts.count == 2, let fields = parts[1].array else { return nil }
        var nodes: [StoredNode] = []
        for index in stride(from: 0, to: fields.count - 1, by: 2) {
            guard let id = fields[index].string.flatMap({ NodeID($0) }), let bytes = fields[index + 1].bytes,
                let node = StoredNode(id: id, encoded: bytes)
            else { continue }
            nodes.append(node)
        }
        return (version, nodes.sorted { $0.id < $1.id })
    }

    func put(_ node: StoredNode, lifetime: Duration?) async throws(OperatorWordFailure) -> NodeStoreAnswer {
        let reply = try await evaluate(
            Self.put,
            [
                .integer(Self.silence.milliseconds), .string(node.id.rawValue), .string(node.origin.rawValue),
                .bytes(node.encoded),
                lifetime.map { .integer($0.milliseconds) } ?? "-",
                .integer(Int64(GatewayConfiguration.nodesMax + Self.ownFields)),
            ])
        guard let answer = reply.string.flatMap(NodeStoreAnswer.init) else {
            throw OperatorWordFailure("Redis answered with something unknown")
        }
        return answer
    }

    func remove(_ node: NodeID) async throws(OperatorWordFailure) -> Bool {
        let reply = try await evaluate(
            Self.remove, keys: Self.keys + [.string(RedisOperatorWordStore.key)],
            [
                .string(node.rawValue), .string(RedisOperatorWordStore.cordonField(node)),
                .string(RedisOperatorWordStore.drainField(node)),
            ])
        return reply.int64 == 1
    }

    private func evaluate(
        _ script: RedisScript, keys: [RESPArgument] = Self.keys, _ arguments: [RESPArgument]
    ) async throws(OperatorWordFailure) -> RESPValue {
        do throws(RedisError) {
            return try await session.evaluate(script, keys: keys, args: arguments, timeout: timeout)
        } catch {
            throw OperatorWordFailure(error.description)
        }
    }
}

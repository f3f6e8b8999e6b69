import Domain
import Redis

/// Where what operators say is kept, so that it reaches every replica and outlives every restart.
package protocol OperatorWordStore: Sendable {
    /// All that stands.
    func words() async throws(OperatorWordFailure) -> OperatorWordsReading
    func say(_ word: OperatorWord) async throws(OperatorWordFailure)
}

/// The store did not answer, or not as expected. What was to be written may have been.
package struct OperatorWordFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// The hash `tg:{fleet}`, with times in milliseconds of Redis' own clock:
///
/// | field | value |
/// |---|---|
/// | `cordon:<node>` | `1` |
/// | `drain:<node>` | the deadline |
/// | `curtail:<site>` | `<thousandths> <start> <end> <thousandths until the start>`, `-` for no end |
///
/// A field is absent where the word does not stand; a curtailment that ended by itself is left for the next word on the
/// site to replace.
package struct RedisOperatorWordStore: OperatorWordStore {
    package static let key = "tg:{fleet}"

    private let session: RedisSession
    private let timeout: Duration

    package init(session: RedisSession, timeout: Duration = .seconds(1)) {
        self.session = session
        self.timeout = timeout
    }

    package static func cordonField(_ node: NodeID) -> String { cordonPrefix + node.rawValue }
    package static func drainField(_ node: NodeID) -> String { drainPrefix + node.rawValue }
    package static func curtailField(_ site: SiteID) -> String { curtailPrefix + site.rawValue }

    private static let cordonPrefix = "cordon:"
    private static let drainPrefix = "drain:"
    private static let curtailPrefix = "curtail:"

    /// Redis' time in milliseconds, and every word.
    private static let read = RedisScript(
        source: """
            local t = redis.call('TIME')
            return {t[1] * 1000 + math.floor(t[2] / 1000), redis.call('HGETALL', KEYS[1])}
            """)
    /// ARGV: the field to set, the milliseconds until the deadline, the field to delete.
    private static let drain = RedisScript(
        source: """
            local t = redis.call('TIME')
            local now = t[1] * 1000 + math.floor(t[2] / 1000)
            redis.call('HDEL', KEYS[1], ARGV[3])
            return redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now + ARGV[2]))
            """)
    /// ARGV: the field, the thousandths, the milliseconds until the start, and from there to the end or `-`. Until the
    /// start what the site runs at now goes on.
    private static let curtail = RedisScript(
        source: """
            local t = redis.call('TIME')
            local now = t[1] * 1000 + math.floor(t[2] / 1000)
            local start = now + ARGV[3]
            local ending = '-'
            if ARGV[4] ~= '-' then ending = string.format('%d', start + ARGV[4]) end
            local before = '1000'
            local held = redis.call('HGET', KEYS[1], ARGV[1])
            if held then
              local share, from, till, earlier = string.match(held, '^(%d+) (%d+) (%S+) (%d+)$')
              if share and (till == '-' or tonumber(till) > now) then
                before = tonumber(from) <= now and share or earlier
              end
            end
            local value = ARGV[2] .. ' ' .. string.format('%d', start) .. ' ' .. ending .. ' ' .. before
            return redis.call('HSET', KEYS[1], ARGV[1], value)
            """)

    package func words() async throws(OperatorWordFailure) -> OperatorWordsReading {
        let reply: RESPValue
        do throws(RedisError) {
            reply = try await session.evaluate(Self.read, keys: [.string(Self.key)], args: [], timeout: timeout)
        } catch {
            throw OperatorWordFailure(error.description)
        }
        guard let parts = reply.array, parts.count == 2, let time = parts[0].int64, let fields = parts[1].array,
            fields.count.isMultiple(of: 2)
        else { throw OperatorWordFailure("Redis answered with something else than its time and a hash") }
        var words = OperatorWords()
        for index in stride(from: 0, to: fields.count, by: 2) {
            guard let field = fields[index].string, let value = fields[index + 1].string else { continue }
            Self.take(field, value, into: &words)
        }
        return OperatorWordsReading(words: words, storeTime: WallTime(milliseconds: time))
    }

    /// What is no word of this version is left alone.
    private static func take(_ field: String, _ value: String, into words: inout OperatorWords) {
        if field.hasPrefix(cordonPrefix), value == "1", let node = NodeID(String(field.dropFirst(cordonPrefix.count))) {
            words.cordoned.insert(node)
        } else if field.hasPrefix(drainPrefix), let node = NodeID(String(field.dropFirst(drainPrefix.count))),
            let deadline = time(value)
        {
            words.draining[node] = deadline
        } else if field.hasPrefix(curtailPrefix), let site = SiteID(String(field.dropFirst(curtailPrefix.count))) {
            let parts = value.split(separator: " ")
            let shares = 0...1_000
            guard parts.count == 4, let permille = Int(parts[0]), shares.contains(permille),
                let start = time(parts[1]), parts[2] == "-" || time(parts[2]) != nil,
                let before = Int(parts[3]), shares.contains(before)
            else { return }
            words.curtailed[site] = Curtailment(
                permille: permille, startsAt: start, endsAt: time(parts[2]), permilleBefore: before)
        }
    }

    /// Until 2100: a number that is none of this version's times is no word.
    private static let timeMax: Int64 = 4_102_444_800_000

    private static func time(_ text: some StringProtocol) -> WallTime? {
        guard let milliseconds = Int64(text), 0...timeMax ~= milliseconds else { return nil }
        return WallTime(milliseconds: milliseconds)
    }

    package func say(_ word: OperatorWord) async throws(OperatorWordFailure) {
        let key = RESPArgument.string(Self.key)
        do throws(RedisError) {
            switch word {
            case .cordon(let node):
                // Two commands: should the second fail, the node is drained still, and the operator is told.
                _ = try await session.command("HSET", key, .string(Self.cordonField(node)), "1", timeout: timeout)
                _ = try await session.command("HDEL", key, .string(Self.drainField(node)), timeout: timeout)
            case .uncordon(let node):
                _ = try await session.command(
                    "HDEL", key, .string(Self.cordonField(node)), .string(Self.drainField(node)), timeout: timeout)
            case .drain(let node, let deadline):
                _ = try await session.evaluate(
                    Self.drain, keys: [key],
                    args: [
                        .string(Self.drainField(node)), .integer(deadline.milliseconds),
                        .string(Self.cordonField(node)),
                    ], timeout: timeout)
            case .curtail(let site, let permille, let start, let time):
                _ = try await session.evaluate(
                    Self.curtail, keys: [key],
                    args: [
                        .string(Self.curtailField(site)), .integer(Int64(permille)), .integer(start.milliseconds),
                        time.map { .integer($0.milliseconds) } ?? "-",
                    ], timeout: timeout)
            case .restore(let site):
                _ = try await session.command("HDEL", key, .string(Self.curtailField(site)), timeout: timeout)
            }
        } catch {
            throw OperatorWordFailure(error.description)
        }
    }
}

import Billing
import Domain
import Redis

extension RedisOperatorStore {
    package static let serverVersionMin = 7

    /// Looks at the server before anything is trusted to it.
    ///
    /// - Returns: Warnings: what works, and is not what money should be kept in.
    /// - Throws: `invalid` with what to change where the server is too old or may evict what it stores;
    ///   `storeUnavailable`.
    package func checkServer() async throws(OperatorFailure) -> [String] {
        guard let text = try await command("INFO").string else { throw Self.malformed }
        var facts: [Substring: Substring] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            facts[line[..<colon]] = line[line.index(after: colon)...]
        }
        let version = facts["redis_version"] ?? "unknown"
        guard let major = version.split(separator: ".").first.flatMap({ Int($0) }), major >= Self.serverVersionMin
        else {
            throw OperatorFailure(
                .invalid, "Redis \(version) is too old: version \(Self.serverVersionMin) or newer is needed.")
        }
        guard let policy = facts["maxmemory_policy"] else { throw Self.malformed }
        guard policy == "noeviction" else {
            throw OperatorFailure(
                .invalid,
                "Redis evicts what it stores when memory is short (maxmemory-policy \(policy)), and balances with it. "
                    + "Set maxmemory-policy noeviction.")
        }
        var warnings: [String] = []
        if facts["aof_enabled"] != "1" {
            warnings.append(
                "Redis has appendonly off: a crash of Redis loses balances and limits back to its last snapshot. "
                    + "Set appendonly yes.")
        }
        return warnings
    }
}

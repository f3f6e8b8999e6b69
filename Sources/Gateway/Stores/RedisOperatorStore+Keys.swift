import Billing
import Domain
import Redis

extension RedisOperatorStore {
    /// Makes a key. Its secret is in the answer and nowhere else: the store keeps a hash.
    ///
    /// - Parameters:
    ///   - name: May be empty: a key need not have one.
    ///   - models: All that it may use; nil for every model. At most ``KeyRecord/modelsMax``.
    /// - Throws: `notFound`, `limitReached` at the org's cap, `invalid`, `storeUnavailable`.
    package func createKey(
        org: OrgID, name: String, limits: Limits, models: Set<ModelID>?
    ) async throws(OperatorFailure) -> (summary: KeySummary, secret: String) {
        if !name.isEmpty { try check(name: name) }
        try check(limits)
        try check(models: models)
        let key: String
        let digest: (bytes: [UInt8], pepperID: String)
        do throws(KeyHasherFailure) {
            var random = try SecureRandom()
            key = KeyFormat.generate(using: &random)
            let hasher = try KeyHasher(peppers: peppers)
            guard let parsed = KeyFormat.parse(key), let bytes = hasher.digest(parsed.secret) else {
                throw .unavailable
            }
            digest = (bytes, hasher.currentPepperID)
        } catch {
            throw OperatorFailure(.storeUnavailable, "No key can be made: \(error).")
        }
        let id = KeyID(unchecked: String(key.dropFirst(KeyFormat.prefix.count).prefix(KeyFormat.idBytes)))
        let lastFour = KeyFormat.lastFour(of: key)

        let reply = try await run(
            StoreScripts.keyCreate, org,
            [now, .string(id.rawValue), .string(name), .string(lastFour)] + Self.arguments(limits)
                + [.string(models.map(KeyModels.text) ?? "")])
        let parts = reply.array?.map { $0.string ?? "" } ?? []
        guard parts.first == "ok", let created = parts.last.flatMap({ Int64($0) }) else {
            switch parts.first {
            case "unknown": throw Self.unknown(org)
            case "cap":
                throw OperatorFailure(
                    .limitReached, "The org '\(org)' has its \(parts[1]) active keys. Revoke one or raise the cap.")
            default: throw OperatorFailure(.alreadyExists, "The id of the new key was taken. Try again.")
            }
        }
        // Last of all: from here on the key authenticates. Without it the key is listed, useless, and can be revoked.
        _ = try await command(
            "HSET", .string(StoreKeys.directory(id)), "org", .string(org.rawValue), "digest", .bytes(digest.bytes),
            "pepper", .string(digest.pepperID), "last4", .string(lastFour), "status",
            .string(AccountStatus.active.rawValue))
        let summary = KeySummary(
            id: id, org: org, name: name, lastFour: lastFour, status: .active, limits: limits, models: models,
            createdAt: WallTime(milliseconds: created))
        return (summary, key)
    }

    /// Oldest first, revoked ones included.
    ///
    /// - Throws: `notFound`, `storeUnavailable`.
    package func keys(org: OrgID) async throws(OperatorFailure) -> [KeySummary] {
        guard let record = try await read(org, keys: true) else { throw Self.unknown(org) }
        return record.keys.compactMap { KeySummary(id: KeyID(unchecked: $0.id), org: org, $0.record) }
            .sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
    }

    /// - Throws: `notFound`, `storeUnavailable`.
    package func key(_ id: KeyID) async throws(OperatorFailure) -> KeySummary {
        let org = try await owner(of: id)
        let reply = try await command("HGETALL", .string(StoreKeys.key(id, org: org)))
        guard let record = HashRecord(reply), let summary = KeySummary(id: id, org: org, record) else {
            throw Self.unknown(id)
        }
        return summary
    }

    /// What changes of `models` holds on every gateway within a second.
    ///
    /// - Throws: `notFound`, `invalid`, `storeUnavailable`.
    package func updateKey(
        _ id: KeyID, name: String?, limits: LimitsUpdate, models: Change<Set<ModelID>>
    ) async throws(OperatorFailure) -> KeySummary {
        if let name { try check(name: name) }
        try check(limits)
        try check(models: models.applied(to: nil))
        let org = try await owner(of: id)
        let allowed: RESPArgument =
            switch models {
            case .keep: ""
            case .set(let models): .string(KeyModels.text(models))
            case .unlimited: "-"
            }
        try await update(id, org, [.string(name ?? ""), ""] + Self.arguments(limits) + [allowed])
        // Gateways keep what a key may use; the limits they ask for with each request.
        if models != .keep { _ = try await command("INCR", .string(StoreKeys.authVersion)) }
        return try await key(id)
    }

    /// Ends a key for good. Every gateway refuses it within a second. Repeating it is harmless.
    ///
    /// - Throws: `notFound`, `storeUnavailable`.
    package func revokeKey(_ id: KeyID) async throws(OperatorFailure) -> KeySummary {
        let org = try await owner(of: id)
        let revoked = AccountStatus.revoked.rawValue
        // The org's slot first: from then on no SYNC admits the key, whatever a gateway has cached.
        try await update(id, org, ["", .string(revoked), "", "", "", ""])
        _ = try await command("HSET", .string(StoreKeys.directory(id)), "status", .string(revoked))
        _ = try await command("INCR", .string(StoreKeys.authVersion))
        return try await key(id)
    }

    private func update(_ id: KeyID, _ org: OrgID, _ arguments: [RESPArgument]) async throws(OperatorFailure) {
        let reply = try await run(StoreScripts.keyUpdate, org, [.string(id.rawValue)] + arguments)
        guard reply.string == "ok" else { throw Self.unknown(id) }
    }

    private func check(models: Set<ModelID>?) throws(OperatorFailure) {
        guard let models else { return }
        guard (1...KeyRecord.modelsMax).contains(models.count) else {
            throw OperatorFailure(
                .invalid, "A key is restricted to 1 to \(KeyRecord.modelsMax) models, or not at all.")
        }
    }

    private func owner(of id: KeyID) async throws(OperatorFailure) -> OrgID {
        let reply = try await command("HGET", .string(StoreKeys.directory(id)), "org")
        guard let org = reply.string else { throw Self.unknown(id) }
        return OrgID(unchecked: org)
    }

    private static func unknown(_ id: KeyID) -> OperatorFailure {
        OperatorFailure(.notFound, "There is no key '\(id)'.")
    }
}

import Billing
import Domain
import Redis

/// Where the requests of an org or a key must stay: a hard filter on nodes by their sites' region, on every gateway within
/// a second.
extension RedisOperatorStore {
    /// - Parameter region: nil lets them go anywhere again.
    /// - Throws: `notFound`, `invalid` where a key of the org is pinned elsewhere, `storeUnavailable`.
    package func setRegion(_ region: String?, of id: OrgID) async throws(OperatorFailure) -> OrgSummary {
        _ = try await org(id)
        if let region, let other = try await keys(org: id).first(where: { ($0.region ?? region) != region }) {
            throw OperatorFailure(
                .invalid,
                "The key '\(other.id)' of '\(id)' is pinned to the region '\(other.region ?? "")'. Change that first.")
        }
        try await setRegion(region, in: StoreKeys.account(id))
        return try await org(id)
    }

    /// - Parameter region: nil lets them go wherever the org's may.
    /// - Throws: `notFound`, `invalid` where the org is pinned elsewhere, `storeUnavailable`.
    package func setRegion(_ region: String?, of id: KeyID) async throws(OperatorFailure) -> KeySummary {
        let key = try await key(id)
        if let region, let pinned = try await org(key.org).region, pinned != region {
            throw OperatorFailure(
                .invalid, "The org '\(key.org)' is pinned to the region '\(pinned)': its keys can be nowhere else.")
        }
        try await setRegion(region, in: StoreKeys.key(id, org: key.org))
        return try await self.key(id)
    }

    /// The record exists: neither orgs nor keys are ever deleted.
    private func setRegion(_ region: String?, in record: String) async throws(OperatorFailure) {
        if let region {
            _ = try await command("HSET", .string(record), "region", .string(region))
        } else {
            _ = try await command("HDEL", .string(record), "region")
        }
        _ = try await command("INCR", .string(StoreKeys.authVersion))
    }
}

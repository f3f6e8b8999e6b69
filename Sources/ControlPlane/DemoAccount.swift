import Billing
import Domain

/// The org of `tollgate demo` and its one key.
package struct DemoAccount: Sendable {
    package static let org = OrgID(unchecked: "demo")
    static let keyName = "demo"
    static let openingCredit = NanoUSD(unchecked: 25_000_000_000)

    private let store: any OperatorStore

    package init(store: any OperatorStore) {
        self.store = store
    }

    /// Makes the org with its opening credit where it is not there yet, and a fresh key in place of the last one.
    ///
    /// - Returns: The key's secret.
    /// - Throws: What the store refused.
    package func freshKey() async throws(CommandFailure) -> String {
        do throws(OperatorFailure) {
            if try await !store.orgs().contains(where: { $0.id == Self.org }) {
                _ = try await store.createOrg(
                    id: Self.org, name: "Demo", openingCredit: Self.openingCredit, limits: nil, keysMax: nil)
            }
            for key in try await store.keys(org: Self.org) where key.name == Self.keyName && key.status == .active {
                _ = try await store.revokeKey(key.id)
            }
            return try await store.createKey(org: Self.org, name: Self.keyName, limits: .unlimited, models: nil).secret
        } catch {
            throw CommandFailure(error.message)
        }
    }
}

/// What usage can be grouped by, for the command line.
package typealias UsageGrouping = UsageRow.Grouping

import Billing
import Domain

/// Every Redis key that Tollgate uses, each built here and nowhere else (the scripts derive an org's keys from its
/// account's). The braces keep what one script touches in one cluster slot. Layout: ledger.md.
package enum StoreKeys {
    /// Index of orgs: a set of ids. An org is written before it is listed here.
    package static let orgs = "tg:{orgs}"
    /// Current prices: model -> `version input cached output at`.
    package static let prices = "tg:{prices}"
    /// Raised whenever what authenticates changes.
    package static let authVersion = "tg:{sys}:auth"
    /// Raised whenever a price changes.
    package static let pricesVersion = "tg:{sys}:prices"

    /// Every version that a model's price ever had: version -> `input cached output at`.
    package static func priceHistory(_ model: ModelID) -> String { "tg:{prices}:v:\(model)" }
    /// Balance, credit limit, clock, status, name and what each journal has told.
    package static func account(_ org: OrgID) -> String { "tg:{\(org)}:a" }
    package static func limits(_ org: OrgID) -> String { "tg:{\(org)}:limits" }
    /// What a key may do.
    package static func key(_ key: KeyID, org: OrgID) -> String { "tg:{\(org)}:k:\(key)" }
    /// Index of an org's keys: a set of ids.
    package static func keys(_ org: OrgID) -> String { "tg:{\(org)}:keys" }
    /// Directory: which org a key belongs to and what its secret hashes to.
    package static func directory(_ key: KeyID) -> String { "tg:key:{\(key)}" }
    package static func entries(_ org: OrgID, month: UTCDate) -> String { "tg:{\(org)}:e:\(month.monthText)" }
    package static func usage(_ org: OrgID, day: UTCDate) -> String { "tg:{\(org)}:u:\(day)" }
    /// Concurrency slots by journal.
    package static func slots(_ org: OrgID) -> String { "tg:{\(org)}:s" }
    package static func window(_ scope: Scope, org: OrgID) -> String { "tg:{\(org)}:w:\(scope.name)" }
}

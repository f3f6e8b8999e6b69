import Billing
import Domain

extension AdminRoute {
    /// Entries in one answer: asked for none, and the most that are given.
    package static let ledgerPageMax = 1_000
    /// Longest span of days that one question about usage may name.
    package static let usageDaysMax: Int64 = 366

    static let ledger: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/orgs/{org}/ledger", query: ["limit", "after"]) { request, services in
            var limit = ledgerPageMax
            if let text = request.query["limit"] {
                guard let value = Int(text), (1...ledgerPageMax).contains(value) else {
                    throw AdminFailure(.invalidRequest, "'limit' must be from 1 to \(ledgerPageMax).")
                }
                limit = value
            }
            if let after = request.query["after"], !isEntryID(after) {
                throw AdminFailure(.invalidRequest, "'after' must be the id of an entry.")
            }
            let entries = try await services.store.ledger(
                org: request.identifier("org"), limit: limit, after: request.query["after"])
            return .json(entries.map(LedgerEntryDocument.init))
        },
        AdminRoute(.get, "/admin/v1/orgs/{org}/ledger/verify") { request, services in
            .json(VerificationDocument(try await services.store.verifyLedger(org: request.identifier("org"))))
        },
        AdminRoute(.get, "/admin/v1/orgs/{org}/usage", query: ["from", "to", "by"]) { request, services in
            let today = UTCDate(WallTime.now())
            let to = try request.date("to") ?? today
            let from = try request.date("from") ?? UTCDate("\(to.monthText)-01") ?? to
            guard from <= to, to.daysSinceEpoch - from.daysSinceEpoch < usageDaysMax else {
                throw AdminFailure(
                    .invalidRequest, "'from' must not be after 'to', and at most \(usageDaysMax) days before it.")
            }
            var grouping: UsageRow.Grouping?
            if let text = request.query["by"] {
                guard let known = UsageRow.Grouping(rawValue: text) else {
                    throw AdminFailure(.invalidRequest, "'by' must be key, model or day.")
                }
                grouping = known
            }
            let rows = try await services.store.usage(
                org: request.identifier("org"), from: from, to: to, by: grouping)
            return .json(rows.map { UsageDocument($0, by: grouping) })
        },
    ]

    /// The store's stream ids: `1795000000000-0`.
    private static func isEntryID(_ text: String) -> Bool {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        return parts.count == 2
            && parts.allSatisfy { UInt64($0) != nil && $0.utf8.allSatisfy { $0 != UInt8(ascii: "+") } }
    }
}

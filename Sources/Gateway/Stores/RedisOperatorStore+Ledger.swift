import Billing
import Domain
import Redis

extension RedisOperatorStore {
    /// Entries are read in pages of as many.
    package static let pageEntries = 1_000
    /// Days that one usage report may span.
    package static let usageDaysMax: Int64 = 366

    /// Oldest first, across months.
    ///
    /// - Parameters:
    ///   - limit: At most as many; nil for all.
    ///   - after: The id of the last entry that the caller has; nil to begin with the first.
    /// - Throws: `notFound`, `invalid`, `storeUnavailable`.
    package func ledger(
        org: OrgID, limit: Int?, after: String?
    ) async throws(OperatorFailure) -> [LedgerEntry] {
        guard let record = try await read(org) else { throw Self.unknown(org) }
        if let limit, limit < 1 { throw OperatorFailure(.invalid, "The limit must be at least 1.") }
        var entries: [LedgerEntry] = []
        try await forEachPage(org, record, after: after, last: "+", limit: limit) { entries += $0 }
        return entries
    }

    /// Sums every entry again and compares with the balance, both as of one moment, while requests go on.
    ///
    /// - Throws: `notFound`, `storeUnavailable`.
    package func verifyLedger(org: OrgID) async throws(OperatorFailure) -> LedgerVerification {
        var month = UTCDate(.now()).monthText
        while true {
            guard let record = try await read(org, newestOf: month) else { throw Self.unknown(org) }
            let current = UTCDate(WallTime(milliseconds: record.now)).monthText
            guard current == month else {
                // The org's clock is in another month than this host's: ask for that one's newest entry.
                month = current
                continue
            }
            var count = 0
            var sum: Int64 = 0
            // Where the current month has no entry yet, none that comes may be counted.
            let last = record.newestEntry.isEmpty ? "0" : record.newestEntry
            try await forEachPage(org, record, after: nil, last: last, limit: nil) { page in
                count += page.count
                for entry in page { sum &+= entry.amount.nanodollars }
            }
            return LedgerVerification(
                entries: count, drift: record.balance &- sum, openReservations: record.open.count)
        }
    }

    /// What was used from one day to another, both included.
    ///
    /// - Parameter by: nil sums everything into one row; else a row a group, sorted by its name.
    /// - Throws: `notFound`, `invalid`, `storeUnavailable`.
    package func usage(
        org: OrgID, from: UTCDate, to: UTCDate, by: UsageRow.Grouping?
    ) async throws(OperatorFailure) -> [UsageRow] {
        let days = to.daysSinceEpoch - from.daysSinceEpoch + 1
        guard (1...Self.usageDaysMax).contains(days) else {
            throw OperatorFailure(.invalid, "The range must have 1 to \(Self.usageDaysMax) days.")
        }
        guard try await read(org) != nil else { throw Self.unknown(org) }
        var rows: [String?: UsageRow] = [:]
        for offset in 0..<days {
            let day = from.advanced(byDays: offset)
            guard let fields = try await command("HGETALL", .string(StoreKeys.usage(org, day: day))).array else {
                throw Self.malformed
            }
            for index in stride(from: 0, to: fields.count - 1, by: 2) {
                let names = (fields[index].string ?? "").split(separator: " ")
                let numbers = (fields[index + 1].string ?? "").split(separator: " ").compactMap { Int64($0) }
                guard names.count == 2, numbers.count == 5 else { throw Self.malformed }
                let group: String? =
                    switch by {
                    case nil: nil
                    case .key: String(names[0])
                    case .model: String(names[1])
                    case .day: day.description
                    }
                var row = rows[group] ?? UsageRow(group: group, requests: 0, usage: .zero, cost: .zero)
                row.requests += Int(numbers[0])
                row.usage.promptTokens += Int(numbers[1])
                row.usage.cachedTokens += Int(numbers[2])
                row.usage.completionTokens += Int(numbers[3])
                row.cost = NanoUSD(unchecked: row.cost.nanodollars &+ numbers[4])
                rows[group] = row
            }
        }
        if by == nil, rows.isEmpty { return [UsageRow(group: nil, requests: 0, usage: .zero, cost: .zero)] }
        return rows.values.sorted { ($0.group ?? "") < ($1.group ?? "") }
    }

    /// Reads the entries after `after` in pages, month by month from the org's first to its last.
    ///
    /// - Parameter last: The id of the last entry wanted of the last month; `+` for all that there are.
    private func forEachPage(
        _ org: OrgID, _ record: OrgRecord, after: String?, last: String, limit: Int?, _ body: ([LedgerEntry]) -> Void
    ) async throws(OperatorFailure) {
        var start = "-"
        var month = UTCDate(record.createdAt)
        if let after {
            guard let time = Self.milliseconds(ofEntry: after) else {
                throw OperatorFailure(.invalid, "'\(after)' is not the id of an entry.")
            }
            start = "(\(after)"
            month = max(month, UTCDate(WallTime(milliseconds: time)))
        }
        let lastMonth = UTCDate(WallTime(milliseconds: record.now)).monthText
        var remaining = limit ?? .max
        while month.monthText <= lastMonth, remaining > 0 {
            let end = month.monthText == lastMonth ? last : "+"
            while remaining > 0 {
                let count = min(Self.pageEntries, remaining)
                let reply = try await command(
                    "XRANGE", .string(StoreKeys.entries(org, month: month)), .string(start), .string(end), "COUNT",
                    .integer(Int64(count)))
                guard let values = reply.array else { throw Self.malformed }
                let page = values.compactMap { LedgerEntry($0) }
                guard page.count == values.count else { throw Self.malformed }
                body(page)
                remaining -= page.count
                guard page.count == count, let newest = page.last else { break }
                start = "(\(newest.id)"
            }
            start = "-"
            month = month.firstOfNextMonth
        }
    }

    /// Ids are `milliseconds-sequence`.
    private static func milliseconds(ofEntry id: String) -> Int64? {
        let parts = id.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let time = Int64(parts[0]), time >= 0, UInt64(parts[1]) != nil else { return nil }
        return time
    }
}

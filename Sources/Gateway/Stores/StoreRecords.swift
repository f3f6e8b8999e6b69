import Billing
import Domain
import Redis

/// Field-value pairs of a hash, as `HGETALL` answers them.
struct HashRecord {
    private var fields: [String: String] = [:]

    init?(_ value: RESPValue) {
        guard let elements = value.array, elements.count % 2 == 0 else { return nil }
        for index in stride(from: 0, to: elements.count, by: 2) {
            guard let name = elements[index].string, let text = elements[index + 1].string else { return nil }
            fields[name] = text
        }
    }

    var isEmpty: Bool { fields.isEmpty }

    subscript(_ name: String) -> String? { fields[name] }

    func number(_ name: String) -> Int64? { fields[name].flatMap { Int64($0) } }
    func int(_ name: String) -> Int? { fields[name].flatMap { Int($0) } }

    func all(withPrefix prefix: String) -> [(suffix: String, value: String)] {
        fields.filter { $0.key.hasPrefix(prefix) }.map { (String($0.key.dropFirst(prefix.count)), $0.value) }
    }
}

/// An org as `org_read.lua` answers it.
struct OrgRecord {
    let account: HashRecord
    let limits: Limits
    let keys: [(id: String, record: HashRecord)]
    let newestEntry: String

    init?(_ reply: RESPValue) {
        guard let parts = reply.array, parts.count == 4, let account = HashRecord(parts[0]),
            let limits = parts[1].array, limits.count == 3, let keys = parts[2].array
        else { return nil }
        self.account = account
        self.limits = Limits(
            requestsPerMinute: limits[0].int64.map(Int.init), tokensPerMinute: limits[1].int64.map(Int.init),
            concurrency: limits[2].int64.map(Int.init))
        self.keys = keys.compactMap { key in
            guard let pair = key.array, pair.count == 2, let id = pair[0].string, let record = HashRecord(pair[1])
            else {
                return nil
            }
            return (id, record)
        }
        newestEntry = parts[3].string ?? ""
    }

    var now: Int64 { account.number("now") ?? 0 }
    var balance: Int64 { account.number("bal") ?? 0 }
    var createdAt: WallTime { WallTime(milliseconds: account.number("created") ?? 0) }

    /// Holds running, by the word of each journal.
    var open: (sum: Int64, count: Int) {
        account.all(withPrefix: "o:").reduce((0, 0)) { total, field in
            let parts = field.value.split(separator: " ").compactMap { Int64($0) }
            return parts.count == 2 ? (total.0 + parts[0], total.1 + Int(parts[1])) : total
        }
    }

    func summary(_ id: OrgID) -> OrgSummary? {
        guard let credit = account.number("credit"), let lent = account.number("lent"),
            let status = account["status"].flatMap(AccountStatus.init), account["bal"] != nil
        else { return nil }
        let (reserved, count) = open
        var summary = OrgSummary(
            id: id, name: account["name"] ?? "", status: status, balance: NanoUSD(unchecked: balance),
            creditLimit: NanoUSD(unchecked: credit), reserved: NanoUSD(unchecked: reserved), openReservations: count,
            leased: NanoUSD(unchecked: lent - reserved), available: NanoUSD(unchecked: balance + credit - lent),
            limits: limits, keysMax: account.int("keysmax") ?? 0, createdAt: createdAt)
        summary.region = account["region"]
        return summary
    }
}

extension KeySummary {
    init?(id: KeyID, org: OrgID, _ record: HashRecord) {
        guard let status = record["status"].flatMap(AccountStatus.init) else { return nil }
        self.init(
            id: id, org: org, name: record["name"] ?? "", lastFour: record["last4"] ?? "", status: status,
            limits: Limits(
                requestsPerMinute: record.int("rpm"), tokensPerMinute: record.int("tpm"),
                concurrency: record.int("conc")),
            models: record["models"].map(KeyModels.parse),
            createdAt: WallTime(milliseconds: record.number("created") ?? 0))
        region = record["region"]
    }
}

extension PriceEntry {
    /// Parses `version input cached output at`.
    init?(model: ModelID, _ text: String) {
        let numbers = text.split(separator: " ").compactMap { Int64($0) }
        guard numbers.count == 5 else { return nil }
        self.init(
            model: model,
            price: Price(version: numbers[0], input: numbers[1], cachedInput: numbers[2], output: numbers[3]),
            at: WallTime(milliseconds: numbers[4]))
    }
}

extension LedgerEntry {
    /// Parses a stream's entry: one field, named as the kind. A settle's value is `cost request key model version
    /// prompt cached completion estimated at`, every other's `amount at reference`.
    init?(_ value: RESPValue) {
        guard let pair = value.array, pair.count == 2, let id = pair[0].string, let fields = pair[1].array,
            fields.count == 2, let kind = fields[0].string.flatMap(Kind.init), let text = fields[1].string
        else { return nil }
        if kind == .settle {
            let parts = text.split(separator: " ")
            guard parts.count == 10, let cost = Int64(parts[0]), let version = Int64(parts[4]),
                let prompt = Int(parts[5]), let cached = Int(parts[6]), let completion = Int(parts[7]),
                let at = Int64(parts[9])
            else { return nil }
            self.init(
                id: id, kind: kind, amount: NanoUSD(unchecked: -cost), requestID: String(parts[1]),
                key: KeyID(unchecked: String(parts[2])), model: ModelID(unchecked: String(parts[3])),
                usage: TokenUsage(promptTokens: prompt, cachedTokens: cached, completionTokens: completion),
                isEstimated: parts[8] == "1", priceVersion: version, reference: nil, at: WallTime(milliseconds: at))
        } else {
            let parts = text.split(separator: " ", maxSplits: 2)
            guard parts.count >= 2, let amount = Int64(parts[0]), let at = Int64(parts[1]) else { return nil }
            self.init(
                id: id, kind: kind, amount: NanoUSD(unchecked: amount), requestID: nil, key: nil, model: nil,
                usage: .zero, isEstimated: false, priceVersion: nil,
                reference: parts.count > 2 ? String(parts[2]) : nil,
                at: WallTime(milliseconds: at))
        }
    }
}

import Foundation
import JSON
import Synchronization
import Testing

/// An org with one key, and its books.
struct Customer: Sendable {
    let gateway: GatewayUnderTest
    let org: String
    let key: String
    let keyID: String

    private static let numbers = Atomic<Int>(0)

    /// One line of the ledger.
    struct Entry: Sendable {
        let type: String
        let amount: Int
        let requestID: String?
        let key: String?
        let model: String?
        let prompt: Int
        let cached: Int
        let completion: Int
        let estimated: Bool

        init(_ json: JSONValue) {
            type = json["type"]?.string ?? ""
            amount = json["amount_nanousd"]?.integer ?? 0
            requestID = json["request_id"]?.string
            key = json["key"]?.string
            model = json["model"]?.string
            prompt = json["prompt_tokens"]?.integer ?? -1
            cached = json["cached_tokens"]?.integer ?? -1
            completion = json["completion_tokens"]?.integer ?? -1
            estimated = json["estimated"]?.bool ?? false
        }

        /// What the tokens cost at the tests' prices.
        var cost: Int {
            (prompt - cached) * GatewayUnderTest.inputPrice + cached * GatewayUnderTest.cachedPrice
                + completion * GatewayUnderTest.outputPrice
        }
    }

    /// An org's books at rest.
    struct Books: Sendable {
        let balance: Int
        let entries: [Entry]
        var settles: [Entry] { entries.filter { $0.type == "settle" } }
    }

    static func create(
        on gateway: GatewayUnderTest, credit: String = "10", limits: String = "", keyLimits: String = ""
    ) async throws -> Customer {
        let org = "org-\(numbers.add(1, ordering: .relaxed).newValue)"
        try await gateway.admin(
            "POST", "/admin/v1/orgs", "{\"id\":\"\(org)\",\"opening_credit_usd\":\"\(credit)\"\(limits)}")
        let key = try await gateway.admin("POST", "/admin/v1/keys", "{\"org\":\"\(org)\"\(keyLimits)}")
        return Customer(
            gateway: gateway, org: org, key: key["key"]?.string ?? "", keyID: key["id"]?.string ?? "")
    }

    func show() async throws -> JSONValue { try await gateway.admin("GET", "/admin/v1/orgs/\(org)") }

    func entries() async throws -> [Entry] {
        var entries: [Entry] = []
        var after: String?
        while true {
            let query = after.map { "?limit=1000&after=\($0)" } ?? "?limit=1000"
            let page = try await gateway.admin("GET", "/admin/v1/orgs/\(org)/ledger\(query)").array ?? []
            entries += page.map(Entry.init)
            guard page.count == 1_000, let last = page.last?["id"]?.string else { return entries }
            after = last
        }
    }

    /// Waits until no hold runs, then checks that the books are sound: one settle a request, each at its tokens times the
    /// price, the balance their sum, no drift.
    ///
    /// - Parameter settles: How many there have to be.
    func books(
        settles: Int, within limit: Duration = .seconds(15), sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> Books {
        let balance = try await eventually("\(org)'s holds to end and \(settles) settles", within: limit) {
            () -> Int? in
            guard try await self.entries().count(where: { $0.type == "settle" }) >= settles else { return nil }
            // Holds are closed in the same step of the store that applies their charges, so none is on its way now.
            let org = try await show()
            guard org["open_reservations"]?.integer == 0, org["reserved_nanousd"]?.integer == 0 else { return nil }
            return org["balance_nanousd"]?.integer
        }
        let entries = try await self.entries()
        let books = Books(balance: balance, entries: entries)
        #expect(books.settles.count == settles, "\(books.settles)", sourceLocation: sourceLocation)
        #expect(balance == entries.reduce(0) { $0 + $1.amount }, sourceLocation: sourceLocation)
        #expect(Set(books.settles.map(\.requestID)).count == books.settles.count, sourceLocation: sourceLocation)
        for entry in books.settles {
            #expect(entry.amount == -entry.cost, "\(entry)", sourceLocation: sourceLocation)
        }
        let verification = try await gateway.admin("GET", "/admin/v1/orgs/\(self.org)/ledger/verify")
        #expect(verification["drift_nanousd"]?.integer == 0, sourceLocation: sourceLocation)
        #expect(verification["entries"]?.integer == entries.count, sourceLocation: sourceLocation)
        return books
    }

    /// Waits until no hold runs: what was answered before is charged then.
    func waitUntilNothingIsHeld() async throws {
        try await until("\(org)'s holds to end") {
            let org = try await show()
            return org["open_reservations"]?.integer == 0 && org["reserved_nanousd"]?.integer == 0
        }
    }

    /// Checks that nothing was charged, and nothing is held.
    func expectNoCharge(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        _ = try await books(settles: 0, sourceLocation: sourceLocation)
    }

    /// The one settle of a customer that asked once.
    func onlySettle(sourceLocation: SourceLocation = #_sourceLocation) async throws -> Entry {
        try #require(try await books(settles: 1, sourceLocation: sourceLocation).settles.first)
    }
}

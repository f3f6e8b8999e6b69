import Billing
import Domain
import Foundation
import Gateway
import Testing

@testable import ControlPlane

/// What `openapi/admin.yaml` says, read by its indentation: the file is block-style YAML with two spaces a level.
private struct AdminDescription {
    /// `GET /admin/v1/orgs`
    var operations: Set<String> = []
    /// Query parameters of each operation.
    var queries: [String: Set<String>] = [:]
    /// Operations that say `security: []`.
    var open: Set<String> = []
    /// Members of each schema.
    var schemas: [String: Set<String>] = [:]
    var errorCodes: Set<String> = []

    init() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../openapi/admin.yaml")
        var section = ""
        var path = ""
        var operation = ""
        var schema = ""
        var isInProperties = false
        var parameter = ""
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
            let indentation = line.prefix { $0 == " " }.count
            let text = line.dropFirst(indentation)
            let name = String(text.prefix { $0 != ":" })
            if indentation == 0 { section = name }
            if section == "paths" {
                if indentation == 2 { (path, operation) = (name, "") }
                if indentation == 4, name != "parameters" {
                    operation = "\(name.uppercased()) \(path)"
                    operations.insert(operation)
                }
                if indentation == 6, text == "security: []" { open.insert(operation) }
                if text.hasPrefix("- name: ") { parameter = String(text.dropFirst(8)) }
                if text == "in: query" { queries[operation, default: []].insert(parameter) }
            }
            if section == "components" {
                if indentation == 4 { (schema, isInProperties) = (name, false) }
                if indentation == 6 { isInProperties = name == "properties" }
                if indentation == 8, isInProperties { schemas[schema, default: []].insert(name) }
                if schema == "Error", text.hasPrefix("- ") { errorCodes.insert(String(text.dropFirst(2))) }
            }
        }
    }
}

@Suite struct AdminDescriptionTests {
    @Test func whatIsServedIsWhatIsDescribed() throws {
        let description = try AdminDescription()
        let served = AdminRoute.all.map { "\($0.methodName) \($0.path)" }
        #expect(Set(served).count == served.count)
        #expect(Set(served).subtracting(description.operations) == [])
        #expect(description.operations.subtracting(served) == [])
        for route in AdminRoute.all {
            let operation = "\(route.methodName) \(route.path)"
            #expect(description.queries[operation] ?? [] == Set(route.query), "\(operation)")
            #expect(description.open.contains(operation) == AdminRoute.openPaths.contains(route.path), "\(operation)")
        }
    }

    @Test func errorCodesAreDescribed() throws {
        #expect(try AdminDescription().errorCodes == Set(AdminFailure.Code.allCases.map(\.rawValue)))
    }

    @Test func documentsHaveTheDescribedMembers() throws {
        let schemas = try AdminDescription().schemas
        let time = FakeOperatorStore.time
        let org = OrgSummary(
            id: OrgID(unchecked: "o"), name: "", status: .active, balance: .zero, creditLimit: .zero, reserved: .zero,
            openReservations: 0, leased: .zero, available: .zero, limits: .unlimited, keysMax: 1, createdAt: time)
        let key = KeySummary(
            id: KeyID(unchecked: "k"), org: org.id, name: "", lastFour: "1234", status: .active, limits: .unlimited,
            createdAt: time)
        let entry = LedgerEntry(
            id: "1-0", kind: .credit, amount: .zero, requestID: nil, key: nil, model: nil, usage: .zero,
            isEstimated: false, priceVersion: nil, reference: nil, at: time)
        let node = NodeStatus(
            id: NodeID(unchecked: "n"), site: SiteID(unchecked: "s"), engine: .vllm, models: [], state: .ready,
            inflightRequests: 0, inflightTokens: 0, prefillTokensPerSecond: nil, firstTokenSeconds: nil)
        let price = PriceEntry(
            model: ModelID(unchecked: "m"), price: Domain.Price(version: 1, input: 1, cachedInput: 1, output: 1),
            at: time)
        #expect(try names(OrgDocument(org)) == schemas["Org"])
        #expect(try names(KeyDocument(key)) == schemas["Key"])
        #expect(try names(CreatedKeyDocument(key, secret: "s")) == schemas["Key"]?.union(schemas["CreatedKey"] ?? []))
        #expect(try names(LedgerEntryDocument(entry)) == schemas["LedgerEntry"])
        #expect(
            try names(CreditDocument(entry, isRepeat: true)) == schemas["LedgerEntry"]?.union(schemas["Credit"] ?? []))
        #expect(
            try names(VerificationDocument(LedgerVerification(entries: 0, drift: 0, openReservations: 0)))
                == schemas["LedgerVerification"])
        #expect(try names(NodeDocument(node)) == schemas["Node"])
        #expect(
            try names(NodeDetailDocument(NodeDetail(status: node)))
                == schemas["Node"]?.union(schemas["NodeDetail"] ?? []))
        let admission = NodeAdmission(id: node.id, origin: .added, isNew: true, heartbeat: nil)
        #expect(try names(AdmissionDocument(admission)) == schemas["Admission"])
        #expect(try names(RemovalDocument(id: "n")) == schemas["Removal"])
        #expect(try names(NodeReportDocument(NodeReportStatus())) == schemas["NodeReport"])
        let curtailment = Curtailment(permille: 400, startsAt: time, endsAt: nil)
        #expect(try names(CurtailmentDocument(curtailment)) == schemas["Curtailment"])
        let site = SiteStatus(
            id: node.site, region: nil, curtailment: curtailment, permille: 400, hasBegun: true, rttConfigured: 0,
            rttMeasured: nil, nodes: 0, nodesServing: 0, inflightRequests: 0, inflightTokens: 0)
        #expect(try names(SiteDocument(site)) == schemas["Site"])
        #expect(try names(PriceDocument(price)) == schemas["Price"])
        #expect(try names(ErrorDocument(code: "c", message: "m")) == schemas["Error"])
        let row = UsageRow(group: "g", requests: 0, usage: .zero, cost: .zero)
        var usage: Set<String> = []
        for grouping in UsageRow.Grouping.allCases { usage.formUnion(try names(UsageDocument(row, by: grouping))) }
        #expect(usage == schemas["Usage"])
    }

    private func names(_ document: some Encodable) throws -> Set<String> {
        try JSONDecoder().decode(JSONValue.self, from: JSONEncoder().encode(document)).names
    }
}

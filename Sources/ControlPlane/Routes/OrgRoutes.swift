import Billing
import Domain

extension AdminRoute {
    /// The smallest amount there is.
    private static let leastAmount = NanoUSD(unchecked: 1)

    static let orgs: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/orgs") { _, services in
            .json(try await services.store.orgs().map(OrgDocument.init))
        },
        AdminRoute(.post, "/admin/v1/orgs") { request, services in
            let fields = try request.fields("id", "name", "opening_credit_usd", "rpm", "tpm", "concurrency")
            let id: OrgID = try fields.identifier("id")
            let credit = try fields.money("opening_credit_usd", minimum: .zero)
            let org = try await services.store.createOrg(
                id: id,
                name: try fields.text("name") ?? id.rawValue,
                openingCredit: credit == .zero ? nil : credit,
                limits: try fields.limits().applied(to: services.orgDefaults.limits),
                keysMax: nil)
            services.audit("org.create", ["org": id.rawValue])
            return .json(OrgDocument(org), status: .created)
        },
        AdminRoute(.get, "/admin/v1/orgs/{org}") { request, services in
            .json(OrgDocument(try await services.store.org(request.identifier("org"))))
        },
        AdminRoute(.patch, "/admin/v1/orgs/{org}") { request, services in
            let id: OrgID = try request.identifier("org")
            let fields = try request.fields("name", "credit_limit_usd", "rpm", "tpm", "concurrency", "region")
            let region = try fields.region("region", known: await services.gateway.regions())
            var org = try await services.store.updateOrg(
                id,
                name: try fields.text("name"),
                creditLimit: try fields.money("credit_limit_usd", minimum: .zero),
                limits: try fields.limits())
            if region != .keep { org = try await services.store.setRegion(region.applied(to: nil), of: id) }
            services.audit("org.update", ["org": id.rawValue])
            return .json(OrgDocument(org))
        },
        AdminRoute(.post, "/admin/v1/orgs/{org}/credit") { request, services in
            let id: OrgID = try request.identifier("org")
            let fields = try request.fields("amount_usd", "reference")
            let (entry, isRepeat) = try await services.store.creditOrg(
                id,
                amount: try fields.requiredMoney("amount_usd", minimum: leastAmount),
                reference: try fields.requiredText("reference"))
            if !isRepeat { services.audit("org.credit", ["org": id.rawValue, "entry": entry.id]) }
            return .json(CreditDocument(entry, isRepeat: isRepeat), status: isRepeat ? .ok : .created)
        },
        status(.suspended, action: "suspend"),
        status(.active, action: "resume"),
    ]

    private static func status(_ status: AccountStatus, action: String) -> AdminRoute {
        AdminRoute(.post, "/admin/v1/orgs/{org}/\(action)") { request, services in
            let id: OrgID = try request.identifier("org")
            _ = try request.fields()
            let org = try await services.store.setOrgStatus(id, status)
            services.audit("org.\(action)", ["org": id.rawValue])
            return .json(OrgDocument(org))
        }
    }
}

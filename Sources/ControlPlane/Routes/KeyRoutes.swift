import Billing
import Domain

extension AdminRoute {
    static let keys: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/keys", query: ["org"]) { request, services in
            guard let text = request.query["org"], let org = OrgID(text) else {
                throw AdminFailure(.invalidRequest, "Name the org whose keys to list: '?org=ID'.")
            }
            return .json(try await services.store.keys(org: org).map(KeyDocument.init))
        },
        AdminRoute(.post, "/admin/v1/keys") { request, services in
            let fields = try request.fields("org", "name", "rpm", "tpm", "concurrency", "models", "region")
            let org: OrgID = try fields.identifier("org")
            let region = try fields.region("region", known: await services.gateway.regions())
            if case .set(let region) = region, let pinned = try await services.store.org(org).region, pinned != region {
                throw AdminFailure(
                    .invalidRequest, "The org is pinned to the region '\(pinned)': its keys can be nowhere else.")
            }
            var (summary, secret) = try await services.store.createKey(
                org: org, name: try fields.text("name") ?? "default",
                limits: try fields.limits().applied(to: .unlimited),
                models: try fields.models("models", known: services.gateway.modelNames()).applied(to: nil))
            if case .set(let region) = region {
                // Its secret is told only after this: nobody has used the key elsewhere.
                summary = try await services.store.setRegion(region, of: summary.id)
            }
            services.audit("key.create", ["org": org.rawValue, "key": summary.id.rawValue])
            return .json(CreatedKeyDocument(summary, secret: secret), status: .created)
        },
        AdminRoute(.get, "/admin/v1/keys/{key}") { request, services in
            .json(KeyDocument(try await services.store.key(request.identifier("key"))))
        },
        AdminRoute(.patch, "/admin/v1/keys/{key}") { request, services in
            let id: KeyID = try request.identifier("key")
            let fields = try request.fields("name", "rpm", "tpm", "concurrency", "models", "region")
            let region = try fields.region("region", known: await services.gateway.regions())
            var key = try await services.store.updateKey(
                id, name: try fields.text("name"), limits: try fields.limits(),
                models: try fields.models("models", known: services.gateway.modelNames()))
            if region != .keep { key = try await services.store.setRegion(region.applied(to: nil), of: id) }
            services.audit("key.update", ["org": key.org.rawValue, "key": id.rawValue])
            return .json(KeyDocument(key))
        },
        AdminRoute(.post, "/admin/v1/keys/{key}/revoke") { request, services in
            let id: KeyID = try request.identifier("key")
            _ = try request.fields()
            let key = try await services.store.revokeKey(id)
            services.audit("key.revoke", ["org": key.org.rawValue, "key": id.rawValue])
            return .json(KeyDocument(key))
        },
    ]
}

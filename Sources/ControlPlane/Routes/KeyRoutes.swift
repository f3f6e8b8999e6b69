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
            let fields = try request.fields("org", "name", "rpm", "tpm", "concurrency", "models")
            let org: OrgID = try fields.identifier("org")
            let (summary, secret) = try await services.store.createKey(
                org: org, name: try fields.text("name") ?? "default",
                limits: try fields.limits().applied(to: .unlimited),
                models: try fields.models("models", known: services.gateway.modelNames()).applied(to: nil))
            services.audit("key.create", ["org": org.rawValue, "key": summary.id.rawValue])
            return .json(CreatedKeyDocument(summary, secret: secret), status: .created)
        },
        AdminRoute(.get, "/admin/v1/keys/{key}") { request, services in
            .json(KeyDocument(try await services.store.key(request.identifier("key"))))
        },
        AdminRoute(.patch, "/admin/v1/keys/{key}") { request, services in
            let id: KeyID = try request.identifier("key")
            let fields = try request.fields("name", "rpm", "tpm", "concurrency", "models")
            let key = try await services.store.updateKey(
                id, name: try fields.text("name"), limits: try fields.limits(),
                models: try fields.models("models", known: services.gateway.modelNames()))
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

import Domain
import Gateway

extension AdminRoute {
    static let sites: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/sites") { _, services in
            .json(await services.gateway.sites().map(SiteDocument.init))
        },
        AdminRoute(.get, "/admin/v1/sites/{site}") { request, services in
            .json(try await site(request.identifier("site"), services))
        },
        AdminRoute(.post, "/admin/v1/sites/{site}/curtail") { request, services in
            let id: SiteID = try request.identifier("site")
            let fields = try request.fields("to_permille", "in_seconds", "for_seconds")
            guard let permille = try fields.integer("to_permille", in: 0...1_000) else {
                throw AdminFailure(.invalidRequest, "'to_permille' is missing.")
            }
            let start = try fields.seconds("in_seconds", in: .zero...timeMax)
            let time = try fields.seconds("for_seconds", in: .seconds(1)...timeMax)
            try await services.gateway.say(
                .curtail(id, permille: permille, start: start ?? .zero, time: time), of: id)
            services.audit("site.curtail", ["site": id.rawValue, "permille": "\(permille)"])
            return .json(try await site(id, services))
        },
        AdminRoute(.post, "/admin/v1/sites/{site}/restore") { request, services in
            let id: SiteID = try request.identifier("site")
            _ = try request.fields()
            try await services.gateway.say(.restore(id), of: id)
            services.audit("site.restore", ["site": id.rawValue])
            return .json(try await site(id, services))
        },
    ]

    /// Longest time ahead, and longest deadline, that an operator may name.
    static let timeMax = Duration.seconds(30 * 86_400)

    private static func site(_ id: SiteID, _ services: AdminServices) async throws(AdminFailure) -> SiteDocument {
        guard let status = await services.gateway.sites().first(where: { $0.id == id }) else {
            throw AdminFailure(.notFound, "No site '\(id)' is configured; `tollgate site list` shows those there are.")
        }
        return SiteDocument(status)
    }
}

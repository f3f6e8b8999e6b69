import Domain
import Gateway

extension AdminRoute {
    static let nodes: [AdminRoute] = [
        AdminRoute(.get, "/admin/v1/nodes") { _, services in
            .json(await services.gateway.nodes().map(NodeDocument.init))
        },
        AdminRoute(.get, "/admin/v1/nodes/{node}") { request, services in
            .json(try await node(request.identifier("node"), services))
        },
        cordon(true, action: "cordon"),
        cordon(false, action: "uncordon"),
    ]

    private static func cordon(_ isCordoned: Bool, action: String) -> AdminRoute {
        AdminRoute(.post, "/admin/v1/nodes/{node}/\(action)") { request, services in
            let id: NodeID = try request.identifier("node")
            _ = try request.fields()
            try await services.gateway.setCordoned(isCordoned, node: id)
            services.audit("node.\(action)", ["node": id.rawValue])
            return .json(try await node(id, services))
        }
    }

    private static func node(_ id: NodeID, _ services: AdminServices) async throws(AdminFailure) -> NodeDocument {
        guard let status = await services.gateway.nodes().first(where: { $0.id == id }) else {
            throw AdminFailure(.notFound, "No node '\(id)' is configured; `tollgate node list` shows those there are.")
        }
        return NodeDocument(status)
    }
}

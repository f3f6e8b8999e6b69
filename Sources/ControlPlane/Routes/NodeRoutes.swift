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
        AdminRoute(.post, "/admin/v1/nodes/{node}/drain") { request, services in
            let id: NodeID = try request.identifier("node")
            let deadline =
                try request.fields("deadline_seconds")
                .seconds("deadline_seconds", in: .zero...timeMax) ?? drainDeadlineDefault
            try await services.gateway.say(.drain(id, deadline: deadline), of: id)
            services.audit("node.drain", ["node": id.rawValue])
            return .json(try await node(id, services))
        },
    ]

    /// What a drain leaves to running requests where the operator names no deadline.
    static let drainDeadlineDefault = Duration.seconds(300)

    private static func cordon(_ isCordoned: Bool, action: String) -> AdminRoute {
        AdminRoute(.post, "/admin/v1/nodes/{node}/\(action)") { request, services in
            let id: NodeID = try request.identifier("node")
            _ = try request.fields()
            try await services.gateway.say(isCordoned ? .cordon(id) : .uncordon(id), of: id)
            services.audit("node.\(action)", ["node": id.rawValue])
            return .json(try await node(id, services))
        }
    }

    static func node(_ id: NodeID, _ services: AdminServices) async throws(AdminFailure) -> NodeDetailDocument {
        guard let detail = await services.gateway.detail(of: id) else {
            throw AdminFailure(.notFound, "No node '\(id)' is configured; `tollgate node list` shows those there are.")
        }
        return NodeDetailDocument(detail)
    }
}

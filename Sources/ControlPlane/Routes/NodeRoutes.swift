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
        AdminRoute(.post, joinPath, handler: admit),
        AdminRoute(.delete, "/admin/v1/nodes/{node}") { request, services in
            let id: NodeID = try request.identifier("node")
            _ = try request.fields()
            try await services.gateway.remove(id)
            services.audit("node.remove", ["node": id.rawValue])
            return .json(RemovalDocument(id: id.rawValue))
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

    /// The one thing that the join token opens.
    static let joinPath = "/admin/v1/nodes"

    /// An operator adds a node, or a node registers itself and says again and again that it is there.
    private static func admit(_ request: AdminRequest, _ services: AdminServices) async throws -> AdminAnswer {
        let fields = try request.fields(
            "id", "site", "url", "engine", "class", "models", "max_concurrency", "api_key", "heartbeat_seconds")
        let heartbeat = try fields.seconds("heartbeat_seconds", in: .seconds(1) ... .seconds(300))
        if heartbeat != nil, !request.isJoining {
            throw AdminFailure(
                .invalidRequest, "'heartbeat_seconds' is for nodes that register themselves, with the join token.")
        }
        let proposal = NodeProposal(
            id: try fields.identifier("id"), site: try fields.identifier("site"),
            url: try fields.requiredText("url"), engine: try fields.requiredText("engine"),
            speedClass: try fields.has("class") ? (fields.identifier("class") as NodeID).rawValue : nil,
            models: try fields.requiredTexts("models"),
            maxConcurrency: try fields.integer("max_concurrency", in: 1...NodeConfiguration.maxConcurrencyMax),
            apiKey: try fields.text("api_key"), heartbeat: heartbeat)
        let admission = try await services.gateway.admit(proposal, origin: request.isJoining ? .registered : .added)
        // A heartbeat is no mutation.
        if admission.isNew || !request.isJoining {
            services.audit(
                request.isJoining ? "node.register" : "node.add",
                ["node": proposal.id.rawValue, "url": proposal.url], who: request.isJoining ? "node" : "owner")
        }
        return .json(AdmissionDocument(admission), status: admission.isNew ? .created : .ok)
    }

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

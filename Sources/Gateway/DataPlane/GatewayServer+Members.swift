import Billing
import Domain
import Logging
import Routing

// Nodes that come and go without a reload: added by operators, registered by themselves, found by DNS.
extension GatewayServer {
    /// Between two looks at the stored nodes.
    private static let membersInterval = Duration.milliseconds(500)

    /// Takes a node into the fleet of all replicas; in effect here when this returns.
    ///
    /// - Throws: ``OperatorFailure``: `invalid`, `alreadyExists`, `limitReached`, `storeUnavailable`.
    package func admit(_ proposal: NodeProposal, origin: NodeOrigin) async throws -> NodeAdmission {
        let (configuration, taken) = published.withLock { published in
            let configured = published.configuration.nodes.map(\.id) + published.members.discovered.map(\.id)
            return (published.configuration, Set(configured))
        }
        let node = try StoredNode(proposal, origin: origin, in: configuration, taken: taken)
        let heartbeat = origin == .registered ? proposal.heartbeat ?? StoredNode.heartbeatDefault : nil
        let answer: NodeStoreAnswer
        do throws(OperatorWordFailure) {
            answer = try await parts.nodeStore.put(
                node, lifetime: heartbeat.map { $0 * StoredNode.heartbeatsMissedMax })
        } catch {
            throw OperatorFailure(.storeUnavailable, "the node \(node.id) could not be stored: \(error.description)")
        }
        switch answer {
        case .taken:
            let whose = origin == .registered ? "an operator added" : "registered itself as"
            throw OperatorFailure(.alreadyExists, "another node is there that \(whose) \(node.id): choose another id")
        case .full:
            throw OperatorFailure(
                .limitReached, "there are \(GatewayConfiguration.nodesMax) stored nodes, which is the most: remove some"
            )
        case .created, .changed: await readMembers()
        case .renewed: break
        }
        return NodeAdmission(id: node.id, origin: origin, isNew: answer == .created, heartbeat: heartbeat)
    }

    /// Takes an added or registered node out of the fleet of all replicas. Its requests end in their own time.
    ///
    /// - Throws: ``OperatorFailure``: `notFound`, `invalid` for a node of the file or of DNS, `storeUnavailable`.
    package func remove(_ node: NodeID) async throws {
        let isRemoved: Bool
        do throws(OperatorWordFailure) {
            isRemoved = try await parts.nodeStore.remove(node)
        } catch {
            throw OperatorFailure(.storeUnavailable, "the node \(node) could not be removed: \(error.description)")
        }
        guard !isRemoved else {
            await readMembers()
            return
        }
        let effective = published.withLock { $0.effective() }
        switch effective.nodes.first(where: { $0.id == node })?.origin {
        case .file:
            throw OperatorFailure(.invalid, "\(node) is in the configuration file: remove it there, or cordon it")
        case .dns: throw OperatorFailure(.invalid, "\(node) is found by DNS: take its address out there, or cordon it")
        default: throw FleetService.unknown(node)
        }
    }

    /// Looks at the stored nodes until its task is cancelled.
    func watchMembers() async {
        var isFailing = false
        while !Task.isCancelled {
            let failure = await readMembers()
            guard !Task.isCancelled else { return }
            if isFailing != (failure != nil) {
                if let failure {
                    parts.logger.warning(
                        "stored nodes cannot be read; the last ones stay", metadata: ["reason": "\(failure)"])
                } else {
                    parts.logger.info("stored nodes can be read again")
                }
            }
            isFailing = failure != nil
            let interval = Double(Self.membersInterval.nanoseconds) * .random(in: 0.8..<1.2)
            try? await Task.sleep(for: .nanoseconds(Int64(interval)))
        }
    }

    /// - Returns: Why the store could not be read; nil where it was, and what it said is in effect.
    @discardableResult
    private func readMembers() async -> String? {
        do {
            try await inTurn { [self] in
                let known = published.withLock { $0.membersVersion }
                guard let (version, nodes) = try await parts.nodeStore.nodes(since: known) else { return }
                let before = published.withLock { published in
                    let before = published.members.stored
                    published.members.stored = nodes
                    published.membersVersion = version
                    return before
                }
                guard before != nodes else { return }
                do {
                    try await publishMembers()
                    log(before: before, after: nodes)
                } catch {
                    // As if it had not been read, so that the next look publishes it.
                    published.withLock { ($0.members.stored, $0.membersVersion) = (before, nil) }
                    throw error
                }
            }
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// The nodes that DNS names now.
    ///
    /// - Returns: Whether they are in effect; otherwise whoever asks should say it again.
    func discovered(_ nodes: [NodeConfiguration]) async -> Bool {
        do {
            try await inTurn { [self] in
                let before = published.withLock { published in
                    defer { published.members.discovered = nodes }
                    return published.members.discovered
                }
                guard before != nodes else { return }
                do {
                    try await publishMembers()
                } catch {
                    published.withLock { $0.members.discovered = before }
                    throw error
                }
            }
            return true
        } catch {
            return false
        }
    }

    private func publishMembers() async throws {
        let effective = published.withLock { published in
            published.version += 1
            return published.effective()
        }
        fleet.replace(effective)
        try await publish()
    }

    private func log(before: [StoredNode], after: [StoredNode]) {
        let held = Dictionary(before.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        let present = Set(after.map(\.id))
        for node in after where held[node.id] != node {
            parts.logger.info(
                held[node.id] == nil ? "a node joined" : "a node changed",
                metadata: ["node": "\(node.id)", "origin": "\(node.origin.rawValue)", "url": "\(node.url)"])
        }
        for node in before where !present.contains(node.id) {
            parts.logger.info(
                "a node left", metadata: ["node": "\(node.id)", "origin": "\(node.origin.rawValue)"])
        }
    }
}

extension GatewayServer.Published {
    /// The configuration with all the nodes that are known.
    mutating func effective() -> GatewayConfiguration { members.merged(into: configuration) }
}

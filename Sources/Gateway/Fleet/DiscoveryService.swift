import Domain
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Routing
import Synchronization

/// Finds nodes by DNS: resolves the configured names off the event loops, and asks what it finds for its models.
///
/// Failure modes: a name that does not resolve keeps its last addresses; a node that does not answer for its models is
/// no node before it first did, and keeps them afterwards.
final class DiscoveryService: Sendable {
    /// How soon a changed configuration, or a name that is due, is noticed.
    static let tick = Duration.seconds(1)
    static let listingBytesMax = 1 << 20
    static let listingTimeout = Duration.seconds(2)

    private let state = Mutex(DiscoveryState())
    /// What ``onNodes`` was told last; nil where that did not take effect.
    private let told = Mutex<[NodeConfiguration]?>([])
    private let resolver = HostResolver(threads: .singleton)
    private let query: NodeQuery
    private let logger: Logger
    private let tick: Duration
    private let configuration: @Sendable () -> GatewayConfiguration
    private let onNodes: @Sendable ([NodeConfiguration]) async -> Bool

    /// - Parameters:
    ///   - configuration: What the file says now.
    ///   - onNodes: Told the nodes whenever they change, and again where it returns that they are not in effect.
    init(
        eventLoop: any EventLoop, logger: Logger, tick: Duration = DiscoveryService.tick,
        configuration: @escaping @Sendable () -> GatewayConfiguration,
        onNodes: @escaping @Sendable ([NodeConfiguration]) async -> Bool
    ) {
        query = NodeQuery(
            eventLoop: eventLoop, timeout: Self.listingTimeout, bodyBytesMax: Self.listingBytesMax
        ) { $0 == .ok }
        self.logger = logger
        self.tick = tick
        self.configuration = configuration
        self.onNodes = onNodes
    }

    /// Looks until its task is cancelled.
    func run() async {
        await withDiscardingTaskGroup { group in
            while !Task.isCancelled {
                let entries = configuration().discovery
                let due = state.withLock { state in
                    state.configured(entries, now: .now())
                    return state.take(now: .now())
                }
                for entry in due { group.addTask { await self.look(entry) } }
                // Also where nothing is due: an entry may have gone.
                await tell()
                try? await Task.sleep(for: tick)
            }
        }
    }

    private func look(_ entry: DNSDiscovery) async {
        var answer: [String]?
        var reason = ""
        do throws(HostResolutionFailure) {
            answer = try await resolver.resolve(entry.name, countMax: DNSDiscovery.addressesMax)
                .compactMap(\.ipAddress)
        } catch {
            reason = "\(error)"
        }
        guard !Task.isCancelled else { return }
        let isNews = state.withLock { $0.resolved(entry, answer, now: .now()) }
        if isNews, answer == nil {
            logger.warning("discovery failed; the nodes found last stay", metadata: ["reason": "\(reason)"])
        } else if isNews {
            logger.info("discovery goes on", metadata: ["name": "\(entry.name)"])
        }
        await list(entry)
    }

    /// By ``run()`` alone: two at once could tell the older of two states last.
    private func tell() async {
        let nodes = state.withLock { $0.nodes }
        let isNews = told.withLock { told in
            defer { told = nodes }
            return told != nodes
        }
        if isNews, await !onNodes(nodes) { told.withLock { $0 = nil } }
    }

    /// Asks the nodes of an entry for their models, all at once.
    private func list(_ entry: DNSDiscovery) async {
        let addresses = state.withLock { $0.unlisted(entry, now: .now()) }
        guard !addresses.isEmpty else { return }
        let configuration = configuration()
        await withTaskGroup(of: (String, [String]?).self) { group in
            for address in addresses { group.addTask { (address, await self.listing(entry, address)) } }
            for await (address, listing) in group {
                let models = listing.map { DiscoveryState.served($0, in: configuration) }
                guard state.withLock({ $0.listed(entry, address, models, now: .now()) }) else { continue }
                logger.warning(
                    "a discovered server serves no model of the configuration",
                    metadata: [
                        "address": "\(address)", "name": "\(entry.name)",
                        "lists": "\((listing ?? []).prefix(8).joined(separator: ", "))",
                    ])
            }
        }
    }

    private func listing(_ entry: DNSDiscovery, _ address: String) async -> [String]? {
        guard let node = entry.node(at: address, serving: []),
            let literal = HostResolver.literal(address)?.at(port: entry.port),
            case .answered(.ok, let body) = await query.get("/v1/models", from: node, at: literal)
        else { return nil }
        return DiscoveryState.listing(Array(body.readableBytesView))
    }
}

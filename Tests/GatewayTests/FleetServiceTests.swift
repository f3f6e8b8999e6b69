import Billing
import Domain
import Logging
import NIOCore
import NIOPosix
import Redis
import Routing
import Support
import Synchronization
import Testing

@testable import Gateway

struct FleetServiceTests {
    private let group = NIOSingletons.posixEventLoopGroup
    private let words = FakeOperatorWordStore()

    /// Production's rules at a hundredth of its intervals.
    private static var quick: FleetTimings {
        var timings = FleetTimings()
        timings.probeInterval = .milliseconds(20)
        timings.probeIntervalUnready = .milliseconds(5)
        timings.wordInterval = .milliseconds(5)
        timings.tick = .milliseconds(2)
        timings.tickQuiet = .milliseconds(2)
        timings.tickNames = .milliseconds(2)
        return timings
    }

    private final class Addresses: Sendable {
        let known = Mutex<[NodeID: [Int?]]>([:])
        let hosts = Mutex<[NodeID: [String?]]>([:])
    }

    private func withService(
        _ nodes: [NodeConfiguration], words: (any OperatorWordStore)? = nil, addresses: Addresses = Addresses(),
        timings: FleetTimings = Self.quick, _ body: (FleetService) async throws -> Void
    ) async throws {
        let service = FleetService(
            configuration: fleetConfiguration(nodes), eventLoop: group.any(), words: words ?? self.words,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), timings: timings, seed: 1
        ) { node, list in
            addresses.known.withLock { $0[node] = list.map(\.port) }
            addresses.hosts.withLock { $0[node] = list.map(\.ipAddress) }
        }
        let task = Task { await service.run() }
        defer { task.cancel() }
        try await body(service)
        task.cancel()
        await task.value
    }

    private func states(_ service: FleetService) -> [NodeStatus.State] { service.nodes().map(\.state) }

    @Test func nodeIsWarmingUntilItsFirstGoodProbeAndServesAfterIt() async throws {
        let node = try await FakeHealthNode.start(
            .init(status: .serviceUnavailable, body: "Loading model"), group: group)
        try await withService([fleetNode("a", port: node.port)]) { service in
            #expect(states(service) == [.warming])
            #expect(await eventually { node.seen.count >= 3 })
            #expect(states(service) == [.warming])
            node.answer(.init())
            #expect(await eventually { states(service) == [.ready] })
            #expect(service.router.servableModels() == [fleetModel])
        }
        await node.stop()
    }

    @Test func nodeThatDiesBecomesUnhealthyAndComesBackByOneGoodProbe() async throws {
        let node = try await FakeHealthNode.start(group: group)
        try await withService([fleetNode("a", port: node.port)]) { service in
            #expect(await eventually { states(service) == [.ready] })
            node.answer(.init(status: .internalServerError))
            #expect(await eventually { states(service) == [.unhealthy] })
            #expect(
                service.router.decide(
                    RoutingRequest(model: fleetModel, promptTokens: 1, expectedOutputTokens: 1), now: .now())
                    == .refuse(.allUnhealthy))
            node.answer(.init())
            #expect(await eventually { states(service) == [.ready] })
        }
        await node.stop()
    }

    @Test func cordonReachesTheStoreAndTheRouterAtOnce() async throws {
        let node = try await FakeHealthNode.start(group: group)
        try await withService([fleetNode("a", port: node.port)]) { service in
            #expect(await eventually { states(service) == [.ready] })
            try await service.setCordoned(true, node: NodeID(unchecked: "a"))
            #expect(states(service) == [.cordoned])
            #expect(words.said.cordoned == [NodeID(unchecked: "a")])
            try await service.setCordoned(false, node: NodeID(unchecked: "a"))
            #expect(states(service) == [.ready])
            #expect(words.said.cordoned == [])
        }
        await node.stop()
    }

    @Test func wordsOfOtherReplicasAreHeardAndOutliveTheStore() async throws {
        let node = try await FakeHealthNode.start(group: group)
        let id = NodeID(unchecked: "a")
        try await withService([fleetNode("a", port: node.port)]) { service in
            #expect(await eventually { states(service) == [.ready] })
            words.say(true, id)
            #expect(await eventually { states(service) == [.cordoned] })
            words.goAway(true)
            let reads = words.reads
            #expect(await eventually { words.reads > reads + 3 })
            #expect(states(service) == [.cordoned])
            words.goAway(false)
            words.say(false, id)
            #expect(await eventually { states(service) == [.ready] })
        }
        await node.stop()
    }

    @Test func nodeThatWasCordonedBeforeTheStartIsNeverReady() async throws {
        let node = try await FakeHealthNode.start(group: group)
        let id = NodeID(unchecked: "a")
        let cordoned = FakeOperatorWordStore(cordoned: [id])
        try await withService([fleetNode("a", port: node.port)], words: cordoned) { service in
            // The probe is what could make it ready, and it waits for the word.
            var wasReady = false
            let isProbed = await eventually {
                wasReady = wasReady || states(service) == [.ready]
                return !node.seen.isEmpty
            }
            #expect(isProbed && !wasReady)
            #expect(states(service) == [.cordoned])
        }
        await node.stop()
    }

    @Test func storeThatIsAwayAtTheStartDoesNotKeepNodesFromServing() async throws {
        let node = try await FakeHealthNode.start(group: group)
        let away = FakeOperatorWordStore(isAway: true)
        try await withService([fleetNode("a", port: node.port)], words: away) { service in
            #expect(await eventually { states(service) == [.ready] })
        }
        await node.stop()
    }

    @Test func operatorFailuresSayWhatIsWrong() async throws {
        try await withService([fleetNode("a", port: 1)]) { service in
            await #expect(throws: OperatorFailure(.notFound, "no node is called z: 'tollgate node list' shows them")) {
                try await service.setCordoned(true, node: NodeID(unchecked: "z"))
            }
            words.goAway(true)
            await #expect(throws: OperatorFailure(.storeUnavailable, "the word on a could not be stored: away")) {
                try await service.setCordoned(true, node: NodeID(unchecked: "a"))
            }
            #expect(!states(service).contains(.cordoned))
        }
    }

    @Test func reloadKeepsTheWorkAndHealthOfNodesThatStay() async throws {
        let first = try await FakeHealthNode.start(group: group)
        let second = try await FakeHealthNode.start(group: group)
        let a = fleetNode("a", port: first.port)
        try await withService([a]) { service in
            #expect(await eventually { states(service) == [.ready] })
            let request = RoutingRequest(model: fleetModel, promptTokens: 100, expectedOutputTokens: 20)
            guard case .dispatch(let assignment) = service.router.decide(request, now: .now()) else {
                Issue.record("no node took the request")
                return
            }
            let fleet = service.replace(fleetConfiguration([fleetNode("b", port: second.port), a]))
            #expect(fleet.node(assignment) == a.id)
            #expect(service.nodes().map(\.inflightTokens) == [0, 120])
            #expect(states(service)[1] == .ready)
            #expect(await eventually { states(service) == [.ready, .ready] })
            service.router.finished(assignment, outcome: .completed(nil), now: .now())
            #expect(service.nodes().map(\.inflightRequests) == [0, 0])

            service.replace(fleetConfiguration([]))
            #expect(service.nodes() == [])
            let probes = (first.seen.count, second.seen.count)
            service.replace(fleetConfiguration([fleetNode("b", port: second.port)]))
            #expect(await eventually { second.seen.count > probes.1 + 2 })
            // At most the one that was on its way.
            #expect(first.seen.count <= probes.0 + 1)
        }
        await first.stop()
        await second.stop()
    }

    @Test func nodeThatMovedIsWarmingUntilItsNewAddressAnswers() async throws {
        let old = try await FakeHealthNode.start(group: group)
        let new = try await FakeHealthNode.start(.init(isSilent: true), group: group)
        try await withService([fleetNode("a", port: old.port)]) { service in
            #expect(await eventually { states(service) == [.ready] })
            service.replace(fleetConfiguration([fleetNode("a", port: new.port)]))
            #expect(states(service) == [.warming])
            #expect(await eventually { !new.seen.isEmpty })
            #expect(states(service) != [.ready])
        }
        await old.stop()
        await new.stop()
    }

    @Test func addressesAreToldAtStartAndWhenTheyChange() async throws {
        let addresses = Addresses()
        let nodes = [
            fleetNode("literal", host: "127.0.0.9", port: 81), fleetNode("named", host: "localhost", port: 82),
        ]
        try await withService(nodes, addresses: addresses) { service in
            #expect(await eventually { addresses.known.withLock { $0.count } == 2 })
            let (ports, hosts) = (addresses.known.withLock { $0 }, addresses.hosts.withLock { $0 })
            #expect(ports[nodes[0].id] == [81])
            #expect(hosts[nodes[0].id] == ["127.0.0.9"])
            #expect(ports[nodes[1].id]?.allSatisfy { $0 == 82 } == true)
            #expect(service.addresses(of: nodes[1].id).isEmpty == false)

            service.replace(fleetConfiguration([fleetNode("literal", host: "127.0.0.8", port: 83)]))
            #expect(addresses.hosts.withLock { $0[nodes[0].id] } == ["127.0.0.8"])
            #expect(addresses.known.withLock { $0[nodes[0].id] } == [83])
            #expect(service.addresses(of: nodes[1].id) == [])
        }
    }

    @Test func nodeWhoseNameDoesNotResolveIsUnhealthy() async throws {
        try await withService([fleetNode("a", host: "no such host", port: 80)]) { service in
            #expect(await eventually { states(service) == [.unhealthy] })
        }
    }

    @Test func lastGoodAddressesOutliveAFailedResolution() {
        var state = FleetState()
        let node = fleetNode("a", host: "gpu.internal", port: 80)
        let now = MonotonicTime(nanoseconds: 0)
        let later = MonotonicTime(nanoseconds: 1)
        _ = state.configured([node], now: now)
        #expect(state.takeHost(now: now, lease: .seconds(30)) == "gpu.internal")
        #expect(state.takeHost(now: now, lease: .seconds(30)) == nil)
        let good = ["10.0.0.1", "10.0.0.2"].compactMap { HostResolver.literal($0) }
        #expect(state.resolved("gpu.internal", good, next: later).changed == [node.id])
        #expect(state.resolved("gpu.internal", nil, next: later) == ([], true))
        #expect(state.resolved("gpu.internal", nil, next: later) == ([], false))
        #expect(state.addresses(of: node.id).map(\.ipAddress) == ["10.0.0.1", "10.0.0.2"])
        #expect(state.resolved("gpu.internal", good.reversed(), next: later) == ([], true))
        #expect(state.addresses(of: node.id).map(\.ipAddress) == ["10.0.0.1", "10.0.0.2"])
        #expect(state.resolved("gpu.internal", [good[1]], next: later) == ([node.id], false))
        #expect(state.addresses(of: node.id).map(\.ipAddress) == ["10.0.0.2"])
        #expect(state.addresses(of: node.id).map(\.port) == [80])
    }
}

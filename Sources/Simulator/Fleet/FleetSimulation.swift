import Domain
import Routing

/// Gateways in front of a fleet of ``VirtualNode``s, in virtual time.
///
/// The gateways' decisions are the product's own (``Router``); the nodes, the network between and the customers are
/// modelled. A message takes half a round trip. Metrics are scraped as often as
/// a gateway would scrape them, and are as stale by then; the scrape itself takes no time.
/// Single-threaded and deterministic: equal configurations give equal runs.
package struct FleetSimulation {
    private struct Node {
        var model: VirtualNode
        var isAlive = true
        /// Which of its steps is scheduled to end.
        var serial: UInt32 = 0
        var scheduledAt = Double.infinity
        /// Names the process: changes when it starts anew.
        var start: UInt64 = 1
        var speed = 1.0
        var frozenReport: NodeReport?
        var isFrozen = false
    }

    private let configuration: RunConfiguration
    private let requests: [Trace.Request]
    package private(set) var flights: ContiguousArray<Flight>
    private var fleet: FleetSpec
    private var nodes: ContiguousArray<Node>
    private var gateways: ContiguousArray<SimulatedGateway>
    private var events = MinHeap<SimulationEvent>()
    private var eventsMade: Int64 = 0
    private var openCount: Int
    private var outcomes: [VirtualNode.Outcome] = []
    private let tellsCacheEvents: Bool
    // Of nodes that died.
    private var pastPromptTokens = 0
    private var pastCachedTokens = 0
    private var pastPreemptions = 0

    package init(_ configuration: RunConfiguration, workload: Workload) {
        self.configuration = configuration
        self.requests = workload.requests
        self.flights = workload.flights
        self.fleet = configuration.fleet
        self.openCount = workload.flights.count
        let tellsCacheEvents = configuration.policy == .dynamo
        self.tellsCacheEvents = tellsCacheEvents
        self.nodes = ContiguousArray(
            configuration.fleet.nodes.map { spec in
                var node = Node(model: VirtualNode(spec.profile))
                node.model.recordsCacheEvents = tellsCacheEvents
                return node
            })
        let fleet = configuration.fleet
        self.gateways = ContiguousArray(
            (0..<configuration.gateways).map { gateway in
                SimulatedGateway(
                    policy: configuration.policy, nodes: fleet.nodeSpecs(fleet.nodes.indices, gateway: gateway),
                    seed: configuration.seed &* 1_000 &+ UInt64(gateway), isAdmitting: configuration.isAdmitting)
            })
        scheduleRecurring()
    }

    /// To the end of the last request.
    package mutating func run() -> RunStatistics {
        var next = 0
        while openCount > 0 {
            let event = events.first
            if next < flights.count, event == nil || flights[next].arrival <= event?.seconds ?? 0 {
                arrive(next)
                next += 1
            } else if let event = events.popFirst() {
                handle(event)
            } else {
                break
            }
        }
        return statistics()
    }

    // MARK: Events

    private mutating func schedule(_ kind: SimulationEvent.Kind, at seconds: Double) {
        eventsMade += 1
        events.insert(SimulationEvent(seconds: seconds, serial: eventsMade, kind: kind))
    }

    private mutating func scheduleRecurring() {
        var random = SplitMix64(seed: configuration.seed ^ 0x706F_6C6C)
        for gateway in gateways.indices {
            schedule(.poll(gateway: Int32(gateway)), at: configuration.pollSeconds * random.unit())
            if !configuration.script.isEmpty { schedule(.probe(gateway: Int32(gateway)), at: random.unit()) }
        }
        if gateways.count > 1, let interval = configuration.gossipSeconds { schedule(.gossip, at: interval) }
        for (index, event) in configuration.script.enumerated() {
            schedule(.scripted(index: Int32(index)), at: event.seconds)
        }
    }

    private mutating func handle(_ event: SimulationEvent) {
        let now = event.seconds
        switch event.kind {
        case .stepEnds(let node, let serial):
            if nodes[Int(node)].serial == serial { endStep(Int(node), now: now) }
        case .reachesNode(let flight, let attempt): reachNode(Int(flight), attempt, now: now)
        case .firstToken(let flight, let attempt, let cachedTokens):
            firstToken(Int(flight), attempt, cachedTokens: cachedTokens, now: now)
        case .finished(let flight, let attempt): finish(Int(flight), attempt, now: now)
        case .lost(let flight, let attempt): lose(Int(flight), attempt, now: now)
        case .poll(let gateway):
            for node in nodes.indices where nodes[node].isAlive {
                gateways[Int(gateway)].reported(fleet.nodes[node].id, report(of: node, now: now), now: now)
            }
            for index in gateways[Int(gateway)].expired(now: now) { end(index, .refused) }
            admitWaiting(Int(gateway), now: now)
            schedule(.poll(gateway: gateway), at: now + configuration.pollSeconds)
        case .probe(let gateway):
            for node in nodes.indices {
                gateways[Int(gateway)].probed(fleet.nodes[node].id, isAlive: nodes[node].isAlive, now: now)
            }
            schedule(.probe(gateway: gateway), at: now + 1)
        case .gossip:
            let messages = gateways.indices.map { gateways[$0].gossip(now: now) }
            for receiver in gateways.indices {
                for sender in messages.indices where sender != receiver {
                    gateways[receiver].gossiped(messages[sender], from: sender, now: now)
                }
            }
            schedule(.gossip, at: now + (configuration.gossipSeconds ?? 1))
        case .scripted(let index): perform(configuration.script[Int(index)].action, now: now)
        }
    }

    // MARK: A request's way

    private mutating func arrive(_ index: Int) {
        let now = flights[index].arrival
        let gateway = Int(flights[index].gateway)
        var evicted: [Int] = []
        let admission = gateways[gateway].admit(
            index, &flights[index], requests[Int(flights[index].request)], evicted: &evicted)
        for index in evicted { end(index, .refused) }
        switch admission {
        case .dispatch: place(index, now: now)
        case .wait: break
        case .reject: end(index, .refused)
        }
    }

    /// Something changed: those who wait may go, as long as there is room.
    private mutating func admitWaiting(_ gateway: Int, now: Double) {
        while let index = gateways[gateway].nextAdmitted(now: now) { place(index, now: now) }
    }

    private mutating func place(_ index: Int, now: Double) {
        let gateway = Int(flights[index].gateway)
        let request = requests[Int(flights[index].request)]
        guard let assignment = gateways[gateway].place(&flights[index], request, now: now) else {
            gateways[gateway].ended(flights[index])
            end(index, .refused)
            return
        }
        flights[index].attempt += 1
        flights[index].assignment = assignment
        flights[index].node = Int16(assignment.nodeIndex)
        flights[index].placedAt = now
        let prediction = gateways[gateway].prediction(assignment)
        flights[index].predictedSeconds = Float(prediction.seconds)
        flights[index].predictedWork = Float(prediction.work)
        let trip = fleet.rttSeconds(gateway: gateway, node: assignment.nodeIndex) / 2
        schedule(.reachesNode(flight: Int32(index), attempt: flights[index].attempt), at: now + trip)
    }

    private mutating func reachNode(_ index: Int, _ attempt: UInt8, now: Double) {
        guard flights[index].attempt == attempt, flights[index].state == .pending else { return }
        let node = Int(flights[index].node)
        guard nodes[node].isAlive else {
            schedule(.lost(flight: Int32(index), attempt: attempt), at: now + halfTrip(index))
            return
        }
        let request = requests[Int(flights[index].request)]
        nodes[node].model.accept(
            VirtualNode.Work(
                id: Int32(index), promptTokens: request.promptTokens, outputTokens: request.outputTokens,
                blocks: request.blocks), now: now)
        stepPlanned(node, now: now)
    }

    private mutating func endStep(_ node: Int, now: Double) {
        outcomes.removeAll(keepingCapacity: true)
        nodes[node].model.advance(to: now, into: &outcomes)
        for outcome in outcomes {
            switch outcome {
            case .firstToken(let id, let cachedTokens):
                schedule(
                    .firstToken(
                        flight: id, attempt: flights[Int(id)].attempt, cachedTokens: Int32(clamping: cachedTokens)),
                    at: now + halfTrip(Int(id)))
            case .finished(let id):
                schedule(.finished(flight: id, attempt: flights[Int(id)].attempt), at: now + halfTrip(Int(id)))
            // Not asked for.
            case .decoded: break
            }
        }
        stepPlanned(node, now: now)
    }

    /// The node's model may have a new time at which it wants to go on.
    private mutating func stepPlanned(_ node: Int, now: Double) {
        if tellsCacheEvents { tellCacheEvents(node, now: now) }
        let wakeAt = nodes[node].model.wakeAt
        guard wakeAt != nodes[node].scheduledAt else { return }
        nodes[node].scheduledAt = wakeAt
        nodes[node].serial &+= 1
        if wakeAt.isFinite { schedule(.stepEnds(node: Int32(node), serial: nodes[node].serial), at: wakeAt) }
    }

    private mutating func tellCacheEvents(_ node: Int, now: Double) {
        let (stored, evicted) = nodes[node].model.takeCacheEvents()
        if stored.isEmpty && evicted.isEmpty { return }
        for gateway in gateways.indices {
            gateways[gateway].cacheChanged(fleet.nodes[node].id, stored: stored, evicted: evicted, now: now)
        }
    }

    private mutating func firstToken(_ index: Int, _ attempt: UInt8, cachedTokens: Int32, now: Double) {
        guard flights[index].attempt == attempt, let assignment = flights[index].assignment else { return }
        flights[index].firstTokenAt = now
        flights[index].cachedTokens = cachedTokens
        gateways[Int(flights[index].gateway)].firstToken(assignment, now: now)
        admitWaiting(Int(flights[index].gateway), now: now)
    }

    private mutating func finish(_ index: Int, _ attempt: UInt8, now: Double) {
        guard flights[index].attempt == attempt, let assignment = flights[index].assignment else { return }
        flights[index].endAt = now
        let request = requests[Int(flights[index].request)]
        let usage = TokenUsage(
            promptTokens: request.promptTokens, cachedTokens: Int(flights[index].cachedTokens),
            completionTokens: request.outputTokens)
        let gateway = Int(flights[index].gateway)
        gateways[gateway].completed(assignment, usage: usage, now: now)
        gateways[gateway].ended(flights[index])
        end(index, .completed)
        admitWaiting(gateway, now: now)
    }

    private mutating func lose(_ index: Int, _ attempt: UInt8, now: Double) {
        guard flights[index].attempt == attempt, flights[index].state == .pending else { return }
        let mayRetry = gateways[Int(flights[index].gateway)].lost(flights[index], now: now)
        if let assignment = flights[index].assignment {
            flights[index].excluded.insert(assignment.nodeIndex, generation: assignment.generation)
        }
        flights[index].assignment = nil
        guard !mayRetry else { return place(index, now: now) }
        gateways[Int(flights[index].gateway)].ended(flights[index])
        end(index, .failed)
    }

    private mutating func end(_ index: Int, _ state: Flight.State) {
        flights[index].state = state
        openCount -= 1
    }

    private func halfTrip(_ index: Int) -> Double {
        fleet.rttSeconds(gateway: Int(flights[index].gateway), node: Int(flights[index].node)) / 2
    }

    // MARK: What a node's metrics say

    private mutating func report(of node: Int, now: Double) -> NodeReport {
        if nodes[node].isFrozen, let frozen = nodes[node].frozenReport { return frozen }
        let metrics = nodes[node].model.metrics(now: now)
        let report = NodeReport(
            runningRequests: Double(metrics.runningRequests), waitingRequests: Double(metrics.waitingRequests),
            kvUsage: metrics.kvUsage, waitingTokens: Double(metrics.waitingTokens),
            prefillTokens: Double(metrics.prefillTokens),
            kvCapacityTokens: Double(nodes[node].model.profile.kvTokensCapacity), serverStart: nodes[node].start)
        if nodes[node].isFrozen { nodes[node].frozenReport = report }
        return report
    }

    // MARK: What the script does

    private mutating func perform(_ action: ScriptedEvent.Action, now: Double) {
        switch action {
        case .kill(let node): kill(node, now: now)
        case .join(let node): join(node, now: now)
        case .curtail(let curtailed, let share):
            for node in curtailed {
                nodes[node].speed = share
                nodes[node].model.setSpeed(share, now: now)
                stepPlanned(node, now: now)
                for gateway in gateways.indices {
                    gateways[gateway].curtailed(fleet.nodes[node].id, to: share, now: now)
                }
            }
        case .freeze(let frozen, let isFrozen):
            for node in frozen {
                nodes[node].isFrozen = isFrozen
                nodes[node].frozenReport = nil
                if isFrozen { _ = report(of: node, now: now) }
            }
        }
    }

    private mutating func kill(_ node: Int, now: Double) {
        guard nodes[node].isAlive else { return }
        for id in nodes[node].model.workIDs {
            schedule(.lost(flight: id, attempt: flights[Int(id)].attempt), at: now + halfTrip(Int(id)))
        }
        pastPromptTokens += nodes[node].model.promptTokens
        pastCachedTokens += nodes[node].model.cachedTokens
        pastPreemptions += nodes[node].model.preemptions
        nodes[node].model = VirtualNode(fleet.nodes[node].profile, speed: nodes[node].speed)
        nodes[node].model.recordsCacheEvents = tellsCacheEvents
        nodes[node].isAlive = false
        stepPlanned(node, now: now)
    }

    /// The script's reader has seen to it that nodes join without a gap in their indexes.
    private mutating func join(_ node: Int, now: Double) {
        if node == nodes.count {
            fleet.nodes.append(FleetSpec.node(fleet.kind, index: node))
            nodes.append(Node(model: VirtualNode(fleet.nodes[node].profile)))
            nodes[node].model.recordsCacheEvents = tellsCacheEvents
            for gateway in gateways.indices {
                gateways[gateway].replaceFleet(fleet.nodeSpecs(fleet.nodes.indices, gateway: gateway))
            }
        } else if nodes.indices.contains(node), !nodes[node].isAlive {
            nodes[node].isAlive = true
            nodes[node].start += 1
        }
    }

    private func statistics() -> RunStatistics {
        RunStatistics(
            flights: flights, requests: requests,
            promptTokens: nodes.reduce(pastPromptTokens) { $0 + $1.model.promptTokens },
            cachedTokens: nodes.reduce(pastCachedTokens) { $0 + $1.model.cachedTokens },
            preemptions: nodes.reduce(pastPreemptions) { $0 + $1.model.preemptions })
    }
}

import Routing
import Simulator
import Testing

@Suite struct FleetSimulationTests {
    private let trace = Trace.sessions(150, turns: 8, sharedBlocks: 1, seed: 3)
    private let fleet = FleetSpec(.heterogeneous, nodes: 8)

    private func configuration(
        _ policy: RoutingPolicy = .predictedCost, rate: Double = 8, gateways: Int = 1, seed: UInt64 = 1,
        events: String = ""
    ) throws -> RunConfiguration {
        let file = try EventFile(events, file: "test", fleet: fleet, orgs: 10)
        return RunConfiguration(
            policy: policy, fleet: fleet, rate: rate, gateways: gateways, seed: seed, script: file.script,
            surges: file.surges)
    }

    @Test(arguments: [1, 4])
    func theSameConfigurationGivesTheSameRun(gateways: Int) throws {
        let run = try configuration(gateways: gateways)
        #expect(run.run(trace) == run.run(trace))
        #expect(try run.run(trace) != configuration(gateways: gateways, seed: 2).run(trace))
    }

    @Test(arguments: RoutingPolicy.allCases)
    func everyRequestEndsUnderEveryPolicy(policy: RoutingPolicy) throws {
        let statistics = try configuration(policy, rate: 20).run(trace)
        #expect(statistics.completed + statistics.refused + statistics.failed == trace.requests.count)
        #expect(statistics.failed == 0)
    }

    @Test func aFirstTokenTakesARoundTripAtLeast() throws {
        let (simulation, _) = try Sweep.simulate(configuration(.roundRobin, rate: 0.5), trace)
        for flight in simulation.flights {
            let rtt = fleet.rttSeconds(gateway: 0, node: Int(flight.node))
            let step = fleet.nodes[Int(flight.node)].profile.stepSeconds
            #expect(flight.ttftSeconds >= rtt + step)
        }
    }

    @Test func gatewaysShareTheRequestsEvenly() throws {
        let (simulation, _) = try Sweep.simulate(configuration(gateways: 4), trace)
        for gateway in 0..<4 {
            let count = simulation.flights.count { Int($0.gateway) == gateway }
            #expect((250...350).contains(count))
        }
    }

    // MARK: What goes wrong

    @Test(arguments: [1, 2, 3] as [UInt64])
    func aNodeKilledInMidPrefillLosesOnlyAnswersThatHadBegun(seed: UInt64) throws {
        // With an event that changes nothing, since only scripted runs probe their nodes: up to the kill both are one.
        let calm = try Sweep.simulate(configuration(seed: seed, events: "9999s thaw all"), trace).0
        let longest = try #require(
            calm.flights.filter { (50..<80).contains($0.placedAt) }.max { $0.ttftSeconds < $1.ttftSeconds })
        let killed = Int(longest.node)
        // In the midst of that prompt's prefill.
        let time = (longest.placedAt + longest.firstTokenAt) / 2
        let (simulation, statistics) = try Sweep.simulate(
            configuration(seed: seed, events: "\(time)s kill node-\(killed)"), trace)
        #expect(statistics.refused == 0)
        // A token may be on its way while the node dies.
        let seen = time + 0.1
        for flight in simulation.flights where flight.state == .failed { #expect(flight.firstTokenAt < seen) }
        var caught = 0
        for (usual, flight) in zip(calm.flights, simulation.flights) where Int(usual.node) == killed {
            guard usual.placedAt < time, usual.firstTokenAt > seen else { continue }
            caught += 1
            #expect(flight.state == .completed && Int(flight.node) != killed, "seed \(seed)")
        }
        #expect(caught > 0, "nothing was in prefill on the node: the test proves nothing")
        // Its probes fail within two seconds, its breaker opens sooner.
        #expect(!simulation.flights.contains { Int($0.node) == killed && $0.placedAt > time + 2 })
    }

    @Test func aNodeThatComesBackIsUsedAgain() throws {
        let (simulation, _) = try Sweep.simulate(configuration(events: "60s kill node-0\n80s join node-0"), trace)
        #expect(simulation.flights.contains { $0.node == 0 && $0.placedAt > 85 })
    }

    @Test func aNewNodeTakesItsPart() throws {
        let (simulation, statistics) = try Sweep.simulate(configuration(rate: 14, events: "30s join node-8"), trace)
        #expect(simulation.flights.contains { $0.node == 8 })
        #expect(statistics.completed == trace.requests.count)
    }

    @Test func underChurnOfThirtyPercentRequestsAreServedAndNoneWaitsForever() throws {
        let (simulation, statistics) = try Sweep.simulate(
            configuration(events: "30s churn 30% every 30s for 2m"), trace)
        let calm = try configuration().run(trace)
        #expect(statistics.refused == 0)
        // Answers that had begun on a node that died; a handful of nodes, four times.
        #expect(statistics.failed < trace.requests.count / 10)
        // Those that met a dead node twice in a row.
        #expect(simulation.flights.count { $0.state == .failed && $0.firstTokenAt.isNaN } < trace.requests.count / 100)
        #expect(statistics.ttftP90 < 3 * calm.ttftP90)
    }

    /// With four gateways that do not gossip metrics are all that one knows of the others.
    /// One node that stands still beside others that go on must not look the better for it, nor the worse.
    @Test(arguments: [(1, true), (4, true), (4, false)], ["all", "node-0", "node-2", "node-7"])
    func metricsFrozenForThirtySecondsDoNotChangeWhoGetsTraffic(
        gateways: (Int, isGossiping: Bool), nodes: String
    ) throws {
        let (gateways, isGossiping) = gateways
        func run(_ events: String) throws -> (FleetSimulation, RunStatistics) {
            var run = try configuration(gateways: gateways, events: events)
            if !isGossiping { run.gossipSeconds = nil }
            return Sweep.simulate(run, trace)
        }
        let calm = try run("9999s thaw all")
        let frozen = try run("50s freeze \(nodes) for 30s")
        func counts(_ simulation: FleetSimulation) -> [Int] {
            fleet.nodes.indices.map { node in
                simulation.flights.count { Int($0.node) == node && (50..<80).contains($0.placedAt) }
            }
        }
        for (usual, found) in zip(counts(calm.0), counts(frozen.0)) {
            #expect(abs(usual - found) <= max(8, usual / 3), "\(counts(calm.0)) \(counts(frozen.0))")
        }
        #expect(frozen.1.ttftMean < 1.1 * calm.1.ttftMean, "\(frozen.1.ttftMean) \(calm.1.ttftMean)")
    }

    @Test func aCurtailedNodeGetsLessAndMoreAgainAfterwards() throws {
        let (simulation, _) = try Sweep.simulate(configuration(events: "40s curtail node-0 to 20% for 40s"), trace)
        func share(_ range: Range<Double>) -> Double {
            let placed = simulation.flights.filter { range.contains($0.placedAt) }
            let own = placed.filter { $0.node == 0 }.map(\.predictedWork).reduce(0, +)
            let all = placed.map(\.predictedWork).reduce(0, +)
            return Double(own / all)
        }
        #expect(share(45..<80) < 0.6 * share(10..<40))
        #expect(share(95..<150) > 1.5 * share(45..<80))
    }

    @Test func aSurgeAddsTheOrgsRequestsWithNewPrompts() {
        let surge = Surge(org: 3, factor: 10, start: 20, seconds: 60)
        let calm = Workload(trace, rate: 8, seed: 1, orgs: 10)
        let workload = Workload(trace, rate: 8, seed: 1, orgs: 10, surges: [surge])
        let own = calm.flights.count { $0.org == 3 && (20..<80).contains($0.arrival) }
        #expect(own > 0 && workload.flights.count - calm.flights.count == 9 * own)
        #expect(workload.flights.count { $0.org != 3 } == calm.flights.count { $0.org != 3 })
        #expect(zip(workload.flights, workload.flights.dropFirst()).allSatisfy { $0.arrival <= $1.arrival })
        let known = Set(trace.requests.flatMap(\.blocks))
        for request in workload.requests.dropFirst(trace.requests.count) {
            #expect(request.blocks.allSatisfy { !known.contains($0) })
        }
    }

    /// It takes half a minute to see that an org has far more than it usually has: the surge lasts for many.
    @Test func anOrgAtTenTimesItsShareWaitsForTheOthersAndNotTheyForIt() throws {
        let trace = Trace.sessions(800, turns: 8, sharedBlocks: 1, seed: 3)
        var (calmSum, surgeSum) = (0.0, 0.0)
        for seed in 1...2 as ClosedRange<UInt64> {
            // Six tenths of what the fleet can do; with the surge more than it can.
            var run = try configuration(rate: 10, seed: seed)
            run.surges = [Surge(org: 2, factor: 10, start: 60, seconds: 420)]
            let heedless = run.run(trace)
            run.isAdmitting = true
            let (simulation, turns) = Sweep.simulate(run, trace)
            run.surges = []
            let others = turns.ttftP90(without: 2)
            calmSum += run.run(trace).ttftP90(without: 2)
            surgeSum += others
            #expect(others < 0.5 * heedless.ttftP90(without: 2), "\(others) s, seed \(seed)")
            #expect(others < 0.3 * (turns.ttftP90ByOrg[2] ?? 0), "\(others) s, seed \(seed)")
            #expect(!simulation.flights.contains { $0.org != 2 && $0.state == .refused }, "seed \(seed)")
        }
        #expect(surgeSum <= 1.3 * calmSum, "\(surgeSum / 2) s for \(calmSum / 2) s")
    }
}

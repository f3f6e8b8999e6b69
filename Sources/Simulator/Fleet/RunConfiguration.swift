import Routing

/// One run: a policy on a fleet, under a trace at a rate.
package struct RunConfiguration: Sendable {
    package var policy: RoutingPolicy
    package var fleet: FleetSpec
    /// Requests a second.
    package var rate: Double
    /// The rate as a share of saturation, where it was given so; for reports.
    package var load: Double?
    package var gateways: Int
    /// Between two gossip messages of a gateway; nil where gateways are silent.
    package var gossipSeconds: Double?
    /// From 1.
    package var seed: UInt64
    package var script: [ScriptedEvent]
    package var surges: [Surge]
    /// Whether requests wait in the gateway, fairly and for half a minute at most, while the fleet is saturated. Off by
    /// default: what a policy does with what it is given is then seen undisturbed.
    package var isAdmitting = false
    /// Customers that the trace's sessions are dealt to.
    package var orgs: Int

    package init(
        policy: RoutingPolicy, fleet: FleetSpec, rate: Double, load: Double? = nil, gateways: Int = 1,
        gossipSeconds: Double? = 0.1, seed: UInt64 = 1, script: [ScriptedEvent] = [], surges: [Surge] = [],
        orgs: Int = 10
    ) {
        self.policy = policy
        self.fleet = fleet
        self.rate = rate
        self.load = load
        self.gateways = gateways
        self.gossipSeconds = gossipSeconds
        self.seed = seed
        self.script = script
        self.surges = surges
        self.orgs = orgs
    }

    /// Between two scrapes of the nodes' metrics by one gateway. The inference extension's scheduler needs them fresh, and
    /// scrapes each 50 ms by default; others are given what a WAN allows.
    package var pollSeconds: Double { policy == .gie ? 0.05 : 1 }

    /// Runs to the end of the last request.
    package func run(_ trace: Trace) -> RunStatistics {
        let workload = Workload(
            trace, rate: rate, seed: seed, gateways: gateways, orgs: orgs, surges: surges)
        var simulation = FleetSimulation(self, workload: workload)
        return simulation.run()
    }
}

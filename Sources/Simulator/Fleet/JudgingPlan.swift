import Routing

/// What is run to judge `predicted_cost`, in the cells that routing.md names and any others.
package struct JudgingPlan: Sendable {
    /// One trace on one fleet.
    package struct Setting: Sendable {
        package var name: String
        package var trace: Trace
        package var fleet: FleetSpec
        /// Requests a second at load 1.
        package var saturation: Double
        package var isAgentic: Bool

        package init(name: String, trace: Trace, fleet: FleetSpec, saturation: Double, isAgentic: Bool) {
            self.name = name
            self.trace = trace
            self.fleet = fleet
            self.saturation = saturation
            self.isAgentic = isAgentic
        }
    }

    /// What distinguishes the runs of a setting.
    package struct Case: Hashable, Sendable {
        package var load: Double
        package var gateways: Int
        package var isGossiping: Bool
        package var isCurtailed: Bool
        /// One org sends ten times its share for half the run, and requests are admitted by turns; nil where neither,
        /// false for turns without the surge, to compare with.
        package var isSurging: Bool?
    }

    package static let loads = [0.6, 0.8, 0.95, 1.1]
    /// Peers collapse at or beyond this: only up to here are ratios of TTFT asked for.
    package static let comparedLoadMax = 0.95
    package static let gatewayCount = 4
    package static let gossipSeconds = 0.1
    package static let peers = RoutingPolicy.allCases.filter { $0 != .predictedCost }
    /// So that what is left can carry the load: two of eight nodes at 35 % take a sixth of the fleet and more.
    package static let curtailedLoad = 0.7
    package static let curtailedShare = 0.35
    /// With one of ten orgs at ten times its share this becomes 1.14.
    package static let surgeLoad = 0.6
    package static let surge = (org: 0, factor: 10.0)
    /// Two of the fastest nodes, at two distances.
    package static let curtailedNodes = [0, 3]

    /// Every case of a setting, with the policies that it is run for.
    package static func cases(_ setting: Setting) -> [(case: Case, policies: [RoutingPolicy])] {
        var cases: [(case: Case, policies: [RoutingPolicy])] = []
        for load in loads {
            for gateways in [1, gatewayCount] {
                cases.append(
                    (
                        Case(load: load, gateways: gateways, isGossiping: gateways > 1, isCurtailed: false),
                        RoutingPolicy.allCases
                    ))
            }
            cases.append(
                (
                    Case(load: load, gateways: gatewayCount, isGossiping: false, isCurtailed: false),
                    [.predictedCost, .lmetric, .gie]
                ))
        }
        cases.append(
            (
                Case(load: curtailedLoad, gateways: 1, isGossiping: false, isCurtailed: true),
                [.predictedCost, .lmetric]
            ))
        for isSurging in [false, true] {
            let judged = Case(
                load: surgeLoad, gateways: 1, isGossiping: false, isCurtailed: false, isSurging: isSurging)
            cases.append((judged, [.predictedCost]))
        }
        return cases
    }

    package static func configuration(
        _ setting: Setting, _ judged: Case, policy: RoutingPolicy, seed: UInt64
    ) -> RunConfiguration {
        let rate = setting.saturation * judged.load
        var script: [ScriptedEvent] = []
        if judged.isCurtailed {
            let seconds = Double(setting.trace.requests.count) / rate
            script = [
                ScriptedEvent(
                    seconds: seconds * 0.25, action: .curtail(nodes: curtailedNodes, share: curtailedShare)),
                ScriptedEvent(seconds: seconds * 0.75, action: .curtail(nodes: curtailedNodes, share: 1)),
            ]
        }
        var configuration = RunConfiguration(
            policy: policy, fleet: setting.fleet, rate: rate, load: judged.load, gateways: judged.gateways,
            gossipSeconds: judged.isGossiping ? gossipSeconds : nil, seed: seed, script: script)
        if let isSurging = judged.isSurging {
            let seconds = Double(setting.trace.requests.count) / rate
            configuration.isAdmitting = true
            if isSurging {
                configuration.surges = [
                    Surge(org: surge.org, factor: surge.factor, start: seconds * 0.25, seconds: seconds * 0.5)
                ]
            }
        }
        return configuration
    }
}

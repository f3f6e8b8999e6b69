import Simulator
import Support

/// The gateway that most suites share: each test has an org of its own, and each behaviour of a node a model of its own,
/// so that tests do not disturb one another.
struct SharedGateway: Sendable {
    let gateway: GatewayUnderTest
    let nodes: [String: SimulatedNode]

    private struct Plan {
        var model: String
        var fault = ""
        var speed = NodeSpeed.instant
        var options: [String] = []
    }

    /// 20 tokens a second or so: slow enough to see each event leave before the next one exists.
    private static let slow = NodeSpeed.times(0.15)
    /// Prefill of seconds: time enough to leave in the midst of it.
    private static let prefill = "first_token:20s"

    private static let plans: [Plan] = [
        Plan(model: "fast", options: ["context_tokens: 131072"]),
        Plan(model: "slow", speed: slow),
        // Each of one suite or test alone: what a node counts and keeps is looked at.
        Plan(model: "quiet"),
        Plan(model: "recorded"),
        Plan(model: "spare"),
        Plan(model: "counted"),
        Plan(model: "unreached"),
        Plan(model: "slow-watched", speed: slow),
        Plan(model: "slow-left", speed: slow),
        Plan(model: "prefill-left", fault: prefill),
        Plan(model: "prefill-held", fault: prefill),
        Plan(model: "prefill-halved", fault: prefill),
        Plan(model: "prefill-gauged", fault: prefill),
        // What goes wrong. Timeouts are short where a test waits for them.
        Plan(model: "bad-json", fault: "bad_json"),
        Plan(model: "no-usage", fault: "no_usage"),
        Plan(model: "no-done", fault: "no_done"),
        Plan(model: "more-usage", fault: "usage:+50%"),
        Plan(model: "too-much-usage", fault: "usage:+5000%"),
        Plan(model: "status-500", fault: "status:500"),
        Plan(model: "overrun", fault: "overrun:10"),
        Plan(model: "dies", fault: "die:5"),
        Plan(model: "stalls", fault: "stall:5", options: ["timeouts: { stream_idle: 700ms }"]),
        Plan(model: "late", fault: "first_token:30s", options: ["timeouts: { first_byte: 700ms }"]),
        Plan(model: "closes", fault: "close"),
    ]

    private static let started = Task { () async throws -> SharedGateway in
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        var nodes: [String: SimulatedNode] = [:]
        for served in plans {
            let node = try await SimulatedNode.serving(served.model, speed: served.speed, fault: served.fault)
            nodes[served.model] = node
            plan.serve(served.model, port: node.port, options: served.options)
        }
        return SharedGateway(gateway: try await GatewayUnderTest.start(plan), nodes: nodes)
    }

    static func get() async throws -> SharedGateway { try await started.value }

    func node(_ model: String) -> SimulatedNode { nodes[model]! }
}

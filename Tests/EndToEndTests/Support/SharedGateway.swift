import Simulator
import Support

/// The gateway that most suites share: each test has an org of its own, and each behaviour of a node a model of its own,
/// so that tests do not disturb one another.
struct SharedGateway: Sendable {
    let gateway: GatewayUnderTest
    let nodes: [String: SimulatedNode]

    /// What each model's node does. Timeouts of the models are short where a test waits for them.
    private static let faults: [(model: String, fault: String, options: [String])] = [
        ("fast", "", ["context_tokens: 131072"]),
        // Of one suite alone: what never reaches a node shows in its counts.
        ("quiet", "", []),
        // Of the tests that look at what it got: only the last requests are kept.
        ("recorded", "", []),
        // Of one test alone, which cordons it.
        ("spare", "", []),
        // Of one test alone, which counts.
        ("counted", "", []),
        ("bad-json", "bad_json", []),
        ("no-usage", "no_usage", []),
        ("no-done", "no_done", []),
        ("more-usage", "usage:+50%", []),
        ("too-much-usage", "usage:+5000%", []),
        ("status-500", "status:500", []),
        ("overrun", "overrun:10", []),
        ("dies", "die:5", []),
        ("stalls", "stall:5", ["timeouts: { stream_idle: 700ms }"]),
        ("late", "first_token:30s", ["timeouts: { first_byte: 700ms }"]),
        ("closes", "close", []),
    ]

    private static let started = Task { () async throws -> SharedGateway in
        var plan = GatewayPlan()
        plan.sections = ["retry: { attempts: 2, budget: 100% }"]
        var nodes: [String: SimulatedNode] = [:]
        for (model, fault, options) in faults {
            let node = try await SimulatedNode.serving(model, fault: fault)
            nodes[model] = node
            plan.serve(model, port: node.port, options: options)
        }
        // 20 tokens a second or so: slow enough to see each event leave before the next one exists.
        nodes["slow"] = try await SimulatedNode.serving("slow", speed: .times(0.15))
        plan.serve("slow", port: nodes["slow"]!.port)
        // Prefill of seconds: time enough to leave in the midst of it.
        nodes["prefill"] = try await SimulatedNode.serving("prefill", fault: "first_token:20s")
        plan.serve("prefill", port: nodes["prefill"]!.port)
        return SharedGateway(gateway: try await GatewayUnderTest.start(plan), nodes: nodes)
    }

    static func get() async throws -> SharedGateway { try await started.value }

    func node(_ model: String) -> SimulatedNode { nodes[model]! }
}

import Simulator

/// A gateway with small limits and one with short timeouts, for what happens at them.
struct SmallGateway: Sendable {
    let gateway: GatewayUnderTest
    let node: SimulatedNode
    let slow: SimulatedNode

    static let bodyBytes = 64 << 10
    static let bufferedBytes = 96 << 10
    static let connections = 100
    static let headerBytes = 4 << 10

    private static let sizes = Task { () async throws -> SmallGateway in
        try await start([
            "limits: { body_bytes: 64KiB, header_bytes: 4KiB, buffered_bytes: 96KiB, connections: 100 }"
        ])
    }

    private static let times = Task { () async throws -> SmallGateway in
        try await start(["timeouts: { header: 600ms, body: 800ms, idle: 1500ms, request: 3s }"])
    }

    private static func start(_ sections: [String]) async throws -> SmallGateway {
        var plan = GatewayPlan()
        plan.sections = sections
        plan.loops = 1
        let node = try await SimulatedNode.serving("m")
        let slow = try await SimulatedNode.serving("slow", fault: "first_token:1s")
        plan.serve("m", port: node.port)
        plan.serve("slow", port: slow.port)
        return SmallGateway(gateway: try await GatewayUnderTest.start(plan), node: node, slow: slow)
    }

    static func withSmallSizes() async throws -> SmallGateway { try await sizes.value }
    static func withShortTimes() async throws -> SmallGateway { try await times.value }
}

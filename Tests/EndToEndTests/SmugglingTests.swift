import Foundation
import FuzzTargets
import Testing

/// The same ambiguous requests to the gateway and to nginx, each in front of a backend that writes down what reaches it.
///
/// nginx is the measure since it is what mostly stands in front: where it refuses and we serve, or where more requests
/// come out of us than out of it, the two disagree on where requests begin and end, which is what smuggling needs. Being
/// stricter is fine.
@Suite(.serialized) struct SmugglingTests {
    /// Cases in which we serve what nginx does not, and why that is safe.
    static let laxer: [String: String] = [
        "coding-tab": "a tab is as good a blank as a space before a value (RFC 9110, 5.5); both readings are chunked",
        "host-with-path": "the gateway decides nothing by Host and passes it to nobody; there must be one, that is all",
    ]

    @Test func nothingPassesUsThatNginxHoldsBack() async throws {
        let ours = try FrontRecorder()
        let theirs = try FrontRecorder()
        var plan = GatewayPlan()
        plan.loops = 1
        plan.sections = ["timeouts: { header: 300ms, body: 300ms, idle: 300ms }"]
        plan.serve("m", port: ours.node.port, engine: "openai")
        let gateway = try await GatewayUnderTest.start(plan)
        let nginx = try await NginxProcess(backend: theirs.node.port)
        let key = try await Customer.create(on: gateway).key
        let ports = (gateway: gateway.port, nginx: nginx.port)
        // The gateway writes the node's name for the model, which is the longer one.
        let growth = GatewayPlan.upstreamName("m").utf8.count - 1
        var report: [String] = []
        for one in SmugglingCase.all {
            let bytes = one.bytes(key: key)
            async let mine = blocking { try FrontOutcome(of: bytes, port: ports.gateway, ours) }
            async let other = blocking { try FrontOutcome(of: bytes, port: ports.nginx, theirs) }
            let (we, they) = try await (mine, other)
            report.append("\(one.name): we \(we), nginx \(they)")
            let isLaxer = we.reached.count > they.reached.count
            if Self.laxer[one.name] == nil {
                #expect(!isLaxer, "\(one.name): we \(we), nginx \(they)")
            } else {
                #expect(isLaxer, "\(one.name) is no exception any more: we \(we), nginx \(they)")
            }
            if !isLaxer {
                // What we let through they let through, too, in the same order.
                #expect(we.isWithin(they, bodyGrowth: growth), "\(one.name): we \(we), nginx \(they)")
            }
            #expect(!we.reached.contains { $0.text == nil }, "\(one.name): \(we)")
        }
        if let file = ProcessInfo.processInfo.environment["TOLLGATE_SMUGGLING_REPORT"] {
            try report.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
        }
        #expect(report.count >= 60)
        // The measure measures: what is plain passes both.
        for one in report.prefix(3) {
            #expect(one.hasSuffix("we [200] reached [\"x\"], nginx [200] reached [\"x\"]"), "\(one)")
        }
    }
}

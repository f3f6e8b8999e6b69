import Domain
import Foundation
import JSON
import Simulator
import Support
import Testing

/// Nodes at https://, with an authority of their own.
@Suite(.serialized) struct NodeTLSTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let node: SimulatedNode
        let front: TLSFront
        let customer: Customer
    }

    private func start(
        _ pair: TestCertificates.Pair, authority: String = TestCertificates.authority,
        base: String = "https://localhost", isReady: Bool = true
    ) async throws -> Setup {
        let node = try await SimulatedNode.serving("m")
        let front = try await TLSFront(pair, backend: node.port)
        var plan = GatewayPlan()
        plan.serve("m", port: front.port)
        let file = NSTemporaryDirectory() + "tollgate-e2e-ca-\(UInt64.random(in: 0 ... .max)).pem"
        try authority.write(toFile: file, atomically: true, encoding: .utf8)
        plan.nodes[0].base = base
        plan.nodes[0].ca = file
        let gateway = try GatewayUnderTest(plan)
        if isReady { try await gateway.waitUntilReady() } else { try await gateway.waitUntilListening() }
        return Setup(
            gateway: gateway, node: node, front: front, customer: try await Customer.create(on: gateway))
    }

    @Test(arguments: ["https://localhost", "https://127.0.0.1"])
    func requestsAndProbesGoOverTLS(base: String) async throws {
        let setup = try await start(TestCertificates.good, base: base)
        let prompt = String(repeating: "p", count: 90_000)
        for stream in [false, true, true] {
            let answer = try await setup.gateway.ask(
                .chat("m", key: setup.customer.key, stream: stream, tokens: 40, prompt: prompt))
            #expect(answer.status == 200, "\(answer.text)")
            if stream { #expect(answer.events.last == "[DONE]") }
        }
        let books = try await setup.customer.books(settles: 3)
        #expect(books.settles.allSatisfy { $0.completion == 40 && !$0.estimated })
        #expect(setup.front.handshakes > 1)
        #expect(setup.node.stats.requests == 3)
    }

    @Test func aClientThatLeavesStopsTheNodeBehindTLS() async throws {
        let setup = try await start(TestCertificates.good)
        try await setup.node.setFault("first_token:20s")
        var delays: [Double] = []
        for _ in 0..<3 {
            let before = setup.node.stats
            let wire = try setup.gateway.connect()
            try wire.send(.chat("m", key: setup.customer.key, stream: true))
            _ = try await setup.node.stats { $0.requests > before.requests }
            let left = MonotonicTime.now()
            wire.close()
            _ = try await setup.node.stats { $0.aborted > before.aborted }
            delays.append(MonotonicTime.now().seconds(since: left))
        }
        #expect(delays.min()! < 0.1, "\(delays)")
    }

    @Test(arguments: [
        (TestCertificates.otherName.certificate, "its certificate is for another name"),
        (TestCertificates.foreign.certificate, "its certificate is signed by nobody who is trusted"),
    ])
    func aNodeThatIsNotWhoItShouldBeGetsNothingAndTheLogSaysWhy(certificate: String, reason: String) async throws {
        let pair =
            certificate == TestCertificates.foreign.certificate
            ? TestCertificates.foreign : TestCertificates.otherName
        let setup = try await start(pair, isReady: false)
        try await until("the node to be unhealthy") {
            try await setup.gateway.nodeStates()["node-m"] == "unhealthy"
        }
        #expect(setup.gateway.log.contains(reason))
        #expect(try await setup.gateway.ask(.chat("m", key: setup.customer.key)).status == 503)
        #expect(setup.front.handshakes == 0)
        #expect(setup.node.stats.requests == 0)
        try await setup.customer.expectNoCharge()
    }

    @Test func aChangedAuthorityIsTakenByItself() async throws {
        let setup = try await start(
            TestCertificates.good, authority: TestCertificates.otherAuthority, isReady: false)
        try await until("the node to be unhealthy") {
            try await setup.gateway.nodeStates()["node-m"] == "unhealthy"
        }
        let file = try #require(setup.gateway.plan.nodes[0].ca)
        try TestCertificates.authority.write(toFile: file, atomically: true, encoding: .utf8)
        try await until("the node to be ready") { try await setup.gateway.nodeStates()["node-m"] == "ready" }
        #expect(try await setup.gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 200)
        // And a broken one keeps the last good.
        try "nothing".write(toFile: file, atomically: true, encoding: .utf8)
        setup.gateway.process.signal(SIGHUP)
        try await until("the reload to be refused") {
            setup.gateway.log.contains("holds no certificate in PEM format")
        }
        #expect(try await setup.gateway.ask(.chat("m", key: setup.customer.key, tokens: 2)).status == 200)
        _ = try await setup.customer.books(settles: 2)
    }
}

import Domain
import Foundation
import Simulator
import Testing

/// Certificates that change, and SIGTERM, on gateways of their own.
@Suite(.serialized) struct SecureDrainTests {
    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let certificate: Certificate
        let node: SimulatedNode
        let customer: Customer
    }

    private func start(drain: String) async throws -> Setup {
        let certificate = try await Certificate(name: "first")
        let node = try await SimulatedNode.serving("m", speed: .times(0.15))
        var plan = GatewayPlan()
        plan.sections = [certificate.section, "timeouts: { drain: \(drain) }"]
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        return Setup(
            gateway: gateway, certificate: certificate, node: node, customer: try await Customer.create(on: gateway))
    }

    @Test func streamsFinishBehindAGoAwayAndThenTheConnectionCloses() async throws {
        let setup = try await start(drain: "20s")
        let gateway = setup.gateway
        let port = gateway.port
        let key = setup.customer.key
        let (busy, idle) = try await blocking {
            let busy = try H2Wire(port: port)
            try busy.send(1, .chat("m", key: key, stream: true, tokens: 30))
            _ = try busy.head(1)
            _ = try busy.next(1)
            let idle = try H2Wire(port: port)
            try idle.send(1, .get("/v1/models", key: key))
            _ = try idle.response(1)
            return (busy, idle)
        }
        gateway.process.signal(SIGTERM)
        let (goodbye, text, last, end) = try await blocking {
            let goodbye = try busy.next(0)
            var text = ""
            while let frame = try busy.next(1) {
                text += String(decoding: frame.payload, as: UTF8.self)
                if frame.endsStream { break }
            }
            return (goodbye, text, try busy.next(0), try busy.next(0) == nil)
        }
        #expect(goodbye?.kind == .goAway)
        #expect(goodbye?.errorCode == 0)
        #expect(text.hasSuffix("data: [DONE]\n\n"))
        #expect(last?.lastStream == 1)
        #expect(end)
        let idleGoodbye = try await blocking { try idle.next(0) }
        #expect(idleGoodbye?.kind == .goAway)
        #expect(try await gateway.process.wait().code == 0)
        try await gateway.restart()
        #expect(try await setup.customer.onlySettle().completion == 30)
    }

    @Test func whatRunsPastTheDrainTimeGetsAnErrorEvent() async throws {
        let setup = try await start(drain: "400ms")
        let port = setup.gateway.port
        let key = setup.customer.key
        let wire = try await blocking {
            let wire = try H2Wire(port: port)
            try wire.send(1, .chat("m", key: key, stream: true, tokens: 2_000))
            _ = try wire.head(1)
            _ = try wire.next(1)
            return wire
        }
        setup.gateway.process.signal(SIGTERM)
        let text = try await blocking {
            var text = ""
            while let frame = try wire.next(1) {
                text += String(decoding: frame.payload, as: UTF8.self)
                if frame.endsStream { break }
            }
            return text
        }
        #expect(text.contains("shutting_down"))
        #expect(!text.contains("[DONE]"))
        #expect(try await setup.gateway.process.wait().code == 0)
        _ = try await setup.node.stats { $0.aborted == 1 }
    }

    @Test func aBodyThatWaitsForMemoryPausesAndGoesOn() async throws {
        let certificate = try await Certificate()
        let node = try await SimulatedNode.serving("slow", fault: "first_token:700ms")
        var plan = GatewayPlan()
        plan.sections = [certificate.section, "limits: { body_bytes: 40KiB, buffered_bytes: 44KiB }"]
        plan.loops = 1
        plan.serve("slow", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        let port = gateway.port
        let ask = Ask.chat("slow", key: customer.key, tokens: 1, prompt: String(repeating: "x", count: 28_000))
        let answers = try await blocking {
            let wire = try H2Wire(port: port)
            try wire.send(1, ask)
            try wire.send(3, ask)
            return [try wire.response(1), try wire.response(3)]
        }
        #expect(answers.map(\.status) == [200, 200])
        // The second was not admitted before the first had left memory.
        let lines = try await [
            gateway.accessLine(of: answers[0].requestID), gateway.accessLine(of: answers[1].requestID),
        ]
        let seconds = lines.map { $0["duration_seconds"]?.double ?? 0 }
        #expect(seconds[1] > seconds[0] + 0.5, "\(seconds)")
        _ = try await customer.books(settles: 2)
    }

    @Test func theLimitOnConnectionsCountsHandshakes() async throws {
        let certificate = try await Certificate()
        let node = try await SimulatedNode.serving("m")
        var plan = GatewayPlan()
        plan.sections = [certificate.section, "limits: { connections: 3 }"]
        plan.loops = 1
        plan.serve("m", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let dawdlers = try (1...3).map { _ in try gateway.connect() }
        try await until("three connections") { try await gateway.gauge("tollgate_connections_open") == 3 }
        let fourth = try gateway.connect()
        // Closed at once, long before `timeouts.header`.
        #expect(try await blocking { try fourth.rest() } == "")
        #expect(try await gateway.gauge("tollgate_connections_open") == 3)
        for wire in dawdlers { wire.close() }
        try await until("no connection") { try await gateway.gauge("tollgate_connections_open") == 0 }
        let key = try await Customer.create(on: gateway).key
        let port = gateway.port
        let status = try await blocking {
            let wire = try H2Wire(port: port)
            try wire.send(1, .get("/v1/models", key: key))
            return try wire.response(1).status
        }
        #expect(status == 200)
    }

    @Test func aChangedCertificateIsServedWithoutARestartAndABadOneIsNot() async throws {
        let setup = try await start(drain: "1s")
        let gateway = setup.gateway
        let certificate = setup.certificate
        let key = setup.customer.key
        let port = gateway.port
        #expect(try await Certificate.served(port: port) == "first")
        let old = try await blocking { try H2Wire(port: port) }

        try await Certificate.make("second", certificate: certificate.certificateFile, key: certificate.keyFile)
        try await until("the second certificate") { try await Certificate.served(port: port) == "second" }
        // A connection of before goes on with what it has.
        let status = try await blocking {
            try old.send(1, .get("/v1/models", key: key))
            return try old.response(1).status
        }
        #expect(status == 200)

        // A key of another certificate: the last good pair stays, and the log says why.
        let other = try await Certificate(name: "other")
        let keyText = try String(contentsOfFile: other.keyFile, encoding: .utf8)
        try keyText.write(toFile: certificate.keyFile, atomically: true, encoding: .utf8)
        try await until("the word on the mismatch") { gateway.log.contains("does not belong to the certificate") }
        #expect(gateway.log.contains("the last good one stays"))
        #expect(try await Certificate.served(port: port) == "second")

        try await Certificate.make("third", certificate: certificate.certificateFile, key: certificate.keyFile)
        gateway.process.signal(SIGHUP)
        try await until("the third certificate") { try await Certificate.served(port: port) == "third" }

        let text = try String(contentsOfFile: gateway.configurationFile, encoding: .utf8)
        try text.replacingOccurrences(of: certificate.section + "\n", with: "")
            .write(toFile: gateway.configurationFile, atomically: true, encoding: .utf8)
        try await until("the word on the restart") { gateway.log.contains("tls changed: it needs a restart") }
        #expect(try await Certificate.served(port: port) == "third")
    }
}

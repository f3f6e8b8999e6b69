import Foundation
import JSON
import Simulator
import Testing

/// Where a request's body ends over HTTP/2, which says it without `content-length`.
@Suite(.serialized) struct HTTP2BodyTests {
    private func start() async throws -> (GatewayUnderTest, Customer) {
        let certificate = try await Certificate()
        let node = try await SimulatedNode.serving("fast")
        var plan = GatewayPlan()
        plan.sections = [certificate.section]
        plan.loops = 1
        plan.serve("fast", port: node.port)
        let gateway = try await GatewayUnderTest.start(plan)
        return (gateway, try await Customer.create(on: gateway))
    }

    /// Blocking work with an HTTP/2 connection.
    private func http2<Value: Sendable>(
        _ gateway: GatewayUnderTest, _ work: @escaping @Sendable (H2Wire) throws -> Value
    ) async throws -> Value {
        let port = gateway.port
        return try await blocking { try work(H2Wire(port: port)) }
    }

    @Test func aBodyNeedsNoLength() async throws {
        let (gateway, customer) = try await start()
        let ask = Ask.chat("fast", key: customer.key, tokens: 3)
        let body = try #require(ask.body)
        var head = ask.with("content-type", "application/json")
        head.body = nil
        let bodiless = head
        let (told, untold) = try await http2(gateway) { wire in
            try wire.send(1, ask.with("content-length", "\(body.count)"))
            let told = try wire.response(1)
            // The end comes with the last data, or in a frame of its own; the data in one piece or in many.
            try wire.send(3, ask)
            try wire.send(try wire.request(5, bodiless, endsStream: false) + H2Wire.data(5, body, endsStream: false))
            try wire.send(H2Wire.data(5, [], endsStream: true))
            try wire.send(try wire.request(7, bodiless, endsStream: false))
            for byte in body { try wire.send(H2Wire.data(7, [byte], endsStream: false)) }
            try wire.send(H2Wire.data(7, [], endsStream: true))
            return (told, try [3, 5, 7].map { try wire.response($0) })
        }
        for answer in [told] + untold {
            #expect(answer.status == 200)
            #expect(try answer.json()["usage"] == told.json()["usage"])
        }
        _ = try await customer.books(settles: 4)
    }

    @Test func noBodyAtAllIsRefusedAsAnEmptyOneOfHTTP11Is() async throws {
        let (gateway, customer) = try await start()
        var head = Ask.post("/v1/chat/completions", "", key: customer.key).with("content-type", "application/json")
        head.body = nil
        let ask = head
        // Of HTTP/1.1, over the same TLS.
        let plain = try await run([
            "curl", "-sk", "--http1.1", "-w", "\n%{response_code}", "-H", "authorization: Bearer \(customer.key)", "-H",
            "content-type: application/json", "-H", "content-length: 0", "-X", "POST",
            "https://127.0.0.1:\(gateway.port)/v1/chat/completions",
        ])
        let answers = try await http2(gateway) { wire in
            try wire.send(1, ask)
            try wire.send(3, ask.with("content-length", "0"))
            try wire.send(try wire.request(5, ask, endsStream: false) + H2Wire.data(5, [], endsStream: true))
            return try [1, 3, 5].map { try wire.response($0) }
        }
        for answer in answers {
            #expect(answer.status == 400)
            #expect(answer.errorCode == "invalid_json")
            #expect("\(answer.text)\n\(answer.status)" == plain.output)
        }
        try await customer.expectNoCharge()
    }
}

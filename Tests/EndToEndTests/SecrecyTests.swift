import Foundation
import JSON
import Simulator
import Testing

/// Secrets and texts stay where they belong: not in logs, the journal, Redis, metrics or answers of the control plane.
@Suite(.serialized) struct SecrecyTests {
    private static let prompt = "canary-prompt-zebra-quartz"
    private static let field = "canary-field-violet-otter"
    private static let nodeKey = "canary-node-key-amber-finch"

    @Test func secretsAndTextsAppearNowhere() async throws {
        let node = try await SimulatedNode.serving("m", apiKey: Self.nodeKey)
        let failing = try await SimulatedNode.serving("bad", fault: "bad_json")
        let slow = try await SimulatedNode.serving("slow", speed: .times(0.2))
        let rude = try ScriptedNode { peer in
            let body = String(decoding: peer.readBody(), as: UTF8.self)
            let error = JSONWriter.quoted("cannot serve " + body)
            let text = "{\"error\":{\"message\":\(error),\"type\":\"x\",\"param\":null,\"code\":500}}"
            peer.write("HTTP/1.1 500 No\r\nContent-Length: \(text.utf8.count)\r\n\r\n\(text)")
        }
        var plan = GatewayPlan()
        plan.serve("m", port: node.port)
        plan.nodes[0].apiKey = Self.nodeKey
        plan.serve("bad", port: failing.port)
        plan.serve("slow", port: slow.port)
        plan.serve("rude", port: rude.port)
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        let completion = try await exercise(gateway, customer)

        var seen = ["metrics": try await gateway.metrics()]
        for path in ["orgs", "keys?org=\(customer.org)", "nodes", "prices", "orgs/\(customer.org)/ledger"] {
            seen[path] = try await gateway.adminAnswer("GET", "/admin/v1/\(path)").text
        }
        // Plain, streamed and left; the failed ones delivered nothing.
        _ = try await customer.books(settles: 3)
        #expect(try await gateway.stop().code == 0)
        seen["log"] = gateway.log
        seen["access log"] = TollgateProcess.text(of: gateway.process.outputFile)
        for (place, directory) in [("journal", gateway.journalDirectory), ("redis", gateway.redis.directory)] {
            seen[place] = Self.everything(in: directory)
        }
        let secret = String(customer.key.dropFirst(6 + 12 + 1).prefix(43))
        let canaries = [
            "the pepper": GatewayUnderTest.pepper, "the admin token": GatewayUnderTest.adminToken,
            "the key": customer.key,
            "the key's secret": secret, "the prompt": Self.prompt, "a field": Self.field,
            "the node's key": Self.nodeKey,
            "the completion": completion,
        ]
        #expect(completion.count > 20)
        for (place, text) in seen {
            #expect(text.count > 20, "\(place) was looked at")
            for (name, canary) in canaries { #expect(!text.contains(canary), "\(name) in \(place)") }
        }
        // The search finds what is there.
        for place in ["access log", "journal", "redis", "keys?org=\(customer.org)"] {
            #expect(seen[place]?.contains(customer.keyID) == true, "\(place)")
        }
        #expect(seen["log"]?.contains("listening") == true)
    }

    /// - Returns: A text that a node generated.
    private func exercise(_ gateway: GatewayUnderTest, _ customer: Customer) async throws -> String {
        let fields = "\"user\":\"\(Self.field)\",\"x_extra\":\"\(Self.field)\","
        func ask(_ model: String, stream: Bool = false) -> Ask {
            .chat(model, key: customer.key, stream: stream, tokens: 30, prompt: Self.prompt, fields: fields)
        }
        let answer = try await gateway.ask(ask("m"))
        let completion = try answer.json()["choices"]?[0]?["message"]?["content"]?.string ?? ""
        _ = try await gateway.ask(ask("m", stream: true))
        for model in ["bad", "rude", "nobody-\(Self.field)"] {
            let refused = try await gateway.ask(ask(model))
            #expect(refused.status >= 400)
            #expect(!refused.text.contains(Self.prompt))
        }
        _ = try await gateway.ask(ask("bad", stream: true))
        let left = try gateway.connect()
        try left.send(ask("slow", stream: true))
        _ = try await blocking {
            _ = try left.head()
            return try left.nextEvent()
        }
        left.close()
        let bodies = [
            "{\"model\":\"m\",\"messages\":\"\(Self.prompt)\"}", "{\"\(Self.field)\":\"\(Self.prompt)",
            "{\"model\":\"m\",\"\(Self.field)\":1,\"\(Self.field)\":2}",
        ]
        for body in bodies {
            #expect(try await gateway.ask(.post("/v1/chat/completions", body, key: customer.key)).status == 400)
        }
        _ = try await gateway.ask(.get("/v1/\(Self.field)?key=\(Self.prompt)", key: customer.key))
        _ = try await gateway.ask(.get("/v1/models/\(Self.field)", key: customer.key))
        _ = try await gateway.ask(.chat("m", key: String(customer.key.dropLast()), prompt: Self.prompt))
        _ = try await gateway.wire { wire in
            try wire.send("\(Self.prompt)\r\nAuthorization: Bearer \(customer.key)\r\n\r\n")
            return try wire.response()
        }
        let wrongToken = try await gateway.adminAnswer("GET", "/admin/v1/nothing-\(Self.field)")
        #expect(wrongToken.status == 404)
        return completion
    }

    private static func everything(in directory: String) -> String {
        var text = ""
        for name in FileManager.default.enumerator(atPath: directory)?.compactMap({ $0 as? String }) ?? [] {
            guard let data = FileManager.default.contents(atPath: "\(directory)/\(name)") else { continue }
            // One character a byte: what is not text must not hide what is.
            text += String(String.UnicodeScalarView(data.lazy.filter { $0 != 0 }.map { Unicode.Scalar($0) }))
        }
        return text
    }
}

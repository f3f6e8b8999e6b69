import Foundation
import JSON
import Simulator
import Testing

/// A model whose vocabulary the gateway knows: rates, holds, the context and what is charged go by its tokens.
@Suite(.serialized) struct TokenizerTests {
    /// Each byte is a token, and so are "aa" and "aaaa": 4,000 a's are 1,000 tokens.
    private static func vocabulary(_ further: [String] = ["aa", "aaaa"]) -> String {
        let tokens = (0...255).map { [UInt8($0)] } + further.map { Array($0.utf8) }
        return tokens.enumerated().map { "\(Data($1).base64EncodedString()) \($0)\n" }.joined()
    }

    /// What the gateway takes a template to add to one message until nodes have reported.
    private static let template = 8
    private static let text = String(repeating: "a", count: 4_000)

    private struct Setup: Sendable {
        let gateway: GatewayUnderTest
        let node: SimulatedNode
        let file: URL
    }

    private func start() async throws -> Setup {
        let file = FileManager.default.temporaryDirectory.appending(path: "vocabulary-\(UUID()).tiktoken")
        try Self.vocabulary().write(to: file, atomically: true, encoding: .utf8)
        let tokenizer = "tokenizer: { file: \(file.path), pattern: gpt2 }"
        let node = try await SimulatedNode.serving("counted")
        let silent = try await SimulatedNode.serving("silent", fault: "no_usage")
        var plan = GatewayPlan()
        plan.serve("counted", port: node.port, options: [tokenizer, "context_tokens: 2000", "max_output_tokens: 100"])
        plan.serve("silent", port: silent.port, options: [tokenizer])
        return Setup(gateway: try await GatewayUnderTest.start(plan), node: node, file: file)
    }

    @Test func limitsHoldsAndTheContextGoByTheVocabulary() async throws {
        let setup = try await start()
        let customer = try await Customer.create(on: setup.gateway, limits: ",\"tpm\":10000")
        let answer = try await setup.gateway.ask(.chat("silent", key: customer.key, tokens: 4, prompt: Self.text))
        #expect(answer.status == 200)
        #expect(answer.header("x-ratelimit-remaining-tokens") == "\(10_000 - 1_000 - Self.template - 4)")

        // 4,000 bytes would be held without the vocabulary; its 1,000 tokens, and the bytes around them, are.
        let held = 1_300 * GatewayUnderTest.inputPrice + 4 * GatewayUnderTest.outputPrice
        let digits = String(repeating: "0", count: 9 - "\(held)".count) + "\(held)"
        let poor = try await Customer.create(on: setup.gateway, credit: "0.\(digits)")
        #expect(
            try await setup.gateway.ask(.chat("counted", key: poor.key, tokens: 4, prompt: Self.text)).status == 200)

        // Its figures are told after the answer.
        try await until("the node has counted the request") { setup.node.stats.requests == 1 }
        let long = "x" + String(repeating: "ab", count: 1_100) + "x"
        let refused = try await setup.gateway.ask(.chat("counted", key: customer.key, tokens: 4, prompt: long))
        #expect(refused.status == 400)
        #expect(refused.errorCode == "context_length_exceeded")
        #expect(setup.node.stats.requests == 1)
        // As many bytes in fewer tokens fit.
        let fits = String(repeating: "a", count: 2_202)
        #expect(try await setup.gateway.ask(.chat("counted", key: customer.key, tokens: 4, prompt: fits)).status == 200)
        _ = try await customer.books(settles: 2)
    }

    /// Its answers are "aaaaaaaa", which comes in three events where it streams, and it says nothing of usage.
    private static func quiet() throws -> ScriptedNode {
        try ScriptedNode { peer in
            let isStream = String(decoding: peer.readBody(), as: UTF8.self).contains("\"stream\":true")
            guard isStream else {
                let body =
                    #"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":"#
                    + #"{"role":"assistant","content":"aaaa\u0061aaa"},"finish_reason":"stop"}]}"#
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)"
                _ = peer.write("\(head)\r\n\r\n\(body)")
                return
            }
            _ = peer.write(ScriptedNode.streamHead)
            for text in ["aaa", "\\u0061aaa", "a"] { _ = peer.write(peer.event(ScriptedNode.content(text))) }
            _ = peer.write(peer.event("[DONE]") + "0\r\n\r\n")
        }
    }

    @Test(arguments: [false, true])
    func whatANodeDoesNotSayIsCountedByTheVocabulary(stream: Bool) async throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "vocabulary-\(UUID()).tiktoken")
        try Self.vocabulary().write(to: file, atomically: true, encoding: .utf8)
        let node = try Self.quiet()
        var plan = GatewayPlan()
        plan.serve("quiet", port: node.port, options: ["tokenizer: { file: \(file.path), pattern: gpt2 }"])
        let gateway = try await GatewayUnderTest.start(plan)
        let customer = try await Customer.create(on: gateway)
        let prompt = "Say \"something\"\n."
        let answer = try await gateway.ask(
            .chat("quiet", key: customer.key, stream: stream, tokens: 60, prompt: prompt))
        #expect(answer.status == 200)
        let entry = try await customer.onlySettle()
        #expect(entry.estimated)
        #expect(entry.prompt == prompt.utf8.count + Self.template)
        // Neither the three events nor the fourth of its bytes that would be guessed: "aaaa" twice.
        #expect(entry.completion == 2)
    }

    @Test func aChangedVocabularyIsTakenAndABrokenOneIsNot() async throws {
        let setup = try await start()
        let customer = try await Customer.create(on: setup.gateway, limits: ",\"tpm\":100000")
        func tokens() async throws -> Int {
            let before = try await setup.gateway.ask(.chat("none", key: customer.key))
            let after = try await setup.gateway.ask(.chat("silent", key: customer.key, tokens: 1, prompt: Self.text))
            func left(_ answer: Answer) -> Int { Int(answer.header("x-ratelimit-remaining-tokens") ?? "") ?? .min }
            return left(before) - left(after) - 1 - Self.template
        }
        #expect(try await tokens() == 1_000)
        try Self.vocabulary(["aa", "aaaa", "aaaaaaaa"]).write(to: setup.file, atomically: true, encoding: .utf8)
        try await until("the new vocabulary to count") { try await tokens() == 500 }
        try "nothing".write(to: setup.file, atomically: true, encoding: .utf8)
        try await until("the broken one to be refused") { setup.gateway.log.contains("was not reloaded") }
        #expect(try await tokens() == 500)
    }
}

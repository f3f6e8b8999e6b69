import Domain
import Foundation
import JSON
import OpenAIProtocol
import Support
import Testing

struct BodyPatcherTests {
    private func patched(
        _ body: String, _ plan: PatchPlan, _ endpoint: Endpoint = .chatCompletions
    ) throws -> String {
        let edits = try scan(body, endpoint).edits(for: plan, endpoint: endpoint)
        return text(applyEdits(edits, to: Array(body.utf8)))
    }

    @Test(arguments: [
        (#"{"model":"m","messages":[{}]}"#, #"{"max_tokens":9,"model":"node","messages":[{}]}"#),
        (#"{"model":"m","max_tokens":7,"messages":[{}]}"#, #"{"model":"node","max_tokens":9,"messages":[{}]}"#),
        (#"{"model":"m","max_tokens": null ,"messages":[{}]}"#, #"{"model":"node","max_tokens": 9 ,"messages":[{}]}"#),
        (
            #"{"stream":true,"model":"m","messages":[{}]}"#,
            #"{"stream_options":{"include_usage":true},"max_tokens":9,"stream":true,"model":"node","messages":[{}]}"#
        ),
        (
            #"{"stream":true,"stream_options":null,"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":true,"stream_options":{"include_usage":true},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"stream":true,"stream_options":{},"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":true,"stream_options":{"include_usage":true},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"stream":true,"stream_options":{ "x":1},"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":true,"stream_options":{"include_usage":true, "x":1},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"stream":true,"stream_options":{"include_usage":null},"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":true,"stream_options":{"include_usage":true},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"stream":true,"stream_options":{"include_usage":true},"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":true,"stream_options":{"include_usage":true},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"stream":false,"stream_options":{"include_usage":false},"model":"m","max_tokens":9,"messages":[{}]}"#,
            #"{"stream":false,"stream_options":{"include_usage":false},"model":"node","max_tokens":9,"messages":[{}]}"#
        ),
        (
            #"{"model":"m","max_completion_tokens":5,"messages":[{}]}"#,
            #"{"max_tokens":9,"model":"node","max_completion_tokens":9,"messages":[{}]}"#
        ),
    ])
    func patchesOnlyWhatIsListed(body: String, expected: String) throws {
        #expect(try patched(body, PatchPlan(upstreamModel: "node", maxTokens: 9)) == expected)
    }

    @Test func anOpenAIServerGetsTheNameThatTheClientUsed() throws {
        let plan = PatchPlan(upstreamModel: "node", maxTokens: 9, engine: .openai)
        let body = #"{"model":"m","max_completion_tokens":5,"messages":[{}]}"#
        #expect(try patched(body, plan) == #"{"model":"node","max_completion_tokens":9,"messages":[{}]}"#)
        // Text completions know only the other name.
        #expect(
            try patched(#"{"model":"m","max_completion_tokens":5,"prompt":"x"}"#, plan, .completions)
                == #"{"max_tokens":9,"model":"node","max_completion_tokens":9,"prompt":"x"}"#)
    }

    @Test func embeddingsGetNoLimitAndNoStreamOptions() throws {
        let plan = PatchPlan(upstreamModel: "n\"x", maxTokens: 9, cacheSalt: "s")
        #expect(
            try patched(#"{"model":"m","input":"a"}"#, plan, .embeddings)
                == #"{"cache_salt":"s","model":"n\"x","input":"a"}"#)
    }

    @Test func saltTakesTheNullsPlace() throws {
        let plan = PatchPlan(upstreamModel: "node", cacheSalt: "s")
        #expect(
            try patched(#"{"cache_salt":null,"model":"m","messages":[{}]}"#, plan)
                == #"{"cache_salt":"s","model":"node","messages":[{}]}"#)
    }

    @Test func defaultsGoWhereTheClientIsSilent() throws {
        let plan = PatchPlan(
            upstreamModel: "node",
            defaults: [
                ("temperature", Array("0.7".utf8)), ("top_p", Array("0.9".utf8)), ("n", Array("5".utf8)),
                ("model", Array("\"evil\"".utf8)), ("max_tokens", Array("5".utf8)),
            ])
        #expect(
            try patched(#"{"top_p":null,"model":"m","messages":[{}]}"#, plan)
                == #"{"temperature":0.7,"top_p":null,"model":"node","messages":[{}]}"#)
        #expect(PatchPlan.isReserved(defaultKey: "n_predict") && !PatchPlan.isReserved(defaultKey: "temperature"))
    }

    /// The patched body is the original object with just the listed fields changed, and every byte outside the edits is
    /// where it was.
    @Test(arguments: [21, 22, 23, 24] as [UInt64])
    func nothingElseChangesInRandomBodies(seed: UInt64) throws {
        var numbers = SplitMix64(seed: seed)
        for _ in 0..<500 {
            let (body, endpoint) = Self.randomBody(&numbers)
            let plan = Self.randomPlan(&numbers)
            let scanned = try scan(body, endpoint)
            let edits = scanned.edits(for: plan, endpoint: endpoint)
            let bytes = Array(body.utf8)
            let result = applyEdits(edits, to: bytes)
            #expect(result.count == bytes.count + edits.growth)

            var from = 0
            var to = 0
            for edit in edits {
                try #require(edit.offset >= from, "seed \(seed): edits overlap")
                let kept = edit.offset - from
                #expect(bytes[from..<edit.offset] == result[to..<(to + kept)].map { $0 }[...])
                #expect(Array(result[(to + kept)..<(to + kept + edit.inserted.count)]) == edit.inserted)
                from = edit.offset + edit.removed
                to += kept + edit.inserted.count
            }
            #expect(Array(bytes[from...]) == Array(result[to...]))

            var expected = try Self.object(bytes)
            expected["model"] = plan.upstreamModel
            if endpoint.generates {
                if plan.forceStreamUsage, expected["stream"] as? Bool == true {
                    var options = expected["stream_options"] as? [String: Any] ?? [:]
                    options["include_usage"] = true
                    expected["stream_options"] = options
                }
                if let limit = plan.maxTokens {
                    expected["max_tokens"] = limit
                    if expected["max_completion_tokens"] != nil { expected["max_completion_tokens"] = limit }
                }
            }
            if let salt = plan.cacheSalt { expected["cache_salt"] = salt }
            for entry in plan.defaults where expected[entry.key] == nil {
                expected[entry.key] = try JSONSerialization.jsonObject(
                    with: Data(entry.json), options: .fragmentsAllowed)
            }
            let actual = try Self.object(result)
            #expect(NSDictionary(dictionary: actual) == NSDictionary(dictionary: expected), "seed \(seed): \(body)")
            // What goes upstream is what the gateway would accept and read alike.
            let again = try scan(text(result), endpoint)
            #expect(again.model == plan.upstreamModel && again.choices == scanned.choices)
        }
    }

    private static func object(_ bytes: [UInt8]) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
    }

    private static func randomPlan(_ numbers: inout SplitMix64) -> PatchPlan {
        PatchPlan(
            upstreamModel: numbers.pick(["node", "meta-llama/L", "a \"quoted\" näme"]),
            maxTokens: numbers.chance(70) ? 1 + numbers.below(9_999) : nil, forceStreamUsage: numbers.chance(80),
            cacheSalt: numbers.chance(50) ? "salt" : nil,
            defaults: numbers.chance(50)
                ? [("temperature", Array("0.5".utf8)), ("extra", Array(#"{"a":[1]}"#.utf8))] : [])
    }

    private static func randomBody(_ numbers: inout SplitMix64) -> (String, Endpoint) {
        let endpoint = numbers.pick([Endpoint.chatCompletions, .completions, .embeddings])
        var members = [#""model":"some \u006dodel""#]
        switch endpoint {
        case .completions: members.append(#""prompt":["a","b\n"]"#)
        case .embeddings: members.append(#""input":"text { } , \" ""#)
        default: members.append(#""messages":[{"role":"user","content":"say \"model\": \"x\", é 🙂"}]"#)
        }
        func maybe(_ choices: [String]) { if numbers.chance(60) { members.append(numbers.pick(choices)) } }
        if endpoint != .embeddings {
            maybe([#""stream":true"#, #""stream": true"#, #""stream":false"#, #""stream":null"#])
        }
        maybe([
            #""stream_options":null"#, #""stream_options":{}"#, #""stream_options":{ }"#,
            #""stream_options":{"include_usage":false}"#,
            #""stream_options":{"a":{"include_usage":1}, "include_usage" : null}"#,
            #""stream_options":{"continuous_usage_stats":true}"#,
        ])
        maybe([#""max_tokens":5"#, #""max_tokens" : null"#])
        maybe([#""max_completion_tokens":null"#])
        maybe([#""cache_salt":null"#])
        maybe([#""temperature":1.5e0"#, #""temperature":null"#])
        for index in 0..<numbers.below(5) {
            let value = numbers.pick([
                "1", "[1, 2,{\"model\":\"q\"}]", "\"}\\\\\"", "{\"max_tokens\":1}", "null", "1.00", "\"\\u00e9é\"",
                "[]",
            ])
            members.append("\"unknown\(index)\":\(value)")
        }
        members.shuffle(using: &numbers)
        let space = numbers.pick(["", " ", "\n  "])
        return ("\(space){\(space)" + members.joined(separator: "\(space),\(space)") + "\(space)}\(space)", endpoint)
    }
}

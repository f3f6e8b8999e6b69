import Domain
import JSON
import NIOCore
import Testing

@testable import Simulator

@Suite struct PromptTokensTests {
    @Test func textCountsAQuarterOfItsBytesRoundedUp() {
        for (text, tokens) in [("a", 1), ("abcd", 1), ("abcde", 2), ("Grüße", 2), ("日本", 2)] {
            var prompt = PromptTokens()
            prompt.append(text: text)
            #expect(prompt.count == tokens, "\(text)")
        }
    }

    @Test func equalStartsShareTheirBlocksAndSaltsShareNothing() {
        func blocks(_ text: String, salt: String = "") -> [UInt64] {
            var prompt = PromptTokens()
            prompt.append(text: text)
            return prompt.blocks(salt: salt)
        }
        let base = String(repeating: "0123456789abcdef", count: 16)
        let one = blocks(base + "x")
        let other = blocks(base + String(repeating: "y", count: 64))
        #expect(one.count == 4)
        #expect(other.count == 5)
        #expect(Array(other.prefix(4)) == one)
        #expect(Set(blocks("!" + base.dropFirst())).isDisjoint(with: one))
        #expect(Set(blocks(base, salt: "org")).isDisjoint(with: one))
    }
}

@Suite struct GenerationRequestTests {
    private let model = NodeModel(name: "m", contextTokensMax: 1_000)

    private func chat(_ fields: String, overrun: Int? = nil) throws -> GenerationRequest {
        try generation(.chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]\(fields)}", overrun: overrun)
    }

    private func generation(
        _ kind: GenerationRequest.Kind, _ json: String, overrun: Int? = nil
    ) throws -> GenerationRequest {
        var generator = SplitMix64(seed: 3)
        return try GenerationRequest(
            kind: kind, body: try JSONValue(parsing: json), model: model, generator: &generator,
            overrunTokens: overrun)
    }

    @Test func messageCountsItsTextAndTheTemplate() throws {
        #expect(try chat("").promptTokens == 4 + 2 + 3)
        let parts = try generation(
            .chat, #"{"messages":[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"image_url"}]}]}"#)
        #expect(parts.promptTokens == 4 + 2 + 256 + 3)
        let tools = try chat(#","tools":[{"type":"function"}]"#)
        #expect(tools.promptTokens > 9 + 4)
    }

    @Test func lengthIsCappedByTheSmallerLimitAndTakesTheNewerField() throws {
        let ignoring = #","ignore_eos":true"#
        #expect(try chat(#","max_tokens":7"# + ignoring).choices[0][0].tokens == 7)
        #expect(try chat(#","max_tokens":7,"max_completion_tokens":5"# + ignoring).choices[0][0].tokens == 5)
        #expect(try chat(ignoring).choices[0][0].tokens == 991)
        #expect(try generation(.completion, #"{"prompt":"a","ignore_eos":true}"#).choices[0][0].tokens == 16)
        #expect(try chat(#","max_tokens":7,"ignore_eos":true"#).choices[0][0].finishReason == "length")
        #expect(try chat(#","max_tokens":7"# + ignoring, overrun: 10).choices[0][0].tokens == 17)
    }

    @Test func drawnLengthsStayWithinTheBoundsAndVary() throws {
        var generator = SplitMix64(seed: 11)
        let lengths = (0..<2_000).map { _ in AnswerLength.draw(using: &generator) }.sorted()
        #expect((110...150).contains(lengths[1_000]))
        #expect(lengths[1_980] > 700 && lengths[1_980] < 1_600)
        for _ in 0..<50 {
            let request = try chat(#","n":4,"min_tokens":60,"max_tokens":90"#)
            #expect(request.choices[0].allSatisfy { (60...90).contains($0.tokens) })
        }
    }

    @Test func seedFixesTheAnswer() throws {
        let one = try chat(#","seed":5,"n":2"#)
        let again = try chat(#","seed":5,"n":2"#)
        #expect(one.choices == again.choices)
        #expect(one.choices[0][0] != one.choices[0][1])
        #expect(try chat(#","seed":6,"n":2"#).choices != one.choices)
    }

    @Test func bestOfIsGeneratedButNotShown() throws {
        let request = try generation(.completion, #"{"prompt":["a","b"],"n":2,"best_of":3,"ignore_eos":true}"#)
        #expect(request.choices.map(\.count) == [3, 3])
        #expect(request.choices[0].map(\.isHidden) == [false, false, true])
    }

    @Test func everyWordOfTheVocabularyOccurs() {
        let text = FillerText(seed: 1)
        #expect(Set((0..<4_000).map(text.token)).count == 64)
    }

    @Test func stopStringEndsTheTextBeforeItself() throws {
        for seed in 0..<200 as Range<UInt64> {
            let text = FillerText(seed: seed)
            let whole = (0..<200).map(text.token).joined()
            let stops = [" node and", "wait", "zzz", "s t"]
            let positions = stops.compactMap { whole.firstRange(of: $0)?.lowerBound.utf16Offset(in: whole) }
            let stop = text.stop(at: stops, tokens: 200, tokensMin: 0)
            guard let stop else {
                #expect(positions.isEmpty)
                continue
            }
            let shown = whole.prefix(stop.visibleBytes)
            #expect(whole.dropFirst(stop.visibleBytes).hasPrefix(stop.text))
            #expect(stops.allSatisfy { !shown.contains($0) })
            #expect((0..<stop.tokens).map(text.token).joined().utf8.count >= stop.visibleBytes + stop.text.utf8.count)
            if let later = text.stop(at: stops, tokens: 200, tokensMin: stop.tokens + 1) {
                #expect(later.tokens > stop.tokens)
            }
        }
    }

    @Test(
        arguments: [
            (#"{"messages":[]}"#, 400, "messages"),
            (#"{"messages":"hi"}"#, 400, "messages"),
            (#"{}"#, 400, "messages"),
            (#"{"messages":[{"content":"x"}]}"#, 400, "messages"),
            (#"{"messages":[{"role":"user","content":5}]}"#, 400, "messages"),
            (#"{"model":"other","messages":[{"role":"user","content":"x"}]}"#, 404, "model"),
            (#"{"model":5}"#, 400, "model"),
            (#"[1]"#, 400, nil),
            (#"{"messages":[{"role":"user"}],"max_tokens":0}"#, 400, "max_tokens"),
            (#"{"messages":[{"role":"user"}],"max_tokens":"5"}"#, 400, "max_tokens"),
            (#"{"messages":[{"role":"user"}],"max_tokens":1.5}"#, 400, "max_tokens"),
            (#"{"messages":[{"role":"user"}],"max_tokens":5000}"#, 400, "input_tokens"),
            (#"{"messages":[{"role":"user"}],"max_tokens":9223372036854775807}"#, 400, "input_tokens"),
            (#"{"messages":[{"role":"user"}],"max_tokens":5,"min_tokens":6}"#, 400, "min_tokens"),
            (#"{"messages":[{"role":"user"}],"n":0}"#, 400, "n"),
            (#"{"messages":[{"role":"user"}],"n":129}"#, 400, "n"),
            (#"{"messages":[{"role":"user"}],"stop":[1]}"#, 400, "stop"),
            (#"{"messages":[{"role":"user"}],"stream":"yes"}"#, 400, "stream"),
            (#"{"messages":[{"role":"user"}],"stream_options":{"include_usage":true}}"#, 400, "stream_options"),
        ] as [(String, Int, String?)])
    func badRequestNamesItsField(json: String, status: Int, parameter: String?) {
        #expect { try generation(.chat, json) } throws: { error in
            let refusal = error as? NodeRefusal
            return refusal?.status == status && refusal?.parameter == parameter
        }
    }
}

@Suite struct AnswerStateMachineTests {
    private func answer(_ fields: String) throws -> (GenerationRequest, AnswerStateMachine) {
        var generator = SplitMix64(seed: 3)
        let request = try GenerationRequest(
            kind: .chat,
            body: try JSONValue(
                parsing: "{\"messages\":[{\"role\":\"user\"}],\"stream\":true,\"ignore_eos\":true\(fields)}"),
            model: NodeModel(name: "m", contextTokensMax: 1_000), generator: &generator, overrunTokens: nil)
        let renderer = request.renderer(AnswerIdentity(id: "0", created: 1, model: "\"m\""))
        return (request, AnswerStateMachine(request: request, renderer: renderer, faults: .none, isChunked: true))
    }

    @Test func bytesAreTheSameHoweverTheyAreTaken() throws {
        func taken(bytesMax: Int, tokensAtOnce: Int) throws -> String {
            var (_, machine) = try answer(#","n":3,"max_tokens":40,"stream_options":{"include_usage":true}"#)
            var all = ByteBuffer()
            var generated = 0
            while true {
                generated = min(40, generated + tokensAtOnce)
                _ = machine.tokensGenerated(prompt: 0, tokens: generated)
                while true {
                    var buffer = ByteBuffer()
                    let action = machine.write(into: &buffer, bytesMax: bytesMax, saysClose: false)
                    all.writeBuffer(&buffer)
                    if action == .finish { return String(buffer: all) }
                    if action == .writeThenWait { break }
                }
            }
        }
        let whole = try taken(bytesMax: .max, tokensAtOnce: 1)
        #expect(whole.hasSuffix("data: [DONE]\n\n\r\n0\r\n\r\n"))
        #expect(try taken(bytesMax: 1, tokensAtOnce: 1) == whole)
        #expect(try taken(bytesMax: 500, tokensAtOnce: 1) == whole)
        #expect(try taken(bytesMax: 1, tokensAtOnce: 40).count == whole.count)
    }

    @Test func newTokensAreCountedOnce() throws {
        var (_, machine) = try answer(#","n":2,"max_tokens":10"#)
        #expect(machine.tokensGenerated(prompt: 0, tokens: 4) == 8)
        #expect(machine.tokensGenerated(prompt: 0, tokens: 3) == 0)
        #expect(machine.tokensGenerated(prompt: 0, tokens: 99) == 12)
        #expect(machine.usage.completionTokens == 20)
    }
}

@Suite struct EmbeddingVectorTests {
    @Test func base64FollowsTheStandard() {
        for (text, encoded) in [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            #expect(EmbeddingVector.base64(Array(text.utf8)) == encoded)
        }
    }

    @Test func equalInputsHaveEqualUnitVectors() {
        var one = PromptTokens()
        one.append(text: "hello")
        var other = PromptTokens()
        other.append(text: "hellp")
        let vector = EmbeddingVector.of(one, dimensions: 384)
        #expect(vector == EmbeddingVector.of(one, dimensions: 384))
        #expect(abs(zip(vector, vector).map(*).reduce(0, +) - 1) < 1e-4)
        #expect(abs(zip(vector, EmbeddingVector.of(other, dimensions: 384)).map(*).reduce(0, +)) < 0.3)
    }
}

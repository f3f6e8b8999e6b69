import Domain
import OpenAIProtocol
import Testing

struct RequestClampsTests {
    /// What goes upstream, and what was lowered.
    private func lowered(
        _ body: String, _ clamps: RequestClamps, _ endpoint: Endpoint = .chatCompletions
    ) throws -> (body: String, lowered: [String], choices: Int) {
        let (request, lowered) = try scan(body, endpoint).lowered(to: clamps)
        var plan = PatchPlan(upstreamModel: "m", maxTokens: request.maxTokens, forceStreamUsage: false)
        if lowered.contains(where: { $0.name == "n" }) { plan.choicesClamp = clamps.n }
        let edits = request.edits(for: plan, endpoint: endpoint)
        return (
            text(applyEdits(edits, to: Array(body.utf8))), lowered.map { "\($0.name)=\($0.value)" }, request.choices
        )
    }

    @Test func whatIsAboveIsLoweredUnderEveryName() throws {
        let clamps = RequestClamps(maxTokens: 5, n: 2)
        let chat = try lowered(
            #"{"model":"m","n": 3,"max_tokens":9,"max_completion_tokens":9,"messages":[{}]}"#, clamps)
        #expect(chat.body == #"{"model":"m","n": 2,"max_tokens":5,"max_completion_tokens":5,"messages":[{}]}"#)
        #expect(chat.lowered == ["max_tokens=5", "n=2"])
        #expect(chat.choices == 2)
        let best = try lowered(
            #"{"model":"m","best_of":7,"n":1,"max_tokens":5,"prompt":["a","b"]}"#, clamps, .completions)
        #expect(best.body == #"{"model":"m","best_of":2,"n":1,"max_tokens":5,"prompt":["a","b"]}"#)
        #expect(best.lowered == ["n=2"])
        #expect(best.choices == 4)
    }

    @Test(arguments: [
        #"{"model":"m","n":2,"max_tokens":5,"messages":[{}]}"#, #"{"max_tokens":1,"model":"m","messages":[{}]}"#,
    ])
    func whatIsWithinStays(body: String) throws {
        let result = try lowered(body, RequestClamps(maxTokens: 5, n: 2))
        #expect(result.lowered == [])
        #expect(result.body == body)
    }

    @Test func silenceAndEmbeddingsAreNotLowered() throws {
        let clamps = RequestClamps(maxTokens: 1, n: 1)
        let silent = try scan(#"{"model":"m","messages":[{}],"n":null}"#).lowered(to: clamps)
        #expect(silent.lowered.isEmpty)
        #expect(silent.request.maxTokens == nil)
        let inputs = try scan(#"{"model":"m","input":["a","b"]}"#, .embeddings).lowered(to: clamps)
        #expect(inputs.lowered.isEmpty)
        #expect(inputs.request.choices == 2)
    }
}

import Domain
import NIOCore
import OpenAIProtocol
import Testing

@testable import Gateway

private func chunk(_ delta: String, usage: String = "", finish: String = "null") -> String {
    """
    data: {"id":"c1","object":"chat.completion.chunk","model":"up-model","choices":[{"index":0,"delta":\(delta),\
    "finish_reason":\(finish)}]\(usage)}


    """
}

private let usageChunk =
    #"data: {"id":"c1","model":"up-model","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"# + "\n\n"

private let stream =
    chunk(#"{"role":"assistant","content":""}"#) + ": a comment\n\n" + chunk(#"{"content":"Grüße "}"#)
    + chunk(#"{"content":"日本"}"#, usage: #","usage":null"#).replacingLineEnds()
    + chunk(#"{"content":"!"}"#) + chunk("{}", finish: #""stop""#) + usageChunk + "data: [DONE]\n\n"

extension String {
    /// The same event with CR LF line ends.
    fileprivate func replacingLineEnds() -> String { split(separator: "\n").joined(separator: "\r\n") + "\r\n\r\n" }
}

private struct Relayed: Equatable {
    var text: String
    var contentEvents: Int
    var usage: ReportedUsage
    var outcome: StreamRelay.Outcome
}

private func relay(_ parts: [[UInt8]], clientWantsUsage: Bool, completionTokensMax: Int = 100) -> Relayed {
    var relay = StreamRelay(
        model: ModelID(unchecked: "public"), upstreamModelName: "up-model", clientWantsUsage: clientWantsUsage,
        completionTokensMax: completionTokensMax)
    var output = ByteBuffer()
    var outcome = StreamRelay.Outcome.open
    for part in parts where outcome == .open { outcome = relay.feed(ByteBuffer(bytes: part), into: &output) }
    return Relayed(
        text: String(buffer: output), contentEvents: relay.contentEvents, usage: relay.usage, outcome: outcome)
}

@Suite struct StreamRelayTests {
    @Test func everySplitOfAStreamRelaysTheSame() {
        let bytes = Array(stream.utf8)
        let whole = relay([bytes], clientWantsUsage: false)
        #expect(whole.outcome == .done)
        #expect(whole.contentEvents == 3)
        for at in 1..<bytes.count {
            #expect(
                relay([Array(bytes[..<at]), Array(bytes[at...])], clientWantsUsage: false) == whole, "split at \(at)")
        }
        #expect(relay(bytes.map { [$0] }, clientWantsUsage: false) == whole, "byte by byte")
    }

    @Test func usageIsStrippedWhereTheClientDidNotAsk() {
        let relayed = relay([Array(stream.utf8)], clientWantsUsage: false)
        #expect(!relayed.text.contains("usage"))
        #expect(relayed.usage == .value(TokenUsage(promptTokens: 9, cachedTokens: 0, completionTokens: 3)))
        #expect(relayed.text.contains("Grüße "))
        #expect(relayed.text.contains("\n\n: ping\n\n"))
        #expect(!relayed.text.contains("a comment"))
    }

    @Test func usageReachesAClientThatAsked() {
        let relayed = relay([Array(stream.utf8)], clientWantsUsage: true)
        #expect(relayed.text.contains(#""usage":{"prompt_tokens":9,"completion_tokens":3}"#))
        #expect(relayed.text.contains(#""usage":null"#))
    }

    @Test func thePublicModelStandsInTheNodesPlace() {
        let relayed = relay([Array(stream.utf8)], clientWantsUsage: true)
        #expect(!relayed.text.contains("up-model"))
        #expect(relayed.text.components("\"model\":\"public\"") == 6)
    }

    @Test func fieldsThatWouldSteerTheClientStay() {
        let event = "retry: 1\nid: node-7\nevent: x\n" + chunk(#"{"content":"a"}"#)
        let relayed = relay([Array(event.utf8)], clientWantsUsage: false)
        #expect(relayed.text.hasPrefix("data: {"))
        #expect(!relayed.text.contains("retry") && !relayed.text.contains("node-7"))
    }

    @Test func anEventThatIsNullIsPassedOver() {
        let relayed = relay([Array(("data: null\n\n" + stream).utf8)], clientWantsUsage: false)
        #expect(relayed == relay([Array(stream.utf8)], clientWantsUsage: false))
        #expect(relay([Array("data: nul\n\n".utf8)], clientWantsUsage: false).outcome != .open)
    }

    @Test func whatHasBeenRelayedIsNotKept() {
        var relay = StreamRelay(
            model: ModelID(unchecked: "m"), upstreamModelName: "u", clientWantsUsage: false,
            completionTokensMax: 1_000_000)
        let event = Array(chunk(#"{"content":"abcdefgh"}"#).utf8)
        // Every read ends in the middle of an event.
        var rest: [UInt8] = []
        for _ in 0..<5_000 {
            rest.append(contentsOf: event)
            let part = rest.prefix(rest.count - 5)
            rest.removeFirst(part.count)
            var output = ByteBuffer()
            #expect(relay.feed(ByteBuffer(bytes: part), into: &output) == .open)
        }
        #expect(relay.heldBytes < 64 << 10)
    }

    @Test func doneIsHeldBackAndWhatFollowsItIsIgnored() {
        let relayed = relay([Array((stream + chunk(#"{"content":"late"}"#)).utf8)], clientWantsUsage: false)
        #expect(relayed.outcome == .done)
        #expect(!relayed.text.contains("[DONE]"))
        #expect(!relayed.text.contains("late"))
    }

    @Test func aNodeThatGeneratesPastItsBoundIsStopped() {
        let relayed = relay([Array(stream.utf8)], clientWantsUsage: false, completionTokensMax: 1)
        #expect(relayed.outcome == .overrun)
        #expect(!relayed.text.contains("!"))
    }

    @Test func aNodeThatPutsItAllInOneEventIsStoppedByItsBytes() {
        let most = UsageVerdict.contentBytesMax(completionTokens: 2, choices: 1, bodyBytes: 0)
        func outcome(_ bytes: Int) -> StreamRelay.Outcome {
            let event = chunk("{\"content\":\"\(String(repeating: "a", count: bytes))\"}")
            return relay([Array(event.utf8)], clientWantsUsage: false, completionTokensMax: 2).outcome
        }
        #expect(outcome(most) == .open)
        #expect(outcome(most + 1) == .overrun)
    }

    @Test func aNodesErrorComesOutAsOpenAIsWithoutItsInternals() throws {
        let event = #"data: {"error":{"message":"up-model died on http://10.0.0.5:8000","code":500}}"# + "\n\n"
        let relayed = relay([Array(event.utf8)], clientWantsUsage: false)
        guard case .nodeError(let bytes) = relayed.outcome else {
            Issue.record("outcome is \(relayed.outcome)")
            return
        }
        let text = String(decoding: bytes, as: UTF8.self)
        #expect(text.hasPrefix("data: {\"error\":{"))
        #expect(!text.contains("10.0.0.5"))
        #expect(!text.contains("up-model"))
        #expect(text.contains(#""code":"500""#))
    }

    @Test(arguments: ["data: nonsense\n\n", "data: [1]\n\n", "data: {\"a\":\n\n"])
    func whatIsNoObjectEndsTheStream(event: String) {
        guard case .invalid = relay([Array(event.utf8)], clientWantsUsage: false).outcome else {
            Issue.record("taken: \(event)")
            return
        }
    }

    @Test func anEventThatNeverEndsIsBounded() {
        var relay = StreamRelay(
            model: ModelID(unchecked: "m"), upstreamModelName: "u", clientWantsUsage: false, completionTokensMax: 1)
        var output = ByteBuffer()
        let block = ByteBuffer(bytes: [UInt8](repeating: UInt8(ascii: "x"), count: 64 << 10))
        var fed = 0
        while case .open = relay.feed(block, into: &output), fed < 64 { fed += 1 }
        #expect(fed == SSELimits.tailBytesMax / (64 << 10))
        #expect(output.readableBytes == 0)
    }
}

extension String {
    fileprivate func components(_ part: String) -> Int {
        var count = 0
        var rest = self[...]
        while let found = rest.firstRange(of: part) {
            count += 1
            rest = rest[found.upperBound...]
        }
        return count
    }
}

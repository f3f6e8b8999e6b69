import Domain
import Gateway
import NIOCore
import OpenAIProtocol
import Testing

/// Streams whose events have names: what goes on, what is counted, and how they end, at every split of the bytes.
struct NamedStreamRelayTests {
    private struct Relayed: Equatable {
        var text = ""
        var last = ""
        var contentEvents = 0
        var usage = ReportedUsage.absent
        var outcome = StreamRelay.Outcome.open
    }

    private func relay(_ parts: [ArraySlice<UInt8>], _ dialect: Dialect, completionTokensMax: Int = 100) -> Relayed {
        var relay = StreamRelay(
            model: ModelID(unchecked: "public"), upstreamModelName: "up", clientWantsUsage: false,
            completionTokensMax: completionTokensMax, dialect: dialect, requestID: "req_1")
        var output = ByteBuffer()
        var outcome = StreamRelay.Outcome.open
        for part in parts where outcome == .open { outcome = relay.feed(ByteBuffer(bytes: part), into: &output) }
        return Relayed(
            text: String(buffer: output), last: String(buffer: relay.lastEvent), contentEvents: relay.contentEvents,
            usage: relay.usage, outcome: outcome)
    }

    private func event(_ name: String, _ json: String) -> String { "event: \(name)\ndata: \(json)\n\n" }

    private var responses: String {
        event("response.created", #"{"type":"response.created","response":{"id":"r","model":"up","usage":null}}"#)
            + ": keep-alive\n\n"
            + event("response.output_text.delta", #"{"type":"response.output_text.delta","delta":"日本"}"#)
            + "event: response.output_text.delta\r\ndata: {\"type\":\"response.output_text.delta\",\r\ndata: \"delta\":\"!\"}\r\n\r\n"
            + event(
                "response.completed",
                #"{"type":"response.completed","response":{"model":"up","usage":{"input_tokens":9,"output_tokens":2}}}"#
            )
            + event("late", #"{"type":"response.output_text.delta","delta":"late"}"#)
    }

    private var messages: String {
        event(
            "message_start",
            #"{"type":"message_start","message":{"model":"up","usage":{"input_tokens":9,"cache_read_input_tokens":3,"output_tokens":1}}}"#
        )
            + event("ping", #"{"type":"ping"}"#)
            + event(
                "content_block_delta",
                #"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#)
            + event(
                "message_delta",
                #"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#)
            + event("message_stop", #"{"type":"message_stop"}"#)
    }

    @Test func aResponseGoesOnEventByEventWhereverItIsSplit() {
        let bytes = Array(responses.utf8)
        let whole = relay([bytes[...]], .responses)
        #expect(whole.outcome == .done && whole.contentEvents == 2)
        #expect(whole.usage == .value(TokenUsage(promptTokens: 9, cachedTokens: 0, completionTokens: 2)))
        #expect(whole.text.hasPrefix("event: response.created\ndata: {"))
        #expect(whole.text.contains(#""model":"public""#) && !whole.text.contains(#""up""#))
        #expect(whole.text.contains(": ping\n\n") && !whole.text.contains("keep-alive"))
        #expect(
            whole.text.hasSuffix(
                "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\", \"delta\":\"!\"}\n\n"
            ))
        // The last word waits for the charge.
        #expect(whole.last.hasPrefix("event: response.completed\ndata: ") && !whole.last.contains("late"))
        for split in 0...bytes.count {
            #expect(relay([bytes[..<split], bytes[split...]], .responses) == whole, "split at \(split)")
        }
        #expect(relay(bytes.indices.map { bytes[$0...$0] }, .responses) == whole)
    }

    @Test func aMessagesUsageIsGatheredFromItsEventsWhereverItIsSplit() {
        let bytes = Array(messages.utf8)
        let whole = relay([bytes[...]], .anthropic)
        #expect(whole.outcome == .done && whole.contentEvents == 1)
        #expect(whole.usage == .value(TokenUsage(promptTokens: 12, cachedTokens: 3, completionTokens: 2)))
        #expect(whole.last == "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
        #expect(whole.text.contains("event: ping\ndata: {\"type\":\"ping\"}\n\n"))
        #expect(whole.text.contains(#""usage":{"output_tokens":2}"#))
        for split in 0...bytes.count {
            #expect(relay([bytes[..<split], bytes[split...]], .anthropic) == whole, "split at \(split)")
        }
    }

    @Test func aNodesFailureBecomesAnErrorEventOfTheDialect() {
        let failed = event(
            "response.failed",
            #"{"type":"response.failed","response":{"error":{"code":"server_error","message":"up died on 10.0.0.5:8000"}}}"#
        )
        guard case .nodeError(let bytes) = relay([Array(failed.utf8)[...]], .responses).outcome else {
            Issue.record("no error")
            return
        }
        let text = String(decoding: bytes, as: UTF8.self)
        #expect(text.hasPrefix("event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\""))
        #expect(!text.contains("10.0.0.5") && !text.contains("up died"))
        let anthropic = event("error", #"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#)
        guard case .nodeError(let other) = relay([Array(anthropic.utf8)[...]], .anthropic).outcome else {
            Issue.record("no error")
            return
        }
        #expect(String(decoding: other, as: UTF8.self).contains(#""message":"busy"},"request_id":"req_1"}"#))
    }

    @Test func doneIsNoEndOfAStreamWithNames() {
        let cut = event("response.output_text.delta", #"{"type":"response.output_text.delta","delta":"a"}"#)
        #expect(
            relay([Array((cut + "data: [DONE]\n\n").utf8)[...]], .responses).outcome
                == .invalid("[DONE] before the last event"))
    }

    @Test func whatPassesTheLimitIsStopped() {
        // Two pieces may be one token that was split; three are not.
        #expect(relay([Array(responses.utf8)[...]], .responses, completionTokensMax: 1).outcome == .done)
        let more = responses.replacing(
            "event: response.completed",
            with: event(
                "response.output_text.delta", #"{"type":"response.output_text.delta","delta":"?"}"#)
                + "event: response.completed")
        #expect(relay([Array(more.utf8)[...]], .responses, completionTokensMax: 1).outcome == .overrun)
    }
}

import Domain
import OpenAIProtocol
import Support
import Testing

struct SSEScannerTests {
    /// What a stream says, fed in pieces as the data plane feeds it: append, take whole events, drop them.
    private func payloads(_ pieces: [ArraySlice<UInt8>]) -> (events: [String], tail: Int) {
        var buffer: [UInt8] = []
        var position = SSEScanner.Position()
        var events: [String] = []
        for piece in pieces {
            buffer.append(contentsOf: piece)
            var start = 0
            while let end = buffer.withUnsafeBytes({ SSEScanner.nextEventEnd(in: $0, from: &position) }) {
                events += described(Array(buffer[start..<end]))
                start = end
            }
            buffer.removeFirst(start)
            position.discard(start)
        }
        return (events, buffer.count)
    }

    private func described(_ event: [UInt8]) -> [String] {
        event.withUnsafeBytes { bytes in
            let name = SSEEvent.name(in: bytes).map { text(bytes[$0]) + "/" } ?? ""
            return switch SSEEvent.payload(in: bytes) {
            case .comment: []
            case .done: [name + "DONE"]
            case .data(let range): [name + text(bytes[range])]
            case .joined(let lines): [name + text(lines)]
            }
        }
    }

    private static let stream =
        "\u{FEFF}data: {\"a\":\"é🙂\"}\n\n: ping\n\nevent: x\r\ndata:1\r\n\r\ndata: a\rdata: b\r\r\n\ndata\n\n"
        + "id: 5\ndata:  two\nretry: 1\n\n\r\n:\n\ndata: [DONE]\r\n\r\n"
    private static let expected = ["{\"a\":\"é🙂\"}", "x/1", "a\nb", "", " two", "DONE"]

    @Test func everySplitGivesTheSameEvents() {
        let bytes = Array(Self.stream.utf8)
        #expect(payloads([bytes[...]]).events == Self.expected)
        #expect(payloads(bytes.map { [$0][...] }).events == Self.expected)
        for first in 0...bytes.count {
            for second in first...bytes.count {
                let pieces = [bytes[..<first], bytes[first..<second], bytes[second...]]
                let result = payloads(pieces)
                guard result.events == Self.expected, result.tail <= 1 else {
                    Issue.record("split at \(first) and \(second): \(result)")
                    return
                }
            }
        }
    }

    @Test(arguments: [31, 32] as [UInt64])
    func randomStreamsReadAlikeWholeAndInPieces(seed: UInt64) {
        var numbers = SplitMix64(seed: seed)
        for _ in 0..<300 {
            let lines = (0..<numbers.below(30)).map { _ in
                numbers.pick([
                    "data: x", "data:", ": c", "", "", "data: a long line of data, longer than a word", "event: e",
                    "id",
                ])
                    + numbers.pick(["\n", "\r", "\r\n"])
            }
            let bytes = Array(lines.joined().utf8)
            var pieces: [ArraySlice<UInt8>] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + 1 + numbers.below(12))
                pieces.append(bytes[start..<end])
                start = end
            }
            #expect(payloads([bytes[...]]).events == payloads(pieces).events, "seed \(seed): \(lines)")
        }
    }

    @Test func noEventWaitsForAByteOfTheNext() {
        for ending in ["\n\n", "\r\n\r\n", "\r\r", "\r\n\r"] {
            let bytes = Array("data: x\(ending)".utf8)
            var position = SSEScanner.Position()
            let end = bytes.withUnsafeBytes { SSEScanner.nextEventEnd(in: $0, from: &position) }
            #expect(end == bytes.count, "\(ending.debugDescription)")
        }
    }

    @Test func anUnfinishedTailIsLookedAtOnce() {
        let bytes = Array("data: \(String(repeating: "x", count: 100))\n".utf8)
        var position = SSEScanner.Position()
        #expect(bytes.withUnsafeBytes { SSEScanner.nextEventEnd(in: $0, from: &position) } == nil)
        #expect(position.offset == bytes.count)
    }

    @Test func spansJoinToTheBytesOfTheStream() {
        let bytes = Array(Self.stream.utf8)
        var position = SSEScanner.Position()
        var ends: [Int] = [0]
        while let end = bytes.withUnsafeBytes({ SSEScanner.nextEventEnd(in: $0, from: &position) }) { ends.append(end) }
        #expect(ends == ends.sorted() && Set(ends).count == ends.count && ends.last == bytes.count)
    }
}

struct StreamChunkTests {
    private func relayed(_ json: String, wantsUsage: Bool, model: String = "public") throws -> String? {
        try withBytes(json) { bytes in
            let chunk = try #require(scanStreamChunk(bytes))
            switch chunk.relay(bytes, publicModel: PublicModel(model), clientWantsUsage: wantsUsage) {
            case .drop: return nil
            case .pass: return json
            case .edits(let edits): return text(applyEdits(edits, to: Array(json.utf8)))
            }
        }
    }

    @Test(arguments: [
        (
            #"{"id":"1","model":"node","choices":[{"delta":{"content":"a"}}],"usage":null}"#,
            #"{"id":"1","model":"public","choices":[{"delta":{"content":"a"}}]}"#
        ),
        (#"{"usage":null,"model":"node"}"#, #"{"model":"public"}"#),
        (#"{ "usage" : {"prompt_tokens":1} , "model":"node" }"#, #"{ "model":"public" }"#),
        (#"{"model":"node" , "usage" : null , "x":1}"#, #"{"model":"public" , "x":1}"#),
        (#"{"usage":null}"#, #"{}"#),
        (#"{"model":"public","choices":[]}"#, #"{"model":"public","choices":[]}"#),
        (#"{"choices":[],"usage":null,"model":"public"}"#, #"{"choices":[],"model":"public"}"#),
        (#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":1}}"#, #"{"choices":[{"text":"a"}]}"#),
        (#"{"model":"node","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, nil),
        (#"{"choices":[{"usage":1}],"x":{"usage":null}}"#, #"{"choices":[{"usage":1}],"x":{"usage":null}}"#),
    ])
    func usageIsStrippedWhereTheClientDidNotAsk(json: String, expected: String?) throws {
        #expect(try relayed(json, wantsUsage: false) == expected)
    }

    @Test func usagePassesWhereTheClientAsked() throws {
        let last = #"{"model":"public","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#
        #expect(try relayed(last, wantsUsage: true) == last)
        #expect(
            try relayed(#"{"model":"n","choices":[{}],"usage":null}"#, wantsUsage: true)
                == #"{"model":"public","choices":[{}],"usage":null}"#)
    }

    /// Wherever `usage` stands among the members, what is left is the object without it.
    @Test(arguments: [41, 42, 43] as [UInt64])
    func strippedChunksAreTheObjectWithoutUsage(seed: UInt64) throws {
        var numbers = SplitMix64(seed: seed)
        for _ in 0..<600 {
            var members = [
                #""model":"node""#, #""choices":[{"delta":{"content":"x"}}]"#,
                numbers.pick([
                    #""usage":null"#,
                    #""usage" : {"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":null}"#,
                ]),
            ]
            for index in 0..<numbers.below(4) {
                members.append("\"m\(index)\":\(numbers.pick(["1", "[]", "{\"usage\":5}", "\"},\""]))")
            }
            members.shuffle(using: &numbers)
            members = Array(members.dropFirst(numbers.below(2)))
            let space = numbers.pick(["", " ", "\n"])
            let json = "{\(space)" + members.joined(separator: "\(space),\(space)") + "\(space)}"
            let result = try #require(try relayed(json, wantsUsage: false))
            var expected = try #require(try parsed(json))
            expected["usage"] = nil
            if expected["model"] != nil { expected["model"] = "\"public\"" }
            #expect(try parsed(result) == expected, "seed \(seed): \(json) became \(result)")
        }
    }

    @Test(arguments: [
        (#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, 0),
        (#"{"choices":[{"delta":{"content":"a"}}]}"#, 1),
        (#"{"choices":[{"delta":{"content":null,"reasoning_content":"r"}}]}"#, 1),
        (#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, 1),
        (#"{"choices":[{"delta":{"tool_calls":[]}}]}"#, 0),
        (#"{"choices":[{"text":"a"},{"text":"b"},{"text":""}]}"#, 2),
        (#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, 0),
        (#"{"choices":[]}"#, 0), ("{}", 0),
    ])
    func countsChoicesWithContent(json: String, count: Int) throws {
        let chunk = try withBytes(json) { try #require(scanStreamChunk($0)) }
        #expect(chunk.choicesWithContent == count && chunk.hasContent == (count > 0))
        #expect(chunk.isFinished == json.contains("stop"))
        #expect(chunk.choicesEmpty == json.contains("[]}") && !json.contains("delta") || !chunk.choicesEmpty)
    }

    @Test func errorsAreSeen() throws {
        #expect(withBytes(#"{"error":{"message":"x"}}"#) { scanStreamChunk($0)?.isError } == true)
        #expect(withBytes(#"{"object":"error","message":"x"}"#) { scanStreamChunk($0)?.isError } == true)
        #expect(withBytes(#"{"error":null}"#) { scanStreamChunk($0)?.isError } == false)
    }

    @Test(arguments: [
        "", "[]", "x", #"{"a":}"#, #"{"usage":null,"usage":null}"#, #"{"model":"a","model":"b"}"#, "{} x",
    ])
    func whatIsNoChunkIsNil(json: String) {
        #expect(withBytes(json) { scanStreamChunk($0) } == nil)
        // A list is a reply: SGLang answers a rerank so.
        #expect((withBytes(json) { scanReply($0) } == nil) == (json != "[]"))
    }
}

import Domain
import NIOCore
import OpenAIProtocol
import Testing

@testable import Gateway

@Suite struct LargeAnswerTests {
    private func answer(_ parts: [String]) -> LargeAnswer {
        var answer = LargeAnswer()
        for part in parts { answer.passed(ByteBuffer(string: part)) }
        return answer
    }

    @Test func usageIsReadFromTheEndHoweverTheBytesAreCut() {
        let filler = String(repeating: "0.125,", count: 20_000)
        let text = #"{"object":"list","model":"m","data":[\#(filler)1],"usage":{"prompt_tokens":7,"total_tokens":7}}"#
        let expected = ReportedUsage.value(TokenUsage(promptTokens: 7, cachedTokens: 0, completionTokens: 0))
        #expect(answer([text]).usage == expected)
        let bytes = Array(text)
        for size in [1, 100, 4_096, 8_191, 8_192, 8_193] where size > 1 {
            let parts = stride(from: 0, to: bytes.count, by: size).map {
                String(bytes[$0..<min($0 + size, bytes.count)])
            }
            #expect(answer(parts).usage == expected, "\(size) bytes a part")
        }
    }

    @Test func whatPassesItsBoundIsAnOverrun() {
        var answer = LargeAnswer(bytesMax: 10)
        answer.passed(ByteBuffer(repeating: 0x61, count: 10))
        #expect(!answer.isOverrun)
        answer.passed(ByteBuffer(repeating: 0x61, count: 1))
        #expect(answer.isOverrun)
    }

    @Test func textThatLooksLikeUsageIsNotUsage() {
        let text = #"{"choices":[{"text":"\"usage\":{\"prompt_tokens\":1000000}"}]}"#
        #expect(answer([text]).usage == .absent)
    }

    @Test func membersAfterUsageDoNotHideIt() {
        let text = #"{"data":[],"usage":{"prompt_tokens":3,"completion_tokens":2},"id":"x"}"#
        #expect(answer([text]).usage == .value(TokenUsage(promptTokens: 3, cachedTokens: 0, completionTokens: 2)))
    }

    @Test(arguments: [
        (#"{"id":"a","model":"up","data":["#, "\"up\""), (#"{"model": "u\"p","x":1"#, #""u\"p""#),
        (#"{"a":{"model":"inner"},"model":"outer""#, "\"outer\""), (#"{"object":"model","model":"m""#, "\"m\""),
    ])
    func theTopLevelModelIsFound(text: String, value: String) throws {
        var text = text
        let found = text.withUTF8 { bytes in
            LargeAnswer.modelSpan(in: UnsafeRawBufferPointer(bytes)).map { String(decoding: bytes[$0], as: UTF8.self) }
        }
        #expect(found == value)
    }

    @Test(arguments: [
        #"{"data":["model","x"]"#, #"{"model":{"name":"x"}"#, #"{"a":"model","b":"c"}"#, "", "[\"model\"]",
    ])
    func anotherModelIsNotTakenForIt(text: String) {
        var text = text
        #expect(text.withUTF8 { LargeAnswer.modelSpan(in: UnsafeRawBufferPointer($0)) } == nil)
    }
}

@Suite struct AnswerTextTests {
    @Test(arguments: [0, 1, 100, 10_000])
    func piecesThatNeedMoreRoomAreWrittenOnce(usually bytes: Int) {
        var buffer = ByteBuffer(string: "before ")
        buffer.writePieces(usually: bytes) { cursor in
            for number in 0..<300 {
                cursor.decimal(Int64(number))
                cursor.raw(",")
                cursor.text("text ")
            }
        }
        #expect(String(buffer: buffer) == "before " + (0..<300).map { "\($0),text " }.joined())
    }

    @Test func everyTimerOfARequestHasAPlace() {
        #expect(Exchange.Timer.allCases.map { Int($0.rawValue) } == Array(Exchange.Timers(repeating: .none).indices))
    }

    @Test(arguments: [
        (0, "0ms"), (12, "12ms"), (999, "999ms"), (1_000, "1s"), (1_250, "1.25s"), (59_999, "59.999s"),
        (60_000, "1m0s"), (360_000, "6m0s"), (61_500, "1m1s"),
    ])
    func durationsReadAsOpenAIWritesThem(milliseconds: Int64, text: String) {
        var buffer = ByteBuffer()
        buffer.writePieces(usually: 1) { $0.duration(milliseconds: milliseconds) }
        #expect(String(buffer: buffer) == text)
    }

    @Test(arguments: [0, 1, 9, 10, 4_096, 1 << 40, Int64.max, -1, Int64.min])
    func integersReadAsSwiftPrintsThem(value: Int64) {
        var buffer = ByteBuffer()
        buffer.writePieces(usually: 1) { $0.decimal(value) }
        #expect(String(buffer: buffer) == String(value))
    }

    @Test(arguments: [0, 1, 15, 16, 255, 4_096, 1 << 20])
    func chunkSizesReadAsHexadecimal(value: Int) {
        var buffer = ByteBuffer()
        buffer.writePieces(usually: 1) { $0.chunkSize(value) }
        #expect(String(buffer: buffer) == String(value, radix: 16) + "\r\n")
    }
}

@Suite struct BufferBudgetTests {
    @Test func whatDoesNotFitTakesNothing() {
        let budget = BufferBudget(bytesMax: 100)
        #expect(budget.take(60))
        #expect(!budget.take(41))
        #expect(budget.used == 60)
        #expect(budget.take(40))
        budget.giveBack(100)
        #expect(budget.used == 0)
        budget.resize(bytesMax: 10)
        #expect(!budget.take(11))
    }
}

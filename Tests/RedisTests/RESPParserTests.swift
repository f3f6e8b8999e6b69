import Domain
import NIOCore
import Testing

@testable import Redis

@Suite struct RESPParserTests {
    /// Every kind of reply, nested and empty ones, bytes that are no text, and CR LF inside a bulk string.
    static let stream: [UInt8] =
        Array(
            """
            +OK\r\n+\r\n:42\r\n:-9223372036854775808\r\n$5\r\nhello\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n\
            *3\r\n:1\r\n$4\r\na\r\nb\r\n*2\r\n*0\r\n-ERR inner\r\n-NOSCRIPT No matching script\r\n*1\r\n*1\r\n*1\r\n$-1\r\n
            """.utf8) + [0x24, 0x33, 0x0D, 0x0A, 0x00, 0xFF, 0x0A, 0x0D, 0x0A]

    static let replies: [RESPValue] = [
        .ok, .simpleString([]), .integer(42), .integer(.min), .bulkString(Array("hello".utf8)), .bulkString([]),
        .null, .null, .array([]),
        .array([
            .integer(1), .bulkString(Array("a\r\nb".utf8)),
            .array([.array([]), .error(RedisServerError("ERR inner"))]),
        ]),
        .error(RedisServerError("NOSCRIPT No matching script")), .array([.array([.array([.null])])]),
        .bulkString([0x00, 0xFF, 0x0A]),
    ]

    static func parse(_ pieces: [ArraySlice<UInt8>], limits: RedisLimits = RedisLimits()) throws -> [RESPValue] {
        let parser = RESPParser(limits: limits)
        var replies: [RESPValue] = []
        for piece in pieces {
            parser.feed(ByteBuffer(bytes: piece))
            while let value = try parser.next() { replies.append(value) }
        }
        return replies
    }

    static func parse(_ text: String, limits: RedisLimits = RedisLimits()) throws -> [RESPValue] {
        try parse([Array(text.utf8)[...]], limits: limits)
    }

    @Test func readsEveryKindOfReply() throws {
        #expect(try Self.parse([Self.stream[...]]) == Self.replies)
    }

    @Test func everySplitIntoTwoGivesTheSameReplies() throws {
        for cut in 0...Self.stream.count {
            #expect(try Self.parse([Self.stream[..<cut], Self.stream[cut...]]) == Self.replies, "cut at \(cut)")
        }
    }

    @Test func everySplitIntoThreeGivesTheSameReplies() throws {
        for first in 0...Self.stream.count {
            for second in first...Self.stream.count {
                let pieces = [Self.stream[..<first], Self.stream[first..<second], Self.stream[second...]]
                if try Self.parse(pieces) != Self.replies { Issue.record("cuts at \(first) and \(second)") }
            }
        }
    }

    @Test func byteByByteGivesTheSameReplies() throws {
        #expect(try Self.parse(Self.stream.indices.map { Self.stream[$0...$0] }) == Self.replies)
    }

    @Test func whatTheEncoderOfRepliesWritesIsReadBackInRandomSplits() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SplitMix64(seed: seed)
        for round in 0..<200 {
            let values = (0..<Int.random(in: 1...6, using: &generator)).map { _ in
                RESPValue.random(depth: 4, using: &generator)
            }
            let bytes = values.flatMap(\.wire)
            var pieces: [ArraySlice<UInt8>] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + Int.random(in: 1...40, using: &generator))
                pieces.append(bytes[start..<end])
                start = end
            }
            if try Self.parse(pieces) != values { Issue.record("seed \(seed), round \(round)") }
        }
    }

    @Test func largeBulkStringArrivesWhole() throws {
        let bytes = [UInt8](repeating: 0x61, count: 3 << 20)
        let wire = RESPValue.bulkString(bytes).wire
        let pieces = stride(from: 0, to: wire.count, by: 65_536).map { wire[$0..<min($0 + 65_536, wire.count)] }
        #expect(try Self.parse(pieces) == [.bulkString(bytes)])
    }

    @Test(arguments: [
        "?\r\n", "HTTP/1.1 200 OK\r\n", ":12a\r\n", ":99999999999999999999\r\n", "$-2\r\n", "*-2\r\n",
        "$99999999999999999999\r\n", "*99999999999\r\n",
    ])
    func whatIsNotRESPThrowsAndGoesOnThrowing(text: String) throws {
        let parser = RESPParser()
        parser.feed(ByteBuffer(string: text))
        #expect(throws: RESPProtocolError.self) { try parser.next() }
        parser.feed(ByteBuffer(string: "+OK\r\n"))
        #expect(throws: RESPProtocolError.self) { try parser.next() }
    }

    @Test func repliesBeforeAViolationAreStillRead() throws {
        let parser = RESPParser()
        parser.feed(ByteBuffer(string: "+OK\r\n:7\r\n*2\r\n:1\r\n!\r\n"))
        #expect(try parser.next() == .ok)
        #expect(try parser.next() == .integer(7))
        #expect(throws: RESPProtocolError.self) { try parser.next() }
    }

    @Test func aReplyPastTheByteLimitThrows() throws {
        var limits = RedisLimits()
        limits.replyBytesMax = 1_000
        let fits = RESPValue.bulkString([UInt8](repeating: 0x61, count: 900))
        // Many replies that fit, in one piece: the limit is of one reply.
        #expect(try Self.parse([(0..<10).flatMap { _ in fits.wire }[...]], limits: limits).count == 10)
        let wire = RESPValue.bulkString([UInt8](repeating: 0x61, count: 2_000)).wire
        #expect(throws: RESPProtocolError(message: "a reply passes 1000 bytes")) {
            try Self.parse([wire[..<1_500], wire[1_500...]], limits: limits)
        }
        // An array whose elements are consumed as they come counts as a whole, too.
        let pieces = [Array("*1000\r\n".utf8)[...]] + (0..<500).map { _ in Array(":1\r\n".utf8)[...] }
        #expect(throws: RESPProtocolError(message: "a reply passes 1000 bytes")) {
            try Self.parse(pieces, limits: limits)
        }
    }

    @Test func aReplyPastTheElementLimitThrowsBeforeItsElementsCome() throws {
        var limits = RedisLimits()
        limits.replyElementsMax = 10
        #expect(throws: RESPProtocolError(message: "a reply has more than 10 elements")) {
            try Self.parse("*11\r\n", limits: limits)
        }
        #expect(throws: RESPProtocolError(message: "a reply has more than 10 elements")) {
            try Self.parse("*2\r\n*8\r\n" + String(repeating: ":1\r\n", count: 8) + "*1\r\n", limits: limits)
        }
        let ten = "*10\r\n" + String(repeating: ":1\r\n", count: 10)
        #expect(try Self.parse(ten + ten, limits: limits).count == 2)
    }

    @Test func nestingPastHiredisBoundThrows() throws {
        #expect(try Self.parse(String(repeating: "*1\r\n", count: 8) + ":1\r\n").count == 1)
        #expect(throws: RESPProtocolError.self) { try Self.parse(String(repeating: "*1\r\n", count: 9) + ":1\r\n") }
    }

    @Test func hugeAnnouncedLengthsReserveNothing() throws {
        var limits = RedisLimits()
        limits.replyElementsMax = .max
        #expect(try Self.parse("*2147483647\r\n:1\r\n", limits: limits) == [])
        #expect(try Self.parse("$9223372036854775000\r\nabc", limits: limits) == [])
    }
}

extension RESPValue {
    /// What a server would send.
    var wire: [UInt8] {
        switch self {
        case .simpleString(let bytes): [UInt8(ascii: "+")] + bytes + [13, 10]
        case .error(let error): [UInt8(ascii: "-")] + Array(error.text.utf8) + [13, 10]
        case .integer(let value): Array(":\(value)\r\n".utf8)
        case .null: Array("$-1\r\n".utf8)
        case .bulkString(let bytes): Array("$\(bytes.count)\r\n".utf8) + bytes + [13, 10]
        case .array(let elements): Array("*\(elements.count)\r\n".utf8) + elements.flatMap(\.wire)
        }
    }

    static func random(depth: Int, using generator: inout some RandomNumberGenerator) -> RESPValue {
        switch Int.random(in: 0..<(depth > 0 ? 6 : 5), using: &generator) {
        case 0:
            return .simpleString((0..<Int.random(in: 0...8, using: &generator)).map { _ in 0x61 })
        case 1:
            return .error(RedisServerError("ERR \(Int.random(in: 0...99, using: &generator))"))
        case 2:
            return .integer(Int64.random(in: .min ... .max, using: &generator))
        case 3:
            return .null
        case 4:
            return .bulkString(
                (0..<Int.random(in: 0...30, using: &generator)).map { _ in .random(in: 0...255, using: &generator) })
        default:
            return .array(
                (0..<Int.random(in: 0...5, using: &generator)).map { _ in random(depth: depth - 1, using: &generator) })
        }
    }
}

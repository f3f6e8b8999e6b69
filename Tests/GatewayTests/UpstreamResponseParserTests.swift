import Gateway
import NIOCore
import Testing

/// What a whole answer came to: the same for every split of the same bytes.
private struct Answer: Equatable, CustomStringConvertible {
    var head: UpstreamResponseHead?
    var body = ""
    var isEnded = false
    var hasExcess = false
    var failure: UpstreamFailure?

    var description: String {
        "head \(String(describing: head)) body \(body.count) bytes, ended \(isEnded), excess \(hasExcess), "
            + "failure \(String(describing: failure))"
    }
}

/// - Parameter parts: Fed one after the other, each after the parser has said that it needs more.
private func parse(_ parts: [[UInt8]], endOfFile: Bool = false) -> Answer {
    var parser = UpstreamResponseParser()
    var answer = Answer()
    do throws(UpstreamFailure) {
        for part in parts {
            parser.feed(ByteBuffer(bytes: part))
            while let event = try parser.next() {
                switch event {
                case .head(let head):
                    #expect(answer.head == nil && answer.body.isEmpty && !answer.isEnded)
                    answer.head = head
                case .body(let bytes):
                    #expect(answer.head != nil && !answer.isEnded && bytes.readableBytes > 0)
                    answer.body += String(buffer: bytes)
                case .end:
                    #expect(answer.head != nil && !answer.isEnded)
                    answer.isEnded = true
                }
            }
        }
        if endOfFile, parser.finish() {
            #expect(!answer.isEnded)
            answer.isEnded = true
        }
        answer.hasExcess = parser.hasExcess
    } catch {
        answer.failure = error
    }
    return answer
}

private func expectSameForEverySplit(_ text: String, endOfFile: Bool = false, _ expected: Answer) {
    let bytes = Array(text.utf8)
    #expect(parse([bytes], endOfFile: endOfFile) == expected, "whole")
    #expect(parse(bytes.map { [$0] }, endOfFile: endOfFile) == expected, "byte by byte")
    for first in 0...bytes.count {
        let parts = [Array(bytes[..<first]), Array(bytes[first...])]
        let answer = parse(parts, endOfFile: endOfFile)
        guard answer == expected else {
            Issue.record("split at \(first): \(answer)")
            return
        }
    }
    for first in stride(from: 0, through: bytes.count, by: 7) {
        for second in stride(from: first, through: bytes.count, by: 11) {
            let parts = [Array(bytes[..<first]), Array(bytes[first..<second]), Array(bytes[second...])]
            let answer = parse(parts, endOfFile: endOfFile)
            guard answer == expected else {
                Issue.record("split at \(first) and \(second): \(answer)")
                return
            }
        }
    }
}

private struct Sample: Sendable, CustomTestStringConvertible {
    var name: String
    var text: String
    var head: UpstreamResponseHead
    var body = ""
    var endOfFile = false
    var isEnded = true
    var hasExcess = false

    var testDescription: String { name }
}

private func head(
    _ status: Int = 200, _ type: UpstreamResponseHead.ContentType = .other, length: Int? = nil, keep: Bool = true
) -> UpstreamResponseHead {
    UpstreamResponseHead(status: status, contentType: type, contentLength: length, keepAlive: keep)
}

private let samples: [Sample] = [
    Sample(
        name: "plain JSON",
        text: "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
            + "Content-Length: 11\r\n\r\n{\"ok\":true}",
        head: head(200, .json, length: 11), body: "{\"ok\":true}"),
    Sample(
        name: "names and values in any case, blanks around",
        text: "HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:\t 2 \t\r\nCONTENT-TYPE:APPLICATION/JSON\r\n\r\nhi",
        head: head(200, .json, length: 2), body: "hi"),
    Sample(
        name: "stream in chunks with extensions and trailers",
        text: "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            + "5\r\ndata:\r\n8;name=\"value\"\r\n one\r\n\r\n\r\n0A \t;x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        head: head(200, .eventStream), body: "data: one\r\n\r\n0123456789"),
    Sample(
        name: "empty chunked body",
        text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", head: head()),
    Sample(
        name: "interim answers are dropped",
        text: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nRetry-After: 9\r\n\r\n"
            + "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        head: head(200, length: 1), body: "x"),
    Sample(
        name: "no body for 204, whatever it says", text: "HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n",
        head: head(204, length: 0)),
    Sample(
        name: "no body for 304", text: "HTTP/1.1 304 Not Modified\r\n\r\n", head: head(304, length: 0)),
    Sample(
        name: "until close", text: "HTTP/1.1 200 OK\r\nContent-Type: text/event-streams\r\n\r\nabc\r\n\r\ndef",
        head: head(keep: false), body: "abc\r\n\r\ndef", endOfFile: true),
    Sample(
        name: "until close, with nothing", text: "HTTP/1.0 200 OK\r\n\r\n", head: head(keep: false), endOfFile: true),
    Sample(
        name: "a stated length does not end with the connection",
        text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", head: head(length: 9), body: "abc", endOfFile: true,
        isEnded: false),
    Sample(
        name: "chunks do not end with the connection",
        text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", head: head(), body: "abc",
        endOfFile: true, isEnded: false),
    Sample(
        name: "HTTP/1.0 closes by default", text: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        head: head(length: 0, keep: false)),
    Sample(
        name: "HTTP/1.0 may keep", text: "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n",
        head: head(length: 0)),
    Sample(
        name: "connection options are a list",
        text: "HTTP/1.1 200 OK\r\nConnection: foo , CLOSE,bar\r\nContent-Length: 0\r\n\r\n",
        head: head(length: 0, keep: false)),
    Sample(
        name: "an option that only contains close",
        text: "HTTP/1.1 200 OK\r\nConnection: closed, not-close\r\nContent-Length: 0\r\n\r\n", head: head(length: 0)),
    Sample(
        name: "no reason and no blank", text: "HTTP/1.1 503\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        head: head(503, length: 0)),
    Sample(
        name: "the same length twice", text: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        head: head(length: 2), body: "ab"),
    Sample(
        name: "bytes above 127 in values",
        text: "HTTP/1.1 200 Vög\r\nX: ünï\tcödé long enough\r\nContent-Length: 0\r\n\r\n",
        head: head(length: 0)),
    Sample(
        name: "excess is seen", text: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n",
        head: head(length: 2), body: "ab", hasExcess: true),
    Sample(
        name: "excess after chunks", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nz",
        head: head(), body: "a", hasExcess: true),
]

@Test(arguments: samples)
private func responseIsReadTheSameForEverySplit(_ sample: Sample) {
    expectSameForEverySplit(
        sample.text, endOfFile: sample.endOfFile,
        Answer(head: sample.head, body: sample.body, isEnded: sample.isEnded, hasExcess: sample.hasExcess))
}

private let ok = "HTTP/1.1 200 OK\r\n"
private let chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"

private let malformedHeads: [(String, UpstreamMalformation)] = [
    ("GET / HTTP/1.1\r\n\r\n", .statusLine),
    ("HTTP/2.0 200 OK\r\n\r\n", .statusLine),
    ("HTTP/1.2 200 OK\r\n\r\n", .statusLine),
    ("http/1.1 200 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1  200 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 20 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 2000 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 099 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 600 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 -20 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 200 O\u{1}K\r\n\r\n", .statusLine),
    ("\r\nHTTP/1.1 200 OK\r\n\r\n", .statusLine),
    ("HTTP/1.1 200 OK\n\n", .bareLineFeed),
    (ok + "A: b\n\r\n", .bareLineFeed),
    (ok + "\n", .bareLineFeed),
    (ok + "A: b\r\n c\r\n\r\n", .foldedHeader),
    (ok + "A: b\r\n\tc\r\n\r\n", .foldedHeader),
    (ok + " A: b\r\n\r\n", .foldedHeader),
    (ok + "A : b\r\n\r\n", .headerName),
    (ok + "A b: c\r\n\r\n", .headerName),
    (ok + ": b\r\n\r\n", .headerName),
    (ok + "nothing\r\n\r\n", .headerName),
    (ok + "Ä: b\r\n\r\n", .headerName),
    (ok + "A(: b\r\n\r\n", .headerName),
    (ok + "A: b\u{0}c\r\n\r\n", .headerValue),
    (ok + "A: b\rc\r\n\r\n", .headerValue),
    (ok + "A: long enough for a word\u{7F}\r\n\r\n", .headerValue),
    (ok + "A: \u{1B}long enough for a word\r\n\r\n", .headerValue),
    (ok + "Content-Length: -1\r\n\r\n", .contentLength),
    (ok + "Content-Length: +1\r\n\r\n", .contentLength),
    (ok + "Content-Length: 1 2\r\n\r\n", .contentLength),
    (ok + "Content-Length: 2, 2\r\n\r\n", .contentLength),
    (ok + "Content-Length: 0x10\r\n\r\n", .contentLength),
    (ok + "Content-Length:\r\n\r\n", .contentLength),
    (ok + "Content-Length: 99999999999999999999999\r\n\r\n", .contentLength),
    (ok + "Content-Length: 1099511627777\r\n\r\n", .contentLength),
    (ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", .conflictingLengths),
    (ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", .conflictingLengths),
    (ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", .conflictingLengths),
    (ok + "Transfer-Encoding: gzip\r\n\r\n", .transferEncoding),
    (ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", .transferEncoding),
    (ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", .transferEncoding),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", .transferEncoding),
    ("HTTP/1.1 101 Switching Protocols\r\n\r\n", .switchedProtocols),
]

@Test(arguments: malformedHeads)
private func malformedHeadIsRefusedForEverySplit(_ text: String, _ expected: UpstreamMalformation) {
    expectSameForEverySplit(text, Answer(failure: .malformedResponse(expected)))
}

private let malformedChunks: [(String, String, UpstreamMalformation)] = [
    ("\r\n", "", .chunkSize),
    ("g\r\n", "", .chunkSize),
    ("-1\r\n", "", .chunkSize),
    ("0x1\r\n", "", .chunkSize),
    (" 1\r\na\r\n", "", .chunkSize),
    ("1 2\r\n", "", .chunkSize),
    ("10000000001\r\n", "", .chunkSize),
    ("00000000000000001\r\n", "", .chunkSize),
    ("1\na\r\n", "", .chunkSize),
    ("1;x\na\r\n", "", .chunkFraming),
    ("1\r\r", "", .chunkFraming),
    ("1\r\nab\r\n", "a", .chunkFraming),
    ("1\r\na\n0\r\n\r\n", "a", .chunkFraming),
    ("1\r\na\rX", "a", .chunkFraming),
    ("1;" + String(repeating: "x", count: 1023) + "\r\na", "", .chunkFraming),
    ("0\r\n\n", "", .trailers),
    ("0\r\nA: b\n", "", .trailers),
    ("0\r\nA: b\r\r", "", .trailers),
    ("0\r\n\rX", "", .trailers),
    ("0\r\nA: " + String(repeating: "x", count: 8 * 1024) + "\r\n\r\n", "", .trailers),
]

@Test(arguments: malformedChunks)
private func malformedChunkIsRefusedForEverySplit(_ text: String, _ body: String, _ expected: UpstreamMalformation) {
    let answer = Answer(head: head(), body: body, failure: .malformedResponse(expected))
    if text.count < 200 {
        expectSameForEverySplit(chunked + text, answer)
    } else {
        #expect(parse([Array((chunked + text).utf8)]) == answer)
        #expect(parse((chunked + text).utf8.map { [$0] }) == answer)
    }
}

@Test func headIsBoundedWhateverItIsMadeOf() {
    let fill = UpstreamResponseParser.headBytesMax
    let endless = Array((ok + "A: " + String(repeating: "x", count: fill)).utf8)
    #expect(parse([endless]).failure == .headTooLarge)
    let lines = Array((ok + String(repeating: "A: b\r\n", count: fill / 6 + 1)).utf8)
    #expect(parse([lines]).failure == .headTooLarge)
    #expect(parse(lines.chunks(of: 1000)).failure == .headTooLarge)
    let interim = Array(String(repeating: "HTTP/1.1 100 Continue\r\n\r\n", count: fill / 25 + 1).utf8)
    #expect(parse([interim]).failure == .headTooLarge)
    // Exactly at the bound is served.
    let frame = ok + "A: \r\nContent-Length: 0\r\n\r\n"
    let full = ok + "A: " + String(repeating: "x", count: fill - frame.utf8.count) + "\r\nContent-Length: 0\r\n\r\n"
    #expect(parse([Array(full.utf8)]).isEnded)
    #expect(parse(Array(full.utf8).chunks(of: 100)).isEnded)
}

@Test func parserServesOneAnswerAfterAnother() throws {
    var parser = UpstreamResponseParser()
    for round in 0..<3 {
        parser.reset()
        parser.feed(ByteBuffer(string: chunked + "1\r\n\(round)\r\n0\r\n\r\n"))
        #expect(try parser.next() == .head(head()))
        #expect(try parser.next() == .body(ByteBuffer(string: "\(round)")))
        #expect(try parser.next() == .end)
        #expect(try parser.next() == nil)
        #expect(!parser.hasExcess)
    }
}

@Test func failureOfAParserIsFinal() {
    var parser = UpstreamResponseParser()
    parser.feed(ByteBuffer(string: "nonsense\r\n"))
    #expect(throws: UpstreamFailure.malformedResponse(.statusLine)) { try parser.next() }
    parser.feed(ByteBuffer(string: ok + "Content-Length: 0\r\n\r\n"))
    #expect(throws: UpstreamFailure.malformedResponse(.statusLine)) { try parser.next() }
}

@Test func bodyIsNotCopied() throws {
    var parser = UpstreamResponseParser()
    let input = ByteBuffer(string: ok + "Content-Length: 4096\r\n\r\n" + String(repeating: "x", count: 4096))
    let origin = input.withUnsafeReadableBytes { $0.baseAddress.map { UInt(bitPattern: $0) } ?? 0 }
    parser.feed(input)
    _ = try parser.next()
    guard case .body(let slice)? = try parser.next() else {
        Issue.record("no body")
        return
    }
    let start = slice.withUnsafeReadableBytes { $0.baseAddress.map { UInt(bitPattern: $0) } ?? 0 }
    #expect(start == origin + UInt(input.readableBytes - 4096))
}

extension Array where Element == UInt8 {
    fileprivate func chunks(of size: Int) -> [[UInt8]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}

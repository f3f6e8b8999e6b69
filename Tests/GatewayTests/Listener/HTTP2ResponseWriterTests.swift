import Billing
import Domain
import NIOCore
import NIOEmbedded
import NIOHPACK
import NIOHTTP1
import NIOHTTP2
import Testing

@testable import Gateway

/// Stands where the codec does: the writer writes on its context.
private final class Place: ChannelInboundHandler {
    typealias InboundIn = Never
}

@Suite struct HTTP2ResponseWriterTests {
    private let channel = EmbeddedChannel()
    private let writer: HTTP2ResponseWriter

    init() throws {
        let place = Place()
        try channel.pipeline.syncOperations.addHandler(place)
        writer = HTTP2ResponseWriter(
            frames: try channel.pipeline.syncOperations.context(handler: place), clock: HTTPDateClock())
    }

    private func frames() throws -> [HTTP2Frame.FramePayload] {
        var frames: [HTTP2Frame.FramePayload] = []
        while let frame = try channel.readOutbound(as: HTTP2Frame.FramePayload.self) { frames.append(frame) }
        return frames
    }

    private func head(_ status: Int = 200) -> AnswerHead {
        AnswerHead(
            status: status, contentType: "application/json", requestID: "req_1", processingMilliseconds: 12,
            rates: RateStatus(
                requests: RateStatus.Window(limit: 10, remaining: -1, resetMilliseconds: 1_250), tokens: nil))
    }

    private func data(_ frame: HTTP2Frame.FramePayload?) -> (text: String, ends: Bool)? {
        guard case .data(let data)? = frame, case .byteBuffer(let bytes) = data.data else { return nil }
        return (String(buffer: bytes), data.endStream)
    }

    private func fields(_ frame: HTTP2Frame.FramePayload?) -> (fields: HPACKHeaders, ends: Bool)? {
        guard case .headers(let headers)? = frame else { return nil }
        return (headers.headers, headers.endStream)
    }

    @Test func aPlainAnswerIsTwoFramesAndTheSecondEndsTheStream() throws {
        writer.writeAnswer(head(), body: ByteBuffer(string: "{}"))
        let frames = try frames()
        #expect(frames.count == 2)
        let answer = try #require(fields(frames.first))
        #expect(!answer.ends)
        #expect(answer.fields.first(name: ":status") == "200")
        #expect(answer.fields.first(name: "content-length") == "2")
        #expect(answer.fields.first(name: "x-request-id") == "req_1")
        #expect(answer.fields.first(name: "openai-processing-ms") == "12")
        #expect(answer.fields.first(name: "x-ratelimit-remaining-requests") == "0")
        #expect(answer.fields.first(name: "x-ratelimit-reset-requests") == "1.25s")
        #expect(answer.fields.allSatisfy { $0.name == $0.name.lowercased() })
        #expect(data(frames.last).map { $0.text == "{}" && $0.ends } == true)
    }

    @Test func answersWithoutABodyEndWithTheirHead() throws {
        writer.writeAnswer(head(204), body: ByteBuffer())
        let none = try #require(fields(try frames().first))
        #expect(none.ends)
        #expect(!none.fields.contains(name: "content-length") && !none.fields.contains(name: "content-type"))
        writer.isBodiless = true
        writer.writeAnswer(head(), body: ByteBuffer(string: "{}"))
        let all = try frames()
        #expect(all.count == 1)
        let bodiless = try #require(fields(all.first))
        #expect(bodiless.ends)
        #expect(bodiless.fields.first(name: "content-length") == "2")
    }

    @Test func theEventsOfOneFlushAreOneFrameAndTheLastCarriesTheEnd() throws {
        writer.beginStream(head())
        for word in ["a", "b", "c"] { writer.writeStream(ByteBuffer(string: word)) }
        writer.flushStream()
        var frames = try frames()
        #expect(frames.count == 2)
        #expect(data(frames.last).map { $0.text == "abc" && !$0.ends } == true)
        writer.writeStream(ByteBuffer(string: "d"))
        writer.endStream()
        frames = try self.frames()
        #expect(frames.count == 1)
        #expect(data(frames.last).map { $0.text == "d" && $0.ends } == true)
        #expect(writer.bytesWritten > 4)
    }

    @Test func aLargePartFollowsWhatWasGatheredBeforeIt() throws {
        let large = String(repeating: "x", count: HTTP2ResponseWriter.coalescedBytesMax + 1)
        writer.beginStream(head())
        writer.writeStream(ByteBuffer(string: "small"))
        writer.writeStream(ByteBuffer(string: large))
        writer.endStream()
        let frames = try frames()
        #expect(frames.dropFirst().compactMap { data($0)?.text } == ["small", large, ""])
        #expect(data(frames.last)?.ends == true)
    }

    @Test func aTruncatedAnswerEndsInAReset() throws {
        writer.beginStream(head())
        writer.writeStream(ByteBuffer(string: "part"))
        writer.truncate()
        let frames = try frames()
        #expect(data(frames.dropFirst().first).map { $0.text == "part" && !$0.ends } == true)
        guard case .rstStream(.internalError)? = frames.last else {
            Issue.record("no reset: \(frames)")
            return
        }
    }
}

@Suite struct HTTP2HeadTests {
    private func head(_ fields: [(String, String)], method: HTTPMethod = .POST) -> IncomingHead {
        IncomingHead(
            HTTPRequestHead(
                version: HTTPVersion(major: 2, minor: 0), method: method, uri: "/v1/chat/completions",
                headers: HTTPHeaders(fields)))
    }

    private static let host = ("host", "gateway")
    private static let json = ("content-type", "application/json")

    @Test func aLengthIsOptionalAndTheAuthorityIsNot() {
        #expect(head([Self.host, Self.json, ("content-length", "4")]).defect == nil)
        // What the codec says where a body comes without its length.
        #expect(head([Self.host, Self.json, ("transfer-encoding", "chunked")]).defect == nil)
        #expect(head([Self.json, ("content-length", "4")]).defect?.code == .malformedRequest)
        #expect(head([Self.host, Self.host, Self.json, ("content-length", "4")]).defect?.code == .malformedRequest)
    }

    @Test func theFormOfTheBodyIsCheckedAlike() {
        #expect(
            head([Self.host, ("content-type", "text/plain"), ("content-length", "4")]).defect?.code
                == .unsupportedMediaType)
        #expect(
            head([Self.host, Self.json, ("content-length", "4"), ("content-encoding", "gzip")]).defect?.code
                == .unsupportedMediaType)
    }
}

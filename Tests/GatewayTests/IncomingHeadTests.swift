import Domain
import NIOHTTP1
import OpenAIProtocol
import Testing

@testable import Gateway

private func head(
    _ fields: [(String, String)], method: HTTPMethod = .POST, uri: String = "/v1/chat/completions", minor: Int = 1
) -> IncomingHead {
    IncomingHead(
        HTTPRequestHead(
            version: HTTPVersion(major: 1, minor: minor), method: method, uri: uri, headers: HTTPHeaders(fields)))
}

private let host = ("Host", "gateway")
private let length = ("Content-Length", "10")

@Suite struct IncomingHeadTests {
    @Test func anOrdinaryHeadHasNoDefect() {
        let incoming = head([
            host, length, ("Content-Type", "application/json; charset=utf-8"), ("AUTHORIZATION", "Bearer k"),
        ])
        #expect(incoming.defect == nil)
        #expect(incoming.contentLength == 10)
        #expect(incoming.authorization == "Bearer k")
        #expect(incoming.route == .found(.chatCompletions, argument: nil))
    }

    @Test(
        arguments: [
            ("600", 600), ("5.5", 5.5), ("0", nil), ("-1", nil), ("nan", nil), ("inf", nil), ("1e9", nil),
            ("NOT_GIVEN", nil), ("10000000000000000000", nil),
        ] as [(String, Double?)])
    func aClientSaysHowLongItWaits(value: String, seconds: Double?) {
        #expect(head([host, length, ("X-Stainless-Timeout", value)]).timeoutSeconds == seconds)
    }

    @Test(arguments: [
        ([length], Failure.Code.malformedRequest), ([host, host, length], .malformedRequest),
        ([host], .lengthRequired), ([host, length, ("Transfer-Encoding", "chunked")], .malformedRequest),
        ([host, length, ("Content-Encoding", "gzip")], .unsupportedMediaType),
        ([host, length, ("Content-Type", "text/plain")], .unsupportedMediaType),
        ([host, length, ("Content-Type", "application/jsonx")], .unsupportedMediaType),
        ([host, length, ("Content-Type", "application/json"), ("Content-Type", "text/plain")], .unsupportedMediaType),
    ])
    func aBadFormIsNamed(fields: [(String, String)], code: Failure.Code) {
        #expect(head(fields).defect?.code == code)
    }

    @Test func chunksInHTTP10AreAmbiguous() {
        #expect(head([host, ("Transfer-Encoding", "chunked")], minor: 0).defect?.code == .malformedRequest)
        #expect(head([length], minor: 0).defect == nil)
    }

    @Test func twoKeysAreNoKey() {
        let incoming = head([host, length, ("Authorization", "Bearer a"), ("Authorization", "Bearer b")])
        #expect(incoming.authorization == "")
    }

    @Test func identityIsNoCompression() {
        #expect(head([host, length, ("Content-Encoding", "identity")]).defect == nil)
    }

    @Test func getNeedsNoLength() {
        #expect(head([host], method: .GET, uri: "/v1/models").defect == nil)
    }
}

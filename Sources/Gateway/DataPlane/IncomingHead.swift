import Domain
import NIOHTTP1
import OpenAIProtocol

/// What the gateway reads of a request's head, gathered in one pass over its fields. The rest is dropped: no client
/// header reaches a node.
package struct IncomingHead {
    package var route: RouteMatch
    /// As received: one of the parser's closed set.
    package var method: String
    package var isUpgrade = false
    package var expectsContinue = false
    package var contentLength: Int?
    package var isChunked = false
    /// `Authorization`, else `x-api-key` as a bearer token; empty where there are two.
    package var authorization: String?
    package var traceparent: String?
    package var tracestate: String?
    /// What proxies say about the client; believed of trusted ones only.
    package var forwardedFor: String?
    package var forwarded: String?
    /// Of a web page: where it comes from, and what it asks leave for.
    package var origin: String?
    package var preflightMethod: String?
    package var preflightHeaders: String?
    /// After how many seconds the client will give up, as OpenAI's and Anthropic's libraries say.
    package var timeoutSeconds: Double?
    /// Why the head cannot be served, where something besides the route is wrong with it.
    package var defect: Failure?

    package init(_ head: HTTPRequestHead) {
        method = head.method.rawValue
        route = Endpoint.match(method: head.method.rawValue, path: head.uri)
        var hosts = 0
        var contentTypes = 0
        var traceparents = 0
        var encodedBody = false
        var isOddlyCoded = false
        var jsonBody = true
        var plainKey: String?
        // Its framing is that of HTTP/2: the codec says `chunked` where no length is known, and adds the Host.
        let isHTTP2 = head.version.major == 2
        for (name, raw) in head.headers {
            // The parser leaves the blanks that may stand behind a value.
            let value = raw.utf8.last == 0x20 || raw.utf8.last == 0x09 ? Self.withoutBlanks(raw) : raw
            switch name.utf8.count {
            case 4 where Self.equal(name, "host"): hosts += 1
            case 6 where Self.equal(name, "origin"): origin = origin == nil ? value : ""
            case 6 where Self.equal(name, "expect"): expectsContinue = Self.equal(value, "100-continue")
            case 7 where Self.equal(name, "upgrade"): isUpgrade = true
            case 11 where Self.equal(name, "traceparent"):
                // Two of them say nothing that could be trusted (W3C Trace Context).
                traceparent = traceparents == 0 ? value : nil
                traceparents += 1
            case 9 where Self.equal(name, "x-api-key"): plainKey = plainKey == nil ? value : ""
            case 9 where Self.equal(name, "forwarded"):
                forwarded = forwarded.map { "\($0),\(value)" } ?? value
            case 15 where Self.equal(name, "x-forwarded-for"):
                forwardedFor = forwardedFor.map { "\($0),\(value)" } ?? value
            case 19 where Self.equal(name, "x-stainless-timeout"): timeoutSeconds = Self.seconds(value)
            case 29 where Self.equal(name, "access-control-request-method"): preflightMethod = value
            case 30 where Self.equal(name, "access-control-request-headers"): preflightHeaders = value
            case 10 where Self.equal(name, "tracestate"):
                tracestate = tracestate.map { "\($0),\(value)" } ?? value
            case 12 where Self.equal(name, "content-type"):
                contentTypes += 1
                jsonBody = Self.isJSON(value)
            case 13 where Self.equal(name, "authorization"): authorization = authorization == nil ? value : ""
            case 14 where Self.equal(name, "content-length"): contentLength = Int(value)
            case 16 where Self.equal(name, "content-encoding"): encodedBody = !Self.equal(value, "identity")
            case 17 where Self.equal(name, "transfer-encoding"):
                // Any other coding, or a list, is one that some parser would read otherwise.
                isOddlyCoded = isChunked || !Self.equal(value, "chunked")
                isChunked = true
            default: break
            }
        }
        if authorization == nil, let plainKey { authorization = plainKey.isEmpty ? "" : "Bearer \(plainKey)" }
        let hasBody = head.method == .POST || head.method == .PUT || head.method == .PATCH
        if hosts > 1 || (hosts == 0 && (head.version.minor > 0 || isHTTP2)) {
            defect = Failure(.malformedRequest, "The request needs exactly one Host header.")
        } else if isOddlyCoded {
            defect = Failure(
                .malformedRequest, "Of transfer codings only 'chunked' is accepted, once. Send that, or Content-Length."
            )
        } else if isChunked, contentLength != nil || (head.version.minor == 0 && !isHTTP2) {
            defect = Failure(
                .malformedRequest, "The request's length is ambiguous. Send Content-Length or chunks, not both.")
        } else if hasBody, !isChunked, contentLength == nil {
            defect = Failure(
                .lengthRequired, "The request has no Content-Length. Send one, or use chunked transfer encoding.")
        } else if encodedBody {
            defect = Failure(
                .unsupportedMediaType,
                "Compressed request bodies are not accepted. Send the JSON without Content-Encoding.")
        } else if hasBody, contentTypes > 1 || !jsonBody {
            defect = Failure(
                .unsupportedMediaType, "The body must be JSON. Send the header Content-Type: application/json.")
        }
    }

    private static func withoutBlanks(_ value: String) -> String {
        var bytes = value.utf8[...]
        while let last = bytes.last, last == 0x20 || last == 0x09 { bytes.removeLast() }
        return String(Substring(bytes))
    }

    /// What is no time to wait for is as if it were not there.
    private static func seconds(_ value: String) -> Double? {
        guard value.utf8.count <= 16, let seconds = Double(value), seconds > 0, seconds <= 86_400 else { return nil }
        return seconds
    }

    private static func isJSON(_ value: String) -> Bool {
        let type = value.utf8.prefix { $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }
        return equal(String(Substring(type)), "application/json")
    }

    /// ASCII, ignoring case; `lowercase` is lower-case.
    static func equal(_ text: String, _ lowercase: StaticString) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            guard bytes.count == lowercase.utf8CodeUnitCount else { return false }
            for index in 0..<bytes.count {
                let byte = bytes[index]
                let folded = (byte &- 65) < 26 ? byte | 0x20 : byte
                if folded != lowercase.utf8Start[index] { return false }
            }
            return true
        }
    }
}

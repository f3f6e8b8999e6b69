/// Requests that two servers may read differently, each as a client would send it: what the front is fuzzed from, and what
/// `SmugglingTests` compares with nginx.
package struct SmugglingCase: Sendable, CustomStringConvertible {
    package let name: String
    /// ``keyPlace`` stands for the customer's key.
    package let text: String

    package static let keyPlace = "{KEY}"
    package static let body = #"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1}"#
    private static let second = #"{"model":"m","messages":[{"role":"user","content":"smuggled"}],"max_tokens":1}"#

    package var description: String { name }
    package func bytes(key: String) -> [UInt8] {
        guard let place = text.firstRange(of: Self.keyPlace) else { return Array(text.utf8) }
        // Of a second request, too.
        let rest = SmugglingCase(name: name, text: String(text[place.upperBound...]))
        return Array((text[..<place.lowerBound] + key).utf8) + rest.bytes(key: key)
    }

    private init(name: String, text: String) {
        self.name = name
        self.text = text
    }

    private init(
        _ name: String, line: String = "POST /v1/chat/completions HTTP/1.1", host: [String] = ["Host: gateway"],
        _ headers: [String], _ body: String = body, end: String = "\r\n", close: Bool = true
    ) {
        let common = ["Content-Type: application/json", "Authorization: Bearer \(Self.keyPlace)"]
        let lines = [line] + host + common + (close ? ["Connection: close"] : []) + headers
        self.init(name: name, text: lines.joined(separator: end) + end + end + body)
    }

    private static let length = "Content-Length: \(body.utf8.count)"
    private static let chunked = "Transfer-Encoding: chunked"
    private static let chunks = chunk(body) + "0\r\n\r\n"
    private static func chunk(_ text: String, size: String? = nil, end: String = "\r\n") -> String {
        "\(size ?? String(text.utf8.count, radix: 16))\(end)\(text)\(end)"
    }

    private static func request(_ body: String, _ headers: [String] = []) -> String {
        let own = headers.isEmpty ? ["Content-Length: \(body.utf8.count)"] : headers
        let lines = [
            "POST /v1/chat/completions HTTP/1.1", "Host: gateway", "Content-Type: application/json",
            "Authorization: Bearer \(keyPlace)",
        ]
        return (lines + own).joined(separator: "\r\n") + "\r\n\r\n" + body
    }

    /// A second request that is to pass as part of the first one's body.
    private static let smuggled = request(second, ["Content-Length: \(second.utf8.count)", "Connection: close"])

    package static let all: [SmugglingCase] = plain + lengths + codings + chunkings + lines + targets + pipelines

    private static let plain = [
        SmugglingCase("plain-length", [length]),
        SmugglingCase("plain-chunked", [chunked], chunks),
        SmugglingCase("plain-old", line: "POST /v1/chat/completions HTTP/1.0", [length]),
    ]

    private static let lengths = [
        SmugglingCase("two-lengths-equal", [length, length]),
        SmugglingCase("two-lengths-differ", ["Content-Length: 0", length]),
        SmugglingCase("two-lengths-differ-reversed", [length, "Content-Length: 0"]),
        SmugglingCase("length-list-equal", ["Content-Length: \(body.utf8.count), \(body.utf8.count)"]),
        SmugglingCase("length-list-differ", ["Content-Length: 0, \(body.utf8.count)"]),
        SmugglingCase("length-plus-sign", ["Content-Length: +\(body.utf8.count)"]),
        SmugglingCase("length-negative", ["Content-Length: -\(body.utf8.count)"]),
        SmugglingCase("length-hexadecimal", ["Content-Length: 0x\(String(body.utf8.count, radix: 16))"]),
        SmugglingCase("length-leading-zeros", ["Content-Length: 000\(body.utf8.count)"]),
        SmugglingCase("length-overflows-to-small", ["Content-Length: 18446744073709551\(616 + body.utf8.count)"]),
        SmugglingCase("length-beyond-64-bits", ["Content-Length: 99999999999999999999999999"]),
        SmugglingCase("length-decimal-point", ["Content-Length: \(body.utf8.count).0"]),
        SmugglingCase("length-exponent", ["Content-Length: 7e1"]),
        SmugglingCase("length-inner-blank", ["Content-Length: 7 2"]),
        SmugglingCase("length-blanks-around", ["Content-Length: \t \(body.utf8.count) \t "]),
        SmugglingCase("length-empty", ["Content-Length:"]),
        SmugglingCase("length-empty-and-length", ["Content-Length:", length]),
        SmugglingCase("length-vertical-tab", ["Content-Length: \u{B}\(body.utf8.count)"]),
        SmugglingCase("length-trailing-letter", ["Content-Length: \(body.utf8.count)x"]),
        SmugglingCase("length-missing", []),
        SmugglingCase("length-shorter-than-body", ["Content-Length: 10"], body, close: false),
        SmugglingCase("length-longer-than-body", ["Content-Length: \(body.utf8.count + 5)"]),
        SmugglingCase("length-underscore", ["Content_Length: \(body.utf8.count)"]),
        SmugglingCase("length-underscore-and-length", ["Content_Length: 0", length]),
        SmugglingCase("length-other-digits", ["Content-Length: 0\u{660}", length]),
    ]

    private static let codings = [
        SmugglingCase("length-and-chunked", [length, chunked], chunks),
        SmugglingCase("chunked-and-length", [chunked, length], chunks),
        SmugglingCase("short-length-and-chunked", ["Content-Length: 4", chunked], chunks + smuggled),
        SmugglingCase("two-chunked", [chunked, chunked], chunks),
        SmugglingCase("chunked-list-twice", ["Transfer-Encoding: chunked, chunked"], chunks),
        SmugglingCase("chunked-and-identity", [chunked, "Transfer-Encoding: identity"], chunks),
        SmugglingCase("identity-alone", ["Transfer-Encoding: identity"], chunks),
        SmugglingCase("identity-and-length", ["Transfer-Encoding: identity", length]),
        SmugglingCase("gzip-chunked", ["Transfer-Encoding: gzip, chunked"], chunks),
        SmugglingCase("chunked-gzip", ["Transfer-Encoding: chunked, gzip"], chunks),
        SmugglingCase("coding-unknown", ["Transfer-Encoding: xchunked"], chunks),
        SmugglingCase("coding-unknown-and-length", ["Transfer-Encoding: xchunked", length]),
        SmugglingCase("coding-quoted", ["Transfer-Encoding: \"chunked\""], chunks),
        SmugglingCase("coding-upper-case", ["TRANSFER-ENCODING: CHUNKED"], chunks),
        SmugglingCase("coding-vertical-tab", ["Transfer-Encoding:\u{B}chunked"], chunks),
        SmugglingCase("coding-tab", ["Transfer-Encoding:\tchunked"], chunks),
        SmugglingCase("coding-comma-behind", ["Transfer-Encoding: chunked,"], chunks),
        SmugglingCase("coding-comma-before", ["Transfer-Encoding: ,chunked"], chunks),
        SmugglingCase("coding-parameter", ["Transfer-Encoding: chunked;a=b"], chunks),
        SmugglingCase("coding-empty", ["Transfer-Encoding:"], chunks),
        SmugglingCase("coding-empty-and-length", ["Transfer-Encoding:", length]),
        SmugglingCase("coding-NUL", ["Transfer-Encoding: chunked\0"], chunks),
        SmugglingCase("coding-underscore-and-length", ["Transfer_Encoding: chunked", length]),
        SmugglingCase("coding-old", line: "POST /v1/chat/completions HTTP/1.0", [chunked], chunks),
        SmugglingCase("coding-old-and-length", line: "POST /v1/chat/completions HTTP/1.0", [chunked, length], chunks),
        SmugglingCase("coding-in-value-of-another", ["X: a\r\n Transfer-Encoding: chunked", length]),
    ]

    private static let chunkings = [
        SmugglingCase("chunk-extension", [chunked], chunk(body, size: "47;a=b") + "0\r\n\r\n"),
        SmugglingCase("chunk-extension-quoted", [chunked], chunk(body, size: "47;a=\"b\"") + "0\r\n\r\n"),
        SmugglingCase("chunk-extension-LF", [chunked], chunk(body, size: "47;a\nb") + "0\r\n\r\n"),
        SmugglingCase("chunk-extension-CR", [chunked], chunk(body, size: "47;a\rb") + "0\r\n\r\n"),
        SmugglingCase("chunk-extension-long", [chunked], chunk(body, size: "47;" + x(20_000)) + "0\r\n\r\n"),
        SmugglingCase("chunk-extension-odd", [chunked], chunk(body, size: "47;;=;\u{1}") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-blank-behind", [chunked], chunk(body, size: "47 ") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-blank-before", [chunked], chunk(body, size: " 47") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-prefix", [chunked], chunk(body, size: "0x47") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-plus", [chunked], chunk(body, size: "+47") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-negative", [chunked], chunk(body, size: "-47") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-underscore", [chunked], chunk(body, size: "4_7") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-overflow", [chunked], chunk(body, size: "10000000000000047") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-largest", [chunked], chunk(body, size: "ffffffffffffffff") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-zeros", [chunked], chunk(body, size: "00000000000000000047") + "0\r\n\r\n"),
        SmugglingCase("chunk-size-empty", [chunked], chunk(body, size: "") + "0\r\n\r\n"),
        SmugglingCase("chunk-bare-LF", [chunked], chunk(body, end: "\n") + "0\n\n"),
        SmugglingCase("chunk-bare-CR", [chunked], chunk(body, end: "\r") + "0\r\r"),
        SmugglingCase("chunk-without-line-end", [chunked], "47\r\n\(body)0\r\n\r\n"),
        SmugglingCase("chunk-longer-than-said", [chunked], chunk(body, size: "40") + "0\r\n\r\n"),
        SmugglingCase("chunk-without-last", [chunked], chunk(body)),
        SmugglingCase("chunk-last-many-zeros", [chunked], chunk(body) + "0000000\r\n\r\n"),
        SmugglingCase("chunk-trailer", [chunked], chunk(body) + "0\r\nX-Trailer: 1\r\n\r\n"),
        SmugglingCase("chunk-trailer-length", [chunked], chunk(body) + "0\r\nContent-Length: 5\r\n\r\n"),
        SmugglingCase("chunk-trailer-bare-LF", [chunked], chunk(body) + "0\r\nX: 1\n\r\n"),
    ]

    private static let lines = [
        SmugglingCase("line-bare-LF", [length], end: "\n"),
        SmugglingCase("line-bare-CR", ["X: a\rContent-Length: 0", length]),
        SmugglingCase("line-LF-in-value", ["X: a\nContent-Length: 0", length]),
        SmugglingCase("line-CR-CR-LF", ["X: a\r", length]),
        SmugglingCase("fold-blank", ["X: a\r\n b", length]),
        SmugglingCase("fold-tab", ["X: a\r\n\tb", length]),
        SmugglingCase("fold-in-length", ["Content-Length:\r\n \(body.utf8.count)"]),
        SmugglingCase("fold-in-coding", ["Transfer-Encoding:\r\n chunked"], chunks),
        SmugglingCase("fold-first-header", host: [" Host: gateway"], [length]),
        SmugglingCase("blank-before-colon", ["Content-Length : \(body.utf8.count)"]),
        SmugglingCase("tab-before-colon", ["Content-Length\t: \(body.utf8.count)"]),
        SmugglingCase("blank-before-colon-coding", ["Transfer-Encoding : chunked", length]),
        SmugglingCase("blank-in-name", ["Content Length: 0", length]),
        SmugglingCase("NUL-in-name", ["X\0: 1", length]),
        SmugglingCase("NUL-in-value", ["X: a\0b", length]),
        SmugglingCase("control-in-value", ["X: a\u{1}b", length]),
        SmugglingCase("DEL-in-value", ["X: a\u{7F}b", length]),
        SmugglingCase("high-bytes-in-name", ["X-\u{E9}: 1", length]),
        SmugglingCase("empty-name", [": 1", length]),
        SmugglingCase("no-colon", ["X-nothing", length]),
        SmugglingCase("no-host", host: [], [length]),
        SmugglingCase("two-hosts", host: ["Host: a", "Host: b"], [length]),
        // Found by mutation: after a head that is refused for its Host nothing more is read of the connection.
        SmugglingCase("no-host-and-another", host: [], ["Content-Length: 0"], smuggled, close: false),
        SmugglingCase(
            "two-hosts-and-another", host: ["Host: gateway", "Host: gateway"], ["Content-Length: 0"], smuggled,
            close: false),
        SmugglingCase(
            "no-host-no-path-and-another", line: "POST /nothing HTTP/1.1", host: [], ["Content-Length: 0"], smuggled,
            close: false),
        SmugglingCase("host-with-path", host: ["Host: a/b"], [length]),
    ]

    private static let targets = [
        SmugglingCase("absolute-URI", line: "POST http://gateway/v1/chat/completions HTTP/1.1", [length]),
        SmugglingCase("absolute-URI-other-host", line: "POST http://other/v1/chat/completions HTTP/1.1", [length]),
        SmugglingCase("version-0.9", line: "POST /v1/chat/completions", [length]),
        SmugglingCase("version-1.2", line: "POST /v1/chat/completions HTTP/1.2", [length]),
        SmugglingCase("version-2.0", line: "POST /v1/chat/completions HTTP/2.0", [length]),
        SmugglingCase("version-1.10", line: "POST /v1/chat/completions HTTP/1.10", [length]),
        SmugglingCase("version-lower-case", line: "POST /v1/chat/completions http/1.1", [length]),
        SmugglingCase("method-lower-case", line: "post /v1/chat/completions HTTP/1.1", [length]),
        SmugglingCase("method-blank-before", line: " POST /v1/chat/completions HTTP/1.1", [length]),
        SmugglingCase("target-tabs", line: "POST\t/v1/chat/completions\tHTTP/1.1", [length]),
        SmugglingCase("target-two-blanks", line: "POST  /v1/chat/completions  HTTP/1.1", [length]),
        SmugglingCase("target-blank-behind", line: "POST /v1/chat/completions HTTP/1.1 ", [length]),
        SmugglingCase("target-fragment", line: "POST /v1/chat/completions#a HTTP/1.1", [length]),
        SmugglingCase("target-dots", line: "POST /v1/../v1/chat/completions HTTP/1.1", [length]),
        SmugglingCase("target-NUL", line: "POST /v1/chat/completions\0 HTTP/1.1", [length]),
        SmugglingCase("preface-of-HTTP-2", line: "PRI * HTTP/2.0", [], "SM\r\n\r\n"),
        SmugglingCase("empty-lines-before", line: "\r\n\r\nPOST /v1/chat/completions HTTP/1.1", [length]),
    ]

    private static let pipelines = [
        SmugglingCase(name: "pipeline-two", text: request(body) + smuggled),
        SmugglingCase("pipeline-behind-close", [length], body + smuggled),
        SmugglingCase(
            "pipeline-behind-old", line: "POST /v1/chat/completions HTTP/1.0", [length], body + smuggled, close: false),
        SmugglingCase(name: "pipeline-behind-chunks", text: request(chunks, [chunked]) + smuggled),
        SmugglingCase(name: "pipeline-in-short-length", text: request(smuggled, ["Content-Length: 0"])),
        SmugglingCase(name: "pipeline-line-between", text: request(body) + "\r\n" + smuggled),
        SmugglingCase(name: "pipeline-junk-between", text: request(body) + "junk\r\n" + smuggled),
        SmugglingCase(
            name: "pipeline-in-GET-body",
            text: "GET /v1/models HTTP/1.1\r\nHost: gateway\r\nContent-Length: \(smuggled.utf8.count)\r\n"
                + "Connection: close\r\n\r\n" + smuggled),
        SmugglingCase("expect-continue", ["Expect: 100-continue", length]),
        SmugglingCase("expect-other", ["Expect: 200-ok", length]),
        SmugglingCase("upgrade", ["Upgrade: h2c", "Connection: Upgrade", length], body + smuggled, close: false),
        SmugglingCase("connection-names-length", ["Connection: close, Content-Length", length], close: false),
        SmugglingCase("connection-names-host", ["Connection: close, Host", length], close: false),
    ]

    private static func x(_ count: Int) -> String { String(repeating: "x", count: count) }
}

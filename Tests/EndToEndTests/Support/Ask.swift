import Foundation
import JSON

/// A request as a test writes it down.
struct Ask: Sendable {
    var method = "POST"
    var path = "/v1/chat/completions"
    var version = "HTTP/1.1"
    var key: String?
    var headers: [(name: String, value: String)] = []
    var body: [UInt8]?
    /// Sizes of the chunks that the body is sent in; nil sends a length.
    var chunkBytes: Int?
    var hasHost = true

    var bytes: [UInt8] {
        var head = "\(method) \(path) \(version)\r\n"
        if hasHost { head += "Host: gateway\r\n" }
        if let key { head += "Authorization: Bearer \(key)\r\n" }
        if body != nil { head += "Content-Type: application/json\r\n" }
        for header in headers { head += "\(header.name): \(header.value)\r\n" }
        guard let body else { return Array((head + "\r\n").utf8) }
        guard let chunkBytes else {
            let length = headers.contains { $0.name.lowercased() == "content-length" }
            return Array((head + (length ? "" : "Content-Length: \(body.count)\r\n") + "\r\n").utf8) + body
        }
        var bytes = Array((head + "Transfer-Encoding: chunked\r\n\r\n").utf8)
        for start in stride(from: 0, to: body.count, by: chunkBytes) {
            let chunk = body[start..<min(start + chunkBytes, body.count)]
            bytes += Array("\(String(chunk.count, radix: 16))\r\n".utf8) + chunk + Array("\r\n".utf8)
        }
        return bytes + Array("0\r\n\r\n".utf8)
    }

    /// What the gateway may estimate the prompt at, where no node says: it learns from what they report, so the very number
    /// depends on what was asked before.
    var promptEstimates: ClosedRange<Int> { 1...((body?.count ?? 0) / 2) }

    static func get(_ path: String, key: String? = nil) -> Ask { Ask(method: "GET", path: path, key: key) }

    static func post(_ path: String, _ body: String, key: String? = nil) -> Ask {
        Ask(path: path, key: key, body: Array(body.utf8))
    }

    /// - Parameters:
    ///   - tokens: Asked of the node exactly, so that tests know the usage: `max_tokens` with `ignore_eos`.
    ///   - fields: Members in front of the others, each with a comma behind it: `"seed":7,`.
    static func chat(
        _ model: String, key: String? = nil, stream: Bool = false, includeUsage: Bool? = nil, tokens: Int? = 8,
        prompt: String = "Say something.", fields: String = ""
    ) -> Ask {
        post(
            "/v1/chat/completions",
            chatBody(
                model, stream: stream, includeUsage: includeUsage, tokens: tokens, prompt: prompt, fields: fields),
            key: key)
    }

    static func chatBody(
        _ model: String, stream: Bool = false, includeUsage: Bool? = nil, tokens: Int? = 8,
        prompt: String = "Say something.", fields: String = ""
    ) -> String {
        var body = "{\(fields)\"model\":\"\(model)\","
        if stream { body += "\"stream\":true," }
        if let includeUsage { body += "\"stream_options\":{\"include_usage\":\(includeUsage)}," }
        if let tokens { body += "\"max_tokens\":\(tokens),\"ignore_eos\":true," }
        return body + "\"messages\":[{\"role\":\"user\",\"content\":\(JSONWriter.quoted(prompt))}]}"
    }

    func with(_ name: String, _ value: String) -> Ask {
        var copy = self
        copy.headers.append((name, value))
        return copy
    }

    func with(chunks bytes: Int) -> Ask {
        var copy = self
        copy.chunkBytes = bytes
        return copy
    }
}

extension JSONWriter {
    static func quoted(_ text: String) -> String { String(decoding: JSONWriter.encoded(text), as: UTF8.self) }
}

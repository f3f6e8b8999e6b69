import JSON

/// An error as a node words it, made fit for a client: bounded, and without what it tells about the node.
package struct NodeError: Hashable, Sendable {
    /// Bytes of a message that go on.
    package static let messageBytesMax = 500
    /// Bytes of a node's error body that are looked at.
    package static let bodyBytesMax = 64 << 10

    package var message: String
    package var type: String?
    package var parameter: String?
    package var code: String?

    /// Understands OpenAI's object, vLLM's and SGLang's (`{"object":"error","message":...}`), FastAPI's
    /// (`{"detail":...}`), and nothing else: other texts may be a proxy's page.
    ///
    /// - Returns: nil where there is no message.
    package init?(_ body: UnsafeRawBufferPointer) {
        guard body.count <= Self.bodyBytesMax, let document = try? JSONValue(parsing: body) else { return nil }
        var object = document
        if let inner = document["error"], inner.object != nil { object = inner }
        if let inner = document["response"]?["error"], inner.object != nil { object = inner }
        let text =
            object["message"]?.string ?? document["error"]?.string ?? document["detail"]?.string
            ?? document["detail"]?[0]?["msg"]?.string
        guard let text, !text.isEmpty else { return nil }
        message = text
        type = Self.word(object["type"])
        parameter = Self.word(object["param"])
        code = Self.isAboutContext(message, type) ? "context_length_exceeded" : Self.word(object["code"])
    }

    /// Each engine has words of its own for a prompt that does not fit; programs look for OpenAI's.
    private static func isAboutContext(_ message: String, _ type: String?) -> Bool {
        if type == "exceed_context_size_error" { return true }
        let text = message.lowercased()
        return text.contains("maximum context length") || text.contains("maximum model length")
            || text.contains("longer than the model's context length")
    }

    /// A short word of a closed alphabet, or an integer: never an address or a sentence.
    private static func word(_ value: JSONValue?) -> String? {
        switch value {
        case .integer(let number): return "\(number)"
        case .string(let text):
            let isWord = text.utf8.allSatisfy { byte in
                Redaction.isAlphanumeric(byte) || "_-.[]".utf8.contains(byte)
            }
            guard !text.isEmpty, text.utf8.count <= 64, isWord, Redaction.redacted(text) == text else { return nil }
            return text
        default: return nil
        }
    }
}

/// An error for the client out of a node's: always whole, codes as strings, addresses and paths removed.
///
/// - Parameters:
///   - status: What the node answered: chooses the type where the node names none.
///   - body: The node's body; where it is not understood, a general message stands in.
///   - upstreamModel: The node's name for the model, which gives way to `publicModel` in the message.
package func rebuildNodeError(
    status: Int, body: UnsafeRawBufferPointer, upstreamModel: String? = nil, publicModel: String? = nil,
    dialect: Dialect = .openAI, requestID: String? = nil
) -> [UInt8] {
    ErrorDescription(nodeError: body, status: status, upstreamModel: upstreamModel, publicModel: publicModel)
        .render(dialect, requestID: requestID)
}

/// The same as an event of a stream, for an error that a node sends after its head.
package func rebuildStreamError(
    _ json: UnsafeRawBufferPointer, upstreamModel: String? = nil, publicModel: String? = nil,
    dialect: Dialect = .openAI, requestID: String? = nil
) -> [UInt8] {
    ErrorDescription(nodeError: json, status: 500, upstreamModel: upstreamModel, publicModel: publicModel)
        .renderStreamEvent(dialect, requestID: requestID)
}

extension ErrorDescription {
    fileprivate init(
        nodeError body: UnsafeRawBufferPointer, status: Int, upstreamModel: String?, publicModel: String?
    ) {
        let error = NodeError(body)
        var message = error?.message ?? "The model server refused the request with status \(status)."
        if let upstreamModel, let publicModel, !upstreamModel.isEmpty {
            message = Redaction.replace(upstreamModel, by: publicModel, in: message)
        }
        self.init(
            status: status,
            message: Redaction.cut(Redaction.redacted(message, keeping: publicModel), to: NodeError.messageBytesMax),
            type: error?.type ?? (status >= 500 ? "server_error" : "invalid_request_error"),
            parameter: error?.parameter, code: error?.code)
    }
}

/// Takes addresses, hosts and paths out of a text, word by word.
enum Redaction {
    static let mark = "[redacted]"

    /// - Parameter kept: A word that stays, whatever it looks like.
    static func redacted(_ text: String, keeping kept: String? = nil) -> String {
        var result: [UInt8] = []
        var word: [UInt8] = []
        func flush() {
            if let kept, word.elementsEqual(kept.utf8) {
                result.append(contentsOf: word)
            } else {
                result.append(contentsOf: isTelling(word[...]) ? Array(mark.utf8) : word)
            }
            word.removeAll(keepingCapacity: true)
        }
        for byte in text.utf8 {
            // What cannot stand in an address, a host name or a path ends a word.
            let isWordByte = isAlphanumeric(byte) || byte >= 0x80 || "/:.-_@%~[]?&=#+\\".utf8.contains(byte)
            if isWordByte {
                word.append(byte)
            } else {
                flush()
                result.append(byte < 0x20 ? UInt8(ascii: " ") : byte)
            }
        }
        flush()
        return String(decoding: result, as: UTF8.self)
    }

    /// Whether a word says where something is: a URL, a path, an IPv4 or IPv6 address, a host with a port, a local name.
    private static func isTelling(_ word: ArraySlice<UInt8>) -> Bool {
        var word = word
        while let last = word.last, ".,:?[]".utf8.contains(last) { word = word.dropLast() }
        while let first = word.first, "[]=".utf8.contains(first) { word = word.dropFirst() }
        guard word.count > 1 else { return false }
        let parts = word.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: true)
        if contains(word, "://") || word.first == UInt8(ascii: "/") && parts.count > 1 { return true }
        if word.starts(with: "~/".utf8) || word.starts(with: "./".utf8) || word.starts(with: "../".utf8) { return true }
        if contains(word, ":\\") || contains(word, "\\\\") { return true }
        if parts.count > 2 || contains(word, "/.") { return true }
        if isSourceFile(word) || isIPv4(word) || isIPv6(word) || isHost(word) { return true }
        // `model=/a/b` and `addr=10.0.0.5` tell it behind the sign.
        if let sign = word.firstIndex(where: { "=@".utf8.contains($0) }) { return isTelling(word[(sign + 1)...]) }
        return false
    }

    private static func isIPv4(_ word: ArraySlice<UInt8>) -> Bool {
        let host = word.prefix { $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: "/") }
        let parts = host.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return parts.count == 4 && parts.allSatisfy { (1...3).contains($0.count) && $0.allSatisfy(isDigit) }
    }

    /// Three colons or more, or two in a row, with nothing but hexadecimal digits and colons besides.
    private static func isIPv6(_ word: ArraySlice<UInt8>) -> Bool {
        let address = word.prefix { $0 != UInt8(ascii: "]") && $0 != UInt8(ascii: "%") }
        let colons = address.count { $0 == UInt8(ascii: ":") }
        return (colons >= 3 || contains(address, "::"))
            && address.allSatisfy { $0 == UInt8(ascii: ":") || HexDigit.value($0) != nil || $0 == UInt8(ascii: ".") }
    }

    /// `name:port`, or a name under a private domain.
    private static func isHost(_ word: ArraySlice<UInt8>) -> Bool {
        let host = word.prefix { $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: "/") }
        guard !host.isEmpty, host.allSatisfy({ isAlphanumeric($0) || ".-_".utf8.contains($0) }) else { return false }
        let port = word.dropFirst(host.count).dropFirst().prefix { $0 != UInt8(ascii: "/") }
        let isName = !host.allSatisfy(isDigit)
        // A short number behind a colon may be a line or a count, unless a domain stands before it.
        let digits = host.contains(UInt8(ascii: ".")) ? 2...5 : 4...5
        if isName, word.count > host.count, word[host.endIndex] == UInt8(ascii: ":"), digits.contains(port.count),
            port.allSatisfy(isDigit)
        {
            return true
        }
        let text = String(decoding: host, as: UTF8.self).lowercased()
        return text == "localhost" || privateDomains.contains { text.hasSuffix($0) }
    }

    private static let privateDomains = [".local", ".internal", ".lan", ".svc"]

    private static func isSourceFile(_ word: ArraySlice<UInt8>) -> Bool {
        let name = String(decoding: word.prefix { $0 != UInt8(ascii: ":") }, as: UTF8.self).lowercased()
        return [".py", ".cpp", ".cu", ".hpp", ".so", ".rs", ".gguf", ".safetensors"].contains { name.hasSuffix($0) }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        isDigit(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }

    private static func contains(_ word: ArraySlice<UInt8>, _ part: String) -> Bool {
        let part = Array(part.utf8)
        guard word.count >= part.count else { return false }
        return (word.startIndex...(word.endIndex - part.count)).contains { word[$0...].starts(with: part) }
    }

    static func replace(_ old: String, by new: String, in text: String) -> String {
        let bytes = Array(text.utf8)
        let old = Array(old.utf8)
        var result: [UInt8] = []
        var at = 0
        while at < bytes.count {
            if bytes[at...].starts(with: old) {
                result.append(contentsOf: new.utf8)
                at += old.count
            } else {
                result.append(bytes[at])
                at += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// At most `limit` bytes, cut between characters.
    static func cut(_ text: String, to limit: Int) -> String {
        guard text.utf8.count > limit else { return text }
        var end = text.utf8.index(text.startIndex, offsetBy: limit - 3)
        while end > text.startIndex, String.Index(end, within: text) == nil { end = text.utf8.index(before: end) }
        return text[..<end] + "..."
    }
}

/// What a proxy says about the connection it passes on, before its first byte: the PROXY protocol, versions 1 and 2.
///
/// Pure: looks at all that has come so far, so that the result is the same however the bytes were split. Strict: what is
/// not exactly a header is refused, since its sender was told to send one.
package enum ProxyHeader {
    /// A line of version 1, its end included.
    package static let lineBytesMax = 107
    /// Behind the sixteen bytes of version 2: addresses (216 for Unix sockets) and the extras of the proxies in use.
    package static let extraBytesMax = 536
    package static let bytesMax = 16 + extraBytesMax

    private static let signature: [UInt8] = [
        0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
    ]
    private static let line: [UInt8] = Array("PROXY ".utf8)

    package enum Outcome: Hashable, Sendable {
        /// So far it can be a header.
        case incomplete
        /// - Parameters:
        ///   - address: The client's; nil where the proxy speaks for itself (a health check) or says that it knows none.
        ///   - bytes: What the header took.
        case header(address: IPAddress?, bytes: Int)
        case invalid
    }

    package static func read(_ bytes: some RandomAccessCollection<UInt8>) -> Outcome {
        guard let first = bytes.first else { return .incomplete }
        switch first {
        case line[0]: return readLine(bytes)
        case signature[0]: return readBinary(bytes)
        default: return .invalid
        }
    }

    // MARK: Version 1

    private static func readLine(_ bytes: some RandomAccessCollection<UInt8>) -> Outcome {
        guard bytes.prefix(line.count).elementsEqual(line.prefix(bytes.count)) else { return .invalid }
        let window = bytes.prefix(lineBytesMax)
        guard let end = window.firstIndex(of: 0x0A) else {
            return window.count == lineBytesMax ? .invalid : .incomplete
        }
        var text = window[..<end]
        let count = text.count + 1
        guard text.popLast() == 0x0D, text.allSatisfy({ (0x20..<0x7F).contains($0) }) else { return .invalid }
        let words = text.dropFirst(line.count).split(separator: 0x20, omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        // What follows UNKNOWN is to be ignored.
        if words.first == "UNKNOWN" { return .header(address: nil, bytes: count) }
        guard words.count == 5, words[0] == "TCP4" || words[0] == "TCP6", isPort(words[3]), isPort(words[4]),
            let source = IPAddress(words[1]), let target = IPAddress(words[2]),
            // An IPv4 address in IPv6 notation is one of TCP6.
            words[1].contains(":") == (words[0] == "TCP6"), words[2].contains(":") == (words[0] == "TCP6")
        else { return .invalid }
        _ = target
        return .header(address: source, bytes: count)
    }

    private static func isPort(_ text: String) -> Bool {
        (1...5).contains(text.utf8.count) && text.utf8.allSatisfy { (48...57).contains($0) }
            && (Int(text) ?? .max) <= 65_535 && (text == "0" || text.first != "0")
    }

    // MARK: Version 2

    private static func readBinary(_ bytes: some RandomAccessCollection<UInt8>) -> Outcome {
        guard bytes.prefix(signature.count).elementsEqual(signature.prefix(bytes.count)) else { return .invalid }
        let head = Array(bytes.prefix(16))
        if head.count > 12, head[12] != 0x20, head[12] != 0x21 { return .invalid }
        guard head.count == 16 else { return .incomplete }
        let length = Int(head[14]) << 8 | Int(head[15])
        guard length <= extraBytesMax else { return .invalid }
        let isLocal = head[12] == 0x20
        let addressBytes: Int
        switch head[13] {
        // TCP over IPv4 and IPv6: two addresses and two ports.
        case 0x11: addressBytes = 4
        case 0x21: addressBytes = 16
        // Unspecified, or a Unix socket: no address to log or limit.
        case 0x00, 0x31: addressBytes = 0
        default:
            guard isLocal else { return .invalid }
            addressBytes = 0
        }
        guard isLocal || length >= (addressBytes == 0 ? 0 : 2 * addressBytes + 4) else { return .invalid }
        guard bytes.count >= 16 + length else { return .incomplete }
        let source = bytes.dropFirst(16).prefix(addressBytes)
        return .header(address: isLocal ? nil : IPAddress(bytes: source), bytes: 16 + length)
    }
}

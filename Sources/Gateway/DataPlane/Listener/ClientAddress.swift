/// Who a request comes from: the connection's other end, or what trusted proxies in between say.
///
/// Each proxy appends the address that it saw, so a list is read from its end: the first address that is no trusted
/// proxy's is the client's, and what stands before it is the client's own invention.
package enum ClientAddress {
    /// Hops that are looked at; a longer chain ends at the last of these.
    package static let hopsMax = 32

    /// - Parameters:
    ///   - peer: The connection's other end, or what the PROXY protocol said.
    ///   - forwardedFor: `X-Forwarded-For`, all its lines joined by commas; goes before `forwarded`.
    ///   - forwarded: `Forwarded` (RFC 7239), joined likewise.
    /// - Returns: nil where `peer` itself is the client, as far as anybody knows.
    package static func of(
        peer: String, forwardedFor: String?, forwarded: String?, trusted: [IPNetwork]
    ) -> String? {
        guard forwardedFor != nil || forwarded != nil, !trusted.isEmpty, let address = IPAddress(peer),
            isTrusted(address, trusted)
        else { return nil }
        var found: IPAddress?
        let list = (forwardedFor ?? forwarded ?? "").utf8
        var end = list.endIndex
        for _ in 0..<hopsMax {
            let start = list[..<end].lastIndex(of: UInt8(ascii: ",")).map { list.index(after: $0) } ?? list.startIndex
            let element = Substring(list[start..<end])
            // An address that is hidden or garbled ends the chain: the one who passed it on is the best that is known.
            guard let hop = forwardedFor != nil ? Self.address(in: element) : forwardedAddress(in: element) else {
                break
            }
            found = hop
            guard isTrusted(hop, trusted), start > list.startIndex else { break }
            end = list.index(before: start)
        }
        return found?.description
    }

    private static func isTrusted(_ address: IPAddress, _ trusted: [IPNetwork]) -> Bool {
        trusted.contains { $0.contains(address) }
    }

    /// `10.0.0.1`, `10.0.0.1:8080`, `2001:db8::1`, `[2001:db8::1]:8080`, with blanks around.
    private static func address(in text: Substring) -> IPAddress? {
        let text = trimmed(text)
        guard text.utf8.count <= IPAddress.textBytesMax + 8 else { return nil }
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { return nil }
            return IPAddress(text[text.index(after: text.startIndex)..<end])
        }
        if let address = IPAddress(text) { return address }
        guard let colon = text.firstIndex(of: ":"), text[text.index(after: colon)...].allSatisfy(\.isNumber) else {
            return nil
        }
        return IPAddress(text[..<colon])
    }

    /// The `for` of one element: `for=192.0.2.43`, `For="[2001:db8::1]:4711";proto=https`.
    private static func forwardedAddress(in element: Substring) -> IPAddress? {
        for pair in element.split(separator: ";") {
            let halves = pair.split(separator: "=", maxSplits: 1)
            guard halves.count == 2, IncomingHead.equal(String(trimmed(halves[0])), "for") else { continue }
            var value = trimmed(halves[1])
            if value.first == "\"", value.last == "\"", value.utf8.count > 1 { value = value.dropFirst().dropLast() }
            return address(in: value)
        }
        return nil
    }

    private static func trimmed(_ text: Substring) -> Substring {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        var bytes = text.utf8[...]
        while let first = bytes.first, isBlank(first) { bytes.removeFirst() }
        while let last = bytes.last, isBlank(last) { bytes.removeLast() }
        return Substring(bytes)
    }
}

extension LoopContext {
    /// Who a request comes from. Costs nothing where no header speaks of another.
    ///
    /// - Parameter peer: The connection's other end, or what the PROXY protocol said.
    func clientAddress(of head: IncomingHead, peer: String) -> String {
        guard head.forwardedFor != nil || head.forwarded != nil else { return peer }
        return ClientAddress.of(
            peer: peer, forwardedFor: head.forwardedFor, forwarded: head.forwarded,
            trusted: snapshot.configuration.listener.trustedProxies) ?? peer
    }
}

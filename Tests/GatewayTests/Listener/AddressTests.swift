import Domain
import Support
import Testing

@testable import Gateway

@Suite struct AddressTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:DB8::0:1", "2001:db8::1"),
        ("255.255.255.255", "255.255.255.255"), ("::", "::"),
    ])
    func anAddressIsReadAndWritten(text: String, written: String) {
        #expect(IPAddress(text)?.description == written)
    }

    @Test(arguments: [
        "", "1", "10.0.0", "10.0.0.256", "10.0.0.1:80", "[::1]", "::1%lo", "g::1", "1:2:3", " 10.0.0.1", "localhost",
        "10.0.0.1\u{0}",
    ])
    func whatIsNoAddressIsNone(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: [
        ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.1", false), ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false), ("0.0.0.0/0", "1.2.3.4", true), ("0.0.0.0/0", "::1", false),
        ("::/0", "1.2.3.4", false), ("::/0", "fe80::1", true), ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false), ("2001:db8::/64", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::/65", "2001:db8::ffff:0:0:1", false), ("::1/128", "::1", true), ("::1/128", "::2", false),
        ("10.0.0.0/8", "::ffff:10.9.9.9", true),
    ])
    func aBlockHoldsItsAddresses(block: String, address: String, isInside: Bool) throws {
        let address = try #require(IPAddress(address))
        #expect(IPNetwork(block)?.contains(address) == isInside)
    }

    @Test(arguments: ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/8/8", "x/8"])
    func whatIsNoBlockIsNone(text: String) {
        #expect(IPNetwork(text) == nil)
    }

    // MARK: Forwarded

    private static let trusted = ["10.0.0.0/8", "fd00::/8"].compactMap { IPNetwork($0) }

    @Test(
        arguments: [
            ("203.0.113.9", "203.0.113.9"), ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("1.1.1.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"), ("203.0.113.9,10.0.0.7 , 10.0.0.8", "203.0.113.9"),
            ("10.0.0.3, 10.0.0.4", "10.0.0.3"), ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::9]:4711", "2001:db8::9"), ("2001:db8::9", "2001:db8::9"),
            ("203.0.113.9, unknown", nil), ("203.0.113.9, unknown, 10.0.0.7", "10.0.0.7"), ("", nil), (",", nil),
            ("203.0.113.9,", nil), ("203.0.113.9, <script>", nil), ("2001:db8::9, fd00::1", "2001:db8::9"),
        ] as [(String, String?)])
    func theRightmostAddressThatIsNotTrustedIsTheClients(list: String, client: String?) {
        let found = ClientAddress.of(peer: "10.1.1.1", forwardedFor: list, forwarded: nil, trusted: Self.trusted)
        #expect(found == client)
    }

    @Test(
        arguments: [
            ("for=203.0.113.9", "203.0.113.9"), ("For=\"[2001:db8::9]:4711\";proto=https", "2001:db8::9"),
            ("for=1.1.1.1, proto=https;for=203.0.113.9;by=10.0.0.1, for=10.0.0.7", "203.0.113.9"),
            ("for=_hidden", nil), ("for=unknown", nil), ("proto=https", nil), ("for=\"", nil), ("for", nil),
        ] as [(String, String?)])
    func forwardedIsReadAlike(value: String, client: String?) {
        let found = ClientAddress.of(peer: "10.1.1.1", forwardedFor: nil, forwarded: value, trusted: Self.trusted)
        #expect(found == client)
    }

    @Test func nobodyButATrustedProxyIsBelieved() {
        for peer in ["192.0.2.1", "::1", ""] {
            #expect(
                ClientAddress.of(peer: peer, forwardedFor: "203.0.113.9", forwarded: nil, trusted: Self.trusted) == nil)
        }
        #expect(ClientAddress.of(peer: "10.1.1.1", forwardedFor: "203.0.113.9", forwarded: nil, trusted: []) == nil)
    }

    @Test func aChainLongerThanItsBoundEndsThere() {
        let list = Array(repeating: "10.0.0.9", count: 1_000).joined(separator: ",")
        let found = ClientAddress.of(
            peer: "10.1.1.1", forwardedFor: "203.0.113.9," + list, forwarded: nil, trusted: Self.trusted)
        #expect(found == "10.0.0.9")
    }

    @Test func garbageNeverTraps() {
        let seed = UInt64.random(in: .min ... .max)
        print("garbageNeverTraps seed \(seed)")
        var generator = SplitMix64(seed: seed)
        let alphabet = Array("0123456789abcdef.:[]\",;= for/%\t")
        for _ in 0..<20_000 {
            let text = String((0..<generator.int(0...40)).map { _ in alphabet[generator.int(0...alphabet.count - 1)] })
            for list in [(text, nil), (nil, text)] as [(String?, String?)] {
                let found = ClientAddress.of(
                    peer: "10.1.1.1", forwardedFor: list.0, forwarded: list.1, trusted: Self.trusted)
                #expect(found == nil || IPAddress(found!) != nil, "\(text)")
            }
            if let address = IPAddress(text) { #expect(IPAddress(address.description) == address) }
        }
    }
}

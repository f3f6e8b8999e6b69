import Domain
import Support
import Testing

@testable import Gateway

@Suite struct ProxyHeaderTests {
    private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]

    private static func binary(_ command: UInt8, _ family: UInt8, _ body: [UInt8], length: Int? = nil) -> [UInt8] {
        let length = length ?? body.count
        return signature + [command, family, UInt8(length >> 8), UInt8(length & 0xFF)] + body
    }

    private static let four: [UInt8] = [203, 0, 113, 9, 10, 0, 0, 1, 0x1F, 0x90, 0, 80]
    private static let six: [UInt8] =
        [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9] + [UInt8](repeating: 0, count: 15) + [1, 1, 1, 2, 2]

    private static let good: [([UInt8], String?)] = [
        (Array("PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n".utf8), "203.0.113.9"),
        (Array("PROXY TCP6 2001:db8::9 ::1 0 65535\r\n".utf8), "2001:db8::9"),
        (Array("PROXY UNKNOWN\r\n".utf8), nil),
        (Array("PROXY UNKNOWN ffff::1 whatever 1 2\r\n".utf8), nil),
        (binary(0x21, 0x11, four), "203.0.113.9"),
        (binary(0x21, 0x21, six), "2001:db8::9"),
        (binary(0x21, 0x11, four + [4, 0, 1, 7]), "203.0.113.9"),
        (binary(0x20, 0x00, []), nil),
        (binary(0x20, 0x11, four), nil),
        (binary(0x21, 0x00, []), nil),
        (binary(0x21, 0x31, [UInt8](repeating: 47, count: 216)), nil),
        (binary(0x21, 0x11, four + [UInt8](repeating: 4, count: 536 - 12)), "203.0.113.9"),
    ]

    @Test(arguments: good) func aHeaderIsReadWhereverItIsSplit(header: [UInt8], client: String?) {
        let rest = Array("GET / HTTP/1.1\r\n".utf8)
        for end in 0..<header.count {
            #expect(ProxyHeader.read(header[..<end]) == .incomplete, "\(end) bytes")
        }
        let whole = ProxyHeader.Outcome.header(address: client.flatMap { IPAddress($0) }, bytes: header.count)
        for extra in 0...rest.count {
            #expect(ProxyHeader.read(header + rest.prefix(extra)) == whole)
        }
        #expect(ProxyHeader.read((header + rest)[...]) == whole)
    }

    private static let bad: [[UInt8]] =
        [
            "GET / HTTP/1.1\r\n", "PROXY\r\n", "PROXY TCP4\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", "PROXY TCP4 ::1 ::1 1 2\r\n", "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN\u{1}\r\n",
            "PROXY UNKNOWN " + String(repeating: "x", count: 100) + "\r\n",
        ].map { Array($0.utf8) } + [
            binary(0x11, 0x11, four), binary(0x22, 0x11, four), binary(0x21, 0x12, four), binary(0x21, 0x41, four),
            binary(0x21, 0x11, Array(four.dropLast())), binary(0x21, 0x21, four),
            binary(0x21, 0x11, [UInt8](repeating: 0, count: 537)), Array(signature.dropLast()) + [0x0B],
        ]

    @Test(arguments: bad) func whatIsNoHeaderIsRefusedAtEverySplitAlike(bytes: [UInt8]) {
        #expect(ProxyHeader.read(bytes) == .invalid)
        var isRefused = false
        for end in 0...bytes.count {
            switch ProxyHeader.read(bytes[..<end]) {
            case .incomplete: #expect(!isRefused, "refused before \(end) bytes, not at them")
            case .invalid: isRefused = true
            case .header: Issue.record("\(end) bytes are a header")
            }
        }
        #expect(isRefused)
    }

    @Test func noHeaderIsIncompleteBeyondItsBound() {
        let seed = UInt64.random(in: .min ... .max)
        print("noHeaderIsIncompleteBeyondItsBound seed \(seed)")
        var generator = SplitMix64(seed: seed)
        for _ in 0..<5_000 {
            var bytes = Self.good[generator.int(0...Self.good.count - 1)].0
            for _ in 0...generator.int(0...3) {
                bytes[generator.int(0...bytes.count - 1)] = UInt8(generator.int(0...255))
            }
            bytes += [UInt8](repeating: 0x20, count: ProxyHeader.bytesMax)
            #expect(ProxyHeader.read(bytes) != .incomplete, "\(bytes.prefix(120))")
        }
    }
}

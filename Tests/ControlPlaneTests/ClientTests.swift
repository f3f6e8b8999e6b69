import Foundation
import Testing

@testable import ControlPlane

@Suite struct AdminClientTests {
    @Test func theClientSpeaksWhatTheServerSpeaks() async throws {
        try await Harness.run { server in
            let client = try AdminClient(url: "http://127.0.0.1:\(server.port)/", token: Harness.token)
            let made: OrgDocument = try await onThread {
                try client.call(.post, ["orgs"], body: ["id": .string("a/b"), "opening_credit_usd": .string("2.5")])
            }
            #expect(made.balance == 2_500_000_000)
            let shown: OrgDocument = try await onThread { try client.call(.get, ["orgs", "a/b"]) }
            #expect(shown.id == "a/b")
            #expect(shown.rpm == 600)
            let keys: [KeyDocument] = try await onThread { try client.call(.get, ["keys"], query: ["org": "a/b"]) }
            #expect(keys.isEmpty)
            let key: CreatedKeyDocument = try await onThread {
                try client.call(.post, ["keys"], body: ["org": .string("a/b")])
            }
            #expect(key.secret == FakeOperatorStore.secret)
            #expect(!"\(key)".contains(key.secret))
        }
    }

    @Test func refusalsReadAsWhatTheServerSaid() async throws {
        try await Harness.run { server in
            let url = "http://127.0.0.1:\(server.port)"
            let client = try AdminClient(url: url, token: Harness.token)
            let missing = try await failure { let _: OrgDocument = try client.call(.get, ["orgs", "none"]) }
            #expect(missing == "There is no org 'none'.")
            let stranger = try AdminClient(url: url, token: "wrong")
            let refused = try await failure { let _: OrgDocument = try stranger.call(.get, ["orgs", "none"]) }
            #expect(refused.contains("refuses the token; set TOLLGATE_ADMIN_TOKEN"))
            #expect(!refused.contains("wrong"))
            let foreign = try await failure { let _: KeyDocument = try client.call(.get, ["nodes", "austin-01"]) }
            #expect(foreign.contains("are both of one version?"))
        }
    }

    @Test func aGatewayThatIsNotThereIsSaidSo() async throws {
        // Bound and never listening: a connection is refused, and no other process can take the port meanwhile.
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(descriptor, $0, length)
                _ = getsockname(descriptor, $0, &length)
            }
        }
        let url = "http://127.0.0.1:\(in_port_t(bigEndian: address.sin_port))"
        let client = try AdminClient(url: url, token: "t")
        let message = try await failure { let _: [OrgDocument] = try client.call(.get, ["orgs"]) }
        #expect(message.hasPrefix("cannot reach the control plane at \(url): "))
        #expect(message.hasSuffix("; is `tollgate serve` running?"))
    }

    @Test(arguments: [
        "", "8081", "ftp://host", "http://", "http://:80", "http://a b", "http://a\r\nX: y", "http://a?b",
    ])
    func addressesThatAreNoneAreRefused(url: String) {
        #expect(throws: CommandFailure.self) { try AdminClient(url: url, token: "t") }
    }

    @Test(arguments: ["a b", "a\r\nX-Y: z", "ä"])
    func tokensThatBreakAHeaderAreRefused(token: String) {
        #expect(throws: CommandFailure.self) { try AdminClient(url: "http://h", token: token) }
    }

    @Test func theEnvironmentNamesAddressAndToken() throws {
        #expect(throws: CommandFailure.self) { try AdminClient(environment: [:]) }
        #expect(throws: CommandFailure.self) { try AdminClient(environment: ["TOLLGATE_ADMIN_TOKEN": ""]) }
        _ = try AdminClient(environment: ["TOLLGATE_ADMIN_TOKEN": "t"])
        #expect(throws: CommandFailure.self) {
            try AdminClient(environment: ["TOLLGATE_ADMIN_TOKEN": "t", "TOLLGATE_ADMIN_URL": "nowhere"])
        }
    }

    private func failure(_ work: @escaping @Sendable () throws -> Void) async throws -> String {
        try await onThread {
            do {
                try work()
                return "no failure"
            } catch let failure as CommandFailure {
                return failure.description
            }
        }
    }
}

@Suite struct TextTableTests {
    @Test func columnsAreAsWideAsTheirWidestCell() {
        var table = TextTable(.left("ID"), .right("BALANCE"), .left("NOTE"))
        table.add(["a", "1.00", ""])
        table.add(["longer", "-12345.678901", "näh"])
        #expect(
            table.rendered(inColour: false) == """
                ID            BALANCE  NOTE
                a                1.00
                longer  -12345.678901  näh

                """)
    }

    @Test func colourWrapsTheTextAndNotTheGaps() {
        var table = TextTable(.left("ID"), .right("STATE"))
        table.add(["a", .init("up", .good)])
        #expect(
            table.rendered(inColour: true)
                == "\u{1B}[1mID\u{1B}[0m  \u{1B}[1mSTATE\u{1B}[0m\na      \u{1B}[32mup\u{1B}[0m\n")
    }

    @Test func controlCharactersDoNotReachTheTerminal() {
        var table = TextTable(.left("NAME"))
        table.add([.init("a\u{1B}[31mb\nc\u{9B}")])
        #expect(table.rendered(inColour: false) == "NAME\na?[31mb?c?\n")
    }

    @Test func rowsAreAsLongAsTheHeading() {
        var table = TextTable(.left("A"), .left("B"))
        table.add(["1"])
        table.add(["1", "2", "3"])
        #expect(table.rendered(inColour: false) == "A  B\n1\n1  2\n")
    }
}

@Suite struct PercentEncodingTests {
    @Test func encodingIsUndoneByDecoding() {
        for text in ["", "acme", "a/b:c", "meta/llama 3.1", "100%", "näh", "\u{0}&=?#"] {
            let encoded = PercentEncoding.encode(text)
            #expect(encoded.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") })
            #expect(PercentEncoding.decode(encoded) == text)
        }
        for broken in ["%", "%4", "%zz", "%ff", "a%2"] { #expect(PercentEncoding.decode(broken) == nil) }
    }
}

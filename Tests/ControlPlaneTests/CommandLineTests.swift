import Domain
import Foundation
import Testing

@testable import ControlPlane

/// The binary itself, against a control plane in this process.
@Suite struct CommandLineTests {
    struct Ended: Sendable {
        var status: Int32
        var output: String
        var errors: String

        func json() throws -> JSONValue { try JSONDecoder().decode(JSONValue.self, from: Data(output.utf8)) }
    }

    /// - Parameter server: nil sets neither address nor token.
    private func tollgate(_ arguments: String..., server: Harness?) async throws -> Ended {
        var environment = ["PATH": "/usr/bin:/bin"]
        if let server {
            environment["TOLLGATE_ADMIN_URL"] = "http://127.0.0.1:\(server.port)"
            environment["TOLLGATE_ADMIN_TOKEN"] = Harness.token
            // Nothing listens there: loopback must not go through it.
            environment["http_proxy"] = "http://127.0.0.1:9"
        }
        let variables = environment
        return try await onThread {
            let process = Process()
            process.executableURL = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
                .appending(path: "tollgate")
            process.arguments = arguments
            process.environment = variables
            let output = Pipe()
            let errors = Pipe()
            process.standardOutput = output
            process.standardError = errors
            try process.run()
            // What goes to standard error is short enough for the pipe to hold until standard output has ended.
            let written = output.fileHandleForReading.readDataToEndOfFile()
            let complained = errors.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return Ended(
                status: process.terminationStatus, output: String(decoding: written, as: UTF8.self),
                errors: String(decoding: complained, as: UTF8.self))
        }
    }

    @Test func anOperatorsDayWorksInJSON() async throws {
        try await Harness.run { server in
            let org = try await tollgate(
                "org", "create", "acme", "--credit", "12.50", "--rpm", "unlimited", "--json", server: server)
            #expect(org.status == 0 && org.errors == "")
            #expect(try org.json()["balance_nanousd"] == .integer(12_500_000_000))
            #expect(try org.json()["rpm"] == .null)
            let key = try await tollgate("key", "create", "--org", "acme", "--tpm", "5", "--json", server: server)
            #expect(try key.json()["key"] == .string(FakeOperatorStore.secret))
            #expect(try key.json()["tpm"] == .integer(5))
            guard case .string(let id)? = try key.json()["id"] else { throw Reply.Malformed() }
            let keys = try await tollgate("key", "list", "--org", "acme", "--json", server: server)
            #expect(try keys.json()[0]?["last4"] == .string("cret"))
            #expect(!keys.output.contains(FakeOperatorStore.secret))
            let credited = try await tollgate("org", "credit", "acme", "1", "--ref", "inv 1", "--json", server: server)
            #expect(try credited.json()["amount_nanousd"] == .integer(1_000_000_000))
            let limited = try await tollgate("org", "update", "acme", "--credit-limit", "3", "--json", server: server)
            #expect(try limited.json()["credit_limit_nanousd"] == .integer(3_000_000_000))
            let suspended = try await tollgate("org", "suspend", "acme", "--json", server: server)
            #expect(try suspended.json()["status"] == .string("suspended"))
            let resumed = try await tollgate("org", "resume", "acme", "--json", server: server)
            #expect(try resumed.json()["status"] == .string("active"))
            let price = try await tollgate(
                "price", "set", "meta/llama", "--input", "0.05", "--cached-input", "0.01", "--output", "0.08", "--json",
                server: server)
            #expect(try price.json()["cached_input_nanousd"] == .integer(10_000_000))
            #expect(try await tollgate("price", "list", "--json", server: server).json().count == 1)
            let one = try await tollgate("key", "update", id, "--models", "gpt-4o-mini,bge", "--json", server: server)
            #expect(try one.json()["models"] == .array([.string("bge"), .string("llama-3.1-8b")]))
            let listed = try await tollgate("key", "list", "--org", "acme", server: server)
            #expect(listed.output.contains("bge,llama-3.1-8b"))
            let every = try await tollgate("key", "update", id, "--all-models", "--json", server: server)
            #expect(try every.json()["models"] == .null)
            let updated = try await tollgate("key", "update", id, "--concurrency", "2", "--json", server: server)
            #expect(try updated.json()["concurrency"] == .integer(2))
            let revoked = try await tollgate("key", "revoke", id, "--json", server: server)
            #expect(try revoked.json()["status"] == .string("revoked"))
            #expect(try await tollgate("key", "show", id, "--json", server: server).json() == revoked.json())
            let ledger = try await tollgate("ledger", "list", "--org", "acme", "--json", server: server)
            #expect(try ledger.json().count == 2)
            let nodes = try await tollgate("node", "list", "--json", server: server)
            #expect(try nodes.json()[0]?["inflight_tokens"] == .integer(1_200))
            let cordoned = try await tollgate("node", "cordon", "berlin/01", "--json", server: server)
            #expect(try cordoned.json()["state"] == .string("cordoned"))
            let drained = try await tollgate(
                "node", "drain", "berlin/01", "--deadline", "90s", "--json", server: server)
            #expect(try drained.json()["state"] == .string("draining"))
            #expect(try drained.json()["drain_ends_at"] == .string("2026-11-18T11:08:10.000Z"))
            let curtailed = try await tollgate(
                "site", "curtail", "austin", "--to", "2.5%", "--in", "5m", "--for", "2h", "--json", server: server)
            #expect(try curtailed.json()["state"] == .string("announced"))
            #expect(try curtailed.json()["curtailment"]?["to_percent"] == .number(2.5))
            #expect(try curtailed.json()["curtailment"]?["ends_at"] == .string("2026-11-18T13:11:40.000Z"))
            let restored = try await tollgate("site", "restore", "austin", "--json", server: server)
            #expect(try restored.json()["curtailment"] == .null)
            let usage = try await tollgate("usage", "--org", "acme", "--by", "day", "--json", server: server)
            #expect(try usage.json() == .array([]))
        }
    }

    @Test func tablesAreForPeopleAndWithoutColourInAPipe() async throws {
        try await Harness.run { server in
            _ = try await tollgate("org", "create", "acme", "--credit", "1", server: server)
            let list = try await tollgate("org", "list", server: server)
            #expect(
                list.output == """
                    ID    NAME  STATUS  BALANCE  AVAILABLE  RESERVED
                    acme  acme  active     1.00       1.00      0.00

                    """)
            let key = try await tollgate("key", "create", "--org", "acme", server: server)
            #expect(key.output == FakeOperatorStore.secret + "\n")
            #expect(key.errors.contains("not shown again"))
            let node = try await tollgate("node", "show", "austin-01", server: server)
            #expect(node.output.contains("prefill tokens/s           8001\n"))
            #expect(node.output.contains("time to first token, s     -\n"))
            #expect(node.output.contains("not believed: its numbers are nonsense"))
            let sites = try await tollgate("site", "list", server: server)
            #expect(
                sites.output == """
                    ID      REGION  STATE  POWER  NODES  SERVING  REQUESTS  TOKENS  RTT MS  MEASURED MS  CURTAILMENT
                    austin  -       ready   100%      1        1         3    1200    12.0         10.5  -
                    berlin  -       ready   100%      1        1         3    1200    12.0         10.5  -

                    """)
        }
    }

    @Test func aLedgerLongerThanAPageIsWhole() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            let id = OrgID(unchecked: "acme")
            server.store.state.withLock { state in
                for index in 0..<2_100 { server.store.append(.credit, .zero, "r\(index)", to: id, in: &state) }
            }
            let all = try await tollgate("ledger", "list", "--org", "acme", "--json", server: server)
            #expect(try all.json().count == 2_100)
            let some = try await tollgate(
                "ledger", "list", "--org", "acme", "--limit", "1500", "--json", server: server)
            #expect(try some.json().count == 1_500)
            #expect(try some.json()[1_499]?["reference"] == .string("r1499"))
        }
    }

    @Test func driftIsExitOneWithTheDocument() async throws {
        try await Harness.run { server in
            _ = try await server.send("POST", "/admin/v1/orgs", #"{"id":"acme"}"#)
            #expect(try await tollgate("ledger", "verify", "--org", "acme", server: server).status == 0)
            server.store.state.withLock { $0.drift = -7 }
            let drifted = try await tollgate("ledger", "verify", "--org", "acme", "--json", server: server)
            #expect(drifted.status == 1)
            #expect(try drifted.json()["drift_nanousd"] == .integer(-7))
            #expect(drifted.errors.contains("differs from its entries by -7 nano-dollars"))
        }
    }

    @Test func errorsAreOneLineAndExitOne() async throws {
        try await Harness.run { server in
            let missing = try await tollgate("org", "show", "none", "--json", server: server)
            #expect(missing.status == 1 && missing.output == "")
            #expect(missing.errors == "tollgate: There is no org 'none'.\n")
        }
        let unset = try await tollgate("org", "list", server: nil)
        #expect(unset.status == 1)
        #expect(unset.errors.hasPrefix("tollgate: TOLLGATE_ADMIN_TOKEN is not set; export "))
        #expect(unset.errors.filter { $0 == "\n" }.count == 1)
    }

    @Test(arguments: [
        ["org", "create"], ["org", "create", "a b"], ["org", "create", "a", "--credit", "-1"],
        ["org", "create", "a", "--rpm", "0"], ["org", "credit", "a", "0", "--ref", "r"], ["org", "credit", "a", "1"],
        ["org", "update", "a"], ["key", "update", "k"], ["key", "list"], ["usage", "--org", "a", "--by", "week"],
        ["usage", "--org", "a", "--from", "2026-02-30"],
        ["usage", "--org", "a", "--from", "2026-02-02", "--to", "2026-02-01"],
        ["ledger", "list", "--org", "a", "--limit", "0"], ["price", "set", "m", "--input", "1"], ["nonsense"],
        ["org", "nonsense"], ["org", "list", "--nonsense"],
    ])
    func wrongUsageIsExit64AndOneLine(arguments: [String]) async throws {
        let process = try await onThread {
            let process = Process()
            let errors = Pipe()
            process.executableURL = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
                .appending(path: "tollgate")
            process.arguments = arguments
            process.standardError = errors
            process.standardOutput = FileHandle.nullDevice
            try process.run()
            let text = errors.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return Ended(
                status: process.terminationStatus, output: "", errors: String(decoding: text, as: UTF8.self))
        }
        #expect(process.status == 64)
        #expect(process.errors.hasPrefix("tollgate: "))
        #expect(process.errors.hasSuffix("--help'\n"))
        #expect(process.errors.filter { $0 == "\n" }.count == 1)
    }

    @Test func everyCommandHasHelpWithExamples() async throws {
        let commands = [
            ["org", "create"], ["org", "list"], ["org", "show"], ["org", "credit"], ["org", "update"],
            ["org", "suspend"], ["org", "resume"], ["key", "create"], ["key", "list"], ["key", "show"],
            ["key", "update"], ["key", "revoke"], ["price", "list"], ["price", "set"], ["usage"], ["ledger", "list"],
            ["ledger", "verify"], ["node", "list"], ["node", "show"], ["node", "cordon"], ["node", "uncordon"],
            ["config", "check"],
        ]
        for command in commands {
            let noun = command[0]
            let help =
                try await command.count == 1
                ? tollgate(noun, "--help", server: nil) : tollgate(noun, command[1], "--help", server: nil)
            #expect(help.status == 0 && help.errors == "", "\(command)")
            #expect(help.output.contains("Examples:"), "\(command)")
            #expect(help.output.contains("--json"), "\(command)")
        }
    }

    @Test func completionsAreGenerated() async throws {
        let script = try await tollgate("--generate-completion-script", "bash", server: nil)
        #expect(script.status == 0 && script.errors == "")
        #expect(script.output.contains("uncordon"))
    }
}

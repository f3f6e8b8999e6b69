import Domain
import Foundation
import JSON
import Testing

/// `tollgate demo` as a new user starts it.
@Suite(.serialized) struct DemoTests {
    private struct Running: Sendable {
        let process: TollgateProcess
        let greeting: JSONValue

        func text(_ name: String) -> String { greeting[name]?.string ?? "" }
        var port: Int { Self.port(text("base_url")) }
        var adminPort: Int { Self.port(text("admin_url")) }

        private static func port(_ url: String) -> Int {
            Int(url.split(separator: ":").last?.prefix { $0.isNumber } ?? "") ?? 0
        }

        func ask(_ ask: Ask, port: Int? = nil) async throws -> Answer {
            let port = port ?? self.port
            return try await blocking {
                let wire = try Wire(port: port)
                try wire.send(ask)
                return try wire.response()
            }
        }

        func balance() async throws -> Int? {
            let answer = try await ask(.get("/admin/v1/orgs/demo", key: text("admin_token")), port: adminPort)
            return try answer.json()["balance_nanousd"]?.integer
        }
    }

    private func start(_ directory: String, name: String) async throws -> Running {
        let process = try TollgateProcess(
            arguments: ["demo", "--port", "0", "--admin-port", "0", "--data", "\(directory)/data", "--json"],
            environment: [:], directory: directory, name: name)
        let greeting = try await eventually("the demo's greeting", within: .seconds(30)) { () -> JSONValue? in
            guard process.isRunning else { throw NotInTime("the demo ended: \(process.errors)") }
            return try? JSONValue(parsing: process.output)
        }
        return Running(process: process, greeting: greeting)
    }

    private func temporaryDirectory() throws -> String {
        let directory = FileManager.default.temporaryDirectory.appending(path: "tollgate-demo-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        return directory.path
    }

    private func redisPort(_ directory: String) throws -> Int {
        let text = TollgateProcess.text(of: "\(directory)/data/redis/redis.conf")
        return try #require(text.firstMatch(of: /(?m)^port (\d+)$/).flatMap { Int($0.1) })
    }

    @Test func theDemoServesItsPrintedLinesAndEndsCleanlyAndKeepsItsBooks() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let first = try await start(directory, name: "first")
        #expect(first.greeting.object?.allSatisfy { $0.value.string?.isEmpty == false } == true)
        let answer = try await first.ask(.chat(first.text("model"), key: first.text("api_key"), tokens: 5))
        #expect(answer.status == 200, "\(answer.text)")
        #expect(try await output(of: first.text("curl")).contains("\"chat.completion\""))
        let opening = 25_000_000_000
        try await until("the charges") { try await first.balance().map { $0 < opening } == true }
        let stopped = MonotonicTime.now()
        first.process.signal(SIGTERM)
        #expect(try await first.process.wait().code == 0)
        #expect(MonotonicTime.now().seconds(since: stopped) < 8)
        #expect(!first.process.errors.contains("EventLoop"), "\(first.process.errors)")
        let port = try redisPort(directory)
        #expect(throws: Wire.Failure.self) { try Wire(port: port) }

        let second = try await start(directory, name: "second")
        #expect(second.text("api_key") != first.text("api_key"))
        #expect(try await second.ask(.chat("x", key: first.text("api_key"))).status == 401)
        let balance = try #require(try await second.balance())
        #expect(balance < opening)
        #expect(try await second.ask(.chat(second.text("model"), key: second.text("api_key"))).status == 200)
        second.process.signal(SIGINT)
        #expect(try await second.process.wait().code == 0)
    }

    @Test func redisEndsWithADemoThatWasKilled() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let running = try await start(directory, name: "killed")
        let port = try redisPort(directory)
        running.process.end(SIGKILL)
        try await until("the end of Redis") { (try? Wire(port: port)) == nil }
    }

    private func output(of command: String) async throws -> String {
        try await blocking {
            let process = Process()
            let pipe = Pipe()
            process.executableURL = URL(filePath: "/bin/sh")
            process.arguments = ["-c", "\(command) --silent --max-time 20"]
            process.standardOutput = pipe
            try process.run()
            let data = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return String(decoding: data, as: UTF8.self)
        }
    }
}

import Foundation

/// What a program that a test runs said.
struct ProgramResult: Sendable {
    let code: Int32
    let output: String
    let errors: String
}

/// Runs a program to its end, on a thread of its own.
func run(_ words: [String], input: String? = nil) async throws -> ProgramResult {
    try await blocking {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = words
        let folder = FileManager.default.temporaryDirectory.appending(path: "tollgate-run-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let files = ["in", "out", "err"].map { folder.appending(path: $0) }
        try Data((input ?? "").utf8).write(to: files[0])
        try Data().write(to: files[1])
        try Data().write(to: files[2])
        process.standardInput = try FileHandle(forReadingFrom: files[0])
        process.standardOutput = try FileHandle(forWritingTo: files[1])
        process.standardError = try FileHandle(forWritingTo: files[2])
        try process.run()
        process.waitUntilExit()
        let texts = try files[1...].map { String(decoding: try Data(contentsOf: $0), as: UTF8.self) }
        return ProgramResult(code: process.terminationStatus, output: texts[0], errors: texts[1])
    }
}

/// A self-signed certificate for 127.0.0.1 with its key, in a folder that goes with it.
final class Certificate: Sendable {
    let folder: String
    var certificateFile: String { "\(folder)/cert.pem" }
    var keyFile: String { "\(folder)/key.pem" }
    /// The section of the configuration that serves with it.
    var section: String { "tls: { certificate: \(certificateFile), key: \(keyFile) }" }

    init(name: String = "localhost") async throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "tollgate-cert-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try await Self.make(name, certificate: certificateFile, key: keyFile)
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    static func make(_ name: String, certificate: String, key: String) async throws {
        let made = try await run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2",
            "-subj", "/CN=\(name)", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out",
            certificate,
        ])
        guard made.code == 0 else { throw NotInTime("openssl: \(made.errors)") }
    }

    /// The common name of what a gateway serves now.
    static func served(port: Int) async throws -> String {
        let shown = try await run([
            "sh", "-c",
            "openssl s_client -connect 127.0.0.1:\(port) </dev/null 2>/dev/null | openssl x509 -noout -subject",
        ])
        return shown.output.split(separator: "=").last.map { $0.trimmingCharacters(in: .whitespacesAndNewlines) } ?? ""
    }
}

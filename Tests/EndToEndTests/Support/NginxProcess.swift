import Foundation

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// nginx in front of one backend, with timeouts short enough that every connection ends by itself. It cannot outlive the
/// tests: a shell beside it reads from a pipe whose writing end this process holds.
final class NginxProcess: @unchecked Sendable {
    // SAFETY: set up in `init` and ended in `deinit`; nothing changes in between.

    static let startTimeout = Duration.seconds(10)
    /// Of heads, bodies and idle connections.
    static let timeout = "300ms"

    let port: Int
    private let directory: String
    private let process = Process()
    private let lifeline = Pipe()

    init(backend: Int) async throws {
        var template = Array("/tmp/tollgate-nginx-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Wire.Failure.system(call: "mkdtemp", errno: errno) }
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.directory = directory
        // Free now; should another process take it, nginx does not start, and the test says so.
        port = try ScriptedNode.freePort()
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map { "\($0)_temp_path \(directory)/\($0);" }.joined(separator: " ")
        let text = """
            daemon off; master_process off; worker_processes 1; pid \(directory)/pid; error_log \(directory)/errors;
            events { worker_connections 256; }
            http {
                access_log off; \(paths)
                client_header_timeout \(Self.timeout); client_body_timeout \(Self.timeout);
                keepalive_timeout \(Self.timeout); lingering_close off; client_max_body_size 8m;
                large_client_header_buffers 4 32k;
                server {
                    listen 127.0.0.1:\(port);
                    location / {
                        proxy_pass http://127.0.0.1:\(backend); proxy_http_version 1.1;
                        proxy_set_header Connection ""; proxy_next_upstream off;
                    }
                }
            }
            """
        try text.write(toFile: "\(directory)/nginx.conf", atomically: true, encoding: .utf8)
        process.executableURL = URL(filePath: "/bin/sh")
        let script =
            "PATH=$PATH:/usr/sbin:/usr/local/sbin; nginx -p \"$1\" -e \"$1/errors\" -c \"$1/nginx.conf\" </dev/null & "
            + "child=$!; read -r word; kill -9 $child; rm -rf -- \"$1\""
        process.arguments = ["-c", script, "sh", directory]
        process.standardInput = lifeline
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        let port = port
        do {
            try await until("nginx's listener", within: Self.startTimeout) { (try? Wire(port: port)) != nil }
        } catch {
            let errors = (try? String(contentsOfFile: "\(directory)/errors", encoding: .utf8)) ?? "none"
            throw NotInTime("nginx is not up (is it installed?); its errors: \(errors)")
        }
    }

    deinit { try? lifeline.fileHandleForWriting.close() }
}

extension ScriptedNode {
    /// A port of the loopback that nobody listens on now.
    static func freePort() throws -> Int {
        let probe = try ScriptedNode { _ in }
        defer { probe.stop() }
        return probe.port
    }
}

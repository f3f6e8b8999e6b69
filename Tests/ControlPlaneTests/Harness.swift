import Billing
import Domain
import Foundation
import Logging
import ServiceLifecycle
import Synchronization

@testable import ControlPlane

/// A control plane on a free loopback port, with a fake store and gateway behind it.
struct Harness: Sendable {
    static let token = "test-token-0123456789"

    let port: Int
    let store: FakeOperatorStore
    let gateway: FakeGateway
    let log: LogRecorder

    static func run(
        bodyTimeout: Duration = AdminServer.bodyTimeoutDefault, _ body: @Sendable (Harness) async throws -> Void
    ) async throws {
        let store = FakeOperatorStore()
        let gateway = FakeGateway()
        let log = LogRecorder()
        let ports = AsyncStream.makeStream(of: Int.self)
        let logger = Logger(label: "test") { _ in log }
        let server = AdminServer(
            host: "127.0.0.1", port: 0, token: AdminToken(token)!, store: store, gateway: gateway,
            orgDefaults: OrgDefaults(
                limits: Limits(requestsPerMinute: 600, tokensPerMinute: 200_000, concurrency: 64), keysMax: 100),
            logger: logger, bodyTimeout: bodyTimeout
        ) { port in
            ports.continuation.yield(port)
            ports.continuation.finish()
        }
        let group = ServiceGroup(configuration: .init(services: [server], logger: logger))
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            var iterator = ports.stream.makeAsyncIterator()
            guard let port = await iterator.next() else { throw CancellationError() }
            do {
                try await body(Harness(port: port, store: store, gateway: gateway, log: log))
            } catch {
                await group.triggerGracefulShutdown()
                throw error
            }
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
        }
    }

    /// Sends one request on a connection of its own, on a thread that may block.
    func send(
        _ method: String, _ path: String, _ body: String? = nil, token: String? = Harness.token,
        headers: [String: String] = [:]
    ) async throws -> Reply {
        var head = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if let token { head += "Authorization: Bearer \(token)\r\n" }
        for (name, value) in headers { head += "\(name): \(value)\r\n" }
        if let body { head += "Content-Length: \(body.utf8.count)\r\n" }
        let bytes = Array((head + "\r\n" + (body ?? "")).utf8)
        let port = port
        return try await onThread { try Reply(Self.exchange(bytes, port: port)) }
    }

    /// Sends `bytes` and reads until the server closes the connection.
    func exchange(_ bytes: String) async throws -> String {
        let port = port
        return try await onThread { String(decoding: try Self.exchange(Array(bytes.utf8), port: port), as: UTF8.self) }
    }

    /// A connection that is kept: the caller closes the descriptor.
    static func connected(port: Int) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw POSIXFailure() }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else {
            let failure = POSIXFailure()
            close(descriptor)
            throw failure
        }
        return descriptor
    }

    private static func exchange(_ bytes: [UInt8], port: Int) throws -> [UInt8] {
        let descriptor = try connected(port: port)
        defer { close(descriptor) }
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { break }
            sent += count
        }
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            guard count > 0 else { return received }
            received += chunk[..<count]
        }
    }
}

struct POSIXFailure: Error {
    var code = errno
}

/// Blocking work must not hold one of the few threads that the server's own tasks run on.
func onThread<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
    }
}

/// One HTTP answer, read to the end of its connection.
struct Reply: Sendable {
    struct Malformed: Error {}

    let status: Int
    let headers: [String: String]
    let body: [UInt8]

    init(_ bytes: [UInt8]) throws {
        guard let text = String(validating: bytes, as: UTF8.self), let end = text.range(of: "\r\n\r\n") else {
            throw Malformed()
        }
        let lines = text[..<end.lowerBound].components(separatedBy: "\r\n")
        guard let status = lines[0].split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw Malformed()
        }
        self.status = status
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        }
        self.headers = headers
        body = Array(text[end.upperBound...].utf8)
    }

    var text: String { String(decoding: body, as: UTF8.self) }

    func json() throws -> JSONValue { try JSONDecoder().decode(JSONValue.self, from: Data(body)) }

    /// `error.code`, and a check that the error has exactly the shape there is.
    func errorCode() throws -> String {
        let document = try json()
        guard case .object(let outer) = document, Array(outer.keys) == ["error"],
            case .object(let detail)? = outer["error"],
            Set(detail.keys) == ["code", "message"], case .string(let code)? = detail["code"],
            case .string(let message)? = detail["message"], !message.isEmpty
        else { throw Malformed() }
        return code
    }
}

extension JSONValue {
    subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members[name]
    }

    subscript(_ index: Int) -> JSONValue? {
        guard case .array(let elements) = self, elements.indices.contains(index) else { return nil }
        return elements[index]
    }

    var count: Int? {
        guard case .array(let elements) = self else { return nil }
        return elements.count
    }

    var names: Set<String> {
        guard case .object(let members) = self else { return [] }
        return Set(members.keys)
    }
}

/// Keeps every line that is logged, metadata included.
final class LogRecorder: LogHandler, Sendable {
    private let recorded = Mutex<[String]>([])

    var lines: [String] { recorded.withLock { $0 } }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var logLevel: Logger.Level {
        get { .trace }
        set {}
    }

    subscript(metadataKey _: String) -> Logger.MetadataValue? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        let pairs = (event.metadata ?? [:]).map { "\($0.key)=\($0.value)" }.sorted()
        recorded.withLock { $0.append("\(event.message) \(pairs.joined(separator: " "))") }
    }
}

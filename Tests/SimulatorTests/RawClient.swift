import Dispatch
import JSON

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A blocking HTTP/1.1 client on a bare socket, which sees what a library would hide: resets, missing ends, late closes.
///
/// Every wait ends after a minute with an error. Use it within ``live(_:)``, which keeps the blocking off the tests'
/// own threads.
final class RawClient {
    enum Failure: Error, Equatable {
        case cannotConnect(Int32)
        case timeout
        /// The peer reset the connection; what had arrived before.
        case reset(String)
        /// The peer closed it in the middle of an answer; what had arrived before.
        case closed(String)
    }

    struct Response {
        var status: Int
        var headers: [String: String]
        var body: String

        /// The payloads of the server-sent events.
        var events: [String] {
            body.components(separatedBy: "\n\n").filter { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
        }

        func json() throws -> JSONValue { try JSONValue(parsing: body) }
    }

    private let descriptor: Int32
    private var buffer: [UInt8] = []
    private(set) var isAtEnd = false

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var timeout = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            // SAFETY: `sockaddr_in` is one of the layouts that `connect` reads through `sockaddr`.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Failure.cannotConnect(errno) }
    }

    deinit { close() }

    private var isOpen = true

    func close() {
        if isOpen { Glibc.close(descriptor) }
        isOpen = false
    }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    func send(_ method: String, _ path: String, _ body: String = "", headers: [String] = []) {
        let lines = ["\(method) \(path) HTTP/1.1", "Host: node", "Content-Length: \(body.utf8.count)"] + headers
        send(lines.joined(separator: "\r\n") + "\r\n\r\n" + body)
    }

    /// Sends a request and reads its answer.
    func ask(_ method: String, _ path: String, _ body: String = "", headers: [String] = []) throws -> Response {
        send(method, path, body, headers: headers)
        return try response()
    }

    func response() throws -> Response {
        let head = try take(through: "\r\n\r\n")
        var lines = head.components(separatedBy: "\r\n")
        let words = lines.removeFirst().split(separator: " ")
        guard words.count > 1, let status = Int(words[1]) else { throw Failure.closed(head) }
        var headers: [String: String] = [:]
        for line in lines where !line.isEmpty {
            let halves = line.split(separator: ":", maxSplits: 1)
            headers[halves[0].lowercased()] = String(halves[1].drop { $0 == " " })
        }
        var body = ""
        if let length = headers["content-length"].flatMap(Int.init) {
            body = try take(bytes: length)
        } else if headers["transfer-encoding"] == "chunked" {
            while true {
                // Dropping one character drops both bytes: CR and LF are one.
                let size = Int(try take(through: "\r\n").dropLast(), radix: 16) ?? 0
                body += try take(bytes: size)
                _ = try take(bytes: 2)
                if size == 0 { break }
            }
        } else {
            while try fill() {}
            body = try take(bytes: buffer.count)
        }
        return Response(status: status, headers: headers, body: body)
    }

    /// Reads up to and including the text.
    func take(through text: String) throws -> String {
        let pattern = Array(text.utf8)
        while true {
            if let start = buffer.firstRange(of: pattern) { return try take(bytes: start.upperBound) }
            guard try fill() else { throw Failure.closed(String(decoding: buffer, as: UTF8.self)) }
        }
    }

    /// Everything until the peer closes the connection.
    func rest() throws -> String {
        while try fill() {}
        return String(decoding: buffer, as: UTF8.self)
    }

    /// Whether nothing arrives for so long.
    func isSilent(milliseconds: Int32) -> Bool {
        var descriptors = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
        return buffer.isEmpty && poll(&descriptors, 1, milliseconds) == 0
    }

    private func take(bytes count: Int) throws -> String {
        while buffer.count < count {
            guard try fill() else { throw Failure.closed(String(decoding: buffer, as: UTF8.self)) }
        }
        defer { buffer.removeFirst(count) }
        return String(decoding: buffer.prefix(count), as: UTF8.self)
    }

    /// - Returns: False at the end of the connection.
    private func fill() throws -> Bool {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        if count > 0 {
            buffer.append(contentsOf: bytes.prefix(count))
            return true
        }
        if count == 0 {
            isAtEnd = true
            return false
        }
        if errno == ECONNRESET { throw Failure.reset(String(decoding: buffer, as: UTF8.self)) }
        throw Failure.timeout
    }
}

extension String {
    func components(separatedBy separator: String) -> [String] {
        split(separator: separator, omittingEmptySubsequences: false).map(String.init)
    }
}

/// Runs blocking work on a thread of its own.
func live<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(with: Result { try work() }) }
    }
}

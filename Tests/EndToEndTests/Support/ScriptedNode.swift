import Domain
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A "model server" that answers with exactly the bytes that a test gives it. Health checks pass by themselves.
final class ScriptedNode: Sendable {
    /// One connection with a request on it.
    struct Peer: Sendable {
        let descriptor: Int32
        let head: String

        /// - Returns: False where the gateway is gone.
        @discardableResult
        func write(_ text: String) -> Bool { write(Array(text.utf8)) }

        @discardableResult
        func write(_ bytes: [UInt8]) -> Bool {
            var sent = 0
            while sent < bytes.count {
                let count = bytes[sent...].withUnsafeBytes {
                    Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                if count <= 0 { return false }
                sent += count
            }
            return true
        }

        /// Whether the kernel would take more: false while it holds what the gateway does not read.
        var isWritable: Bool {
            var set = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            return poll(&set, 1, 0) > 0
        }

        /// Reads what is there.
        /// - Returns: Nothing at the connection's end.
        func read(atMost count: Int = 65_536) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: count)
            let got = recv(descriptor, &bytes, count, 0)
            return Array(bytes.prefix(max(0, got)))
        }

        /// Reads the request's body.
        func readBody() -> [UInt8] {
            let lines = head.lowercased().split(separator: "\r\n")
            let length =
                lines.first { $0.hasPrefix("content-length:") }
                .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
            var body: [UInt8] = []
            while body.count < length {
                let part = read(atMost: length - body.count)
                if part.isEmpty { break }
                body += part
            }
            return body
        }

        func waitForClose() { while !read().isEmpty {} }

        func event(_ json: String) -> String { ScriptedNode.chunk("data: \(json)\n\n") }
    }

    let port: Int
    private let listener: Int32
    private let script: @Sendable (Peer) -> Void
    private let connections = Mutex<Set<Int32>>([])
    private let served = Atomic<Int>(0)

    /// Inference requests whose head arrived.
    var requests: Int { served.load(ordering: .relaxed) }

    /// - Parameter script: Called for each inference request on a thread of its own; the connection closes when it returns.
    init(_ script: @escaping @Sendable (Peer) -> Void) throws {
        self.script = script
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        let status = withUnsafeMutableBytes(of: &address) { bytes in
            // SAFETY: `sockaddr_in` is one of the layouts that these calls read and write through `sockaddr`.
            let pointer = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self)
            return bind(descriptor, pointer, length) == 0 && listen(descriptor, 64) == 0
                ? getsockname(descriptor, pointer, &length) : -1
        }
        guard status == 0 else { throw Wire.Failure.system(call: "bind", errno: errno) }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { [weak self] in
            while true {
                let accepted = accept(descriptor, nil, nil)
                if accepted < 0 {
                    if errno == EINTR || errno == ECONNABORTED { continue }
                    return
                }
                _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
                guard let self else { return }
                Thread.detachNewThread { self.serve(accepted) }
            }
        }
    }

    deinit { stop() }

    /// Stops listening and ends every connection.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        for descriptor in connections.withLock({ $0 }) { shutdown(descriptor, Int32(SHUT_RDWR)) }
    }

    private func serve(_ descriptor: Int32) {
        _ = connections.withLock { $0.insert(descriptor) }
        defer {
            // In this order: another thread may get the same number as soon as it is closed.
            _ = connections.withLock { $0.remove(descriptor) }
            close(descriptor)
        }
        var head: [UInt8] = []
        var byte: UInt8 = 0
        while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            guard recv(descriptor, &byte, 1, 0) == 1 else { return }
            head.append(byte)
        }
        let text = String(decoding: head, as: UTF8.self)
        let peer = Peer(descriptor: descriptor, head: text)
        if text.hasPrefix("GET ") {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        } else {
            served.add(1, ordering: .relaxed)
            script(peer)
        }
    }

    // MARK: Answers

    static func chunk(_ text: String) -> String { "\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n" }

    static let streamHead =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    static func content(_ text: String, model: String = "m") -> String {
        #"{"id":"c","object":"chat.completion.chunk","created":1,"model":"\#(model)","choices":[{"index":0,"#
            + #""delta":{"content":"\#(text)"},"finish_reason":null}]}"#
    }

    static func usage(prompt: Int, completion: Int, model: String = "m") -> String {
        #"{"id":"c","object":"chat.completion.chunk","created":1,"model":"\#(model)","choices":[],"#
            + #""usage":{"prompt_tokens":\#(prompt),"completion_tokens":\#(completion),"total_tokens":0}}"#
    }

    /// A plain chat answer.
    static func answer(prompt: Int, completion: Int, text: String = "hello", model: String = "m") -> String {
        let body =
            #"{"id":"c","object":"chat.completion","created":1,"model":"\#(model)","choices":[{"index":0,"message":"#
            + #"{"role":"assistant","content":"\#(text)"},"finish_reason":"stop"}],"usage":{"prompt_tokens":\#(prompt),"#
            + #""completion_tokens":\#(completion),"total_tokens":\#(prompt + completion)}}"#
        return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }
}

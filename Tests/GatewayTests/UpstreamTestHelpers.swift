import Foundation
import Gateway
import NIOCore
import Testing

/// A request without a body.
func upstreamTestRequest(_ path: String) -> UpstreamRequest {
    let head = "POST \(path) HTTP/1.1\r\nhost: node\r\ncontent-length: 0\r\n\r\n"
    return UpstreamRequest(head: ByteBuffer(string: head), body: ByteBuffer())
}

private let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
private let helloOutcome: [UpstreamTestEvent] = [.started, .head(200), .body("hello"), .end]

/// A kept connection closes with a request on it: the request goes out again, once and whole, on a fresh connection,
/// and who asked sees nothing of it.
///
/// - Parameters:
///   - harness: A pool that has not connected yet.
///   - endsInOrder: The node closes; false resets, as a node that died does.
func expectStaleConnectionIsSentAgainOnce(
    _ harness: UpstreamTestHarness, _ node: UpstreamTestNode, endsInOrder: Bool
) async throws {
    let first = UpstreamTestDelegate()
    _ = try await harness.dispatch(first)
    let stale = try await node.accept()
    _ = try await stale.readRequest()
    try await stale.write(hello)
    #expect(await first.outcome() == helloOutcome)

    let second = UpstreamTestDelegate()
    let call = try await harness.dispatch(second, path: "/again", body: "the body")
    let request = try await stale.readRequest()
    if endsInOrder { try await stale.close() } else { try await stale.reset() }
    let fresh = try await node.accept()
    #expect(try await fresh.readRequest() == request)
    try await fresh.write(hello)
    #expect(await second.outcome() == helloOutcome)
    #expect(try await harness.run { _ in call.value.wasSentAgain })
    #expect(try await harness.run { [$0.sentAgainCount, $0.connectCount] } == [1, 2])
}

/// Starts the next request from within the end of its own.
final class UpstreamChainingDelegate: UpstreamDelegate, Sendable {
    let pool: NIOLoopBound<UpstreamPool>
    let next: UpstreamTestDelegate

    init(pool: NIOLoopBound<UpstreamPool>, next: UpstreamTestDelegate) {
        self.pool = pool
        self.next = next
    }

    func upstreamStarted() {}
    func upstreamHead(_ head: UpstreamResponseHead) {}
    func upstreamBody(_ bytes: ByteBuffer) {}
    func upstreamReadComplete() {}
    func upstreamEnd() { _ = pool.value.dispatch(upstreamTestRequest("/second"), delegate: next) }
    func upstreamFailed(_ failure: UpstreamFailure) { Issue.record("failed: \(failure)") }
}

/// Stops reading at the head and never goes on.
final class UpstreamPausingDelegate: UpstreamDelegate, Sendable {
    /// SAFETY: only touched on the pool's loop.
    final class CallBox: @unchecked Sendable {
        var value: UpstreamCall?
    }

    let call = CallBox()
    let recorder = UpstreamTestDelegate()

    func upstreamStarted() {}
    func upstreamHead(_ head: UpstreamResponseHead) {
        call.value?.pauseReading()
        recorder.upstreamHead(head)
    }
    func upstreamBody(_ bytes: ByteBuffer) { recorder.upstreamBody(bytes) }
    func upstreamReadComplete() {}
    func upstreamEnd() { recorder.upstreamEnd() }
    func upstreamFailed(_ failure: UpstreamFailure) { recorder.upstreamFailed(failure) }
}

/// A listener whose queue of connections is full: further ones hang in connecting.
final class UpstreamFullListener {
    let address: SocketAddress
    private var sockets: [Int32] = []

    init() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        sockets.append(listener)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { plain in
                bind(listener, plain, length) == 0 && listen(listener, 0) == 0
                    && getsockname(listener, plain, &length) == 0
            }
        }
        try #require(bound)
        address = try SocketAddress(ipAddress: "127.0.0.1", port: Int(UInt16(bigEndian: name.sin_port)))
        // Connects until one does not get through within the poll: the queue holds one or two.
        for _ in 0..<16 {
            let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            sockets.append(client)
            let result = withUnsafePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(client, $0, length) }
            }
            if result == 0 { continue }
            var poll = pollfd(fd: client, events: Int16(POLLOUT), revents: 0)
            if Glibc.poll(&poll, 1, 100) == 0 { return }
        }
        Issue.record("the listener takes every connection")
    }

    deinit {
        for socket in sockets { close(socket) }
    }
}

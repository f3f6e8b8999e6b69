import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A node that is well until ``vanish()``, and from then on takes no connection: further ones hang in connecting, as where
/// a site lost its network.
final class BlackholeNode: Sendable {
    let port: Int
    private let listener: Int32
    private let isGone = Atomic<Bool>(false)
    private let fillers = Mutex<[Int32]>([])

    init() throws {
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = Self.loopback(port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { plain in
                bind(descriptor, plain, length) == 0 && listen(descriptor, 0) == 0
                    ? getsockname(descriptor, plain, &length) : -1
            }
        }
        guard status == 0 else { throw Wire.Failure.system(call: "bind", errno: errno) }
        port = Int(UInt16(bigEndian: address.sin_port))
        Thread.detachNewThread { [weak self] in
            while let self, !self.isGone.load(ordering: .sequentiallyConsistent) {
                var set = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                guard poll(&set, 1, 5) > 0, !self.isGone.load(ordering: .sequentiallyConsistent) else { continue }
                let accepted = accept(descriptor, nil, nil)
                guard accepted >= 0 else { return }
                Self.answer(accepted)
            }
        }
    }

    deinit {
        isGone.store(true, ordering: .sequentiallyConsistent)
        for descriptor in fillers.withLock({ $0 }) + [listener] { close(descriptor) }
    }

    /// Answers a health probe, and closes.
    private static func answer(_ descriptor: Int32) {
        var bytes = [UInt8](repeating: 0, count: 4_096)
        _ = recv(descriptor, &bytes, bytes.count, 0)
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        _ = text.withCString { send(descriptor, $0, text.utf8.count, Int32(MSG_NOSIGNAL)) }
        shutdown(descriptor, Int32(SHUT_WR))
        _ = recv(descriptor, &bytes, bytes.count, 0)
        close(descriptor)
    }

    /// Takes no more connections, and fills the queue of those that wait, so that not even the kernel takes one.
    func vanish() {
        isGone.store(true, ordering: .sequentiallyConsistent)
        var name = Self.loopback(port: port)
        let length = socklen_t(MemoryLayout<sockaddr_in>.size)
        var isFull = 0
        while isFull < 3 {
            let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            fillers.withLock { $0.append(client) }
            let result = withUnsafePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(client, $0, length) }
            }
            if result == 0 { continue }
            var set = pollfd(fd: client, events: Int16(POLLOUT), revents: 0)
            isFull = poll(&set, 1, 50) == 0 ? isFull + 1 : 0
        }
    }

    private static func loopback(port: Int) -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = in_port_t(UInt16(port)).bigEndian
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return name
    }
}

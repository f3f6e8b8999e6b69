import NIOCore
import NIOPosix
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// Turns node names into addresses, off the event loops: `getaddrinfo` blocks for as long as the name servers please.
package struct HostResolver: Sendable {
    /// How many addresses of one name are used, unless told otherwise.
    package static let addressesMax = 16

    private let threads: NIOThreadPool

    /// - Parameter threads: Where the blocking calls run; started and ended by its owner.
    package init(threads: NIOThreadPool) {
        self.threads = threads
    }

    /// An IP literal's address, at port 0; nil for a name. Never blocks.
    package static func literal(_ host: String) -> SocketAddress? {
        try? SocketAddress(ipAddress: host, port: 0)
    }

    /// Gives up at once where the task is cancelled; the thread is held until the system answers.
    ///
    /// - Returns: The name's addresses in the system's order of preference, at port 0, each once.
    /// - Throws: ``HostResolutionFailure``.
    package func resolve(
        _ host: String, countMax: Int = addressesMax
    ) async throws(HostResolutionFailure) -> [SocketAddress] {
        if let literal = Self.literal(host) { return [literal] }
        let answer = OneAnswer()
        return try await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard answer.awaited(by: continuation) else { return }
                threads.submit { state in
                    guard state == .active else { return answer.give(.failure(.givenUp(host))) }
                    answer.give(Result { () throws(HostResolutionFailure) in try Self.resolveBlocking(host, countMax) })
                }
            }
        } onCancel: {
            answer.give(.failure(.givenUp(host)))
        }.get()
    }

    /// Whoever comes first, the system or the cancellation, answers.
    private final class OneAnswer: Sendable {
        typealias Answer = Result<[SocketAddress], HostResolutionFailure>

        private enum State {
            case idle
            case awaited(CheckedContinuation<Answer, Never>)
            case given(Answer)
        }

        private let state = Mutex(State.idle)

        /// - Returns: False where the answer was there before.
        func awaited(by continuation: CheckedContinuation<Answer, Never>) -> Bool {
            let early: Answer? = state.withLock { state in
                if case .given(let answer) = state { return answer }
                state = .awaited(continuation)
                return nil
            }
            if let early { continuation.resume(returning: early) }
            return early == nil
        }

        func give(_ answer: Answer) {
            let waiting: CheckedContinuation<Answer, Never>? = state.withLock { state in
                switch state {
                case .idle:
                    state = .given(answer)
                    return nil
                case .awaited(let continuation):
                    state = .given(answer)
                    return continuation
                case .given:
                    return nil
                }
            }
            waiting?.resume(returning: answer)
        }
    }

    private static func resolveBlocking(_ host: String, _ countMax: Int) throws(HostResolutionFailure)
        -> [SocketAddress]
    {
        var hints = addrinfo()
        #if canImport(Glibc)
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
        hints.ai_socktype = SOCK_STREAM
        #endif
        var first: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &first)
        guard status == 0, let first else {
            throw HostResolutionFailure(host: host, reason: String(cString: gai_strerror(status)))
        }
        // SAFETY: the list is the system's until `freeaddrinfo`, which runs after the loop; `ai_addr` points to a
        // structure of the type that `ai_family` says, by getaddrinfo's contract.
        defer { freeaddrinfo(first) }
        var addresses: [SocketAddress] = []
        var next: UnsafeMutablePointer<addrinfo>? = first
        while let entry = next?.pointee, addresses.count < countMax {
            next = entry.ai_next
            guard let pointer = UnsafeRawPointer(entry.ai_addr) else { continue }
            let address: SocketAddress
            switch entry.ai_family {
            case AF_INET: address = SocketAddress(pointer.loadUnaligned(as: sockaddr_in.self), host: "")
            case AF_INET6: address = SocketAddress(pointer.loadUnaligned(as: sockaddr_in6.self), host: "")
            default: continue
            }
            if !addresses.contains(address) { addresses.append(address) }
        }
        guard !addresses.isEmpty else { throw HostResolutionFailure(host: host, reason: "it has no IP address") }
        return addresses
    }
}

package struct HostResolutionFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let reason: String

    static func givenUp(_ host: String) -> Self { Self(host: host, reason: "the attempt was given up") }

    package var description: String { "\(host) does not resolve: \(reason)" }
}

extension SocketAddress {
    /// The same address at another port.
    func at(port: Int) -> SocketAddress {
        var copy = self
        copy.port = port
        return copy
    }
}

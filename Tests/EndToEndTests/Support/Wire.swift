import Domain
import Foundation
import JSON

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A client's TCP connection: sends exactly the bytes that it is given and sees what a library would hide (resets, halves
/// of answers, a close that comes too early). Blocking; every wait has a deadline.
///
/// SAFETY: one thread at a time uses it: a test hands it from one `blocking` call to the next and never into two at once.
final class Wire: @unchecked Sendable {
    enum Failure: Error, CustomStringConvertible {
        case system(call: String, errno: Int32)
        case timeout(got: String)
        /// What had arrived before the reset.
        case reset(String)
        /// The peer closed in the middle of an answer; what had arrived before.
        case closed(String)
        case malformed(String)

        var description: String {
            switch self {
            case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
            case .timeout(let got): "nothing more came; before: \(got)"
            case .reset(let got): "reset; before: \(got)"
            case .closed(let got): "closed; before: \(got)"
            case .malformed(let text): "malformed answer: \(text)"
            }
        }
    }

    private enum Framing {
        case none
        case length(Int)
        /// Bytes left of the present chunk; 0 where a size line comes next.
        case chunks(Int)
        case untilClose
        case ended
    }

    static let patience = Duration.seconds(15)

    var patience = Wire.patience
    private let descriptor: Int32
    private var isOpen = true
    private var buffer: [UInt8] = []
    private var start = 0
    private var framing = Framing.none
    private var events: [UInt8] = []

    /// - Parameter receiveBufferBytes: What the kernel keeps for a reader that is slow; nil leaves its default.
    init(port: Int, receiveBufferBytes: Int32? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Failure.system(call: "socket", errno: errno) }
        if var size = receiveBufferBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafeBytes(of: &address) { bytes in
            // SAFETY: `sockaddr_in` is one of the layouts that `connect` reads through `sockaddr`.
            connect(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
        // Whatever is thrown from here on, `deinit` closes the descriptor.
        guard result == 0 else { throw Failure.system(call: "connect", errno: errno) }
    }

    deinit { close() }

    // MARK: Sending

    /// Blocks while the peer takes nothing.
    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else {
                if errno == EINTR { continue }
                throw Failure.system(call: "send", errno: errno)
            }
            sent += count
        }
    }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    func send(_ ask: Ask) throws { try send(ask.bytes) }

    /// Sends as much as the peer takes within `limit`, in pieces.
    /// - Returns: Bytes that the kernel took.
    func sendWhatGoes(_ piece: [UInt8], count: Int, within limit: Duration) -> Int {
        let deadline = MonotonicTime.now().advanced(by: limit)
        var sent = 0
        while sent < piece.count * count, MonotonicTime.now() < deadline {
            var set = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&set, 1, 20) > 0 else { continue }
            let part = piece[(sent % piece.count)...]
            let taken = part.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if taken < 0 {
                if errno == EAGAIN || errno == EINTR { continue }
                break
            }
            sent += taken
        }
        return sent
    }

    /// Ends this side's sending only.
    func halfClose() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Closes without a farewell: the peer sees a reset.
    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    func close() {
        if isOpen { Glibc.close(descriptor) }
        isOpen = false
    }

    // MARK: Receiving

    /// Reads one answer; interim ones (1xx) are counted and passed over.
    func response() throws -> Answer {
        var answer = try head()
        while let part = try bodyPart() { answer.body.append(contentsOf: part) }
        return answer
    }

    /// Reads an answer's head. The body is read by ``bodyPart()`` or ``nextEvent()``.
    func head() throws -> Answer {
        var interim: [Int] = []
        while true {
            let text = String(decoding: try take(through: Array("\r\n\r\n".utf8)), as: UTF8.self)
            var lines = text.split(separator: "\r\n", omittingEmptySubsequences: true)
            let words = lines.removeFirst().split(separator: " ")
            guard words.count > 1, let status = Int(words[1]) else { throw Failure.malformed(text) }
            if (100..<200).contains(status) {
                interim.append(status)
                continue
            }
            var headers: [(name: String, value: String)] = []
            for line in lines {
                let halves = line.split(separator: ":", maxSplits: 1)
                guard halves.count == 2 else { throw Failure.malformed(text) }
                headers.append((halves[0].lowercased(), halves[1].trimmingCharacters(in: .whitespaces)))
            }
            let answer = Answer(status: status, headers: headers, interim: interim)
            if status == 204 {
                framing = .ended
            } else if let length = answer.header("content-length").flatMap({ Int($0) }) {
                framing = .length(length)
            } else if answer.header("transfer-encoding") == "chunked" {
                framing = .chunks(0)
            } else {
                framing = .untilClose
            }
            events.removeAll()
            return answer
        }
    }

    /// - Returns: The next bytes of the body, nil at its end.
    func bodyPart() throws -> [UInt8]? {
        switch framing {
        case .none, .ended: return nil
        case .length(0):
            framing = .ended
            return nil
        case .length(let left):
            let part = try takeSome(atMost: left)
            framing = .length(left - part.count)
            return part
        case .chunks(0):
            let line = String(decoding: try take(through: Array("\r\n".utf8)).dropLast(2), as: UTF8.self)
            guard let size = Int(line, radix: 16) else { throw Failure.malformed("chunk size '\(line)'") }
            if size == 0 {
                guard try take(through: Array("\r\n".utf8)).count == 2 else { throw Failure.malformed("trailers") }
                framing = .ended
                return nil
            }
            framing = .chunks(size)
            return try bodyPart()
        case .chunks(let left):
            let part = try takeSome(atMost: left)
            framing = .chunks(left - part.count)
            if left == part.count, try take(through: Array("\r\n".utf8)).count != 2 {
                throw Failure.malformed("a chunk's end")
            }
            return part
        case .untilClose:
            if available == 0, try !fill() {
                framing = .ended
                return nil
            }
            return try takeSome(atMost: available)
        }
    }

    /// - Returns: The payload of the next server-sent event, nil at the stream's end.
    func nextEvent() throws -> String? {
        let blank = Array("\n\n".utf8)
        while true {
            if let end = events.firstRange(of: blank) {
                let event = String(decoding: events[..<end.lowerBound], as: UTF8.self)
                events.removeFirst(end.upperBound)
                return event.hasPrefix("data: ") ? String(event.dropFirst(6)) : event
            }
            guard let part = try bodyPart() else {
                guard events.isEmpty else { throw Failure.malformed(String(decoding: events, as: UTF8.self)) }
                return nil
            }
            events.append(contentsOf: part)
        }
    }

    /// Everything until the peer closes the connection.
    func rest() throws -> String {
        while try fill() {}
        return String(decoding: try takeSome(atMost: available, mayBeNone: true), as: UTF8.self)
    }

    /// Waits for the peer's close; whatever it sends before is dropped.
    /// - Returns: Whether it closed in an orderly way rather than by a reset.
    func waitForClose() throws -> Bool {
        do {
            while try fill() { start = buffer.count }
            return true
        } catch Failure.reset {
            return false
        }
    }

    /// Whether nothing comes, not even the connection's end, for so long.
    func isSilent(for time: Duration) -> Bool {
        var set = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return available == 0 && poll(&set, 1, Int32(time.nanoseconds / 1_000_000)) == 0
    }

    // MARK: Bytes

    private var available: Int { buffer.count - start }

    func take(through pattern: [UInt8]) throws -> [UInt8] {
        while true {
            if let found = buffer[start...].firstRange(of: pattern) {
                defer { start = found.upperBound }
                return Array(buffer[start..<found.upperBound])
            }
            guard try fill() else { throw Failure.closed(seen) }
        }
    }

    private func takeSome(atMost limit: Int, mayBeNone: Bool = false) throws -> [UInt8] {
        if available == 0, !mayBeNone, try !fill() { throw Failure.closed(seen) }
        let end = start + min(limit, available)
        defer { start = end }
        return Array(buffer[start..<end])
    }

    private var seen: String { String(decoding: buffer.prefix(2_000), as: UTF8.self) }

    /// - Returns: False at the end of the connection.
    private func fill() throws -> Bool {
        if start == buffer.count {
            buffer.removeAll(keepingCapacity: true)
            start = 0
        }
        let deadline = MonotonicTime.now().advanced(by: patience)
        while true {
            let left = deadline.nanoseconds(since: .now()) / 1_000_000
            guard left > 0 else { throw Failure.timeout(got: seen) }
            var set = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&set, 1, Int32(left)) > 0 else { continue }
            var bytes = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            if count > 0 {
                buffer.append(contentsOf: bytes[..<count])
                return true
            }
            if count == 0 { return false }
            if errno == EINTR { continue }
            if errno == ECONNRESET { throw Failure.reset(seen) }
            throw Failure.system(call: "recv", errno: errno)
        }
    }
}

/// An HTTP answer as it came.
struct Answer: Sendable {
    var status: Int
    /// Names in lower case, in order.
    var headers: [(name: String, value: String)]
    /// The 1xx answers before it.
    var interim: [Int] = []
    var body: [UInt8] = []

    func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
    var requestID: String { header("x-request-id") ?? "" }
    var text: String { String(decoding: body, as: UTF8.self) }
    func json() throws -> JSONValue { try JSONValue(parsing: body) }

    /// The payloads of the server-sent events.
    var events: [String] {
        text.components(separatedBy: "\n\n").filter { !$0.isEmpty }
            .map { $0.hasPrefix("data: ") ? String($0.dropFirst(6)) : $0 }
    }

    /// `error.code`, where the body is OpenAI's error object with all four members of the right kinds; else why not.
    var errorCode: String { Self.errorCode(of: text) }

    static func errorCode(of text: String) -> String {
        guard let document = try? JSONValue(parsing: text), let error = document["error"],
            error.object?.map(\.key).sorted() == ["code", "message", "param", "type"],
            error["message"]?.string?.isEmpty == false, error["type"]?.string?.isEmpty == false,
            let parameter = error["param"], parameter.isNull || parameter.string != nil
        else { return "not an error object: \(text.prefix(500))" }
        return error["code"]?.string ?? "null"
    }
}

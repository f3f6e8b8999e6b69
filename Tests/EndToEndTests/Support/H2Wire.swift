import Domain
import Foundation
import NIOCore
import NIOHPACK
import NIOPosix
import NIOSSL

/// A client's HTTP/2 connection over TLS that sends exactly the frames that it is given. Blocking; every wait has a
/// deadline. Acknowledges SETTINGS, and opens windows again as data comes unless told not to.
///
/// SAFETY: one thread at a time uses it; what the event loop hands over is behind the condition.
final class H2Wire: @unchecked Sendable {
    struct Frame: Sendable {
        enum Kind: UInt8, Sendable {
            case data, headers, priority, reset, settings, push, ping, goAway, windowUpdate, continuation
        }

        let kind: Kind
        let flags: UInt8
        let stream: UInt32
        let payload: [UInt8]
        /// Of HEADERS, decoded in the order of arrival, as the table that the blocks share demands.
        var fields: [(name: String, value: String)] = []

        var endsStream: Bool { (kind == .data || kind == .headers) && flags & 0x1 != 0 }
        /// Of a reset or a GOAWAY.
        var errorCode: UInt32 { H2Wire.number(kind == .goAway ? Array(payload.dropFirst(4)) : payload) }
        var lastStream: UInt32 { H2Wire.number(payload) & 0x7FFF_FFFF }
    }

    private final class Receiver: ChannelInboundHandler, @unchecked Sendable {
        // SAFETY: the condition guards all of it.
        typealias InboundIn = ByteBuffer
        let condition = NSCondition()
        var bytes: [UInt8] = []
        var isClosed = false

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            condition.withLock {
                bytes += unwrapInboundIn(data).readableBytesView
                condition.broadcast()
            }
        }

        func channelInactive(context: ChannelHandlerContext) { end() }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            end()
            context.close(promise: nil)
        }

        private func end() {
            condition.withLock {
                isClosed = true
                condition.broadcast()
            }
        }
    }

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    var patience = Wire.patience
    var opensWindows = true
    private let channel: any Channel
    private let receiver = Receiver()
    private var held: [Frame] = []
    private var encoder = HPACKEncoder(allocator: ByteBufferAllocator())
    private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())

    /// - Parameters:
    ///   - prefix: Sent before the TLS handshake.
    ///   - window: SETTINGS_INITIAL_WINDOW_SIZE; nil leaves 65,535.
    init(port: Int, prefix: [UInt8] = [], window: UInt32? = nil) throws {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        configuration.applicationProtocols = ["h2"]
        let tls = try NIOSSLContext(configuration: configuration)
        let receiver = receiver
        channel = try ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port)
            .flatMap { channel in
                channel.eventLoop.makeCompletedFuture {
                    if !prefix.isEmpty { channel.writeAndFlush(ByteBuffer(bytes: prefix), promise: nil) }
                    try channel.pipeline.syncOperations.addHandlers([
                        try NIOSSLClientHandler(context: tls, serverHostname: nil), receiver,
                    ])
                    return channel
                }
            }.wait()
        var settings: [UInt8] = []
        if let window { settings = [0, 4] + Self.bytes(window) }
        try send(Self.preface + Self.frame(.settings, payload: settings))
    }

    deinit { channel.close(promise: nil) }

    func close() { try? channel.close().wait() }

    // MARK: Sending

    func send(_ bytes: [UInt8]) throws { try channel.writeAndFlush(ByteBuffer(bytes: bytes)).wait() }

    static func frame(_ kind: Frame.Kind, flags: UInt8 = 0, stream: UInt32 = 0, payload: [UInt8] = []) -> [UInt8] {
        let count = UInt32(payload.count)
        return Array(bytes(count).dropFirst()) + [kind.rawValue, flags] + bytes(stream) + payload
    }

    /// The frames of a request; a body larger than a frame is cut.
    func request(_ stream: UInt32, _ ask: Ask, endsStream: Bool = true) throws -> [UInt8] {
        var headers = HPACKHeaders()
        headers.add(name: ":method", value: ask.method)
        headers.add(name: ":scheme", value: "https")
        headers.add(name: ":path", value: ask.path)
        if ask.hasHost { headers.add(name: ":authority", value: "gateway") }
        if let key = ask.key { headers.add(name: "authorization", value: "Bearer \(key)") }
        if ask.body != nil { headers.add(name: "content-type", value: "application/json") }
        for header in ask.headers { headers.add(name: header.name.lowercased(), value: header.value) }
        var block = ByteBuffer()
        try encoder.encode(headers: headers, to: &block)
        var rest = Array(block.readableBytesView)
        var frames: [UInt8] = []
        var kind = Frame.Kind.headers
        repeat {
            let part = Array(rest.prefix(16_384))
            rest.removeFirst(part.count)
            let ends = endsStream && ask.body == nil && kind == .headers
            frames += Self.frame(
                kind, flags: (rest.isEmpty ? 0x4 : 0) | (ends ? 0x1 : 0), stream: stream, payload: part)
            kind = .continuation
        } while !rest.isEmpty
        if let body = ask.body { frames += Self.data(stream, body, endsStream: endsStream) }
        return frames
    }

    static func data(_ stream: UInt32, _ bytes: [UInt8], endsStream: Bool) -> [UInt8] {
        var frames: [UInt8] = []
        var start = 0
        repeat {
            let end = min(start + 16_384, bytes.count)
            frames += frame(
                .data, flags: endsStream && end == bytes.count ? 0x1 : 0, stream: stream,
                payload: Array(bytes[start..<end]))
            start = end
        } while start < bytes.count
        return frames
    }

    func send(_ stream: UInt32, _ ask: Ask) throws { try send(try request(stream, ask)) }

    func reset(_ stream: UInt32, code: UInt32 = 8) throws {
        try send(Self.frame(.reset, stream: stream, payload: Self.bytes(code)))
    }

    func openWindow(_ stream: UInt32, by bytes: UInt32) throws {
        try send(Self.frame(.windowUpdate, stream: stream, payload: Self.bytes(bytes)))
    }

    // MARK: Receiving

    /// The next frame of a stream (0: of the connection) other than acknowledgements and window updates; nil where the
    /// connection has ended.
    func next(_ stream: UInt32) throws -> Frame? {
        while true {
            if let place = held.firstIndex(where: { $0.stream == stream }) { return held.remove(at: place) }
            guard let frame = try read() else { return nil }
            switch frame.kind {
            case .settings where frame.flags & 1 == 0:
                try? send(Self.frame(.settings, flags: 1))
            case .settings, .windowUpdate: break
            case .ping where frame.flags & 1 == 0:
                try? send(Self.frame(.ping, flags: 1, payload: frame.payload))
            default:
                if frame.kind == .data, opensWindows, !frame.payload.isEmpty {
                    try? openWindow(0, by: UInt32(frame.payload.count))
                    if !frame.endsStream { try? openWindow(frame.stream, by: UInt32(frame.payload.count)) }
                }
                held.append(frame)
            }
        }
    }

    /// Bodies as they come; the head's frame is read by ``head(_:)``.
    func response(_ stream: UInt32) throws -> Answer {
        var (answer, isWhole) = try head(stream)
        while !isWhole {
            guard let frame = try next(stream) else { throw Wire.Failure.closed(answer.text) }
            guard frame.kind == .data else { throw Wire.Failure.reset("\(frame.kind) \(frame.errorCode)") }
            answer.body += frame.payload
            isWhole = frame.endsStream
        }
        return answer
    }

    func head(_ stream: UInt32) throws -> (answer: Answer, isWhole: Bool) {
        guard let frame = try next(stream) else { throw Wire.Failure.closed("") }
        guard frame.kind == .headers else { throw Wire.Failure.reset("\(frame.kind) \(frame.errorCode)") }
        let status = frame.fields.first { $0.name == ":status" }.flatMap { Int($0.value) } ?? 0
        let answer = Answer(status: status, headers: frame.fields.filter { !$0.name.hasPrefix(":") }, interim: [])
        return (answer, frame.endsStream)
    }

    /// - Returns: nil at the connection's end.
    private func read() throws -> Frame? {
        guard let head = try take(9) else { return nil }
        let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
        guard let payload = try take(count), let kind = Frame.Kind(rawValue: head[3]) else { return nil }
        var frame = Frame(kind: kind, flags: head[4], stream: Self.number(Array(head[5...])), payload: payload)
        if kind == .headers {
            var block = ByteBuffer(bytes: payload)
            frame.fields = try decoder.decodeHeaders(from: &block).map { ($0.name, $0.value) }
        }
        return frame
    }

    private func take(_ count: Int) throws -> [UInt8]? {
        let deadline = Date(timeIntervalSinceNow: Double(patience.milliseconds) / 1_000)
        return try receiver.condition.withLock {
            while receiver.bytes.count < count {
                if receiver.isClosed { return nil }
                guard receiver.condition.wait(until: deadline) else {
                    throw Wire.Failure.timeout(got: "\(receiver.bytes.count) bytes of a frame")
                }
            }
            let taken = Array(receiver.bytes.prefix(count))
            receiver.bytes.removeFirst(count)
            return taken
        }
    }

    static func bytes(_ number: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
    }

    static func number(_ bytes: [UInt8]) -> UInt32 { bytes.prefix(4).reduce(0) { $0 << 8 | UInt32($1) } }
}

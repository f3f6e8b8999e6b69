import Domain
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Routing
import Synchronization

@testable import Gateway

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A node's HTTP server for one test, on a free loopback port: answers every request as it was last told to.
final class FakeHealthNode: Sendable {
    struct Answer: Sendable {
        var status: HTTPResponseStatus = .ok
        var body = "{}"
        /// Accept the request and stay silent.
        var isSilent = false
        /// Bytes that are no HTTP at all, in place of the rest.
        var raw: String?
    }

    struct Seen: Sendable, Hashable {
        var uri: String
        var authorization: String?
        var host: String?
    }

    let port: Int
    private let channel: any Channel
    private let shared: Shared

    private final class Shared: Sendable {
        let answer: Mutex<Answer>
        let seen = Mutex<[Seen]>([])

        init(_ answer: Answer) { self.answer = Mutex(answer) }
    }

    var seen: [Seen] { shared.seen.withLock { $0 } }

    func answer(_ answer: Answer) { shared.answer.withLock { $0 = answer } }

    static func start(_ answer: Answer = Answer(), group: any EventLoopGroup) async throws -> FakeHealthNode {
        let shared = Shared(answer)
        let channel = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Handler(shared))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return FakeHealthNode(channel: channel, shared: shared)
    }

    private init(channel: any Channel, shared: Shared) {
        self.channel = channel
        self.port = channel.localAddress?.port ?? 0
        self.shared = shared
    }

    func stop() async { try? await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let shared: Shared

        init(_ shared: Shared) { self.shared = shared }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                let seen = Seen(
                    uri: head.uri, authorization: head.headers.first(name: "authorization"),
                    host: head.headers.first(name: "host"))
                shared.seen.withLock { $0.append(seen) }
            case .body:
                break
            case .end:
                let answer = shared.answer.withLock { $0 }
                if answer.isSilent { return }
                if let raw = answer.raw {
                    let first = try? context.pipeline.syncOperations.context(handlerType: HTTPResponseEncoder.self)
                    first?.writeAndFlush(NIOAny(ByteBuffer(string: raw)), promise: nil)
                    return context.close(promise: nil)
                }
                let headers: HTTPHeaders = ["content-length": "\(answer.body.utf8.count)"]
                let head = HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers)
                context.write(wrapOutboundOut(.head(head)), promise: nil)
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}

/// A loopback port that refuses connections for as long as this lives: bound, so that nobody else gets it, and not
/// listening.
final class ClosedPort: Sendable {
    struct SystemFailure: Error {
        let errno: Int32
    }

    let number: Int
    private let descriptor: Int32

    init() throws {
        #if canImport(Glibc)
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
        let descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                bind(descriptor, generic, size) == 0 ? getsockname(descriptor, generic, &size) : -1
            }
        }
        number = Int(UInt16(bigEndian: address.sin_port))
        guard status == 0 else { throw SystemFailure(errno: errno) }
    }

    deinit { close(descriptor) }
}

/// Operators' words in memory, with a switch that takes the store away.
final class FakeOperatorWordStore: OperatorWordStore {
    private struct State {
        var words = OperatorWords()
        var isAway = false
        var reads = 0
        /// How far its clock is ahead of this machine's.
        var clockAhead = Duration.zero
    }

    private let state = Mutex(State())

    init(cordoned: Set<NodeID> = [], isAway: Bool = false, clockAhead: Duration = .zero) {
        state.withLock { state in
            state.words.cordoned = cordoned
            state.isAway = isAway
            state.clockAhead = clockAhead
        }
    }

    var reads: Int { state.withLock { $0.reads } }
    var said: OperatorWords { state.withLock { $0.words } }

    func goAway(_ isAway: Bool) { state.withLock { $0.isAway = isAway } }

    /// As another replica would say it.
    func say(_ isCordoned: Bool, _ node: NodeID) { hear(isCordoned ? .cordon(node) : .uncordon(node)) }

    func hear(_ word: OperatorWord) {
        state.withLock { state in
            func later(_ time: Duration) -> WallTime {
                WallTime(milliseconds: WallTime.now().milliseconds + (state.clockAhead + time).milliseconds)
            }
            switch word {
            case .cordon(let node):
                state.words.cordoned.insert(node)
                state.words.draining[node] = nil
            case .uncordon(let node):
                state.words.cordoned.remove(node)
                state.words.draining[node] = nil
            case .drain(let node, let deadline):
                state.words.cordoned.remove(node)
                state.words.draining[node] = later(deadline)
            case .curtail(let site, let permille, let start, let time):
                state.words.curtailed[site] = Curtailment(
                    permille: permille, startsAt: later(start), endsAt: time.map { later(start + $0) })
            case .restore(let site): state.words.curtailed[site] = nil
            }
        }
    }

    func words() async throws(OperatorWordFailure) -> OperatorWordsReading {
        let answer: OperatorWordsReading? = state.withLock { state in
            state.reads += 1
            let time = WallTime(milliseconds: WallTime.now().milliseconds + state.clockAhead.milliseconds)
            return state.isAway ? nil : OperatorWordsReading(words: state.words, storeTime: time)
        }
        guard let answer else { throw OperatorWordFailure("away") }
        return answer
    }

    func say(_ word: OperatorWord) async throws(OperatorWordFailure) {
        guard !state.withLock({ $0.isAway }) else { throw OperatorWordFailure("away") }
        hear(word)
    }
}

/// Waits until `condition` holds, for at most ten seconds.
///
/// - Returns: Whether it came to hold.
func eventually(_ condition: () -> Bool) async -> Bool {
    let deadline = MonotonicTime.now().advanced(by: .seconds(10))
    while !condition() {
        guard MonotonicTime.now() < deadline else { return false }
        try? await Task.sleep(for: .milliseconds(2))
    }
    return true
}

let fleetModel = ModelID(unchecked: "llama")

func fleetNode(
    _ id: String, host: String = "127.0.0.1", port: Int, engine: Engine = .vllm, basePath: String = "",
    apiKey: String? = nil
) -> NodeConfiguration {
    NodeConfiguration(
        id: NodeID(unchecked: id), site: SiteID(unchecked: "austin"),
        url: NodeURL(host: host, port: port, basePath: basePath), engine: engine,
        models: [ServedModel(model: fleetModel, upstreamName: "up")], maxConcurrency: 4,
        apiKey: apiKey.map { Secret($0) })
}

func fleetConfiguration(_ nodes: [NodeConfiguration]) -> GatewayConfiguration {
    GatewayConfiguration(
        admin: AdminConfiguration(token: Secret("t")), models: [ModelConfiguration(id: fleetModel)],
        sites: [SiteConfiguration(id: SiteID(unchecked: "austin"))], nodes: nodes, eventLoops: 1)
}

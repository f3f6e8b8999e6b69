import Domain
import NIOCore
import NIOSSL
import NIOTLS

/// A connection before its first request: the PROXY header where a trusted proxy sends one, then the TLS handshake where
/// there is TLS, then the handlers of the protocol that was agreed on take its place.
///
/// Ownership: counted among the loop's connections from the accept on. Nothing is read ahead but at most one read's
/// worth behind the PROXY header. Close: whoever has not come to the protocol's first byte within `timeouts.header`, sends
/// something else, or is still opening when the gateway drains.
final class OpeningHandler: ChannelInboundHandler, RemovableChannelHandler, TimerTarget, ClientConnection {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private enum State {
        /// Exits: handshaking, ended.
        case proxyHeader(ByteBuffer)
        /// Exits: ended.
        case handshaking
        case ended
    }

    private let loop: LoopContext
    private let pipeline: ClientPipeline
    private let tls: TLSIdentity?
    private var context: ChannelHandlerContext?
    private var state: State
    private var clientAddress: String?
    private var timer: TimerToken?

    init(loop: LoopContext, pipeline: ClientPipeline, tls: TLSIdentity?, awaitsProxyHeader: Bool) {
        self.loop = loop
        self.pipeline = pipeline
        self.tls = tls
        state = awaitsProxyHeader ? .proxyHeader(ByteBuffer()) : .handshaking
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loop.register(self)
        if loop.isDraining { return context.close(promise: nil) }
        timer = loop.wheel.schedule(
            at: MonotonicTime.now().advanced(byNanoseconds: loop.snapshot.timeouts.header), target: self, kind: 0)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end()
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .proxyHeader(var held) = state else { return context.fireChannelRead(data) }
        var bytes = unwrapInboundIn(data)
        state = .proxyHeader(ByteBuffer())
        held.writeBuffer(&bytes)
        switch ProxyHeader.read(held.readableBytesView) {
        case .incomplete: state = .proxyHeader(held)
        case .invalid:
            state = .proxyHeader(held)
            fail()
        case .header(let address, let count):
            clientAddress = address?.description
            held.moveReaderIndex(forwardBy: count)
            headerEnded(context, rest: held)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiated)? = event as? TLSUserEvent, case .handshaking = state {
            return handOver(context, protocolName: negotiated)
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail()
    }

    /// Nothing that could be answered came, or not in time.
    private func fail() {
        switch state {
        case .proxyHeader: loop.metrics.count(.proxyHeadersMissing)
        case .handshaking: loop.metrics.count(.handshakesFailed)
        case .ended: break
        }
        end()
        context?.close(promise: nil)
    }

    private func headerEnded(_ context: ChannelHandlerContext, rest: ByteBuffer) {
        guard let tls else {
            handOver(context, protocolName: nil, rest: rest)
            return
        }
        state = .handshaking
        do {
            try context.pipeline.syncOperations.addHandler(
                NIOSSLServerHandler(context: tls.context), position: .before(self))
        } catch {
            return context.close(promise: nil)
        }
        if rest.readableBytes > 0 {
            context.pipeline.fireChannelRead(rest)
            context.pipeline.fireChannelReadComplete()
        }
    }

    /// The protocol's handlers come behind this one, which leaves.
    private func handOver(_ context: ChannelHandlerContext, protocolName: String?, rest: ByteBuffer? = nil) {
        end()
        do {
            if protocolName == ApplicationProtocol.http2 {
                try pipeline.addHTTP2(to: context.channel, on: loop, clientAddress: clientAddress)
            } else {
                try pipeline.addHTTP1(to: context.channel, on: loop, clientAddress: clientAddress)
            }
        } catch {
            return context.close(promise: nil)
        }
        if let rest, rest.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(rest)) }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    private func end() {
        if case .ended = state { return }
        state = .ended
        if let timer { loop.wheel.cancel(timer) }
        timer = nil
        loop.unregister(self)
    }

    // MARK: Timer, drain

    func timerFired(_ kind: UInt8) {
        timer = nil
        fail()
    }

    func drain() { context?.close(promise: nil) }

    func drainExpired() { context?.close(promise: nil) }
}

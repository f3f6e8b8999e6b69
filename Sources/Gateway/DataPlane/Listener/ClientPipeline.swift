import NIOCore
import NIOHTTP1
import NIOHTTP2
import NIOSSL

/// Builds a client connection's handlers: at once where it begins with HTTP/1.1, else step by step behind an
/// ``OpeningHandler``.
package struct ClientPipeline: Sendable {
    private let decoder: NIOHTTPDecoderLimitConfiguration
    private let http2: HTTP2Limits

    /// - Parameter headerBytes: `limits.header_bytes`, which holds from one start to the next.
    package init(headerBytes: Int) {
        var decoder = NIOHTTPDecoderLimitConfiguration()
        decoder.maxHeaderFieldSize = headerBytes
        decoder.maxHeaderListSize = headerBytes
        self.decoder = decoder
        http2 = HTTP2Limits(headerBytes: headerBytes)
    }

    /// A connection was accepted.
    func initialize(_ channel: any Channel, on loop: LoopContext) throws {
        guard loop.services.connections.load(ordering: .relaxed) < loop.snapshot.limits.connections else {
            loop.metrics.count(.connectionsOverLimit)
            return channel.close(promise: nil)
        }
        loop.metrics.count(.connectionsAccepted)
        let listener = loop.snapshot.configuration.listener
        let announces =
            listener.proxyProtocol
            && (channel.remoteAddress?.ipAddress).flatMap { IPAddress($0) }.map { peer in
                listener.trustedProxies.contains { $0.contains(peer) }
            } ?? false
        guard announces || listener.tls != nil else {
            return try addHTTP1(to: channel, on: loop, clientAddress: nil)
        }
        let opening = OpeningHandler(loop: loop, pipeline: self, tls: listener.tls, awaitsProxyHeader: announces)
        if let tls = listener.tls, !announces {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls.context))
        }
        try channel.pipeline.syncOperations.addHandler(opening)
    }

    /// - Parameter clientAddress: What the PROXY protocol said; nil takes the connection's other end.
    func addHTTP1(to channel: any Channel, on loop: LoopContext, clientAddress: String?) throws {
        // No response encoder and no pipeline handler: the writer frames answers, the handler keeps their order.
        try channel.pipeline.syncOperations.addHandlers([
            ByteToMessageHandler(
                HTTPRequestDecoder(
                    leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop,
                    limitConfiguration: decoder)),
            DownstreamHandler(loop: loop, clientAddress: clientAddress),
        ])
    }

    func addHTTP2(to channel: any Channel, on loop: LoopContext, clientAddress: String?) throws {
        let connection = HTTP2ConnectionHandler(
            loop: loop, limits: http2, clientAddress: clientAddress ?? channel.remoteAddress?.ipAddress ?? "")
        let bound = NIOLoopBound(connection, eventLoop: channel.eventLoop)
        let frames = NIOHTTP2Handler(
            mode: .server, eventLoop: channel.eventLoop, connectionConfiguration: http2.connection,
            streamConfiguration: http2.stream
        ) { stream in
            stream.eventLoop.makeCompletedFuture {
                let codec = HTTP2FramePayloadToHTTP1ServerCodec()
                try stream.pipeline.syncOperations.addHandler(codec)
                let context = try stream.pipeline.syncOperations.context(handler: codec)
                try stream.pipeline.syncOperations.addHandler(
                    HTTP2StreamHandler(connection: bound.value, frames: context))
            }
        }
        try channel.pipeline.syncOperations.addHandlers([frames, connection])
    }
}

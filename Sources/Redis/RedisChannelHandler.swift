import NIOCore

/// Carries one connection's bytes to the parser and its replies to the client.
///
/// Owned by its channel; keeps the client alive until the channel is inactive, which breaks the cycle. Back-pressure is
/// the client's: it bounds what is pending, so replies are read as fast as they come.
final class RedisChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private var client: RedisClient?
    private let parser: RESPParser

    init(client: RedisClient, limits: RedisLimits) {
        self.client = client
        parser = RESPParser(limits: limits)
    }

    func channelActive(context: ChannelHandlerContext) {
        client?.channelBecameActive(context.channel)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        parser.feed(unwrapInboundIn(data))
        do throws(RESPProtocolError) {
            // A completion may close the client, which is then gone from here.
            while let client, let value = try parser.next() {
                client.replyReceived(value)
            }
        } catch {
            client?.protocolViolated(error.message)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        let client = client
        self.client = nil
        client?.channelBecameInactive(context.channel)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A broken socket. What was pending fails when the channel becomes inactive.
        context.close(promise: nil)
    }
}

/// Where a client connects and what it allows.
package struct RedisConfiguration: Sendable {
    package var url: RedisURL
    /// What `CLIENT LIST` shows: printable ASCII without spaces.
    package var clientName: String
    package var limits: RedisLimits

    package init(url: RedisURL, clientName: String = "tollgate", limits: RedisLimits = RedisLimits()) {
        self.url = url
        self.clientName = clientName
        self.limits = limits
    }
}

/// Every bound of a connection. The defaults serve a gateway's event loop.
package struct RedisLimits: Hashable, Sendable {
    /// Commands sent and not yet answered, timed out ones included; more fail with ``RedisError/overloaded``.
    package var pendingCommandsMax = 16_384
    /// Their bytes. Checked before a command is encoded, so one command may overshoot by its own size.
    package var pendingBytesMax = 32 << 20
    /// Commands that wait for a connection.
    package var waitingCommandsMax = 4_096

    /// Bytes of one reply, on the wire.
    package var replyBytesMax = 64 << 20
    /// Elements of one reply over all its arrays. (Their depth is bounded by hiredis: 7 levels inside the root.)
    package var replyElementsMax = 1 << 20

    /// From the start of a connect to the established connection.
    package var connectTimeout = Duration.seconds(1)
    /// From the established connection to its last handshake reply.
    package var handshakeTimeout = Duration.seconds(2)
    /// How long past its deadline the oldest command's reply is awaited before the connection counts as dead.
    package var lateReplyGrace = Duration.seconds(2)

    /// The first delay before a reconnect; doubles to ``backoffMax``, then jittered down by up to one half.
    package var backoffMin = Duration.milliseconds(50)
    package var backoffMax = Duration.seconds(2)

    /// The grain of all deadlines: none fires early, each at most this much late.
    package var tick = Duration.milliseconds(20)

    package init() {}
}

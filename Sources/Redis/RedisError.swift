/// Why a command has no reply.
///
/// What callers need to know first is whether the command may have run: not after ``notConnected`` and ``overloaded``,
/// perhaps after ``timedOut`` and ``protocolViolation(_:)``, as said by ``connectionClosed(commandMayHaveRun:)``.
/// After ``server(code:message:)`` the server has answered.
package enum RedisError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There was no connection, so nothing was sent. ``RedisClient/lastConnectFailure`` knows why.
    case notConnected
    /// No reply came before the deadline. The command may run yet: its late reply is matched and dropped.
    case timedOut
    /// The connection ended with the command pending. False where it had not yet been handed to the socket.
    case connectionClosed(commandMayHaveRun: Bool)
    /// The server refused: `code` is its first word (`NOSCRIPT`, `READONLY`, `LOADING`, `WRONGPASS`, `ERR` ...).
    case server(code: String, message: String)
    /// The peer does not speak RESP2 or passed a limit; the connection is closed.
    case protocolViolation(String)
    /// Too many commands or bytes are pending on this connection; nothing was sent.
    case overloaded

    package init(_ error: RedisServerError) {
        self = .server(code: error.code, message: error.message)
    }

    /// Whether the server may have executed the command, now or later.
    package var commandMayHaveRun: Bool {
        switch self {
        case .notConnected, .overloaded: false
        case .timedOut, .protocolViolation: true
        case .connectionClosed(let mayHaveRun): mayHaveRun
        // A script that fails half-way has run half-way; a refusal at the door has not.
        case .server(let code, _): !Self.codesBeforeExecution.contains(code)
        }
    }

    /// Codes that Redis gives before it executes anything of the command. (NOPERM and READONLY can come out of a script's
    /// middle.)
    private static let codesBeforeExecution: Set<String> = [
        "NOSCRIPT", "LOADING", "NOAUTH", "WRONGPASS", "BUSY", "MOVED", "ASK",
    ]

    package var description: String {
        switch self {
        case .notConnected: "not connected to Redis"
        case .timedOut: "Redis did not answer in time"
        case .connectionClosed(commandMayHaveRun: true): "the connection to Redis ended; the command may have run"
        case .connectionClosed(commandMayHaveRun: false): "the connection to Redis ended before the command was sent"
        case .server(let code, let message): "Redis refused: \(code) \(message)"
        case .protocolViolation(let what): "Redis broke the protocol: \(what)"
        case .overloaded: "too many commands are pending on the connection to Redis"
        }
    }
}

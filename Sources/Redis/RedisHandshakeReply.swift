/// Reads the replies of the handshake.
package enum RedisHandshakeReply {
    /// `run_id:` and 40 hexadecimal digits, a line of what `INFO server` answers.
    package static func runID(in info: RESPValue) -> String? {
        guard let text = info.string else { return nil }
        let lines = text.utf8.split { $0 == UInt8(ascii: "\r") || $0 == UInt8(ascii: "\n") }
        guard let line = lines.first(where: { $0.starts(with: "run_id:".utf8) }) else { return nil }
        let id = String(Substring(line.dropFirst("run_id:".utf8.count)))
        let isHexadecimal = id.utf8.allSatisfy {
            switch $0 {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): true
            default: false
            }
        }
        return id.utf8.count == 40 && isHexadecimal ? id : nil
    }

    /// Which step the server refused, in its words, and what an operator can do about it.
    package static func explain(_ error: RedisServerError, of step: RedisHandshakeStep) -> String {
        let command =
            switch step {
            case .authenticate: "AUTH"
            case .identify: "INFO server"
            case .select: "SELECT"
            case .setName: "CLIENT SETNAME"
            }
        let advice =
            switch (step, error.code) {
            case (_, "WRONGPASS"):
                " (check the user and the password in the Redis URL)"
            case (_, "NOAUTH"):
                " (the server wants a password: redis://user:password@host)"
            case (.authenticate, _):
                " (the Redis URL has a password; does the server want one?)"
            case (_, "NOPERM"):
                " (allow the Redis user this command: it is needed)"
            case (.select, _):
                " (check the database number at the end of the Redis URL)"
            default:
                ""
            }
        return "\(command) refused: \(error.text)\(advice)"
    }
}

import Domain
import JSON

/// An error before it is written: whoever it comes from, in whichever dialect it goes.
struct ErrorDescription: Hashable, Sendable {
    /// The answer's, which chooses Anthropic's type.
    var status: Int
    var message: String
    /// OpenAI's.
    var type: String
    var parameter: String?
    var code: String?

    init(status: Int, message: String, type: String, parameter: String?, code: String?) {
        self.status = status
        self.message = message
        self.type = type
        self.parameter = parameter
        self.code = code
    }

    init(_ failure: Failure) {
        self.init(
            status: ErrorEnvelope.status(of: failure.code), message: failure.message,
            type: ErrorEnvelope.type(of: failure.code), parameter: failure.parameter,
            code: ErrorEnvelope.code(of: failure.code))
    }

    func render(_ dialect: Dialect, requestID: String?) -> [UInt8] {
        var writer = JSONWriter(reservingCapacity: message.utf8.count + 160)
        writer.object {
            switch dialect {
            case .openAI, .responses:
                $0.key("error")
                $0.object(writeMembers)
            case .anthropic:
                $0.member("type", "error")
                $0.key("error")
                $0.object {
                    $0.member("type", anthropicType)
                    $0.member("message", message)
                }
                $0.member("request_id", requestID)
            }
        }
        return writer.bytes
    }

    /// `data:` and a blank line; with its name before it where the dialect names its events.
    func renderStreamEvent(_ dialect: Dialect, requestID: String?) -> [UInt8] {
        let json: [UInt8]
        switch dialect {
        case .openAI: return Array("data: ".utf8) + render(dialect, requestID: requestID) + Array("\n\n".utf8)
        case .anthropic: json = render(dialect, requestID: requestID)
        case .responses:
            // The event as OpenAI documents it, and the object by which its clients know that they should raise.
            var writer = JSONWriter(reservingCapacity: 2 * message.utf8.count + 240)
            writer.object {
                $0.member("type", "error")
                $0.member("code", code)
                $0.member("message", message)
                $0.member("param", parameter)
                $0.key("error")
                $0.object(writeMembers)
            }
            json = writer.bytes
        }
        return Array("event: error\ndata: ".utf8) + json + Array("\n\n".utf8)
    }

    private func writeMembers(_ writer: inout JSONWriter) {
        writer.member("message", message)
        writer.member("type", type)
        writer.member("param", parameter)
        writer.member("code", code)
    }

    /// The word of Anthropic's closed set that its clients expect with the status.
    private var anthropicType: String {
        switch status {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 429: code == "insufficient_quota" ? "billing_error" : "rate_limit_error"
        case 503: code == "upstream_unavailable" ? "api_error" : "overloaded_error"
        case 504: "timeout_error"
        case 500...: "api_error"
        default: "invalid_request_error"
        }
    }
}

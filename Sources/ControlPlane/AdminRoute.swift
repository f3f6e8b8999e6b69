import Billing
import Domain
import Gateway
import Hummingbird
import Logging
import NIOCore

/// What every route works with.
struct AdminServices: Sendable {
    let store: any OperatorStore
    let gateway: any GatewayControl
    let orgDefaults: OrgDefaults
    let logger: Logger

    /// One line for each mutation that was done: who, what, to which ids. Never a secret.
    func audit(_ action: String, _ ids: [String: String], who: String = "owner") {
        var metadata: Logger.Metadata = ["who": "\(who)", "action": "\(action)"]
        for (name, id) in ids { metadata[name] = "\(id)" }
        logger.notice("audit", metadata: metadata)
    }
}

/// One method of one path: what is served is this table, and `openapi/admin.yaml` describes exactly it.
package struct AdminRoute: Sendable {
    typealias Handler = @Sendable (AdminRequest, AdminServices) async throws -> AdminAnswer

    let method: HTTPRequest.Method
    /// As OpenAPI writes it: `/admin/v1/orgs/{org}`.
    package let path: String
    /// Query parameters; any other is refused.
    package let query: [String]
    let handler: Handler

    package var methodName: String { method.rawValue }

    init(_ method: HTTPRequest.Method, _ path: String, query: [String] = [], handler: @escaping Handler) {
        self.method = method
        self.path = path
        self.query = query
        self.handler = handler
    }

    package static let all: [AdminRoute] = health + orgs + ledger + keys + prices + nodes + sites

    /// Served without a token.
    package static let openPaths: Set<String> = ["/livez", "/readyz", "/metrics"]

    static func isOpen(path: String) -> Bool { openPaths.contains(path) }

    /// A model's name may hold slashes, so it is the rest of the path, encoded or not.
    private static let restOfPath = "{model}"

    /// The path in the router's syntax.
    var routerPath: RouterPath {
        RouterPath(path.hasSuffix(Self.restOfPath) ? String(path.dropLast(Self.restOfPath.count)) + "**" : path)
    }

    /// Names in the path, percent-decoded.
    func parameters(from captured: Parameters) throws(AdminFailure) -> [String: String] {
        var parameters: [String: String] = [:]
        for segment in path.split(separator: "/") where segment.first == "{" {
            let name = String(segment.dropFirst().dropLast())
            let raw =
                segment == Self.restOfPath ? captured.getCatchAll().joined(separator: "/") : captured.get(name) ?? ""
            guard let text = PercentEncoding.decode(raw) else {
                throw AdminFailure(.invalidRequest, "The path's percent-encoding is broken.")
            }
            parameters[name] = text
        }
        return parameters
    }

    /// - Throws: `invalid_request` for a parameter that is unknown or given twice.
    func query(from text: String?) throws(AdminFailure) -> [String: String] {
        var values: [String: String] = [:]
        for pair in (text ?? "").split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = PercentEncoding.decode(parts[0]),
                let value = PercentEncoding.decode(parts.count > 1 ? parts[1] : "")
            else { throw AdminFailure(.invalidRequest, "The query's percent-encoding is broken.") }
            guard query.contains(name) else {
                let known = query.isEmpty ? "this resource takes none" : "known are \(query.joined(separator: ", "))"
                throw AdminFailure(
                    .invalidRequest, "Unknown query parameter '\(RequestFields.printable(name))'; \(known).")
            }
            guard values.updateValue(value, forKey: name) == nil else {
                throw AdminFailure(.invalidRequest, "The query parameter '\(name)' is given twice.")
            }
        }
        return values
    }
}

extension AdminRoute {
    private static let health: [AdminRoute] = [
        AdminRoute(.get, "/livez") { _, _ in .json(StatusDocument(status: "live")) },
        AdminRoute(.get, "/readyz") { _, services in
            if let reason = await services.gateway.unreadiness() { throw AdminFailure(.notReady, reason) }
            return .json(StatusDocument(status: "ready"))
        },
        AdminRoute(.get, "/metrics") { _, services in
            .text(await services.gateway.metricsText(), contentType: "text/plain; version=0.0.4; charset=utf-8")
        },
    ]
}

/// RFC 3986's percent-encoding of one path segment or query value.
package enum PercentEncoding {
    /// Everything but letters, digits and `-._~` is encoded, slashes too.
    package static func encode(_ text: some StringProtocol) -> String {
        var encoded = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                encoded += digits.count == 1 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return encoded
    }

    /// - Returns: nil for `%` without two hexadecimal digits after it, and for bytes that are not UTF-8.
    package static func decode(_ text: some StringProtocol) -> String? {
        var bytes: [UInt8] = []
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(digit), let low = iterator.next().flatMap(digit) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

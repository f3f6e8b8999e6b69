#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The control plane as the command line calls it. Every call blocks, which a command may.
package struct AdminClient: Sendable {
    package static let defaultURL = "http://127.0.0.1:8081"

    package enum Method: String, Sendable {
        case get = "GET"
        case post = "POST"
        case put = "PUT"
        case patch = "PATCH"
        case delete = "DELETE"
    }

    private let baseURL: String
    private let token: String
    private let isLoopback: Bool

    /// Reads `TOLLGATE_ADMIN_URL` and `TOLLGATE_ADMIN_TOKEN`.
    package init(environment: [String: String]) throws(CommandFailure) {
        guard let token = environment["TOLLGATE_ADMIN_TOKEN"], !token.isEmpty else {
            throw CommandFailure(
                "TOLLGATE_ADMIN_TOKEN is not set; export the control plane's token (`admin.token` in its configuration)"
            )
        }
        let url = environment["TOLLGATE_ADMIN_URL"].flatMap { $0.isEmpty ? nil : $0 } ?? Self.defaultURL
        try self.init(url: url, token: token)
    }

    /// - Parameter url: `http://` or `https://`, a host, perhaps a port and a path before `/admin`.
    package init(url: String, token: String) throws(CommandFailure) {
        guard let host = Self.host(of: url) else {
            throw CommandFailure(
                "TOLLGATE_ADMIN_URL is not an address of the control plane; set it to one like \(Self.defaultURL)")
        }
        // A line break would end the header and begin another.
        guard token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw CommandFailure(
                "TOLLGATE_ADMIN_TOKEN holds a space, a line break or a character outside ASCII; copy it again")
        }
        var trimmed = url
        while trimmed.hasSuffix("/") { trimmed.removeLast() }
        baseURL = trimmed
        self.token = token
        isLoopback =
            host == "localhost" || host == "[::1]"
            || (host.hasPrefix("127.") && host.allSatisfy { $0.isNumber || $0 == "." })
    }

    /// - Parameters:
    ///   - path: Segments under `/admin/v1`, not encoded.
    ///   - query: nil values are left out.
    ///   - body: Members that are sent; nil for no body.
    package func call<Document: Decodable>(
        _ method: Method = .get, _ path: [String], query: KeyValuePairs<String, String?> = [:],
        body: [String: JSONValue]? = nil, as type: Document.Type = Document.self
    ) throws(CommandFailure) -> Document {
        var url = baseURL + "/admin/v1"
        for segment in path { url += "/" + PercentEncoding.encode(segment) }
        let pairs = query.compactMap { name, value in value.map { "\(name)=\(PercentEncoding.encode($0))" } }
        if !pairs.isEmpty { url += "?" + pairs.joined(separator: "&") }

        var headers = ["Authorization: Bearer \(token)", "Accept: application/json", "Expect:"]
        var bytes: [UInt8]?
        if method != .get {
            headers.append("Content-Type: application/json")
            guard let encoded = try? JSONEncoder().encode(body ?? [:]) else {
                throw CommandFailure("the request cannot be written as JSON; report this")
            }
            bytes = Array(encoded)
        }
        let transfer = CurlTransfer(
            method: method.rawValue, url: url, headers: headers, body: bytes, isDirect: isLoopback)
        switch transfer.perform() {
        case .failed(let reason):
            throw CommandFailure(
                "cannot reach the control plane at \(printableURL): \(reason); is `tollgate serve` running?")
        case .answered(let answer):
            return try decode(answer)
        }
    }

    private func decode<Document: Decodable>(_ answer: CurlTransfer.Answer) throws(CommandFailure) -> Document {
        let data = Data(answer.body)
        guard (200...299).contains(answer.status) else {
            if answer.status == 401 {
                throw CommandFailure(
                    "the control plane at \(printableURL) refuses the token; set TOLLGATE_ADMIN_TOKEN to its `admin.token`"
                )
            }
            if let refusal = try? JSONDecoder().decode(ErrorDocument.self, from: data) {
                throw CommandFailure(refusal.error.message)
            }
            throw CommandFailure("\(printableURL) answers \(answer.status); is TOLLGATE_ADMIN_URL the control plane?")
        }
        do {
            return try JSONDecoder().decode(Document.self, from: data)
        } catch {
            throw CommandFailure(
                "\(printableURL) answers what this tollgate does not understand; are both of one version?")
        }
    }

    /// The base URL without a user's name and password.
    private var printableURL: String {
        let parts = baseURL.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count >= 3, let at = parts[2].lastIndex(of: "@") else { return baseURL }
        let rest = parts.count > 3 ? "/\(parts[3])" : ""
        return "\(parts[0])//\(parts[2][parts[2].index(after: at)...])\(rest)"
    }

    private static func host(of url: String) -> String? {
        let lowered = url.lowercased()
        guard let scheme = ["http://", "https://"].first(where: lowered.hasPrefix),
            url.unicodeScalars.allSatisfy({ $0.isASCII && $0.value > 0x20 && $0.value != 0x7F }),
            !lowered.contains("?"), !lowered.contains("#")
        else { return nil }
        var authority = lowered.dropFirst(scheme.count).prefix { $0 != "/" }
        if let at = authority.lastIndex(of: "@") { authority = authority[authority.index(after: at)...] }
        let host =
            authority.first == "["
            ? authority.firstIndex(of: "]").map { authority[...$0] } ?? "" : authority.prefix { $0 != ":" }
        return host.isEmpty ? nil : String(host)
    }
}

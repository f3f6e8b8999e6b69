/// Which web pages may read answers: `cors.origins`. nil in the configuration where there are none, and then nothing of
/// this runs.
package struct CORSPolicy: Hashable, Sendable {
    package static let originsMax = 256
    /// What a page may read of an answer besides the few fields that it always may.
    private static let exposed = [
        "x-request-id", "openai-processing-ms", "retry-after", "retry-after-ms", "x-should-retry",
        "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
        "x-tollgate-fallback", "x-tollgate-clamped", "x-tollgate-routing", "request-id",
    ].joined(separator: ", ")
    /// How long a browser may keep a preflight's answer, in seconds; Chrome keeps none longer.
    private static let preflightSeconds = "7200"
    /// The list of fields that a page wants to send is given back, if it is a list of names within this.
    private static let requestHeadersBytesMax = 2_048

    private let origins: Set<String>
    /// `*`: any page. Keys travel in a header that the page sets itself, never in cookies.
    private let isAny: Bool
    private let anyHeaders: [(name: String, value: String)]

    package init(origins: [String]) {
        isAny = origins.contains("*")
        self.origins = Set(origins.filter { $0 != "*" })
        anyHeaders = [
            ("access-control-allow-origin", "*"), ("access-control-expose-headers", Self.exposed),
        ]
    }

    /// What every answer to `origin` says; others, and who is none, are told only that the answer depends on it.
    package func headers(origin: String?) -> [(name: String, value: String)] {
        if isAny { return origin == nil ? [] : anyHeaders }
        guard let origin, origins.contains(origin) else { return [("vary", "origin")] }
        return [
            ("access-control-allow-origin", origin), ("vary", "origin"),
            ("access-control-expose-headers", Self.exposed),
        ]
    }

    /// What the answer to a preflight says besides ``headers(origin:)``.
    ///
    /// - Parameters:
    ///   - methods: What the route takes.
    ///   - requested: `Access-Control-Request-Headers`.
    package func preflightHeaders(
        origin: String, methods: String, requested: String?
    ) -> [(name: String, value: String)] {
        guard isAny || origins.contains(origin) else { return [] }
        var headers = [
            (name: "access-control-allow-methods", value: methods),
            (name: "access-control-max-age", value: Self.preflightSeconds),
        ]
        if let requested, requested.utf8.count <= Self.requestHeadersBytesMax, Self.isNameList(requested) {
            headers.append(("access-control-allow-headers", requested))
        }
        return headers
    }

    private static func isNameList(_ text: String) -> Bool {
        !text.isEmpty
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ","),
                    UInt8(ascii: " "):
                    true
                default: false
                }
            }
    }

    package static func == (left: Self, right: Self) -> Bool {
        left.origins == right.origins && left.isAny == right.isAny
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(origins)
        hasher.combine(isAny)
    }
}

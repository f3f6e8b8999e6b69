import CCurl

/// One blocking HTTP exchange over libcurl: proxies from the environment, `~/.netrc` and TLS as curl's users expect.
///
/// Follows no redirects: a token must not go where an answer points.
struct CurlTransfer {
    struct Answer {
        var status: Int
        var body: [UInt8]
    }

    enum Outcome {
        case answered(Answer)
        /// No answer, and curl's words for it.
        case failed(String)
    }

    /// Longest answer that is read, in bytes: a page of a ledger takes about 400 kB.
    static let answerBytesMax = 64 << 20
    static let connectTimeoutMilliseconds = 5_000
    /// Verifying a long ledger is the slowest thing there is.
    static let timeoutMilliseconds = 120_000

    var method: String
    var url: String
    var headers: [String]
    var body: [UInt8]?
    /// Skips proxies: for loopback, where a proxy could only learn the token.
    var isDirect: Bool

    private static let isInitialised: Bool = tollgate_curl_global_init() == CURLE_OK

    /// Blocks the calling thread until the answer is complete or a timeout passes.
    func perform() -> Outcome {
        guard Self.isInitialised, let handle = curl_easy_init() else { return .failed("libcurl cannot start") }
        defer { curl_easy_cleanup(handle) }

        // SAFETY: `words`, `list` and `received` outlive curl_easy_perform, the only call that uses them, and are
        // released once, when this function returns. Defers run last to first, so before the handle is closed nothing
        // uses them any more.
        let words = UnsafeMutablePointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
        words.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        defer { words.deallocate() }
        var list: UnsafeMutablePointer<curl_slist>?
        for header in headers { list = curl_slist_append(list, header) ?? list }
        defer { curl_slist_free_all(list) }
        let received = Received()

        var code = CURLE_OK
        func set(_ result: CURLcode) { if code == CURLE_OK { code = result } }
        func set(_ option: CURLoption, _ value: Int) { set(tollgate_curl_setopt_long(handle, option, value)) }
        // curl copies strings.
        func set(_ option: CURLoption, _ value: String) { set(tollgate_curl_setopt_pointer(handle, option, value)) }

        set(tollgate_curl_setopt_pointer(handle, CURLOPT_ERRORBUFFER, words))
        set(CURLOPT_URL, url)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        set(CURLOPT_NOSIGNAL, 1)
        set(CURLOPT_NETRC, Int(CURL_NETRC_OPTIONAL.rawValue))
        set(CURLOPT_CONNECTTIMEOUT_MS, Self.connectTimeoutMilliseconds)
        set(CURLOPT_TIMEOUT_MS, Self.timeoutMilliseconds)
        set(CURLOPT_USERAGENT, "tollgate")
        if isDirect { set(CURLOPT_PROXY, "") }
        if let body {
            set(body.withUnsafeBytes { tollgate_curl_setopt_body(handle, $0.baseAddress ?? .init(words), $0.count) })
        }
        set(CURLOPT_CUSTOMREQUEST, method)
        set(tollgate_curl_setopt_pointer(handle, CURLOPT_HTTPHEADER, list))
        set(tollgate_curl_setopt_write(handle, Received.append, Unmanaged.passUnretained(received).toOpaque()))
        if code == CURLE_OK { code = curl_easy_perform(handle) }
        withExtendedLifetime(received) {}

        guard code == CURLE_OK else {
            if received.isTooLong { return .failed("the answer is longer than \(Self.answerBytesMax) bytes") }
            let detail = String(cString: words)
            return .failed(detail.isEmpty ? String(cString: curl_easy_strerror(code)) : detail)
        }
        var status = 0
        _ = tollgate_curl_getinfo_long(handle, CURLINFO_RESPONSE_CODE, &status)
        return .answered(Answer(status: status, body: received.bytes))
    }

    /// Gathers the body as curl delivers it, on the calling thread.
    private final class Received {
        var bytes: [UInt8] = []
        var isTooLong = false

        /// Returning fewer bytes than were given makes curl stop.
        static let append: tollgate_curl_write = { chunk, size, count, context in
            guard let chunk, let context else { return 0 }
            // SAFETY: `context` is the object that perform() keeps alive for the transfer; curl calls back on the same
            // thread, and `chunk` holds size * count bytes during this call.
            let received = Unmanaged<Received>.fromOpaque(context).takeUnretainedValue()
            let total = size * count
            guard received.bytes.count + total <= CurlTransfer.answerBytesMax else {
                received.isTooLong = true
                return 0
            }
            received.bytes.append(contentsOf: UnsafeRawBufferPointer(start: chunk, count: total))
            return total
        }
    }
}

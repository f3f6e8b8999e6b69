import Domain
import JSON

/// The one place that turns a ``Failure`` into what a client sees: status, headers, OpenAI's error object.
package enum ErrorEnvelope {
    /// The node SDK ignores longer waits and hammers instead.
    package static let retryAfterMillisecondsMax: Int64 = 60_000

    /// - Parameter upstream: For `.upstreamRejected`, the status that the node gave.
    package static func status(of code: Failure.Code, upstream: Int? = nil) -> Int {
        switch code {
        case .malformedRequest, .invalidJSON, .invalidRequest, .contextLengthExceeded: 400
        case .missingKey, .invalidKey: 401
        case .orgSuspended: 403
        case .routeNotFound, .modelNotFound: 404
        case .methodNotAllowed: 405
        case .requestTimeout: 408
        case .lengthRequired: 411
        case .bodyTooLarge: 413
        case .unsupportedMediaType: 415
        case .failedKeyLimit, .requestTooLargeForLimit, .rateLimitRequests, .rateLimitTokens, .rateLimitConcurrency,
            .insufficientQuota, .saturated:
            429
        case .headersTooLarge: 431
        case .clientClosed: 499
        case .internalError: 500
        case .upstreamRejected: upstream ?? 400
        case .upstreamInvalid: 502
        case .keyStoreUnavailable, .overloadedBuffers, .storeUnavailable, .journalUnavailable, .draining, .noCapacity,
            .upstreamUnavailable:
            503
        case .upstreamTimeout: 504
        }
    }

    /// OpenAI's `error.type`.
    package static func type(of code: Failure.Code) -> String {
        switch code {
        case .malformedRequest, .routeNotFound, .methodNotAllowed, .headersTooLarge, .lengthRequired,
            .unsupportedMediaType, .missingKey, .invalidKey, .bodyTooLarge, .requestTimeout, .invalidJSON,
            .invalidRequest, .modelNotFound, .contextLengthExceeded, .upstreamRejected, .clientClosed:
            "invalid_request_error"
        case .orgSuspended: "permission_error"
        case .requestTooLargeForLimit, .rateLimitTokens: "tokens"
        case .failedKeyLimit, .rateLimitRequests, .rateLimitConcurrency: "requests"
        case .insufficientQuota: "insufficient_quota"
        case .keyStoreUnavailable, .overloadedBuffers, .storeUnavailable, .journalUnavailable, .draining, .saturated,
            .noCapacity, .upstreamInvalid, .upstreamUnavailable, .upstreamTimeout, .internalError:
            "server_error"
        }
    }

    /// OpenAI's `error.code`: what programs look at.
    package static func code(of code: Failure.Code) -> String {
        switch code {
        case .malformedRequest: "malformed_request"
        case .routeNotFound: "unknown_url"
        case .methodNotAllowed: "method_not_allowed"
        case .headersTooLarge: "headers_too_large"
        case .lengthRequired: "length_required"
        case .unsupportedMediaType: "unsupported_media_type"
        case .missingKey: "missing_api_key"
        case .invalidKey: "invalid_api_key"
        case .keyStoreUnavailable, .storeUnavailable, .journalUnavailable: "store_unavailable"
        case .orgSuspended: "org_suspended"
        case .bodyTooLarge: "request_too_large"
        case .requestTimeout: "request_timeout"
        case .overloadedBuffers, .saturated, .noCapacity: "overloaded"
        case .invalidJSON: "invalid_json"
        case .invalidRequest: "invalid_request"
        case .modelNotFound: "model_not_found"
        case .contextLengthExceeded: "context_length_exceeded"
        case .failedKeyLimit, .requestTooLargeForLimit, .rateLimitRequests, .rateLimitTokens, .rateLimitConcurrency:
            "rate_limit_exceeded"
        case .insufficientQuota: "insufficient_quota"
        case .draining: "shutting_down"
        case .upstreamRejected: "upstream_rejected"
        case .upstreamInvalid: "upstream_invalid_response"
        case .upstreamUnavailable: "upstream_unavailable"
        case .upstreamTimeout: "upstream_timeout"
        case .clientClosed: "client_closed_request"
        case .internalError: "internal_error"
        }
    }

    /// `{"error":{"message":...,"type":...,"param":...,"code":...}}`, or as the endpoint's dialect has it.
    ///
    /// - Parameter requestID: Anthropic's errors carry it.
    package static func render(_ failure: Failure, dialect: Dialect = .openAI, requestID: String? = nil) -> [UInt8] {
        ErrorDescription(failure).render(dialect, requestID: requestID)
    }

    /// The same as an event of a stream.
    package static func renderStreamEvent(
        _ failure: Failure, dialect: Dialect = .openAI, requestID: String? = nil
    ) -> [UInt8] {
        ErrorDescription(failure).renderStreamEvent(dialect, requestID: requestID)
    }

    /// The headers that say whether to try again.
    package static func headers(for failure: Failure) -> [(name: String, value: String)] {
        switch failure.retry {
        case .never: return [("x-should-retry", "false")]
        case .after(let milliseconds):
            let wait = min(max(milliseconds, 0), retryAfterMillisecondsMax)
            return [("retry-after-ms", "\(wait)"), ("retry-after", "\((wait + 999) / 1_000)")]
        case .otherNode, .unsaid: return []
        }
    }
}

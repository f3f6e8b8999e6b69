/// Why a request ended without the answer that was asked for.
///
/// `OpenAIProtocol/ErrorEnvelope.swift` is the one place that maps a code to an HTTP status and OpenAI's `type`.
package struct Failure: Error, Hashable, Sendable {
    /// In order of precedence: where two apply, the earlier one is answered, always.
    package enum Code: Int, Hashable, Sendable, CaseIterable, Comparable {
        case malformedRequest
        case routeNotFound
        case methodNotAllowed
        case headersTooLarge
        case lengthRequired
        case unsupportedMediaType
        case missingKey
        case invalidKey
        case failedKeyLimit
        case keyStoreUnavailable
        case orgSuspended
        case bodyTooLarge
        case requestTimeout
        case overloadedBuffers
        case invalidJSON
        case invalidRequest
        case modelNotFound
        case contextLengthExceeded
        case requestTooLargeForLimit
        case rateLimitRequests
        case rateLimitTokens
        case rateLimitConcurrency
        case insufficientQuota
        case storeUnavailable
        case journalUnavailable
        case draining
        case saturated
        case noCapacity
        case upstreamRejected
        case upstreamInvalid
        case upstreamUnavailable
        case upstreamTimeout
        case clientClosed
        case internalError

        package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    /// Whose fault it is.
    package enum Source: Hashable, Sendable {
        case downstream, gateway, upstream, store
    }

    /// Whether trying again can help.
    package enum Retry: Hashable, Sendable {
        /// The same request will fail again: `x-should-retry: false`.
        case never
        /// The gateway itself may try another node, before the first byte.
        case otherNode
        /// After this many milliseconds; said to the client as `retry-after-ms` and `Retry-After`.
        case after(milliseconds: Int64)
        /// Nothing is said: the client's own policy decides.
        case unsaid
    }

    package var code: Code
    /// For people: what is wrong and what to change. Never a prompt, a secret or a node's address.
    package var message: String
    /// The request's field at fault, as OpenAI's `param`.
    package var parameter: String?
    package var source: Source
    package var retry: Retry

    package init(
        _ code: Code, _ message: String, parameter: String? = nil, source: Source = .downstream, retry: Retry = .unsaid
    ) {
        self.code = code
        self.message = message
        self.parameter = parameter
        self.source = source
        self.retry = retry
    }
}

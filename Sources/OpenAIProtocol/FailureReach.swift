import Domain

extension Endpoint {
    /// Whether an answer of this endpoint can say this: what `openapi.yaml` describes, tested, and what is asserted of
    /// every answer in debug builds.
    ///
    /// A request whose path or method is no endpoint's is not asked about here.
    package func canEnd(with code: Failure.Code) -> Bool {
        switch code {
        // Of any head, any body that is read and any connection.
        case .malformedRequest, .methodNotAllowed, .headersTooLarge, .requestTimeout, .bodyTooLarge,
            .unsupportedMediaType, .draining, .internalError:
            true
        // No endpoint has been found; nobody is there to read it.
        case .routeNotFound, .clientClosed: false
        case .lengthRequired: descriptor.method == "POST"
        case .missingKey, .invalidKey, .failedKeyLimit, .keyStoreUnavailable, .orgSuspended: !descriptor.isPublic
        case .modelNotFound, .noCapacity: isInference || descriptor.takesArgument
        case .overloadedBuffers, .invalidJSON, .invalidRequest, .requestTooLargeForLimit, .rateLimitRequests,
            .rateLimitTokens, .rateLimitConcurrency, .insufficientQuota, .storeUnavailable, .upstreamRejected,
            .upstreamInvalid, .upstreamUnavailable, .upstreamTimeout, .saturated:
            isInference
        case .contextLengthExceeded, .journalUnavailable: isInference && descriptor.isCharged
        }
    }
}

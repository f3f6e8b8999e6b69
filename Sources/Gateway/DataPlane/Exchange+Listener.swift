import Domain
import OpenAIProtocol

// What depends on who asks: web pages of other origins, and addresses whose keys fail.
extension Exchange {
    // MARK: CORS

    /// Whether a browser asks for leave, and pages of other origins are let in at all.
    func isPreflight(_ head: IncomingHead) -> Bool {
        guard head.preflightMethod != nil, head.method == "OPTIONS", head.origin != nil,
            snapshot.configuration.listener.cors != nil, case .methodNotAllowed = head.route
        else { return false }
        return true
    }

    func preflightHead() -> AnswerHead? {
        guard let incoming, isPreflight(incoming), let origin = incoming.origin,
            let cors = snapshot.configuration.listener.cors, case .methodNotAllowed(_, let methods) = incoming.route
        else { return nil }
        answerStatus = 204
        var head = answerHead(status: 204, contentType: "")
        head.extra += cors.preflightHeaders(
            origin: origin, methods: methods, requested: incoming.preflightHeaders)
        return head
    }

    func addCORS(to head: inout AnswerHead) {
        guard let cors = snapshot.configuration.listener.cors else { return }
        head.extra += cors.headers(origin: incoming?.origin)
    }

    // MARK: Failed keys

    /// Why this request's key is not looked at: too many of its address have failed.
    var failedKeyLimit: Failure? {
        guard let limit = snapshot.configuration.listener.failedKeys, let address = IPAddress(clientAddress),
            let wait = loop.services.failedKeys.withLock({
                $0.wait(for: address, limit: limit, now: MonotonicTime.now())
            })
        else { return nil }
        return Failure(
            .failedKeyLimit,
            "Too many requests without a valid API key came from your address. Check the key, and retry in \(wait) ms.",
            retry: .after(milliseconds: wait))
    }

    func keyFailed(_ failure: Failure) {
        if failure.code == .missingKey || failure.code == .invalidKey,
            let limit = snapshot.configuration.listener.failedKeys, let address = IPAddress(clientAddress)
        {
            loop.services.failedKeys.withLock { $0.failed(address, limit: limit, now: MonotonicTime.now()) }
        }
        perform(machine.refused(failure))
    }
}

import Billing
import Domain
import NIOCore
import OpenAIProtocol
import Routing

// From the head to the node: route, key, body, model, hold, node.
extension Exchange {
    // MARK: Route and key

    func routeFailure(_ head: IncomingHead) -> Failure? {
        switch head.route {
        case .found(let found, let argument):
            endpoint = found
            endpointArgument = argument
            return nil
        case .notFound:
            return Failure(
                .routeNotFound,
                "There is no such endpoint. Check the path: base_url ends in /v1, and paths have no trailing slash.")
        case .methodNotAllowed(_, let allow):
            return Failure(.methodNotAllowed, "This endpoint takes \(allow) only.", parameter: nil)
        }
    }

    func authenticate(_ head: IncomingHead) {
        switch loop.keys.authenticate(authorization: head.authorization) {
        case .authenticated(let record): keyFound(record)
        case .invalid(let failure): keyFailed(failedKeyLimit ?? failure)
        case .lookup(let pending):
            if let failure = failedKeyLimit, !loop.keys.wasVouched(pending) { return keyFailed(failure) }
            // The body is read meanwhile; the client may leave meanwhile too, and then nobody waits for the answer.
            loop.keys.lookup(pending) { [weak self] result in
                guard let self, !self.machine.isFinished else { return }
                switch result {
                case .success(let record): self.keyFound(record)
                case .failure(let failure): self.keyFailed(failure)
                }
            }
        }
    }

    private func keyFound(_ record: KeyRecord) {
        key = record
        if record.rights.isOrgSuspended { return refuseRequest(Failure(Refusal.orgSuspended)) }
        if let length = incoming?.contentLength, length > snapshot.limits.bodyBytes, endpoint?.isInference == true {
            return refuseRequest(bodyTooLarge)
        }
        if incoming?.expectsContinue == true, bodyBytes == 0, !isBodyComplete { writer.writeContinue() }
        perform(machine.keyAuthenticated())
    }

    // MARK: Body, model, hold

    func prepare() {
        guard let endpoint, endpoint.isInference else { return answerLocally() }
        do throws(Failure) {
            try scan(endpoint)
            perform(machine.prepared())
        } catch {
            refuseRequest(error)
        }
    }

    /// Refuses what is wrong with the request itself. The store was not asked for anything yet, so it is asked for the
    /// rates that every answer to a known key tells.
    func refuseRequest(_ failure: Failure) {
        perform(machine.refused(failure, tellsRates: key != nil && rates == nil && endpoint?.isInference == true))
    }

    func readRates() {
        guard let key else { return perform(machine.ratesRead()) }
        // No node will have it: others may use its room meanwhile.
        releaseBody()
        // The client may leave meanwhile, and then nobody waits for the answer.
        loop.transport.readRates(of: key.id, org: key.org) { [weak self] rates in
            guard let self, !self.machine.isFinished else { return }
            self.rates = rates
            self.perform(self.machine.ratesRead())
        }
    }

    private func scan(_ endpoint: Endpoint) throws(Failure) {
        let scanned = try body.withUnsafeReadableBytes { bytes in
            Result { () throws(Failure) in try scanRequest(bytes, endpoint: endpoint) }
        }.get()
        try chooseModel(scanned)
    }

    /// The true upper bounds that the hold stands on.
    func bound(_ scanned: ScannedRequest, _ model: ModelEntry) throws(Failure) {
        (maxTokens, completionTokensMax) = (nil, 0)
        guard scanned.endpoint.isCharged else {
            (promptTokensMax, promptTokensEstimate, promptCount) = (0, 0, nil)
            return
        }
        let count = countPrompt(scanned, model)
        promptCount = count
        let bodyBytes = scanned.bodyBytes + (scanned.endpoint.generates ? model.defaultsBytes : 0)
        promptTokensMax = PromptEstimate.promptTokensMax(
            bodyBytes: bodyBytes, parts: scanned.contentParts, repeatedBytes: scanned.repeatedBytes,
            templateTokensMax: model.configuration.templateTokensMax,
            imageTokensMax: model.configuration.imageTokensMax)
        // A token for each byte, but for the texts that were counted.
        if let count { promptTokensMax += count.textTokens - count.textBytes }
        promptTokensEstimate = min(promptEstimate(scanned, model, count), promptTokensMax)
        let promptMin = max(1, scanned.promptTokensMin, certainTokens(scanned, count))
        guard scanned.endpoint.generates else {
            guard let context = model.configuration.contextTokens, promptMin > context else { return }
            throw Failure(
                .contextLengthExceeded,
                "This model's maximum context length is \(context) tokens, but an input has \(promptMin). Shorten it.",
                parameter: scanned.endpoint.descriptor.prompt[0].rawValue)
        }
        let each = scanned.maxTokens ?? completionTokensDefault(scanned, model)
        maxTokens = each
        // Where only bounds are known the node judges; what is refused here could not fit whatever its template.
        if let context = model.configuration.contextTokens, each > context - min(context, promptMin) {
            let limit = scanned.endpoint.descriptor.limits[0].rawValue
            throw Failure(
                .contextLengthExceeded,
                "This model's maximum context length is \(context) tokens, but \(each) were asked for beside a prompt of at least \(promptMin). Lower \(limit), or shorten the prompt.",
                parameter: scanned.maxTokens == nil ? scanned.endpoint.descriptor.prompt[0].rawValue : limit)
        }
        let (all, overflow) = each.multipliedReportingOverflow(by: scanned.choices)
        guard !overflow else { throw tooManyTokens }
        completionTokensMax = all
    }

    private func completionTokensDefault(_ scanned: ScannedRequest, _ model: ModelEntry) -> Int {
        let configuration = model.configuration
        guard promptCount != nil else {
            return PromptEstimate.completionTokensDefault(
                maxOutputTokens: configuration.maxOutputTokens, contextTokens: configuration.contextTokens,
                bodyBytes: scanned.bodyBytes, promptTokensMax: promptTokensMax)
        }
        return PromptEstimate.completionTokensDefault(
            maxOutputTokens: configuration.maxOutputTokens, contextTokens: configuration.contextTokens,
            promptTokensMax: promptTokensMax, likelyTokens: promptTokensEstimate + configuration.templateTokensMax)
    }

    private var tooManyTokens: Failure {
        Failure(
            .invalidRequest, "The request could cost more than any balance. Lower max_tokens or n.",
            parameter: "max_tokens")
    }

    func reserve() {
        guard let key, let price else { return }
        guard let amount = try? price.hold(promptTokensMax: promptTokensMax, completionTokensMax: completionTokensMax)
        else { return refuseRequest(tooManyTokens) }
        reserveStartedAt = MonotonicTime.now()
        let admission = Admission(key: key.id, hold: amount, tokens: promptTokensEstimate + completionTokensMax)
        ticket = loop.services.spending.admit(
            admission, org: key.org, requestID: requestID, on: loop.transport
        ) { [self] outcome in
            admissionAnswered(outcome)
        }
    }

    private func admissionAnswered(_ outcome: AdmissionOutcome) {
        ticket = nil
        if let reserveStartedAt { queueNanoseconds = MonotonicTime.now().nanoseconds(since: reserveStartedAt) }
        switch outcome {
        case .granted(let hold):
            self.hold = hold
            rates = hold.rates
            perform(machine.holdGranted())
        case .refused(let refusal, let rates):
            self.rates = rates
            if case .keyInvalid = refusal, let key { loop.keys.forget(key.id) }
            perform(machine.refused(Failure(refusal)))
        case .unavailable:
            perform(
                machine.refused(
                    Failure(
                        .storeUnavailable, "The gateway cannot reach its ledger at the moment. Please retry.",
                        source: .store, retry: .after(milliseconds: 1_000))))
        }
    }

    // MARK: Node

    func route() {
        guard let model, let scanned, let key else { return }
        guard mayAttempt else { return fallBack(or: failure ?? Failure(RoutingRefusal.allUnhealthy)) }
        let now = MonotonicTime.now()
        let request = routingRequest(scanned, model, key.org)
        follow(
            loop.services.router.admit(
                request, blocks: loop.promptBlocks, asking: admissionRequest(key, now: now), seat: seat,
                waiter: { AdmissionWaiter(self) }, now: now))
    }

    /// The router has placed the request on a node.
    func dispatch(_ assignment: Assignment) {
        guard let model else { return }
        // A node that joined after this request's snapshot was taken is left to younger requests.
        guard let id = snapshot.fleet.node(assignment), let node = snapshot.nodes[id],
            let pool = loop.pool(of: id), let name = node.names[model.id]
        else {
            loop.services.router.finished(assignment, outcome: .aborted, now: MonotonicTime.now())
            tried.insert(assignment.nodeIndex, generation: assignment.generation)
            if tried.count < NodeSet.capacity { return route() }
            return perform(machine.refused(Failure(RoutingRefusal.allUnhealthy)))
        }
        self.assignment = assignment
        self.node = node
        tried.insert(assignment.nodeIndex, generation: assignment.generation)
        explain(assignment)
        dispatch(to: node, pool: pool, modelName: name)
    }

    private func dispatch(to node: NodeEntry, pool: UpstreamPool, modelName: String) {
        guard let scanned, let endpoint, let key else { return }
        var salt: String?
        if endpoint.generates, node.engine == .vllm || node.engine == .sglang {
            salt = loop.cacheSalt(of: key.org)
            guard salt != nil else {
                finishAssignment(.aborted)
                return perform(
                    machine.refused(
                        Failure(.internalError, "The gateway met an internal error. Please retry.", source: .gateway)))
            }
        }
        var plan = PatchPlan(
            upstreamModel: modelName, maxTokens: endpoint.generates ? maxTokens : nil, forceStreamUsage: scanned.stream,
            cacheSalt: salt, engine: node.engine)
        addModelFields(to: &plan, endpoint: endpoint)
        let patched = body.applying(scanned.edits(for: plan, endpoint: endpoint))
        let head = node.requestHead(
            endpoint: endpoint, contentLength: patched.readableBytes, requestID: requestIDText, trace: trace,
            tracestate: passableTracestate, allocator: ByteBufferAllocator())
        resetAnswer()
        if machine.attempts > 0 { loop.metrics.count(.upstreamNodeRetries) } else { loop.retryBudget.requestArrived() }
        perform(machine.dispatched())
        let now = MonotonicTime.now()
        dispatchedAt = now
        if let model { arm(.firstByte, after: model.firstByteNanoseconds, from: now) }
        call = pool.dispatch(UpstreamRequest(head: head, body: patched, connectTimeout: model?.connect), delegate: self)
    }

    private var passableTracestate: String? {
        incoming?.tracestate.flatMap { TraceContext.isPassable(tracestate: $0) ? $0 : nil }
    }

    private func resetAnswer() {
        upstreamHead = nil
        failure = nil
        heldAnswer.clear()
        firstTokenAt = nil
    }
}

extension ByteBuffer {
    /// A copy with the edits applied; the buffer itself where there are none.
    func applying(_ edits: [BodyEdit]) -> ByteBuffer {
        guard !edits.isEmpty else { return self }
        var result = ByteBufferAllocator().buffer(capacity: readableBytes + Swift.max(0, edits.growth))
        withUnsafeReadableBytes { result.writeApplying(edits, to: $0) }
        return result
    }
}

extension Failure {
    static func unserved(_ endpoint: Endpoint, _ model: ModelID) -> Failure {
        Failure(
            .modelNotFound,
            "The model '\(model)' does not serve \(endpoint.path). Use another model, or an endpoint that it serves.",
            parameter: "model")
    }

    static func unknownModel(_ name: String) -> Failure {
        Failure(
            .modelNotFound,
            "The model '\(name.prefix(64))' does not exist or you do not have access to it. GET /v1/models lists what does.",
            parameter: "model")
    }

    /// What a refused admission says to the client.
    init(_ refusal: Refusal) {
        switch refusal {
        case .keyInvalid:
            self.init(.invalidKey, "The API key is not valid: it was revoked. Use another one.", retry: .never)
        case .orgSuspended:
            self.init(.orgSuspended, "This organization is suspended. Contact your provider.", retry: .never)
        case .largerThanLimit(let tokens, let limit):
            self.init(
                .requestTooLargeForLimit,
                "This request counts \(tokens) tokens, but the limit is \(limit) tokens a minute. Shorten the prompt or lower max_tokens.",
                retry: .never)
        case .requestsPerMinute(let limit, let wait):
            self.init(
                .rateLimitRequests, "Rate limit reached: \(limit) requests a minute. Retry in \(wait) ms.",
                retry: .after(milliseconds: wait))
        case .tokensPerMinute(let limit, let wait):
            self.init(
                .rateLimitTokens, "Rate limit reached: \(limit) tokens a minute. Retry in \(wait) ms.",
                retry: .after(milliseconds: wait))
        case .concurrency(let limit):
            self.init(
                .rateLimitConcurrency,
                "\(limit) requests are running already, which is the limit. Wait for one to end.",
                retry: .after(milliseconds: 1_000))
        case .balance(mayComeBack: true):
            self.init(
                .insufficientQuota,
                "What is left of the balance is set aside for requests that are running. Retry when they have ended.",
                retry: .after(milliseconds: 1_000))
        case .balance(mayComeBack: false):
            self.init(
                .insufficientQuota,
                "You exceeded your current quota: the balance cannot carry this request. Add credit, or lower max_tokens.",
                retry: .never)
        }
    }

    /// - Parameter region: Where the request must stay; nil is anywhere.
    init(_ refusal: RoutingRefusal, model: ModelID? = nil, region: String? = nil) {
        switch refusal {
        case .regionNotServed:
            self.init(
                .modelNotFound,
                "The model '\(model?.rawValue ?? "")' is not served in the region '\(region ?? "")', to which this key or its organization is pinned. Use another model, or ask your provider.",
                parameter: "model", source: .gateway, retry: .never)
        case .allAtConcurrency:
            self.init(
                .saturated, "All nodes that serve this model are busy. Please retry.", source: .gateway,
                retry: .after(milliseconds: 1_000))
        case .modelNotServed, .allUnhealthy, .allCordoned:
            self.init(
                .noCapacity,
                "No node that serves this model\(region.map { " in the region '\($0)'" } ?? "") is available at the moment. Please retry.",
                source: .gateway, retry: .after(milliseconds: 2_000))
        }
    }
}

import Domain
import NIOCore
import OpenAIProtocol
import Routing

// From the node's first byte to its last.
extension Exchange: UpstreamDelegate {
    package func upstreamStarted() {
        perform(machine.requestWritten())
        guard let assignment else { return }
        loop.services.router.started(assignment, now: MonotonicTime.now())
    }

    package func upstreamHead(_ head: UpstreamResponseHead) {
        guard !machine.isFinished else { return }
        upstreamHead = head
        if !awaitsFirstEvent { firstByteArrived() }
    }

    /// Engines send a stream's head before they begin to work: until its first byte of body another node may still be
    /// tried, and `first_byte` runs on.
    private var awaitsFirstEvent: Bool {
        guard machine.state == .awaiting, scanned?.stream == true, let head = upstreamHead else { return false }
        return head.status == 200 && head.contentType == .eventStream
    }

    private func firstByteArrived() {
        disarm(.firstByte)
        if let model { arm(.streamIdle, after: model.streamIdleNanoseconds) }
    }

    package func upstreamBody(_ bytes: ByteBuffer) {
        guard !machine.isFinished, let head = upstreamHead else { return }
        if machine.state == .awaiting, awaitsFirstEvent {
            firstByteArrived()
            perform(machine.answerBegan(.eventStream))
        }
        switch machine.state {
        case .finished: break
        case .answering(.eventStream): relayEvents(bytes)
        case .answering(.largeBody):
            largeAnswer?.passed(bytes)
            guard largeAnswer?.isOverrun == false else { return stopOverrun() }
            writer.writeStream(bytes)
        default:
            let bound = head.status == 200 ? Self.heldAnswerBytesMax : Self.errorAnswerBytesMax
            if heldAnswer.readableBytes == 0 { heldAnswer = bytes } else { heldAnswer.writeImmutableBuffer(bytes) }
            guard heldAnswer.readableBytes > bound else { return }
            if head.status == 200 {
                perform(machine.answerBegan(.largeBody))
            } else {
                // Enough to word the error; the rest of it is of no use.
                call?.cancel()
                call = nil
                answerWhole(head)
            }
        }
    }

    package func upstreamReadComplete() {
        guard !machine.isFinished else { return }
        lastReadAt = MonotonicTime.now()
        if hasWritten {
            hasWritten = false
            lastWriteAt = lastReadAt
        }
        guard case .answering = machine.state else { return }
        writer.flushStream()
        if !isReadingPaused, !writer.isWritable { pauseNode() }
    }

    package func upstreamEnd() {
        call = nil
        disarm(.upstreamEnd)
        guard !machine.isFinished, let head = upstreamHead else { return }
        switch machine.state {
        case .answering(.eventStream):
            interrupt("The model's stream ended before it was complete. Please retry.", .upstreamInvalid)
        case .answering(.largeBody):
            if let largeAnswer { reported = largeAnswer.usage }
            perform(machine.answerCompleted())
        default: answerWhole(head)
        }
    }

    package func upstreamFailed(_ failure: UpstreamFailure) {
        call = nil
        disarm(.upstreamEnd)
        guard !machine.isFinished else { return }
        if case .answering = machine.state {
            return interrupt("The connection to the model was lost. Please retry.", .upstreamUnavailable)
        }
        noteTLSFailure(failure)
        let code: Failure.Code
        let message: String
        switch failure {
        case .malformedResponse, .headTooLarge:
            code = .upstreamInvalid
            message = "The model server gave an answer that is not HTTP. Please retry."
        case .closedBeforeResponse, .closedMidResponse:
            code = .upstreamInvalid
            message = "The model server closed the connection before it answered. Please retry."
        case .connectTimedOut, .connectFailed, .tlsFailed, .noAddress, .poolExhausted, .poolClosed:
            code = .upstreamUnavailable
            message = "No model server could be reached. Please retry."
        }
        attemptFailed(Failure(code, message, source: .upstream, retry: .otherNode))
    }

    // MARK: Attempts

    /// A node whose certificate is wrong is the operator's to mend: the probe says so once, this for each request.
    private func noteTLSFailure(_ failure: UpstreamFailure) {
        guard case .tlsFailed(let reason) = failure else { return }
        loop.services.logger.warning(
            "TLS with a node failed",
            metadata: ["node": "\(node?.id.rawValue ?? "")", "reason": "\(reason.rawValue)"])
    }

    func attemptFailed(_ failure: Failure, _ outcome: RoutingOutcome = .failed) {
        disarm(.firstByte)
        disarm(.streamIdle)
        self.failure = failure
        finishAssignment(outcome)
        let mayRetry =
            failure.retry == .otherNode && (mayAttempt || hasFallback) && loop.retryBudget.withdrawRetry()
        perform(machine.attemptFailed(failure, mayRetry: mayRetry))
    }

    /// Tells the router how the node did; once for each assignment.
    func finishAssignment(_ outcome: RoutingOutcome) {
        guard let assignment else { return }
        self.assignment = nil
        loop.services.router.finished(assignment, outcome: outcome, now: MonotonicTime.now())
    }

    private func interrupt(_ message: String, _ code: Failure.Code) {
        finishAssignment(.failed)
        perform(
            machine.answerInterrupted(Failure(code, message, source: .upstream), delivered: deliveredTokens))
    }

    var deliveredTokens: Int {
        relay?.contentEvents ?? largeAnswer.map { min($0.deliveredTokens, completionTokensMax) } ?? 0
    }

    // MARK: Plain answers

    private func answerWhole(_ head: UpstreamResponseHead) {
        switch head.status {
        case 200: answerFound()
        case 400..<500 where Self.isAboutTheRequest(head.status): rejectedByNode(head)
        case 404, 405, 501: unserved()
        default:
            // The node is overloaded, loading or broken: another one may do better.
            let isOverload = head.status == 429 || head.status == 503
            attemptFailed(
                Failure(
                    isOverload ? .upstreamUnavailable : .upstreamInvalid,
                    isOverload
                        ? "The model server is not ready for requests at the moment. Please retry."
                        : "The model server failed with an internal error. Please retry.",
                    source: .upstream, retry: .otherNode))
        }
    }

    /// The node knows no such path, or no such model. What every model server has is missing at one that is set up
    /// wrongly: another may do better. What was started for another purpose says so of the rest, and so would its like:
    /// a customer who asks for that must not spend the retries of others.
    private func unserved() {
        guard let model, let endpoint else { return }
        let isCommon = endpoint == .chatCompletions || endpoint == .completions || endpoint == .embeddings
        var failure = Failure.unserved(endpoint, model.id)
        failure.source = .upstream
        if isCommon { failure.retry = .otherNode }
        attemptFailed(failure, isCommon ? .unserved : .aborted)
    }

    /// Whether a node's refusal is the client's doing. A node that wants another key or has no time is set up wrongly or
    /// overloaded, and one that knows no such model or path was started for another purpose: those are not the words for
    /// a customer.
    private static func isAboutTheRequest(_ status: Int) -> Bool {
        switch status {
        case 401, 403, 404, 405, 407, 408, 429: false
        default: true
        }
    }

    private func answerFound() {
        guard let model,
            let scan = heldAnswer.withUnsafeReadableBytes({ scanReply($0, dialect: dialect) }), !scan.isError
        else {
            return attemptFailed(
                Failure(
                    .upstreamInvalid, "The model server's answer is not valid JSON. Please retry.", source: .upstream,
                    retry: .otherNode))
        }
        firstTokenAt = MonotonicTime.now()
        reported = scan.usage
        hasContent = scan.contentBytes > 0
        ownCount = min(estimatePromptTokens(bodyBytes: scan.contentBytes), completionTokensMax)
        heldAnswer = heldAnswer.applying(scan.edits(publicModel: PublicModel(model.id.rawValue)))
        perform(machine.answerCompleted())
    }

    /// The node refuses the request itself: its words go on, without what they tell about the node.
    private func rejectedByNode(_ head: UpstreamResponseHead) {
        guard let model, let node else { return }
        nodeError = heldAnswer.withUnsafeReadableBytes { bytes in
            rebuildNodeError(
                status: head.status, body: bytes, upstreamModel: node.names[model.id],
                publicModel: model.id.rawValue, dialect: dialect, requestID: requestIDText)
        }
        finishAssignment(.refused)
        perform(
            machine.attemptFailed(
                Failure(.upstreamRejected, "The model server refused the request.", source: .upstream), mayRetry: false)
        )
    }

    // MARK: Answers that begin before they are whole

    func beginAnswer(_ form: RequestStateMachine.Form) {
        releaseBody()
        answerStatus = 200
        switch form {
        case .eventStream:
            guard let model, let node, let scanned, let hold, let price else { return }
            relay = StreamRelay(
                model: model.id, upstreamModelName: node.names[model.id] ?? "",
                clientWantsUsage: scanned.includeUsage, completionTokensMax: completionTokensMax,
                choices: scanned.choices, bodyBytes: scanned.bodyBytes, dialect: dialect,
                requestID: requestIDText, keepsText: model.tokenizer != nil)
            do throws(JournalFailure) {
                try loop.services.spending.opened(
                    hold, model: model.id, price: price, promptTokens: promptTokensEstimate)
            } catch {
                return perform(machine.answerInterrupted(Failure.journal, delivered: 0))
            }
            arm(.progress, after: Self.progressNanoseconds)
            lastWriteAt = MonotonicTime.now()
            arm(.ping, after: snapshot.pingNanoseconds)
            writer.beginStream(answerHead(status: 200, contentType: "text/event-stream; charset=utf-8"))
        case .largeBody:
            var answer = LargeAnswer(bytesMax: answerBytesMax)
            if let model, let span = heldAnswer.withUnsafeReadableBytes({ LargeAnswer.modelSpan(in: $0) }) {
                heldAnswer = heldAnswer.applying([
                    BodyEdit(replacing: span, with: PublicModel(model.id.rawValue).json)
                ])
            }
            answer.passed(heldAnswer)
            largeAnswer = answer
            writer.beginStream(answerHead(status: 200, contentType: "application/json"))
            writer.writeStream(heldAnswer)
            heldAnswer = ByteBuffer()
        }
    }

    private func relayEvents(_ bytes: ByteBuffer) {
        guard relay != nil else { return }
        relayed.clear(minimumCapacity: bytes.readableBytes + 64)
        let outcome = relay!.feed(bytes, into: &relayed)
        if firstTokenAt == nil, deliveredTokens > 0 {
            firstTokenAt = MonotonicTime.now()
            if let assignment { loop.services.router.firstToken(assignment, now: MonotonicTime.now()) }
        }
        if relayed.readableBytes > 0 { hasWritten = true }
        writer.writeStream(relayed)
        if relayed.storageCapacity > Self.relayedCapacityKept { relayed = ByteBuffer() }
        switch outcome {
        case .open: break
        case .done:
            reported = relay?.usage ?? .absent
            perform(machine.streamCompleted())
        case .nodeError(let event):
            nodeError = event
            interrupt("The model server reported an error in mid-stream.", .upstreamInvalid)
        case .overrun: stopOverrun()
        case .invalid(let reason):
            loop.services.logger.warning(
                "invalid stream", metadata: ["reason": "\(reason)", "node": "\(node?.id.rawValue ?? "")"])
            interrupt("The model server's stream is not valid. Please retry.", .upstreamInvalid)
        }
    }

    private func stopOverrun() {
        loop.metrics.count(.usageDistrusted)
        interrupt("The model generated more than was asked for, and was stopped.", .upstreamInvalid)
    }

    /// Of a plain answer. Endpoints that generate nothing answer as long as they must.
    private var answerBytesMax: Int {
        guard let scanned, scanned.endpoint.generates else { return .max }
        return UsageVerdict.answerBytesMax(
            completionTokens: completionTokensMax, choices: scanned.choices, bodyBytes: scanned.bodyBytes,
            echoedTokens: scanned.endpoint == .completions ? promptTokensMax : 0)
    }

    /// The client is behind. Its slowness is not the node's: `stream_idle` rests, and `request` bounds the whole.
    func pauseNode() {
        isReadingPaused = true
        wasReadingPaused = true
        call?.pauseReading()
        disarm(.streamIdle)
    }

    func resumeNode() {
        isReadingPaused = false
        call?.resumeReading()
        if upstreamHead != nil, !awaitsFirstEvent, let model { arm(.streamIdle, after: model.streamIdleNanoseconds) }
    }

    /// The node may have sent something since the timer was set: silent is only who has been so for the whole time.
    func streamIdleElapsed() {
        guard let model else { return }
        let silence = lastReadAt.map { MonotonicTime.now().nanoseconds(since: $0) } ?? .max
        guard silence < model.streamIdleNanoseconds else {
            return expire(
                Failure(.upstreamTimeout, "The model stopped answering in mid-stream. Please retry.", source: .upstream)
            )
        }
        arm(.streamIdle, after: model.streamIdleNanoseconds - silence)
    }

    /// A client, and whatever stands before it, gives up on a stream that is silent for long. Between two events, so no
    /// event is torn; a client that does not even take what is there is not told more.
    func pingElapsed() {
        guard relay != nil else { return }
        let silence = lastWriteAt.map { MonotonicTime.now().nanoseconds(since: $0) } ?? .max
        guard silence >= snapshot.pingNanoseconds else {
            return arm(.ping, after: snapshot.pingNanoseconds - silence)
        }
        if writer.isWritable {
            writer.writeStream(ByteBuffer(staticString: ": ping\n\n"))
            writer.flushStream()
        }
        lastWriteAt = MonotonicTime.now()
        arm(.ping, after: snapshot.pingNanoseconds)
    }

    func journalProgress() {
        guard let hold, relay != nil else { return }
        loop.services.spending.progressed(hold, completionTokens: deliveredTokens)
        arm(.progress, after: Self.progressNanoseconds)
    }
}

extension Failure {
    static let journal = Failure(
        .journalUnavailable, "The gateway cannot record charges at the moment. Please retry.", source: .gateway,
        retry: .after(milliseconds: 1_000))
}

import Billing
import Domain
import NIOCore
import OpenAIProtocol
import Routing

// How a request ends: the node's work, the money, the answer, the record; each once.
extension Exchange {
    func end(_ exit: RequestStateMachine.Exit) {
        if exit.cancelsUpstream {
            call?.cancel()
            call = nil
        }
        let journalFailure = settle(exit.money)
        finishAssignment(routingOutcome(exit))
        leaveRoom(isAnswered: exit.answer == .completion)
        answer(journalFailure.map { failing(exit.answer, with: $0) } ?? exit.answer)
        record(exit)
        releaseBody()
        forget()
        // A node that has said its last word and keeps its connection open is given a moment to close the answer.
        if call != nil { arm(.upstreamEnd, after: Self.upstreamEndNanoseconds) }
        // Last: the connection's next request may begin within this call.
        writer.finish()
    }

    private func routingOutcome(_ exit: RequestStateMachine.Exit) -> RoutingOutcome {
        switch exit.answer {
        // How fast a client reads says nothing of how fast the node writes.
        case .completion: .completed(wasReadingPaused ? nil : settled?.usage)
        case .none: .aborted
        case .error(let failure), .errorEvent(let failure), .truncation(let failure):
            failure.source == .upstream ? .failed : .aborted
        }
    }

    // MARK: Money

    /// - Returns: The failure to answer with, where the charge could not be journalled.
    private func settle(_ money: RequestStateMachine.Money) -> Failure? {
        switch money {
        case .nothing: return nil
        case .abandon:
            if let ticket { loop.services.spending.abandon(ticket, on: loop.transport) }
            ticket = nil
            return nil
        case .release:
            if let hold { loop.services.spending.release(hold, on: loop.transport) }
            hold = nil
            return nil
        case .settleUsage: return settleUsage()
        case .settleDelivered:
            return charge(ownUsage, isEstimated: true, isDelivered: true)
        }
    }

    private func settleUsage() -> Failure? {
        guard let scanned, let node else { return charge(ownUsage, isEstimated: true, isDelivered: true) }
        let verdict = UsageVerdict.judge(
            reported,
            own: UsageVerdict.OwnCount(
                hasContent: hasContent || deliveredTokens > 0, textEvents: relay?.textEvents ?? 0),
            promptTokensMax: promptTokensMax, completionTokensMax: completionTokensMax,
            generates: scanned.endpoint.generates, engine: node.engine, choices: scanned.choices,
            prompts: scanned.promptCount, ownUsage: { ownUsage })
        if !verdict.isEstimated { learnPrompt(verdict.usage) }
        if outputKey != 0 { loop.services.router.answered(outputKey, tokens: verdict.usage.completionTokens) }
        if verdict.isDistrusted { loop.metrics.count(.usageDistrusted) }
        return charge(verdict.usage, isEstimated: verdict.isEstimated, isDelivered: deliveredTokens > 0)
    }

    /// What the gateway counted itself: by the model's vocabulary, else the prompt by its bytes, and one token for each
    /// event with content.
    private var ownUsage: TokenUsage {
        TokenUsage(
            promptTokens: promptTokensEstimate, cachedTokens: 0,
            completionTokens: ownCompletionTokens)
    }

    /// - Parameter isDelivered: Some of the answer went down, or the client left of its own accord: what the journal does
    ///   not take is charged all the same. Otherwise the answer is withheld, and costs nothing.
    private func charge(_ usage: TokenUsage, isEstimated: Bool, isDelivered: Bool) -> Failure? {
        guard let hold, let price, let model else { return nil }
        guard endpoint?.isCharged != false else {
            loop.services.spending.release(hold, on: loop.transport)
            self.hold = nil
            return nil
        }
        self.hold = nil
        // A charge never passes its hold; the bounds above make this a formality.
        let cost = (try? price.cost(of: usage)).map { min($0, hold.amount) } ?? hold.amount
        settled = (usage, cost, isEstimated)
        do throws(JournalFailure) {
            try loop.services.spending.settle(
                hold,
                Settlement(model: model.id, price: price, usage: usage, isEstimated: isEstimated, at: WallTime.now()),
                isDelivered: isDelivered, on: loop.transport)
            return nil
        } catch {
            if !isDelivered { settled = nil }
            return Failure.journal
        }
    }

    private func failing(_ answer: RequestStateMachine.Answer, with failure: Failure) -> RequestStateMachine.Answer {
        guard case .completion = answer else { return answer }
        if relay != nil { return .errorEvent(failure) }
        return largeAnswer == nil ? .error(failure) : .truncation(failure)
    }

    // MARK: Answer

    func answerHead(status: Int, contentType: StaticString) -> AnswerHead {
        var head = AnswerHead(
            status: status, contentType: contentType, requestID: requestIDText,
            processingMilliseconds: MonotonicTime.now().nanoseconds(since: acceptedAt) / 1_000_000, rates: rates)
        // Where Anthropic's clients look for it.
        if dialect == .anthropic { head.extra.append((name: "request-id", value: head.requestID)) }
        addModelHeaders(to: &head)
        addRouting(to: &head)
        addCORS(to: &head)
        return head
    }

    private func answer(_ answer: RequestStateMachine.Answer) {
        switch answer {
        case .none: failure = Failure(.clientClosed, "The client closed the connection.")
        case .completion: complete()
        case .error(let failure):
            self.failure = failure
            refuse(failure)
        case .errorEvent(let failure):
            self.failure = failure
            writer.writeStream(ByteBuffer(bytes: nodeError ?? renderedEvent(failure)))
            writer.endStream()
        case .truncation(let failure):
            self.failure = failure
            writer.truncate()
        }
    }

    private func complete() {
        if let relay {
            writer.writeStream(relay.lastEvent)
            writer.endStream()
        } else if largeAnswer != nil {
            writer.endStream()
        } else if let preflight = preflightHead() {
            writer.writeAnswer(preflight, body: ByteBuffer())
        } else {
            answerStatus = 200
            writer.writeAnswer(
                answerHead(
                    status: 200, contentType: endpoint == .description ? "application/yaml" : "application/json"),
                body: heldAnswer)
        }
    }

    private func refuse(_ failure: Failure) {
        let upstreamStatus = upstreamHead?.status
        let status = ErrorEnvelope.status(of: failure.code, upstream: upstreamStatus)
        answerStatus = status
        assert(endpoint?.canEnd(with: failure.code) != false, "\(failure.code) is not described for \(endpoint as Any)")
        var head = answerHead(status: status, contentType: "application/json")
        head.extra += ErrorEnvelope.headers(for: failure)
        if failure.code == .methodNotAllowed, case .methodNotAllowed(_, let allow) = incoming?.route {
            head.extra.append((name: "allow", value: allow))
        }
        // The rest of the body is not wanted, or a proxy in front may have read the head otherwise, whatever else is wrong
        // with it: say that the connection ends with this answer.
        if !isBodyComplete || incoming?.defect?.code == .malformedRequest { writer.closeAfterAnswer() }
        let rendered =
            nodeError ?? ErrorEnvelope.render(failure, dialect: dialect, requestID: requestIDText)
        writer.writeAnswer(head, body: ByteBuffer(bytes: rendered))
    }

    private func renderedEvent(_ failure: Failure) -> [UInt8] {
        ErrorEnvelope.renderStreamEvent(failure, dialect: dialect, requestID: requestIDText)
    }
}

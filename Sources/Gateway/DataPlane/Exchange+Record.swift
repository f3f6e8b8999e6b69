import Billing
import Domain
import OpenAIProtocol

// One access-log line and the metrics of a request that ended.
extension Exchange {
    func record(_ exit: RequestStateMachine.Exit) {
        let now = MonotonicTime.now()
        let duration = now.nanoseconds(since: acceptedAt)
        let metrics = loop.metrics
        let label = endpoint.map { MetricEndpoint($0) } ?? .other
        let place = model?.index
        let status = failure?.code == .clientClosed ? ErrorEnvelope.status(of: .clientClosed) : answerStatus
        let code = failure?.code
        metrics.requestFinished(endpoint: label, status: status, outcome: outcome(exit))
        metrics.requestDuration(seconds: Double(duration) / 1e9, endpoint: label, model: place, failure: code)
        metrics.add(-1, to: .requestsOpen)
        metrics.count(.bytesReceived, by: Int64(bodyBytes))
        metrics.count(.bytesSent, by: Int64(writer.bytesWritten))
        if dispatchedAt == nil, let code { metrics.refused(code) }
        if reserveStartedAt != nil { metrics.admissionWaited(seconds: Double(queueNanoseconds) / 1e9) }
        if let settled {
            metrics.tokensUsed(settled.usage, endpoint: label, model: place)
            metrics.count(.costNanousd, by: settled.cost.nanodollars)
            if settled.isEstimated { metrics.count(.estimatedCharges) }
        }
        if let firstTokenAt, relay != nil {
            metrics.timeToFirstToken(seconds: firstTokenAt.seconds(since: acceptedAt), endpoint: label, model: place)
            let rest = (settled?.usage.completionTokens ?? 0) - 1
            if rest > 0 {
                metrics.timePerOutputToken(
                    seconds: now.seconds(since: firstTokenAt) / Double(rest), endpoint: label, model: place)
            }
        }
        if let dispatchedAt, machine.attempts == 1, let wholeBodyAt {
            let waited = Double(queueNanoseconds + waitedNanoseconds) / 1e9
            metrics.overhead(seconds: max(0, dispatchedAt.seconds(since: wholeBodyAt) - waited))
        }
        loop.services.accessLog?.append(accessLogRecord(status: status, code: code, duration: duration))
    }

    private func outcome(_ exit: RequestStateMachine.Exit) -> RequestOutcome {
        switch exit.answer {
        case .completion: .completed
        case .none: .clientClosed
        case .error(let failure), .errorEvent(let failure), .truncation(let failure):
            switch failure.source {
            case .upstream: .upstreamFailed
            case .gateway where dispatchedAt != nil: .gatewayFailed
            default: failure.code == .internalError ? .gatewayFailed : .refused
            }
        }
    }

    private func accessLogRecord(status: Int, code: Failure.Code?, duration: Int64) -> AccessLogRecord {
        AccessLogRecord(
            time: acceptedWallTime, requestID: requestID, org: key?.org, key: key?.id,
            method: incoming?.method ?? "-", path: endpoint?.path ?? "-", model: model?.id, node: node?.id,
            site: node?.site, status: status, failure: code, streamed: relay != nil, usage: settled?.usage,
            cost: settled?.cost, estimated: settled?.isEstimated ?? false,
            queueNanoseconds: reserveStartedAt == nil ? nil : queueNanoseconds + waitedNanoseconds,
            firstTokenNanoseconds: firstTokenAt?.nanoseconds(since: acceptedAt), durationNanoseconds: duration,
            bytesIn: bodyBytes, bytesOut: writer.bytesWritten, attempts: machine.attempts,
            clientAddress: clientAddress, trace: trace)
    }
}

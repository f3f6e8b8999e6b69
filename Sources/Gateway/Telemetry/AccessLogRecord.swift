import Domain

/// What the access log says of one request. Never a prompt, a completion or a secret: there is no field for one.
///
/// What does not apply is nil (no model was named, no node was chosen, nothing was charged) and is written as `null`, so
/// that every line has every field.
package struct AccessLogRecord: Sendable {
    /// When the request was accepted.
    package var time: WallTime
    package var requestID: RequestID
    package var org: OrgID?
    package var key: KeyID?
    package var method: String
    /// The route's pattern, `/v1/models/{id}`, or `other`: never the client's own path.
    package var path: String
    package var model: ModelID?
    package var node: NodeID?
    package var site: SiteID?
    /// 499 where the client left before a status was sent.
    package var status: Int
    package var failure: Failure.Code?
    package var streamed: Bool
    package var usage: TokenUsage?
    package var cost: NanoUSD?
    /// Whether the tokens are the gateway's own count rather than the node's usage.
    package var estimated: Bool
    /// Waiting for admission, and for room at the nodes.
    package var queueNanoseconds: Int64?
    /// Accepted to first token (or to the whole answer, where it is plain).
    package var firstTokenNanoseconds: Int64?
    /// Accepted to the last byte.
    package var durationNanoseconds: Int64
    /// Bodies only.
    package var bytesIn: Int
    package var bytesOut: Int
    /// Nodes tried.
    package var attempts: Int
    package var clientAddress: String
    package var trace: TraceContext?

    package init(
        time: WallTime, requestID: RequestID, org: OrgID? = nil, key: KeyID? = nil, method: String, path: String,
        model: ModelID? = nil, node: NodeID? = nil, site: SiteID? = nil, status: Int, failure: Failure.Code? = nil,
        streamed: Bool = false, usage: TokenUsage? = nil, cost: NanoUSD? = nil, estimated: Bool = false,
        queueNanoseconds: Int64? = nil, firstTokenNanoseconds: Int64? = nil, durationNanoseconds: Int64,
        bytesIn: Int, bytesOut: Int, attempts: Int, clientAddress: String, trace: TraceContext? = nil
    ) {
        self.time = time
        self.requestID = requestID
        self.org = org
        self.key = key
        self.method = method
        self.path = path
        self.model = model
        self.node = node
        self.site = site
        self.status = status
        self.failure = failure
        self.streamed = streamed
        self.usage = usage
        self.cost = cost
        self.estimated = estimated
        self.queueNanoseconds = queueNanoseconds
        self.firstTokenNanoseconds = firstTokenNanoseconds
        self.durationNanoseconds = durationNanoseconds
        self.bytesIn = bytesIn
        self.bytesOut = bytesOut
        self.attempts = attempts
        self.clientAddress = clientAddress
        self.trace = trace
    }
}

extension AccessLogRecord {
    /// Encodes the record as one line of JSON with its line feed.
    func encode(to line: inout JSONLine) {
        line.raw("{\"time\":\"")
        line.timestamp(time)
        line.raw("\",\"request_id\":\"req_")
        line.hexadecimal(requestID.high)
        line.hexadecimal(requestID.low)
        line.raw("\",\"org\":")
        line.string(org?.rawValue)
        line.raw(",\"key_id\":")
        line.string(key?.rawValue)
        line.raw(",\"method\":")
        line.string(method)
        line.raw(",\"path\":")
        line.string(path)
        line.raw(",\"model\":")
        line.string(model?.rawValue)
        line.raw(",\"node\":")
        line.string(node?.rawValue)
        line.raw(",\"site\":")
        line.string(site?.rawValue)
        line.raw(",\"status\":")
        line.integer(Int64(status))
        line.raw(",\"failure\":")
        line.string(failure?.label)
        line.raw(",\"streamed\":")
        line.boolean(streamed)
        line.raw(",\"prompt_tokens\":")
        line.integer(usage.map { Int64($0.promptTokens) })
        line.raw(",\"cached_tokens\":")
        line.integer(usage.map { Int64($0.cachedTokens) })
        line.raw(",\"completion_tokens\":")
        line.integer(usage.map { Int64($0.completionTokens) })
        line.raw(",\"cost_nanousd\":")
        line.integer(cost?.nanodollars)
        line.raw(",\"estimated\":")
        line.boolean(estimated)
        line.raw(",\"queue_seconds\":")
        line.seconds(queueNanoseconds)
        line.raw(",\"ttft_seconds\":")
        line.seconds(firstTokenNanoseconds)
        line.raw(",\"duration_seconds\":")
        line.seconds(durationNanoseconds)
        line.raw(",\"bytes_in\":")
        line.integer(Int64(bytesIn))
        line.raw(",\"bytes_out\":")
        line.integer(Int64(bytesOut))
        line.raw(",\"attempts\":")
        line.integer(Int64(attempts))
        line.raw(",\"client\":")
        line.string(clientAddress)
        line.raw(",\"trace_id\":")
        if let trace {
            line.raw("\"")
            line.hexadecimal(trace.traceHigh)
            line.hexadecimal(trace.traceLow)
            line.raw("\"}\n")
        } else {
            line.raw("null}\n")
        }
    }
}

import Domain
import JSON
import NIOCore
import NIOHTTP1

/// What arrives at a simulated node: routing, faults, refusals, and the reading of what its engine is to do.
extension NodeCore {
    func requestArrived(_ request: NodeHTTPRequest, on connection: NodeConnectionHandler) {
        defer { publish() }
        let path = request.path
        let endpoint = NodeEndpoint(path: path)
        let isInference = endpoint != nil
        if path == "/fault" { return answerFault(request, on: connection) }
        let met: RequestFaults
        if isInference, request.head.method == .POST {
            statistics.requests += 1
            if configuration.recordBodies { record(request) }
            met = faults.requestArrived(at: .now())
        } else {
            met = faults.probeArrived(at: .now())
        }
        if met.refuse { return connection.reset() }
        do throws(NodeRefusal) {
            if met.loading { throw NodeRefusal(503, "unavailable_error", "Loading model") }
            try authenticate(request, path: path)
            guard let endpoint else {
                return try answerPlain(request, path: path, on: connection)
            }
            guard request.head.method == .POST else { throw Self.methodNotAllowed }
            if let status = met.status {
                throw NodeRefusal(status, "InternalServerError", "This fault was asked for: status \(status).")
            }
            begin(try exchange(request, endpoint, faults: met, on: connection), takesChunks: request.takesChunks)
        } catch {
            var buffer = ByteBuffer()
            let body = endpoint?.speaksAnthropic ?? false ? error.messagesBody : error.body
            render(body, status: error.status, saysClose: request.saysClose, into: &buffer)
            answer(buffer, request, closing: met.close, isInference: isInference, on: connection)
        }
    }

    func render(_ body: String, status: Int, saysClose: Bool, into buffer: inout ByteBuffer) {
        HTTPText.head(
            status: status, contentType: "application/json", length: body.utf8.count, isChunked: false,
            saysClose: saysClose, into: &buffer)
        buffer.writeString(body)
    }

    private static let methodNotAllowed = NodeRefusal(405, "BadRequestError", "Method Not Allowed")

    private func authenticate(_ request: NodeHTTPRequest, path: String) throws(NodeRefusal) {
        // As vLLM: the key guards only what is under /v1.
        guard let key = configuration.apiKey, path.hasPrefix("/v1/") else { return }
        guard request.head.headers["authorization"] == ["Bearer \(key)"] else {
            throw NodeRefusal(401, "AuthenticationError", "Unauthorized")
        }
    }

    private func record(_ request: NodeHTTPRequest) {
        if statistics.recorded.count >= NodeStatistics.recordedMax { statistics.recorded.removeFirst() }
        statistics.recorded.append(
            NodeStatistics.RecordedRequest(
                method: request.head.method.rawValue, uri: request.head.uri,
                headers: request.head.headers.map { (name: $0.name, value: $0.value) },
                body: Array(request.body.readableBytesView)))
    }

    private func parse(_ body: ByteBuffer) throws(NodeRefusal) -> JSONValue {
        let result = body.withUnsafeReadableBytes { bytes in
            // SAFETY: the bytes are only read, and only within this closure.
            Result { () throws(JSONError) in try JSONValue(parsing: bytes, bytesMax: configuration.bodyBytesMax) }
        }
        do {
            return try result.get()
        } catch {
            throw .badRequest("The body is no valid JSON: at byte \(error.offset): \(error.explanation).")
        }
    }

    /// What needs no engine: health, models, metrics.
    private func answerPlain(
        _ request: NodeHTTPRequest, path: String, on connection: NodeConnectionHandler
    ) throws(NodeRefusal) {
        let body: String
        var type = "application/json"
        switch (request.head.method, path) {
        case (.GET, "/health"), (.GET, "/ping"): body = ""
        case (.GET, "/v1/models"):
            body =
                "{\"object\":\"list\",\"data\":[{\"id\":\(modelJSON),\"object\":\"model\",\"created\":"
                + "\(Int64(startedSeconds)),\"owned_by\":\"vllm\",\"root\":\(modelJSON),\"parent\":null,"
                + "\"max_model_len\":\(configuration.contextTokensMax)}]}"
        case (.GET, "/metrics"):
            type = "text/plain; version=0.0.4; charset=utf-8"
            body = statistics.metrics(
                model: configuration.model, engine: configuration.engineName, profile: configuration.profile,
                startedSeconds: startedSeconds)
        case (_, "/health"), (_, "/ping"), (_, "/v1/models"), (_, "/metrics"):
            throw Self.methodNotAllowed
        default: throw NodeRefusal(404, "NotFoundError", "Not Found")
        }
        answer(body, status: 200, type: type, request, on: connection)
    }

    /// Sets a plan (`POST`, the body is its text) or tells it (`GET`). Exempt from every fault, so that it can be lifted.
    private func answerFault(_ request: NodeHTTPRequest, on connection: NodeConnectionHandler) {
        var refusal: NodeRefusal?
        switch request.head.method {
        case .GET: break
        case .POST:
            do throws(FaultPlanError) {
                setFault(try FaultPlan(parsing: String(buffer: request.body)))
            } catch {
                refusal = .badRequest(error.message)
            }
        default: refusal = Self.methodNotAllowed
        }
        let body = refusal?.body ?? "{\"fault\":\(JSONValue.quoted(faults.plan.description))}"
        answer(body, status: refusal?.status ?? 200, type: "application/json", request, on: connection)
    }

    private func answer(
        _ body: String, status: Int, type: String, _ request: NodeHTTPRequest, on connection: NodeConnectionHandler
    ) {
        var buffer = ByteBuffer()
        HTTPText.head(
            status: status, contentType: type, length: body.utf8.count, isChunked: false,
            saysClose: request.saysClose, into: &buffer)
        if request.head.method != .HEAD { buffer.writeString(body) }
        answer(buffer, request, closing: false, isInference: false, on: connection)
    }

    private func answer(
        _ buffer: ByteBuffer, _ request: NodeHTTPRequest, closing: Bool, isInference: Bool,
        on connection: NodeConnectionHandler
    ) {
        if isInference { statistics.answered += 1 }
        connection.write(buffer)
        connection.finished(closing: closing || request.saysClose)
    }

    // MARK: Inference

    private func exchange(
        _ request: NodeHTTPRequest, _ endpoint: NodeEndpoint, faults: RequestFaults,
        on connection: NodeConnectionHandler
    ) throws(NodeRefusal) -> Exchange {
        let body = try parse(request.body)
        var works: [NodeEngine.Work] = []
        func add(_ prompt: PromptTokens, salt: String, lengths: [Int]) {
            nextWork += 1
            works.append(
                NodeEngine.Work(
                    id: nextWork, promptTokens: prompt.count, blocks: prompt.blocks(salt: salt), outputTokens: lengths))
        }
        let content: Exchange.Content
        if case .generation(let kind) = endpoint {
            let generation = try GenerationRequest(
                kind: kind, body: body, model: model, generator: &generator, overrunTokens: faults.overrunTokens)
            for (prompt, choices) in zip(generation.prompts, generation.choices) {
                // An echo alone generates nothing.
                add(prompt, salt: generation.salt, lengths: choices.map(\.tokens).filter { $0 > 0 })
            }
            content = .generation(
                AnswerStateMachine(
                    request: generation, renderer: generation.renderer(identity()), faults: faults,
                    isChunked: request.takesChunks))
        } else {
            let pooled = try PooledRequest(endpoint, body: body, model: model)
            // Pooling models run without a prefix cache, so each input computes in whole.
            for input in pooled.inputs { add(input, salt: "pooled \(nextWork)", lengths: []) }
            content = .pooled(pooled)
        }
        return Exchange(
            connection: connection, faults: faults, saysClose: request.saysClose, content: content, works: works)
    }

    /// A new answer's.
    func identity() -> AnswerIdentity {
        var identifier = ""
        for _ in 0..<2 {
            let digits = String(generator.next(), radix: 16)
            identifier += String(repeating: "0", count: 16 - digits.count) + digits
        }
        return AnswerIdentity(id: identifier, created: WallTime.now().milliseconds / 1_000, model: modelJSON)
    }
}

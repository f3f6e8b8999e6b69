import Domain
import JSON
import NIOCore
import NIOHTTP1

/// The simulated node on its event loop: routes, faults, the engine and its timer, and the answers under way.
///
/// Everything here runs on one loop and is touched nowhere else. It holds its connections, each of which holds it, until
/// they close. Bounds: connections by configuration, one answer per connection, works by what a request may ask.
final class NodeCore {
    /// How much of a stream is written at a time.
    static let writeBytesMax = 64 << 10

    let configuration: SimulatedNode.Configuration
    private let loop: any EventLoop
    private let model: NodeModel
    private let modelJSON: String
    private let startedSeconds: Double
    private var generator: SplitMix64
    private var faults: FaultInjector
    private var engine: NodeEngineStateMachine
    private var nextWork: NodeEngineStateMachine.WorkID = 0
    /// Which exchange a work belongs to, and which of its prompts it is.
    private var works: [NodeEngineStateMachine.WorkID: (exchange: Exchange, prompt: Int)] = [:]
    private var pending: [NodeEngineStateMachine.Event] = []
    private var isPerforming = false
    private var timer: (deadline: MonotonicTime, scheduled: Scheduled<Void>)?
    private var connections: [ObjectIdentifier: NodeConnectionHandler] = [:]
    private var delayed = 0
    private var stalled = 0
    private var statistics = NodeStatistics()
    private let board: StatisticsBoard

    init(configuration: SimulatedNode.Configuration, loop: any EventLoop, board: StatisticsBoard) {
        self.configuration = configuration
        self.loop = loop
        self.board = board
        model = NodeModel(name: configuration.model, contextTokensMax: configuration.contextTokensMax)
        modelJSON = JSONValue.quoted(configuration.model)
        startedSeconds = Double(WallTime.now().milliseconds) / 1_000
        generator = SplitMix64(seed: configuration.seed)
        faults = FaultInjector(plan: configuration.fault, since: .now(), seed: configuration.seed ^ 0x6661_756C_7473)
        let speed: Double = if case .times(let factor) = configuration.speed { factor } else { 1 }
        engine = NodeEngineStateMachine(profile: configuration.profile, speed: speed)
    }

    // MARK: Connections

    /// - Returns: Whether there is room for it.
    func connectionOpened(_ connection: NodeConnectionHandler) -> Bool {
        guard connections.count < configuration.connectionsMax else { return false }
        connections[ObjectIdentifier(connection)] = connection
        statistics.connectionsTotal += 1
        publish()
        return true
    }

    func connectionClosed(_ connection: NodeConnectionHandler, aborting exchange: Exchange?) {
        connections[ObjectIdentifier(connection)] = nil
        if let exchange {
            statistics.aborted += 1
            end(exchange)
        }
        publish()
    }

    func connectionTakesMore(_ exchange: Exchange) {
        pump(exchange)
        publish()
    }

    func setFault(_ plan: FaultPlan) {
        faults = FaultInjector(plan: plan, since: .now(), seed: configuration.seed ^ 0x6661_756C_7473)
    }

    func closeAll() {
        // A copy: closing takes a connection out.
        for connection in Array(connections.values) { connection.stop() }
    }

    // MARK: Requests

    func requestArrived(_ request: NodeHTTPRequest, on connection: NodeConnectionHandler) {
        defer { publish() }
        let path = request.path
        let isInference = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"].contains(path)
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
            guard isInference else {
                return try answerPlain(request, path: path, on: connection)
            }
            guard request.head.method == .POST else { throw Self.methodNotAllowed }
            if let status = met.status {
                throw NodeRefusal(status, "InternalServerError", "This fault was asked for: status \(status).")
            }
            begin(try exchange(request, path: path, faults: met, on: connection), takesChunks: request.takesChunks)
        } catch {
            var buffer = ByteBuffer()
            render(error, saysClose: request.saysClose, into: &buffer)
            answer(buffer, request, closing: met.close, isInference: isInference, on: connection)
        }
    }

    func render(_ refusal: NodeRefusal, saysClose: Bool, into buffer: inout ByteBuffer) {
        let body = refusal.body
        HTTPText.head(
            status: refusal.status, contentType: "application/json", length: body.utf8.count, isChunked: false,
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

    /// `GET` endpoints and `/tokenize`.
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
        case (.POST, "/tokenize"):
            let json = try parse(request.body)
            try model.check(json)
            let fields = RequestFields(json)
            let prompt = try json.field("messages") == nil ? fields.prompts("prompt")[0] : fields.conversation()
            body =
                "{\"count\":\(prompt.count),\"max_model_len\":\(configuration.contextTokensMax),\"tokens\":["
                + prompt.tokenIDs.map(String.init).joined(separator: ",") + "],\"token_strs\":null}"
        case (_, "/health"), (_, "/ping"), (_, "/v1/models"), (_, "/metrics"), (_, "/tokenize"):
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
        _ request: NodeHTTPRequest, path: String, faults: RequestFaults, on connection: NodeConnectionHandler
    ) throws(NodeRefusal) -> Exchange {
        let body = try parse(request.body)
        var works: [NodeEngineStateMachine.Work] = []
        func add(_ prompt: PromptTokens, salt: String, lengths: [Int]) {
            nextWork += 1
            works.append(
                NodeEngineStateMachine.Work(
                    id: nextWork, promptTokens: prompt.count, blocks: prompt.blocks(salt: salt), outputTokens: lengths))
        }
        let content: Exchange.Content
        if path == "/v1/embeddings" {
            let embedding = try EmbeddingRequest(body: body, model: model)
            // Pooling models run without a prefix cache, so each input computes in whole.
            for input in embedding.inputs { add(input, salt: "embedding \(nextWork)", lengths: []) }
            content = .embedding(embedding)
        } else {
            let generation = try GenerationRequest(
                kind: path == "/v1/completions" ? .completion : .chat, body: body, model: model,
                generator: &generator, overrunTokens: faults.overrunTokens)
            for (prompt, choices) in zip(generation.prompts, generation.choices) {
                add(prompt, salt: generation.salt, lengths: choices.map(\.tokens))
            }
            let renderer = AnswerRenderer(
                kind: generation.kind, id: identifier(), created: WallTime.now().milliseconds / 1_000, model: modelJSON)
            content = .generation(
                AnswerStateMachine(
                    request: generation, renderer: renderer, faults: faults, isChunked: request.takesChunks))
        }
        return Exchange(
            connection: connection, faults: faults, saysClose: request.saysClose, content: content, works: works)
    }

    private func identifier() -> String {
        var identifier = ""
        for _ in 0..<2 {
            let digits = String(generator.next(), radix: 16)
            identifier += String(repeating: "0", count: 16 - digits.count) + digits
        }
        return identifier
    }

    private func begin(_ exchange: Exchange, takesChunks: Bool) {
        exchange.connection.began(exchange)
        if case .generation(let answer) = exchange.content, answer.stream {
            // As vLLM behind uvicorn: the head goes out before the first token is there.
            var buffer = ByteBuffer()
            HTTPText.head(
                status: 200, contentType: "text/event-stream; charset=utf-8", length: nil, isChunked: takesChunks,
                saysClose: exchange.saysClose, into: &buffer)
            exchange.connection.write(buffer)
        }
        guard let delay = exchange.faults.firstToken, !exchange.isOver else { return submit(exchange) }
        delayed += exchange.works.count
        exchange.delay = loop.assumeIsolated().scheduleTask(in: .nanoseconds(delay.nanoseconds)) {
            exchange.delay = nil
            self.delayed -= exchange.works.count
            self.submit(exchange)
            self.publish()
        }
    }

    private func submit(_ exchange: Exchange) {
        // Writing the head may have found the client gone.
        guard !exchange.isOver else { return }
        var events: [NodeEngineStateMachine.Event] = []
        let now = MonotonicTime.now()
        for (prompt, work) in exchange.works.enumerated() {
            works[work.id] = (exchange, prompt)
            if configuration.speed == .instant {
                events.append(.admitted(work.id, cachedTokens: engine.workPassed(work)))
                if let longest = work.outputTokens.max() { events.append(.decoded(work.id, tokens: longest)) }
                events.append(.finished(work.id))
            } else {
                events += engine.workArrived(work, at: now)
            }
        }
        perform(events)
    }

    // MARK: The engine

    private func perform(_ events: [NodeEngineStateMachine.Event]) {
        // What an event leads to may advance the engine: those events come after the ones already here.
        pending += events
        guard !isPerforming else { return }
        isPerforming = true
        var next = 0
        while next < pending.count {
            let event = pending[next]
            next += 1
            switch event {
            case .admitted(let id, let cachedTokens):
                guard let work = works[id] else { continue }
                statistics.promptTokens += work.exchange.works[work.prompt].promptTokens
                statistics.cachedTokens += cachedTokens
                update(work.exchange) { $0.promptAdmitted(cachedTokens: cachedTokens) }
            case .decoded(let id, let tokens):
                guard let work = works[id] else { continue }
                update(work.exchange) { answer in
                    statistics.generatedTokens += answer.tokensGenerated(prompt: work.prompt, tokens: tokens)
                }
                pump(work.exchange)
            case .finished(let id):
                guard let work = works.removeValue(forKey: id) else { continue }
                work.exchange.worksLeft -= 1
                if case .embedding(let request) = work.exchange.content, work.exchange.worksLeft == 0 {
                    finish(work.exchange, request)
                }
            }
        }
        pending.removeAll(keepingCapacity: true)
        isPerforming = false
        schedule()
    }

    private func update(_ exchange: Exchange, _ change: (inout AnswerStateMachine) -> Void) {
        guard case .generation(var answer) = exchange.content else { return }
        // Emptied first, so that the answer is changed in place rather than copied with each token.
        exchange.content = .borrowed
        change(&answer)
        exchange.content = .generation(answer)
    }

    private func schedule() {
        let end = engine.nextStepEnd
        guard timer?.deadline != end else { return }
        timer?.scheduled.cancel()
        timer = nil
        guard let end else { return }
        let wait = max(0, end.nanoseconds(since: .now()))
        let scheduled = loop.assumeIsolated().scheduleTask(in: .nanoseconds(wait)) {
            self.timer = nil
            self.perform(self.engine.timeAdvanced(to: .now()))
            self.publish()
        }
        timer = (end, scheduled)
    }

    /// Writes what is due of a generation, as far as the connection takes it.
    private func pump(_ exchange: Exchange) {
        guard !exchange.isStalled, !exchange.isOver, !exchange.isPumping else { return }
        exchange.isPumping = true
        defer { exchange.isPumping = false }
        while !exchange.isOver, exchange.connection.isWritable {
            var buffer = ByteBuffer()
            var action = AnswerStateMachine.Action.writeThenWait
            update(exchange) { answer in
                action = answer.write(into: &buffer, bytesMax: Self.writeBytesMax, saysClose: exchange.saysClose)
            }
            exchange.connection.write(buffer)
            switch action {
            case .writeThenContinue: continue
            case .writeThenWait: return
            case .finish:
                // The write itself may have found the client gone, which has then been counted.
                guard !exchange.isOver else { return }
                statistics.answered += 1
                end(exchange)
                return exchange.connection.finished(closing: closes(exchange))
            case .stall:
                guard !exchange.isOver else { return }
                withdraw(exchange)
                exchange.isStalled = true
                stalled += exchange.works.count
                return
            case .reset:
                end(exchange)
                return exchange.connection.reset()
            }
        }
    }

    private func closes(_ exchange: Exchange) -> Bool {
        guard case .generation(let answer) = exchange.content else {
            return exchange.saysClose || exchange.faults.close
        }
        // Without chunks the connection's end is the stream's.
        return exchange.saysClose || exchange.faults.close || answer.stream && !answer.isChunked
    }

    private func finish(_ exchange: Exchange, _ request: EmbeddingRequest) {
        let faults = exchange.faults
        let tokens = request.inputs.reduce(0) { $0 + $1.count } * (100 + (faults.usagePercent ?? 0))
        let usage = TokenUsage(promptTokens: (tokens + 99) / 100, cachedTokens: 0, completionTokens: 0)
        var body = ByteBuffer()
        EmbeddingVector.answer(
            request, id: identifier(), created: WallTime.now().milliseconds / 1_000, model: modelJSON,
            dimensions: configuration.embeddingDimensions, usage: faults.noUsage ? nil : usage, into: &body)
        if faults.badJSON { body.moveWriterIndex(to: body.writerIndex * 2 / 3) }
        var buffer = ByteBuffer()
        HTTPText.head(
            status: 200, contentType: "application/json", length: body.readableBytes, isChunked: false,
            saysClose: exchange.saysClose, into: &buffer)
        buffer.writeBuffer(&body)
        statistics.answered += 1
        end(exchange)
        exchange.connection.write(buffer)
        exchange.connection.finished(closing: closes(exchange))
    }

    private func end(_ exchange: Exchange) {
        guard !exchange.isOver else { return }
        exchange.isOver = true
        withdraw(exchange)
    }

    /// Takes an exchange out of the engine, wherever it is.
    private func withdraw(_ exchange: Exchange) {
        if let delay = exchange.delay {
            delay.cancel()
            exchange.delay = nil
            delayed -= exchange.works.count
        }
        if exchange.isStalled {
            exchange.isStalled = false
            stalled -= exchange.works.count
        }
        for work in exchange.works where works.removeValue(forKey: work.id) != nil {
            perform(engine.workAborted(work.id, at: .now()))
        }
    }

    private func publish() {
        statistics.running = engine.worksRunning + stalled
        statistics.waiting = engine.worksWaiting + delayed
        statistics.kvUsage = engine.kvUsage
        statistics.connections = connections.count
        board.publish(statistics)
    }
}

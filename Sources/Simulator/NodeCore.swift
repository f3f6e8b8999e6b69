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
    let model: NodeModel
    let modelJSON: String
    let startedSeconds: Double
    var generator: SplitMix64
    var faults: FaultInjector
    private var engine: NodeEngine
    var nextWork: NodeEngine.WorkID = 0
    /// Which exchange a work belongs to, and which of its prompts it is.
    private var works: [NodeEngine.WorkID: (exchange: Exchange, prompt: Int)] = [:]
    private var pending: [NodeEngine.Event] = []
    private var isPerforming = false
    private var timer: (deadline: MonotonicTime, scheduled: Scheduled<Void>)?
    private var connections: [ObjectIdentifier: NodeConnectionHandler] = [:]
    private var delayed = 0
    private var stalled = 0
    var statistics = NodeStatistics()
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
        engine = NodeEngine(profile: configuration.profile, speed: speed)
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

    // MARK: Inference

    func begin(_ exchange: Exchange, takesChunks: Bool) {
        exchange.connection.began(exchange)
        if case .generation(let answer) = exchange.content, answer.stream {
            // As vLLM behind uvicorn: the head goes out before the first token is there.
            var buffer = ByteBuffer()
            HTTPText.head(
                status: 200, contentType: "text/event-stream; charset=utf-8", length: nil, isChunked: takesChunks,
                saysClose: exchange.saysClose, into: &buffer)
            exchange.connection.write(buffer)
            if answer.writesAtOnce { pump(exchange) }
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
        var events: [NodeEngine.Event] = []
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
        if case .pooled(let request) = exchange.content, exchange.works.isEmpty { finish(exchange, request) }
    }

    // MARK: The engine

    private func perform(_ events: [NodeEngine.Event]) {
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
                if case .pooled(let request) = work.exchange.content, work.exchange.worksLeft == 0 {
                    finish(work.exchange, request)
                } else {
                    // An echo alone has ended without a token.
                    pump(work.exchange)
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
                return stall(exchange)
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

    private func finish(_ exchange: Exchange, _ request: PooledRequest) {
        let faults = exchange.faults
        // An answer without tokens is after the last of them from the start.
        if faults.dieAfterTokens == 0 {
            end(exchange)
            return exchange.connection.reset()
        }
        if faults.stallAfterTokens == 0 { return stall(exchange) }
        let tokens = request.inputs.reduce(0) { $0 + $1.count } * (100 + (faults.usagePercent ?? 0))
        let usage = TokenUsage(promptTokens: (tokens + 99) / 100, cachedTokens: 0, completionTokens: 0)
        var body = ByteBuffer()
        request.answer(
            identity(), configuration: configuration, usage: faults.noUsage ? nil : usage, into: &body)
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

    private func stall(_ exchange: Exchange) {
        withdraw(exchange)
        exchange.isStalled = true
        stalled += exchange.works.count
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

    func publish() {
        let metrics = engine.metrics(now: .now())
        statistics.running = metrics.runningRequests + stalled
        statistics.waiting = metrics.waitingRequests + delayed
        statistics.kvUsage = metrics.kvUsage
        statistics.connections = connections.count
        board.publish(statistics)
    }
}

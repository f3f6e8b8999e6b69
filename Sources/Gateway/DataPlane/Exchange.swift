import Billing
import Domain
import NIOCore
import OpenAIProtocol
import Routing
import Tokenization

/// One request, from its head to its record: carries out what ``RequestStateMachine`` decides.
///
/// Bound to the connection's loop, and so are the upstream connection and every timer. It is kept alive by its
/// connection while the client waits, and by the loop until the money is settled and the node's work has ended.
///
/// Back-pressure: above the writer's high-water mark the node's answer is no longer read, until the client has caught
/// up. Close: ``clientClosed()`` cancels the node's work in the same turn of the loop.
package final class Exchange {
    /// How long a body waits for other bodies to leave memory before it is refused.
    static let bufferWaitNanoseconds: Int64 = 2_000_000_000
    static let bufferRetryNanoseconds: Int64 = 50_000_000
    /// A node's answer up to this size is held whole; a larger plain one goes on in chunks.
    static let heldAnswerBytesMax = 1 << 20
    /// What is read of a node's error before it is passed on.
    static let errorAnswerBytesMax = 64 << 10
    /// The largest storage that a stream keeps from one read of the node to the next.
    static let relayedCapacityKept = 4 << 10
    /// What a body's declared length may reserve before its bytes have come.
    static let bodyReserveMax = 256 << 10
    /// Progress of a stream is journalled this often, so that a killed gateway gives away one second at most.
    static let progressNanoseconds: Int64 = 1_000_000_000
    /// How long a node may take to end an answer that is complete.
    static let upstreamEndNanoseconds: Int64 = 1_000_000_000

    enum Timer: UInt8, CaseIterable {
        case body, request, firstByte, streamIdle, ping, bufferWait, progress, upstreamEnd
    }

    /// A place for each ``Timer``.
    typealias Timers = InlineArray<8, TimerToken>

    let loop: LoopContext
    let writer: any ResponseWriter
    let clientAddress: String
    let requestID: RequestID
    /// As its node and its client are told.
    private(set) lazy var requestIDText = requestID.description
    /// Kept for the whole request: a reload must not change the rules under it.
    let snapshot: GatewaySnapshot
    let acceptedAt = MonotonicTime.now()
    let acceptedWallTime = WallTime.now()
    var machine = RequestStateMachine()

    // What is known so far.
    var endpoint: Endpoint?
    var endpointArgument: String?
    var incoming: IncomingHead?
    var trace: TraceContext?
    var key: KeyRecord?
    var body = ByteBuffer()
    var bodyBytes = 0
    var bufferedBytes = 0
    var isBodyComplete = false
    var wholeBodyAt: MonotonicTime?
    var heldBodyParts: [ByteBuffer] = []
    var bufferWaitSince: MonotonicTime?
    /// What the client asked for; nil where it is `scanned` to the letter.
    var asked: ScannedRequest?
    /// What is served: within the clamps of the model that serves it.
    var scanned: ScannedRequest?
    var model: ModelEntry?
    var price: Price?
    var completionTokensMax = 0
    var promptTokensMax = 0
    var promptTokensEstimate = 0
    /// By the vocabulary of the model that serves; nil where it is not known.
    var promptCount: PromptCount?
    /// How much new text may still be counted for this request, its fallbacks included.
    var newTextBytes = PromptCounter.newBytesMax
    /// Of a prompt that no vocabulary counts.
    var promptFeatures: TextFeatures?
    var maxTokens: Int?
    /// Values of the client's that were above the model's clamps, and what they became.
    var lowered: [(name: String, value: Int)] = []
    /// The model that was asked for, where `model` serves in its place.
    var replaced: ModelEntry?
    /// Fallbacks of the model asked for that were tried or passed over: each is looked at once.
    var fallbacksSeen = 0
    /// The machine's attempts when the present model took over.
    var attemptsBefore = 0

    // Money.
    var ticket: AdmissionTicket?
    var hold: Hold?
    var rates: RateStatus?
    var reserveStartedAt: MonotonicTime?
    var queueNanoseconds: Int64 = 0

    // Room at the nodes.
    /// While the request waits for it, and from then on.
    var seat: AdmissionSeat?
    var waitingSince: MonotonicTime?
    /// Over all its waits.
    var waitedNanoseconds: Int64 = 0

    // The node.
    var assignment: Assignment?
    var node: NodeEntry?
    var tried = NodeSet()
    /// Why the present node; nil where nobody asks.
    var explanation: RoutingExplanation?
    /// Under which the lengths of answers are remembered; 0 where they are not.
    var outputKey: UInt64 = 0
    var call: UpstreamCall?
    var dispatchedAt: MonotonicTime?
    var firstTokenAt: MonotonicTime?
    var isReadingPaused = false
    /// The client was behind at some time of the answer.
    var wasReadingPaused = false
    /// The node's last bytes. The timer looks at it when it fires, rather than being moved with each chunk.
    var lastReadAt: MonotonicTime?
    /// When the client was last sent something of a stream.
    var lastWriteAt: MonotonicTime?
    /// This read of the node brought something for the client.
    var hasWritten = false

    // The answer.
    var answerStatus = 0
    var upstreamHead: UpstreamResponseHead?
    var heldAnswer = ByteBuffer()
    var relay: StreamRelay?
    /// What the last read of a stream became. Kept for its storage: the writer has copied it by the next read.
    var relayed = ByteBuffer()
    var largeAnswer: LargeAnswer?
    /// The node's own error, made fit for the client.
    var nodeError: [UInt8]?
    var reported = ReportedUsage.absent
    /// Completion tokens of a plain answer by the gateway's own count.
    var ownCount = 0
    /// A plain answer brought something.
    var hasContent = false
    var settled: (usage: TokenUsage, cost: NanoUSD, isEstimated: Bool)?
    var failure: Failure?

    // Timers.
    /// By raw value: a request sets several, and a dictionary would cost more than the wheel does.
    private var timers = Timers(repeating: .none)
    private var hasBegun = false

    init(loop: LoopContext, writer: any ResponseWriter, clientAddress: String) {
        self.loop = loop
        self.writer = writer
        self.clientAddress = clientAddress
        snapshot = loop.snapshot
        requestID = RequestID(using: &loop.generator)
    }

    /// How errors and events are written: by the endpoint, or where the method is wrong, by its path; OpenAI's where
    /// neither is known.
    var dialect: Dialect {
        if let endpoint { return endpoint.dialect }
        if case .methodNotAllowed(let endpoint, _) = incoming?.route { return endpoint.dialect }
        return .openAI
    }

    // MARK: From the connection

    func start(_ head: IncomingHead) {
        hasBegun = true
        loop.began(self)
        loop.metrics.add(1, to: .requestsOpen)
        incoming = head
        // Nothing is left to read of it: an early refusal need not cost the client its connection.
        isBodyComplete = !head.isChunked && (head.contentLength ?? 0) == 0
        trace = head.traceparent.flatMap(TraceContext.init(traceparent:))?.child(using: &loop.generator)
        if head.defect == nil, isPreflight(head) { return perform(machine.preflightAnswered()) }
        if let failure = routeFailure(head) ?? head.defect { return perform(machine.refused(failure)) }
        arm(.request, after: snapshot.timeouts.request)
        if endpoint?.isPublic == true {
            perform(machine.keyAuthenticated())
        } else {
            authenticate(head)
        }
        guard !machine.isFinished else { return }
        arm(.body, after: snapshot.timeouts.body)
        guard endpoint?.isInference == true else { return }
        if let length = head.contentLength {
            body.reserveCapacity(min(length, Self.bodyReserveMax, snapshot.limits.bodyBytes))
        }
    }

    /// The decoder could make nothing of the bytes, or they did not come in time.
    func refuseUnreadable(_ failure: Failure) {
        hasBegun = true
        loop.began(self)
        loop.metrics.add(1, to: .requestsOpen)
        perform(machine.refused(failure))
    }

    func bodyReceived(_ bytes: ByteBuffer) {
        guard !machine.isRefused else { return }
        bodyBytes += bytes.readableBytes
        guard bodyBytes <= snapshot.limits.bodyBytes else { return refuseRequest(bodyTooLarge) }
        // What a request that needs no body sends along is read and ignored.
        guard endpoint?.isInference == true else { return }
        guard bufferWaitSince == nil, loop.services.buffers.take(bytes.readableBytes) else {
            return waitForBuffers(bytes)
        }
        append(bytes)
    }

    func bodyCompleted() {
        guard !machine.isFinished else { return }
        isBodyComplete = true
        guard heldBodyParts.isEmpty else { return }
        disarm(.body)
        wholeBodyAt = MonotonicTime.now()
        perform(machine.bodyCompleted())
    }

    func bodyFailed(_ failure: Failure) {
        refuseRequest(failure)
    }

    func clientClosed() {
        perform(machine.clientClosed())
    }

    func drainExpired() {
        expire(
            Failure(
                .draining, "The gateway is shutting down. Please retry.", source: .gateway,
                retry: .after(milliseconds: 1_000)))
    }

    func downstreamWritabilityChanged(isWritable: Bool) {
        guard call != nil, isReadingPaused == isWritable else { return }
        if isWritable { resumeNode() } else { pauseNode() }
    }

    // MARK: Body

    private func append(_ bytes: ByteBuffer) {
        bufferedBytes += bytes.readableBytes
        loop.metrics.add(bytes.readableBytes, to: .bufferedBytes)
        if body.readableBytes == 0 {
            body = bytes
        } else {
            body.writeImmutableBuffer(bytes)
        }
    }

    /// All bodies together are at their bound: stop reading, and look again until some have gone.
    private func waitForBuffers(_ bytes: ByteBuffer) {
        if bufferWaitSince == nil {
            bufferWaitSince = MonotonicTime.now()
            writer.setBodyReading(false)
            arm(.bufferWait, after: Self.bufferRetryNanoseconds)
        }
        heldBodyParts.append(bytes)
    }

    private func retryBuffers() {
        while let bytes = heldBodyParts.first, loop.services.buffers.take(bytes.readableBytes) {
            heldBodyParts.removeFirst()
            append(bytes)
        }
        guard let since = bufferWaitSince else { return }
        if heldBodyParts.isEmpty {
            bufferWaitSince = nil
            writer.setBodyReading(true)
            if isBodyComplete { bodyCompleted() }
        } else if MonotonicTime.now().nanoseconds(since: since) > Self.bufferWaitNanoseconds {
            refuseRequest(
                Failure(
                    .overloadedBuffers, "The gateway holds too many request bodies at the moment. Please retry.",
                    source: .gateway, retry: .after(milliseconds: 1_000)))
        } else {
            arm(.bufferWait, after: Self.bufferRetryNanoseconds)
        }
    }

    var bodyTooLarge: Failure {
        Failure(
            .bodyTooLarge, "The request's body is larger than \(snapshot.limits.bodyBytes) bytes. Send a smaller one.")
    }

    /// The body's memory is free for others: from the first byte of an answer no retry needs it.
    func releaseBody() {
        loop.services.buffers.giveBack(bufferedBytes)
        loop.metrics.add(-bufferedBytes, to: .bufferedBytes)
        bufferedBytes = 0
        body = ByteBuffer()
        if bufferWaitSince != nil {
            bufferWaitSince = nil
            heldBodyParts.removeAll()
            writer.setBodyReading(true)
        }
    }

    // MARK: Acting

    func perform(_ action: RequestStateMachine.Action) {
        switch action {
        case .none: break
        case .prepare: prepare()
        case .readRates: readRates()
        case .reserve: reserve()
        case .exchangeHold: exchangeHold()
        case .route: route()
        case .beginAnswer(let form): beginAnswer(form)
        case .exit(let exit): end(exit)
        }
        if let event = machine.illegalEvent {
            loop.services.logger.error("illegal event", metadata: ["event": "\(event)", "request": "\(requestID)"])
            loop.metrics.count(.illegalEvents)
            machine.acknowledgeIllegalEvent()
            assertionFailure("illegal event: \(event)")
        }
    }

    func expire(_ failure: Failure) {
        perform(machine.expired(failure, delivered: deliveredTokens))
    }

    /// The connection and the loop let go of it.
    func forget() {
        for kind in timers.indices where timers[kind] != .none { loop.wheel.cancel(timers[kind]) }
        timers = Timers(repeating: .none)
        if hasBegun { loop.ended(self) }
    }
}

// MARK: Timers

extension Exchange: TimerTarget {
    func arm(_ timer: Timer, after nanoseconds: Int64, from now: MonotonicTime = .now()) {
        disarm(timer)
        timers[Int(timer.rawValue)] = loop.wheel.schedule(
            at: now.advanced(byNanoseconds: nanoseconds), target: self, kind: timer.rawValue)
    }

    func disarm(_ timer: Timer) {
        let token = timers[Int(timer.rawValue)]
        guard token != .none else { return }
        timers[Int(timer.rawValue)] = .none
        loop.wheel.cancel(token)
    }

    package func timerFired(_ kind: UInt8) {
        guard let timer = Timer(rawValue: kind) else { return }
        timers[Int(kind)] = .none
        guard !machine.isFinished || timer == .upstreamEnd else { return }
        switch timer {
        case .body:
            refuseRequest(
                Failure(
                    .requestTimeout, "The request's body did not arrive in time. Send it faster, or a smaller one."))
        case .bufferWait: retryBuffers()
        case .request where dispatchedAt == nil:
            expire(Failure(.requestTimeout, "The request took too long to arrive and be let in. Please retry."))
        case .request:
            expire(
                Failure(
                    .upstreamTimeout, "The request took longer than the gateway allows. Ask for fewer tokens.",
                    source: .upstream))
        case .firstByte:
            expire(
                Failure(
                    .upstreamTimeout, "The model did not begin to answer in time. Please retry.", source: .upstream))
        case .streamIdle: streamIdleElapsed()
        case .ping: pingElapsed()
        case .progress: journalProgress()
        case .upstreamEnd:
            call?.cancel()
            call = nil
        }
    }
}

/// A model server in virtual time: what a balancer sees of vLLM or SGLang. ``NodeEngine`` runs the same one live.
///
/// Continuous batching: the node works in steps. A step with prefill computes up to a chunk of prompt tokens, first
/// come first served, and one token for every sequence that decodes. Where nothing prefills, steps of pure decode are
/// taken many at a time, until the first sequence ends or the memory is full; an arrival cuts them short at the next
/// step's end. Prompts share whole blocks of ``blockTokens`` in a ``BlockCache``; what a sequence has beyond them, its last
/// part and its answer, is its own. When decode outgrows the memory, the youngest sequence is preempted: it loses all and
/// waits at the head of the line to be computed again.
///
/// Events in: ``accept(_:now:)``, ``advance(to:into:)`` at ``wakeAt``, ``cancel(_:now:)``, ``setSpeed(_:now:)``; out:
/// ``Outcome``. Time is an argument, in seconds.
package struct VirtualNode: Sendable {
    /// One request as the node sees it.
    package struct Work: Sendable {
        /// The caller's name for it.
        package var id: Int32
        package var promptTokens: Int
        /// At least 1.
        package var outputTokens: Int
        /// Chained hashes of the prompt's whole blocks.
        package var blocks: [UInt64]

        package init(id: Int32, promptTokens: Int, outputTokens: Int, blocks: [UInt64]) {
            self.id = id
            self.promptTokens = max(1, promptTokens)
            self.outputTokens = max(1, outputTokens)
            self.blocks = blocks
        }
    }

    package enum Outcome: Hashable, Sendable {
        case firstToken(Int32, cachedTokens: Int)
        /// So many tokens are generated now; only where ``reportsTokens`` asks for it. Follows the first token too.
        case decoded(Int32, tokens: Int)
        /// Comes after the first token, at once for an answer of one token.
        case finished(Int32)
    }

    /// What a scrape of the node's metrics finds.
    package struct Metrics: Hashable, Sendable {
        package var runningRequests: Int
        package var waitingRequests: Int
        /// 0...1.
        package var kvUsage: Double
        /// Prompts of the waiting requests, cached or not.
        package var waitingTokens: Int
        /// What is left to compute of the prompts that run.
        package var prefillTokens: Int
    }

    enum Mode { case idle, prefill, decode }

    /// The state of one sequence: waiting (exits: prefilling), prefilling (decoding, or finished), decoding (finished,
    /// or waiting by preemption).
    enum Phase { case free, waiting, prefilling, decoding }

    struct Sequence: Sendable {
        var work: Work
        var phase: Phase
        var generatedTokens = 0
        var cachedTokens = 0
        var hasFirstToken = false
        var isMeasured = false
        /// Prompt tokens to compute, and those before them.
        var tokensLeft = 0
        var contextTokens = 0
        /// KV tokens outside shared blocks, as of admission.
        var ownTokens = 0
        /// Values of ``decodeSteps`` at the start of decode and at its end.
        var decodeStart = 0
        var decodeEnd = 0
        /// Tells one use of the place from the next.
        var serial: UInt32 = 0
    }

    struct Reference: Hashable, Sendable {
        var place: Int32
        var serial: UInt32
    }

    struct Ending: Comparable, Sendable {
        var step: Int
        var order: Int64
        var place: Int32

        static func < (left: Self, right: Self) -> Bool {
            (left.step, left.order) < (right.step, right.order)
        }
    }

    struct Share: Sendable {
        var place: Int32
        var tokens: Int
    }

    package let profile: NodeProfile
    /// Tokens of a block that prompts can share.
    package let blockTokens: Int
    /// Whether every token is an outcome: steps of decode are then taken one at a time.
    package let reportsTokens: Bool
    /// The profile at the present speed.
    private(set) var pace: NodeProfile

    var sequences: ContiguousArray<Sequence> = []
    private var freePlaces: ContiguousArray<Int32> = []
    var waiting = RingBuffer<Int32>()
    var prefilling: ContiguousArray<Int32> = []
    var endings = MinHeap<Ending>()
    /// Who began to decode, the youngest last; some are over since.
    var decodeOrder: ContiguousArray<Reference> = []
    var endingsMade: Int64 = 0

    /// Steps since the start, each of which gives every decoding sequence a token.
    var decodeSteps = 0
    var decodingCount = 0
    /// Contexts of the sequences that decode.
    var decodingKVTokens = 0
    var cache: BlockCache
    /// KV tokens outside shared blocks.
    var ownTokens = 0

    var mode = Mode.idle
    var stepStart = 0.0
    var stepCount = 0
    /// Duration of the first of the present decode steps, and half of what each adds to the next.
    var stepBase = 0.0
    var stepGrowth = 0.0
    var shares: ContiguousArray<Share> = []

    /// When ``advance(to:into:)`` has something to do; infinite while idle.
    package internal(set) var wakeAt = Double.infinity
    package private(set) var waitingTokens = 0
    package internal(set) var preemptions = 0
    /// Prompt tokens of first admissions, and those of them that were cached.
    package internal(set) var promptTokens = 0
    package internal(set) var cachedTokens = 0
    /// Seconds in steps.
    package internal(set) var busySeconds = 0.0

    package init(
        _ profile: NodeProfile, speed: Double = 1, blockTokens: Int = NodeProfile.blockTokens,
        reportsTokens: Bool = false
    ) {
        self.profile = profile
        self.blockTokens = blockTokens
        self.reportsTokens = reportsTokens
        self.pace = profile.atSpeed(speed)
        self.cache = BlockCache(reserving: profile.kvTokensCapacity / blockTokens)
    }

    // MARK: Events

    package mutating func accept(_ work: Work, now: Double) {
        let place = freePlaces.popLast() ?? Int32(sequences.count)
        if place == sequences.count { sequences.append(Sequence(work: work, phase: .free)) }
        let serial = sequences[Int(place)].serial &+ 1
        sequences[Int(place)] = Sequence(work: work, phase: .waiting, serial: serial)
        waiting.append(place)
        waitingTokens += work.promptTokens
        switch mode {
        case .idle: begin(now: now)
        case .decode where decodingCount < profile.sequencesMax: cutShort(now: now)
        case .decode, .prefill: break
        }
    }

    /// Ends the step that is due and begins the next. Nothing happens before ``wakeAt``.
    package mutating func advance(to now: Double, into outcomes: inout [Outcome]) {
        while wakeAt <= now {
            let end = wakeAt
            endStep(now: end, into: &outcomes)
            begin(now: end)
        }
    }

    /// Power changed. The step in progress ends at the old pace.
    ///
    /// - Parameter speed: Share of the full one, over 0.
    package mutating func setSpeed(_ speed: Double, now: Double) {
        if mode == .decode { cutShort(now: now) }
        pace = profile.atSpeed(speed)
    }

    /// The client left. A sequence in the present step leaves at its end's cost, its blocks stay cached.
    package mutating func cancel(_ id: Int32, now: Double) {
        guard
            let place = sequences.indices.first(where: { sequences[$0].phase != .free && sequences[$0].work.id == id })
        else { return }
        switch sequences[place].phase {
        case .free: return
        case .waiting:
            waiting.removeAll { $0 == Int32(place) }
            waitingTokens -= sequences[place].work.promptTokens
        case .prefilling:
            prefilling.removeAll { $0 == Int32(place) }
            shares.removeAll { $0.place == Int32(place) }
            ownTokens -= sequences[place].ownTokens
            cache.unpin(sequences[place].work.blocks[...])
        case .decoding:
            if mode == .decode { cutShort(now: now) }
            stopDecoding(Int32(place))
            endings.removeAll { $0.place == Int32(place) }
        }
        release(Int32(place))
    }

    /// A prompt that takes no time: cached as any other is.
    ///
    /// - Returns: The tokens of it that were cached.
    package mutating func pass(promptTokens: Int, blocks: [UInt64]) -> Int {
        let matched = matchCount(blocks, of: promptTokens)
        cache.pin(blocks[..<matched])
        _ = makeRoom(tokens: (blocks.count - matched) * blockTokens)
        cache.pin(blocks[matched...])
        cache.unpin(blocks[...])
        return matched * blockTokens
    }

    /// Blocks that need no computing: of any prompt at least one token is computed, whatever is cached.
    func matchCount(_ blocks: [UInt64], of tokens: Int) -> Int {
        min(cache.matchCount(blocks[...]), (tokens - 1) / blockTokens)
    }

    package func metrics(now: Double) -> Metrics {
        let steps = mode == .decode ? min(stepCount, stepsDone(now: now)) : 0
        let used = cache.pinnedCount * blockTokens + ownTokens + steps * decodingCount
        return Metrics(
            runningRequests: decodingCount + prefilling.count, waitingRequests: waiting.count,
            kvUsage: min(1, Double(used) / Double(profile.kvTokensCapacity)), waitingTokens: waitingTokens,
            prefillTokens: prefilling.reduce(0) { $0 + sequences[Int($1)].tokensLeft })
    }

    /// How many of the first blocks are cached here.
    package func matchCount(_ blocks: [UInt64]) -> Int { cache.matchCount(blocks[...]) }

    /// Whether cache events are kept for ``takeCacheEvents()``.
    package var recordsCacheEvents: Bool {
        get { cache.recordsEvents }
        set { cache.recordsEvents = newValue }
    }

    /// Blocks that came into the cache and left it since the last call.
    package mutating func takeCacheEvents() -> (stored: [UInt64], evicted: [UInt64]) { cache.takeEvents() }

    /// Every request here, in no particular order.
    package var workIDs: [Int32] { sequences.filter { $0.phase != .free }.map(\.work.id) }

    // MARK: Places

    mutating func release(_ place: Int32) {
        sequences[Int(place)].phase = .free
        sequences[Int(place)].work.blocks = []
        freePlaces.append(place)
    }

    /// The head of the line, which goes on to prefill.
    mutating func takeWaiting() {
        guard let place = waiting.popFirst() else { return }
        waitingTokens -= sequences[Int(place)].work.promptTokens
    }

    mutating func returnToHead(_ place: Int32) {
        waiting.prepend(place)
        waitingTokens += sequences[Int(place)].work.promptTokens
    }
}

import Domain

/// A model of continuous batching: whose tokens come when on one GPU.
///
/// The engine runs in steps, as vLLM does. A step decodes one token for every running sequence and spends what is left of
/// its token budget on prompts, first come first served, in chunks; it takes
///
///     step + sequences x perSequence + contexts x perKVToken + sum over chunks (n / rate + attention x n x (done + n/2))
///
/// seconds divided by the speed. So prefill and decode slow each other down, and all requests share one GPU. A work that
/// does not fit (sequences, or KV memory, of which its whole length is set aside at admission so that nothing is ever
/// preempted) waits, and those behind it with it.
///
/// Pure: it knows no clock. The shell asks ``nextStepEnd``, calls ``timeAdvanced(to:)`` then, and acts on the events. The
/// sequences of one work (`n` choices of one prompt) start together and run in lockstep, so one count describes them all.
package struct NodeEngineStateMachine {
    package typealias WorkID = UInt64

    /// One prompt and the sequences that continue it.
    package struct Work {
        package var id: WorkID
        package var promptTokens: Int
        /// Hash chain of the prompt's whole blocks.
        package var blocks: [UInt64]
        /// How long each sequence gets; none for an embedding, which ends with its prefill.
        package var outputTokens: [Int]

        package init(id: WorkID, promptTokens: Int, blocks: [UInt64], outputTokens: [Int]) {
            self.id = id
            self.promptTokens = max(1, promptTokens)
            self.blocks = blocks
            self.outputTokens = outputTokens
        }
    }

    package enum Event: Equatable {
        /// The work has left the queue; so many of its prompt tokens are in the prefix cache.
        case admitted(WorkID, cachedTokens: Int)
        /// Each of its sequences now has `min(tokens, its length)` tokens.
        case decoded(WorkID, tokens: Int)
        /// All of its sequences are complete; the engine has forgotten it.
        case finished(WorkID)
    }

    private struct Running {
        var work: Work
        var prefilled: Int
        var decoded = 0
        var longest: Int
        /// Sequences that still decode.
        var active = 0

        var reservedTokens: Int { work.promptTokens + work.outputTokens.reduce(0, +) }
        /// Sequences times their context: what a decode step reads.
        var readTokens: Int { active * (work.promptTokens + decoded) }
        var heldTokens: Int { prefilled + work.outputTokens.reduce(0) { $0 + min($1, decoded) } }
    }

    private struct Step {
        var end: MonotonicTime
        var chunks: [(id: WorkID, tokens: Int)]
    }

    private let profile: NodeProfile
    private let speed: Double
    private var cache: PrefixCache
    private var waiting: [Work] = []
    private var prefilling: [Running] = []
    private var decoding: [Running] = []
    private var step: Step?
    private var reservedTokens = 0

    /// - Parameter speed: Divides all times; above zero.
    package init(profile: NodeProfile, speed: Double) {
        self.profile = profile
        self.speed = speed
        cache = PrefixCache(capacityTokens: profile.kvTokensCapacity)
    }

    /// When to call ``timeAdvanced(to:)`` next; nil while idle.
    package var nextStepEnd: MonotonicTime? { step?.end }
    package var worksRunning: Int { prefilling.count + decoding.count }
    package var worksWaiting: Int { waiting.count }
    /// Sequences that decode now.
    package var sequencesDecoding: Int { decoding.reduce(0) { $0 + $1.active } }
    /// Share of the KV memory in use, 0 to 1.
    package var kvUsage: Double {
        let held = prefilling.reduce(0) { $0 + $1.heldTokens } + decoding.reduce(0) { $0 + $1.heldTokens }
        return min(1, Double(held) / Double(profile.kvTokensCapacity))
    }

    /// Takes a work in. Steps that ended before `now` are completed first, so a late call changes nothing.
    package mutating func workArrived(_ work: Work, at now: MonotonicTime) -> [Event] {
        var events = timeAdvanced(to: now)
        waiting.append(work)
        if step == nil { beginStep(at: now, &events) }
        return events
    }

    /// Its client went away: the sequences and their memory are free at once. The step under way still takes its time.
    /// A work that is not here any more is no error, since the end of it and its abort may cross.
    package mutating func workAborted(_ id: WorkID, at now: MonotonicTime) -> [Event] {
        let events = timeAdvanced(to: now)
        if let index = waiting.firstIndex(where: { $0.id == id }) {
            waiting.remove(at: index)
        } else if let index = prefilling.firstIndex(where: { $0.work.id == id }) {
            reservedTokens -= prefilling.remove(at: index).reservedTokens
        } else if let index = decoding.firstIndex(where: { $0.work.id == id }) {
            reservedTokens -= decoding.remove(at: index).reservedTokens
        }
        return events
    }

    /// Completes the steps that end by `now` and begins the ones after them.
    package mutating func timeAdvanced(to now: MonotonicTime) -> [Event] {
        var events: [Event] = []
        while let current = step, current.end <= now {
            step = nil
            complete(current, &events)
            beginStep(at: current.end, &events)
        }
        return events
    }

    /// Books a work as if it took no time: for a node at infinite speed.
    /// - Returns: Its cached tokens.
    package mutating func workPassed(_ work: Work) -> Int {
        let cached = cache.hitTokens(work.blocks, promptTokens: work.promptTokens)
        cache.insert(work.blocks)
        return cached
    }

    private mutating func complete(_ step: Step, _ events: inout [Event]) {
        // What decodes now did so at the step's start as well: works join only in the lines below.
        for index in decoding.indices { decodeOne(&decoding[index], &events) }
        for chunk in step.chunks {
            guard let index = prefilling.firstIndex(where: { $0.work.id == chunk.id }) else { continue }
            prefilling[index].prefilled += chunk.tokens
            guard prefilling[index].prefilled >= prefilling[index].work.promptTokens else { continue }
            var running = prefilling.remove(at: index)
            cache.insert(running.work.blocks)
            running.active = running.work.outputTokens.count { $0 > 0 }
            // The step that ends the prompt samples the first token, too.
            if running.active > 0 { decodeOne(&running, &events) }
            decoding.append(running)
        }
        decoding.removeAll { running in
            guard running.active == 0 else { return false }
            reservedTokens -= running.reservedTokens
            events.append(.finished(running.work.id))
            return true
        }
    }

    private func decodeOne(_ running: inout Running, _ events: inout [Event]) {
        running.decoded += 1
        if running.decoded >= running.longest {
            running.active = 0
        } else if running.work.outputTokens.count > 1 {
            running.active = running.work.outputTokens.count { $0 > running.decoded }
        }
        events.append(.decoded(running.work.id, tokens: running.decoded))
    }

    private mutating func beginStep(at start: MonotonicTime, _ events: inout [Event]) {
        let sequences = sequencesDecoding
        var budget = max(1, profile.stepTokensMax - sequences)
        var step = Step(end: start, chunks: [])
        var seconds = 0.0
        func assign(_ running: Running) {
            let tokens = min(budget, running.work.promptTokens - running.prefilled)
            budget -= tokens
            step.chunks.append((running.work.id, tokens))
            let context = Double(running.prefilled) + Double(tokens) / 2
            seconds += Double(tokens) / profile.prefillTokensPerSecond
            seconds += profile.attentionSecondsPerTokenPair * Double(tokens) * context
        }
        for running in prefilling where budget > 0 { assign(running) }
        var sequencesAdmitted = sequences + prefilling.reduce(0) { $0 + max(1, $1.work.outputTokens.count) }
        var admitted = 0
        while budget > 0, admitted < waiting.count {
            let work = waiting[admitted]
            var running = Running(work: work, prefilled: 0, longest: work.outputTokens.max() ?? 0)
            let isAlone = prefilling.isEmpty && decoding.isEmpty
            sequencesAdmitted += max(1, work.outputTokens.count)
            guard
                isAlone
                    || sequencesAdmitted <= profile.sequencesMax
                        && reservedTokens + running.reservedTokens <= profile.kvTokensCapacity
            else { break }
            running.prefilled = cache.hitTokens(work.blocks, promptTokens: work.promptTokens)
            events.append(.admitted(work.id, cachedTokens: running.prefilled))
            reservedTokens += running.reservedTokens
            prefilling.append(running)
            assign(running)
            admitted += 1
        }
        waiting.removeFirst(admitted)
        guard !prefilling.isEmpty || !decoding.isEmpty else { return }
        seconds += profile.stepSeconds + profile.stepSecondsPerSequence * Double(sequences)
        seconds += profile.stepSecondsPerKVToken * Double(decoding.reduce(0) { $0 + $1.readTokens })
        // At least a nanosecond, or a high speed would never leave its loop.
        step.end = start.advanced(byNanoseconds: max(1, Int64(min(seconds / speed, 1e9) * 1e9)))
        self.step = step
    }
}

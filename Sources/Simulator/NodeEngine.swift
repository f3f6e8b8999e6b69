import Domain

/// The engine of a live node: a ``VirtualNode`` in real time, one step at a time.
///
/// What the fleet simulation measures in virtual time is therefore what a live node does: the same batching, the same
/// prefix cache (in blocks of ``blockTokens``, vLLM's size), the same preemption. Each of the `n` choices of a prompt is
/// a sequence; those after the first find its blocks cached.
///
/// Pure: it knows no clock. The shell asks ``nextStepEnd``, calls ``timeAdvanced(to:)`` then, and acts on the events.
package struct NodeEngine {
    package typealias WorkID = UInt64

    /// Tokens in a block: vLLM's default.
    package static let blockTokens = 16

    /// One prompt and the sequences that continue it.
    package struct Work {
        package var id: WorkID
        package var promptTokens: Int
        /// Hash chain of the prompt's whole blocks.
        package var blocks: [UInt64]
        /// How long each sequence gets, at least 1; none for an embedding, which ends with its prefill.
        package var outputTokens: [Int]

        package init(id: WorkID, promptTokens: Int, blocks: [UInt64], outputTokens: [Int]) {
            self.id = id
            self.promptTokens = max(1, promptTokens)
            self.blocks = blocks
            self.outputTokens = outputTokens
        }
    }

    package enum Event: Equatable {
        /// The first of its sequences has its prompt computed; so many of the prompt's tokens were in the prefix cache.
        case admitted(WorkID, cachedTokens: Int)
        /// Each of its sequences now has `min(tokens, its length)` tokens.
        case decoded(WorkID, tokens: Int)
        /// All of its sequences are complete; the engine has forgotten it.
        case finished(WorkID)
    }

    /// A work in the engine.
    private struct Entry {
        var isAdmitted = false
        /// Of each sequence: tokens so far, and how many it gets. None of an embedding.
        var generated: [Int]
        var lengths: [Int]
        var unfinished: Int
        /// The first of its sequences' names; the others follow.
        var firstSequence: Int32
        /// What was told last.
        var told = 0

        /// - Returns: What all sequences have now that are not complete; nil where that is nothing new.
        mutating func decoded(_ sequence: Int32, tokens: Int) -> Int? {
            guard !lengths.isEmpty else { return nil }
            generated[Int(sequence &- firstSequence)] = tokens
            var level = lengths.count == 1 ? tokens : lengths.max() ?? 0
            for (tokens, length) in zip(generated, lengths) where tokens < length { level = min(level, tokens) }
            guard level > told else { return nil }
            told = level
            return level
        }
    }

    private var node: VirtualNode
    private var entries: [WorkID: Entry] = [:]
    /// The work of each sequence here.
    private var owners: [Int32: WorkID] = [:]
    private var nextSequence: Int32 = 0
    private var outcomes: [VirtualNode.Outcome] = []

    /// - Parameter speed: Divides all times; above zero.
    package init(profile: NodeProfile, speed: Double) {
        node = VirtualNode(profile, speed: speed, blockTokens: Self.blockTokens, reportsTokens: true)
    }

    /// When to call ``timeAdvanced(to:)`` next; nil while idle.
    package var nextStepEnd: MonotonicTime? {
        guard node.wakeAt.isFinite else { return nil }
        return MonotonicTime(nanoseconds: Int64(min((node.wakeAt * 1e9).rounded(.up), Self.nanosecondsMax)))
    }

    /// What a node says of itself: sequences that run and wait, and the share of its memory in use.
    package func metrics(now: MonotonicTime) -> VirtualNode.Metrics { node.metrics(now: Self.seconds(now)) }

    /// Takes a work in. Steps that ended before `now` are completed first, so a late call changes nothing.
    package mutating func workArrived(_ work: Work, at now: MonotonicTime) -> [Event] {
        let events = timeAdvanced(to: now)
        let lengths = work.outputTokens.map { max(1, $0) }
        entries[work.id] = Entry(
            generated: lengths.map { _ in 0 }, lengths: lengths, unfinished: max(1, lengths.count),
            firstSequence: nextSequence)
        for length in lengths.isEmpty ? [1] : lengths {
            owners[nextSequence] = work.id
            node.accept(
                VirtualNode.Work(
                    id: nextSequence, promptTokens: work.promptTokens, outputTokens: length, blocks: work.blocks),
                now: Self.seconds(now))
            nextSequence &+= 1
        }
        return events
    }

    /// Its client went away: the sequences and their memory are free at once. The step under way still takes its time.
    /// A work that is not here any more is no error, since the end of it and its abort may cross.
    package mutating func workAborted(_ id: WorkID, at now: MonotonicTime) -> [Event] {
        let events = timeAdvanced(to: now)
        guard let entry = entries.removeValue(forKey: id) else { return events }
        for index in 0..<max(1, entry.lengths.count) {
            let sequence = entry.firstSequence &+ Int32(index)
            guard owners.removeValue(forKey: sequence) != nil else { continue }
            node.cancel(sequence, now: Self.seconds(now))
        }
        return events
    }

    /// Completes the steps that end by `now` and begins the ones after them.
    package mutating func timeAdvanced(to now: MonotonicTime) -> [Event] {
        var events: [Event] = []
        while let end = nextStepEnd, end <= now {
            // The node's own time of its step's end, which nanoseconds can only round.
            node.advance(to: node.wakeAt, into: &outcomes)
            for outcome in outcomes { note(outcome, &events) }
            outcomes.removeAll(keepingCapacity: true)
        }
        return events
    }

    /// Books a work as if it took no time: for a node at infinite speed.
    /// - Returns: Its cached tokens.
    package mutating func workPassed(_ work: Work) -> Int {
        node.pass(promptTokens: work.promptTokens, blocks: work.blocks)
    }

    private mutating func note(_ outcome: VirtualNode.Outcome, _ events: inout [Event]) {
        switch outcome {
        case .firstToken(let sequence, let cachedTokens):
            guard let id = owners[sequence], entries[id]?.isAdmitted == false else { return }
            entries[id]?.isAdmitted = true
            events.append(.admitted(id, cachedTokens: cachedTokens))
        case .decoded(let sequence, let tokens):
            guard let id = owners[sequence], let place = entries.index(forKey: id),
                let level = entries.values[place].decoded(sequence, tokens: tokens)
            else { return }
            events.append(.decoded(id, tokens: level))
        case .finished(let sequence):
            guard let id = owners.removeValue(forKey: sequence), let place = entries.index(forKey: id) else { return }
            entries.values[place].unfinished -= 1
            guard entries.values[place].unfinished == 0 else { return }
            entries.remove(at: place)
            events.append(.finished(id))
        }
    }

    /// Two centuries: what a step at a tiny speed could take fits the clock.
    private static let nanosecondsMax = 6e18

    private static func seconds(_ time: MonotonicTime) -> Double { Double(time.nanoseconds) / 1e9 }
}

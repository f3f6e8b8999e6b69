#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// The scheduler's step: admission, prefill, decode, preemption.
extension VirtualNode {
    /// Of the memory, what stays free at an admission for those who decode.
    private static let admissionReserve = 0.01
    /// The list of who began to decode is swept when it has this many times the sequences that may run.
    private static let decodeOrderSlack = 4

    /// Plans the next step, or goes idle.
    mutating func begin(now: Double) {
        while true {
            planShares()
            if !shares.isEmpty { return beginPrefill(now: now) }
            guard decodingCount > 0 else { break }
            makeRoomForStep()
            if decodingCount > 0 { return beginDecode(now: now) }
        }
        mode = .idle
        wakeAt = .infinity
    }

    /// Fills ``shares`` with what the step's chunk computes of whose prompt.
    private mutating func planShares() {
        shares.removeAll(keepingCapacity: true)
        var budget = max(1, profile.stepTokensMax - decodingCount)
        for place in prefilling where budget > 0 { addShare(of: place, &budget) }
        while budget > 0, !waiting.isEmpty, decodingCount + prefilling.count < profile.sequencesMax {
            guard let place = admitFirst() else { break }
            addShare(of: place, &budget)
        }
    }

    private mutating func addShare(of place: Int32, _ budget: inout Int) {
        let tokens = min(budget, sequences[Int(place)].tokensLeft)
        shares.append(Share(place: place, tokens: tokens))
        budget -= tokens
    }

    private mutating func beginPrefill(now: Double) {
        makeRoomForStep()
        var seconds = stepSeconds
        for share in shares {
            let tokens = Double(share.tokens)
            let context = Double(sequences[Int(share.place)].contextTokens)
            seconds +=
                tokens / pace.prefillTokensPerSecond
                + pace.attentionSecondsPerTokenPair * tokens * (context + tokens / 2)
        }
        mode = .prefill
        stepCount = 1
        stepStart = now
        wakeAt = now + seconds
        busySeconds += seconds
    }

    private mutating func beginDecode(now: Double) {
        let free = freeTokens + cache.unpinnedCount * blockTokens
        let toNextEnding = (endings.first?.step ?? decodeSteps) - decodeSteps
        stepCount = reportsTokens ? 1 : max(1, min(toNextEnding, free / decodingCount))
        _ = makeRoom(tokens: min(stepCount * decodingCount, free))
        mode = .decode
        stepStart = now
        stepBase = stepSeconds
        stepGrowth = pace.stepSecondsPerKVToken * Double(decodingCount) / 2
        wakeAt = now + duration(steps: stepCount)
    }

    /// Of one step of pure decode as things stand.
    private var stepSeconds: Double {
        pace.stepSeconds + pace.stepSecondsPerSequence * Double(decodingCount)
            + pace.stepSecondsPerKVToken * Double(decodingKVTokens)
    }

    /// Of decode steps from ``stepStart`` on: each reads one token more of each sequence than the one before.
    private func duration(steps: Int) -> Double {
        let steps = Double(steps)
        return steps * stepBase + stepGrowth * steps * (steps - 1)
    }

    /// Whole decode steps since ``stepStart``: ``duration(steps:)`` solved for the steps.
    func stepsDone(now: Double) -> Int {
        let elapsed = max(0, now - stepStart)
        guard stepGrowth > 0 else { return Int(elapsed / stepBase) }
        let linear = stepBase - stepGrowth
        return Int((-linear + (linear * linear + 4 * stepGrowth * elapsed).squareRoot()) / (2 * stepGrowth))
    }

    /// Ends the present run of decode steps with the one in progress.
    mutating func cutShort(now: Double) {
        let steps = min(stepCount, stepsDone(now: now) + 1)
        guard steps < stepCount else { return }
        stepCount = steps
        wakeAt = stepStart + duration(steps: steps)
    }

    // MARK: The end of a step

    mutating func endStep(now: Double, into outcomes: inout [Outcome]) {
        if mode == .decode { busySeconds += now - stepStart }
        let generated = stepCount * decodingCount
        decodeSteps += stepCount
        decodingKVTokens += generated
        ownTokens += generated
        if reportsTokens { reportDecoded(into: &outcomes) }
        while let ending = endings.first, ending.step <= decodeSteps {
            _ = endings.popFirst()
            finish(ending.place, into: &outcomes)
        }
        guard mode == .prefill else { return }
        for share in shares {
            let place = Int(share.place)
            sequences[place].tokensLeft -= share.tokens
            sequences[place].contextTokens += share.tokens
            if sequences[place].tokensLeft <= 0 { beginDecoding(share.place, into: &outcomes) }
        }
    }

    private func reportDecoded(into outcomes: inout [Outcome]) {
        for reference in decodeOrder where isDecoding(reference) {
            let sequence = sequences[Int(reference.place)]
            let tokens = sequence.generatedTokens + decodeSteps - sequence.decodeStart
            outcomes.append(.decoded(sequence.work.id, tokens: tokens))
        }
    }

    private mutating func beginDecoding(_ place: Int32, into outcomes: inout [Outcome]) {
        let index = Int(place)
        prefilling.removeAll { $0 == place }
        if !sequences[index].hasFirstToken {
            sequences[index].hasFirstToken = true
            outcomes.append(.firstToken(sequences[index].work.id, cachedTokens: sequences[index].cachedTokens))
        }
        sequences[index].generatedTokens += 1
        if reportsTokens {
            outcomes.append(.decoded(sequences[index].work.id, tokens: sequences[index].generatedTokens))
        }
        sequences[index].phase = .decoding
        sequences[index].decodeStart = decodeSteps
        let left = sequences[index].work.outputTokens - sequences[index].generatedTokens
        sequences[index].decodeEnd = decodeSteps + max(0, left)
        decodingCount += 1
        decodingKVTokens += sequences[index].work.promptTokens + sequences[index].generatedTokens
        if left <= 0 { return finish(place, into: &outcomes) }

        endingsMade += 1
        endings.insert(Ending(step: sequences[index].decodeEnd, order: endingsMade, place: place))
        decodeOrder.append(Reference(place: place, serial: sequences[index].serial))
        if decodeOrder.count > Self.decodeOrderSlack * profile.sequencesMax {
            decodeOrder = decodeOrder.filter(isDecoding)
        }
    }

    private func isDecoding(_ reference: Reference) -> Bool {
        let sequence = sequences[Int(reference.place)]
        return sequence.serial == reference.serial && sequence.phase == .decoding
    }

    private mutating func finish(_ place: Int32, into outcomes: inout [Outcome]) {
        outcomes.append(.finished(sequences[Int(place)].work.id))
        stopDecoding(place)
        release(place)
    }

    /// Takes the sequence out of the batch; its blocks stay in the cache, unpinned.
    mutating func stopDecoding(_ place: Int32) {
        let sequence = sequences[Int(place)]
        let decoded = decodeSteps - sequence.decodeStart
        decodingCount -= 1
        decodingKVTokens -= sequence.work.promptTokens + sequence.generatedTokens + decoded
        ownTokens -= sequence.ownTokens + decoded
        cache.unpin(sequence.work.blocks[...])
    }

    // MARK: Memory

    private var freeTokens: Int { profile.kvTokensCapacity - cache.count * blockTokens - ownTokens }

    /// Evicts until the tokens fit; false where nothing is left to evict.
    mutating func makeRoom(tokens: Int) -> Bool {
        while freeTokens < tokens {
            guard cache.evictOldest() else { return false }
        }
        return true
    }

    /// For one token of each sequence that decodes.
    private mutating func makeRoomForStep() {
        while decodingCount > 0, !makeRoom(tokens: decodingCount) {
            guard preemptYoungest() else { return }
        }
    }

    private mutating func preemptYoungest() -> Bool {
        var youngest: Reference?
        while youngest == nil, let reference = decodeOrder.popLast() {
            if isDecoding(reference) { youngest = reference }
        }
        guard let place = youngest?.place else { return false }
        preemptions += 1
        stopDecoding(place)
        endings.removeAll { $0.place == place }
        sequences[Int(place)].generatedTokens += decodeSteps - sequences[Int(place)].decodeStart
        sequences[Int(place)].phase = .waiting
        returnToHead(place)
        return true
    }

    /// Admits the head of the line if its prompt fits; an idle node takes it even if not, or it would never run.
    private mutating func admitFirst() -> Int32? {
        guard let place = waiting.first else { return nil }
        let index = Int(place)
        let blocks = sequences[index].work.blocks
        let tokens = sequences[index].work.promptTokens + sequences[index].generatedTokens
        let matched = matchCount(blocks, of: tokens)
        let new = tokens - matched * blockTokens
        let reused = blocks[..<matched].count { cache.isUnpinned($0) }
        let available = freeTokens + (cache.unpinnedCount - reused) * blockTokens
        let reserve = Self.admissionReserve * Double(profile.kvTokensCapacity)
        let isBusy = decodingCount > 0 || !prefilling.isEmpty
        if isBusy && Double(available) < Double(new) + reserve { return nil }

        takeWaiting()
        cache.pin(blocks[..<matched])
        _ = makeRoom(tokens: new)
        cache.pin(blocks[matched...])
        sequences[index].phase = .prefilling
        sequences[index].ownTokens = tokens - blocks.count * blockTokens
        ownTokens += sequences[index].ownTokens
        sequences[index].tokensLeft = new
        sequences[index].contextTokens = matched * blockTokens
        if !sequences[index].isMeasured {
            sequences[index].isMeasured = true
            sequences[index].cachedTokens = matched * blockTokens
            promptTokens += sequences[index].work.promptTokens
            cachedTokens += matched * blockTokens
        }
        prefilling.append(place)
        return place
    }
}

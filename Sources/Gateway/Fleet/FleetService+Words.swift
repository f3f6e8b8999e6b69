import Billing
import Domain
import Logging
import Routing

// What operators say: stored, read each half second, and made true in the router.
extension FleetService {
    /// Stores the operator's word, then makes it true here at once; other replicas read it within a second.
    ///
    /// - Throws: `notFound` for a node that is not configured, `storeUnavailable` (the word may have been stored).
    package func say(_ word: OperatorWord, of node: NodeID) async throws(OperatorFailure) {
        guard state.withLock({ $0.nodes[node] != nil }) else { throw Self.unknown(node) }
        try await store(word, about: node.rawValue)
    }

    /// The same of a site.
    ///
    /// - Throws: `notFound` for a site that is not configured, `storeUnavailable` (the word may have been stored).
    package func say(_ word: OperatorWord, of site: SiteID) async throws(OperatorFailure) {
        guard state.withLock({ $0.sites.contains { $0.id == site } }) else { throw Self.unknown(site) }
        try await store(word, about: site.rawValue)
    }

    /// Cordons or uncordons a node; the latter also ends a drain.
    package func setCordoned(_ isCordoned: Bool, node: NodeID) async throws(OperatorFailure) {
        try await say(isCordoned ? .cordon(node) : .uncordon(node), of: node)
    }

    static func unknown(_ node: NodeID) -> OperatorFailure {
        OperatorFailure(.notFound, "no node is called \(node): 'tollgate node list' shows them")
    }

    static func unknown(_ site: SiteID) -> OperatorFailure {
        OperatorFailure(.notFound, "no site is called \(site): 'tollgate site list' shows them")
    }

    private func store(_ word: OperatorWord, about name: String) async throws(OperatorFailure) {
        do throws(OperatorWordFailure) {
            try await words.say(word)
        } catch {
            throw OperatorFailure(.storeUnavailable, "the word on \(name) could not be stored: \(error.description)")
        }
        state.withLock { $0.words.wordSaid() }
        // Where this read fails the next one, half a second later, makes it true.
        await readWordsOnce()
    }

    /// Reads until its task is cancelled, and carries out what comes due in between.
    func readWords() async {
        while !Task.isCancelled {
            await readWordsOnce()
            let jitter = Double.random(in: 0.8..<1.2)
            let interval = Int64(Double(timings.wordInterval.nanoseconds) * jitter)
            let now = MonotonicTime.now()
            let next = state.withLock { $0.words.nextTransition(now: now) }
            let untilNext = next.map { max(1_000_000, $0.nanoseconds(since: now)) } ?? interval
            try? await Task.sleep(for: .nanoseconds(min(interval, untilNext)))
        }
    }

    private func readWordsOnce() async {
        let began = MonotonicTime.now()
        let (asked, number) = state.withLock { ($0.order, $0.words.readBegins()) }
        var failure: OperatorWordFailure?
        var reading: OperatorWordsReading?
        do throws(OperatorWordFailure) {
            reading = try await words.words()
        } catch {
            failure = error
        }
        guard !Task.isCancelled else { return }
        let now = MonotonicTime.now()
        let (isNews, ended) = state.withLock { state in
            if let reading { _ = state.words.read(reading, number: number, began: began, now: now) }
            // Times pass whether the store answers or not.
            apply(state.reconcileWords(now: now))
            // After the router knows: a node must not be probed, and take requests, before its cordon is known.
            state.schedule.wordsAsked(asked)
            return (state.storeFailing(failure != nil), state.words.drainsEnded(now: now))
        }
        for node in ended {
            logger.info("a node's drain is over: ending what is left", metadata: ["node": "\(node)"])
            onDrainEnded(node)
        }
        guard isNews else { return }
        if let failure {
            logger.warning("operators' words cannot be read; the last ones stay", metadata: ["reason": "\(failure)"])
        } else {
            logger.info("operators' words can be read again")
        }
    }

    /// Tells the router. Under the lock of the state, so that two changes reach it in their order.
    func apply(_ changes: [WordKeeper.Change]) {
        for change in changes {
            let (before, after) = (change.before, change.after)
            if before.isCordoned != after.isCordoned { router.setCordoned(after.isCordoned, node: change.node) }
            if before.isDraining != after.isDraining { router.setDraining(after.isDraining, node: change.node) }
            if before.permille != after.permille || before.endsAt != after.endsAt {
                router.curtailed(change.node, to: Double(after.permille) / 1_000, endsAt: nil)
                // Until its power ends it runs on at that.
                if let end = after.endsAt { router.curtailed(change.node, to: 0, endsAt: end) }
            }
            guard before.description != after.description else { continue }
            logger.info(
                "a node is \(after.description)", metadata: ["node": "\(change.node)", "was": "\(before.description)"])
        }
    }
}

import Domain

/// One thing that an operator says of a node or a site. Times are from now on; the store's clock makes them absolute, so
/// that gateways whose clocks differ mean the same moment.
package enum OperatorWord: Hashable, Sendable {
    /// No new requests. Ends a drain: what runs may end in its own time.
    case cordon(NodeID)
    /// Ends a cordon or a drain.
    case uncordon(NodeID)
    /// No new requests; what still runs at the deadline is ended. In a cordon's place.
    case drain(NodeID, deadline: Duration)
    /// The site runs at so many thousandths of its power: from `start` on, for `time` or until it is restored.
    case curtail(SiteID, permille: Int, start: Duration, time: Duration?)
    case restore(SiteID)
}

/// A site's lessened power, in absolute times of the store.
package struct Curtailment: Hashable, Sendable {
    /// What is left of the power: 0...1000.
    package var permille: Int
    package var startsAt: WallTime
    /// It ends by itself then; nil where an operator has to end it.
    package var endsAt: WallTime?
    /// What it runs at until then.
    package var permilleBefore: Int

    package init(permille: Int, startsAt: WallTime, endsAt: WallTime?, permilleBefore: Int = 1_000) {
        self.permille = permille
        self.startsAt = startsAt
        self.endsAt = endsAt
        self.permilleBefore = permilleBefore
    }

    /// Thousandths of its power that the site runs at.
    package func permille(at now: WallTime) -> Int {
        guard stands(at: now) else { return 1_000 }
        return startsAt <= now ? permille : permilleBefore
    }

    /// Whether it has not ended yet.
    package func stands(at now: WallTime) -> Bool { endsAt.map { now < $0 } ?? true }
}

/// All that operators said and that still stands.
package struct OperatorWords: Hashable, Sendable {
    package var cordoned: Set<NodeID> = []
    /// By node: when what still runs there is ended.
    package var draining: [NodeID: WallTime] = [:]
    package var curtailed: [SiteID: Curtailment] = [:]

    package init() {}
}

/// The words, and the store's clock when it read them.
package struct OperatorWordsReading: Hashable, Sendable {
    package var words: OperatorWords
    package var storeTime: WallTime

    package init(words: OperatorWords, storeTime: WallTime) {
        self.words = words
        self.storeTime = storeTime
    }
}

/// What the words come to for one node at one moment: what the router is told.
struct NodeStanding: Hashable, Sendable {
    var isCordoned = false
    var isDraining = false
    var permille = 1_000
    /// Its power ends then, and it takes only what is predicted to end before.
    var endsAt: MonotonicTime?

    /// For the log: what is said of it.
    var description: String {
        if isDraining { return "draining" }
        if isCordoned { return "cordoned" }
        if endsAt != nil { return "curtailed to 0% soon" }
        return permille < 1_000 ? "curtailed to \(permille / 10)%" : "free of operators' words"
    }
}

/// The words as one gateway makes them true: which node stands how, and what is due when. Pure; does no I/O.
///
/// Reads are numbered when they begin. A word that is said here makes all reads that began before stale, and so does a
/// read that began later and ended sooner.
struct WordKeeper: Sendable {
    private(set) var words = OperatorWords()
    /// What the router was told, by node; nodes without an entry stand free.
    private(set) var applied: [NodeID: NodeStanding] = [:]
    /// Drains whose deadline has been carried out.
    private var ended: [NodeID: WallTime] = [:]
    private var readsBegun = 0
    private var readApplied = 0
    /// The monotonic clock's nanoseconds at the store's time 0: within what the last read allows, and else as it was, or
    /// each read would move all deadlines by its own delay.
    private var clockOffset: Int64?

    struct Change: Hashable {
        var node: NodeID
        var before: NodeStanding
        var after: NodeStanding
    }

    // MARK: Reads

    /// - Returns: The read's number.
    mutating func readBegins() -> Int {
        readsBegun += 1
        return readsBegun
    }

    /// A word was stored: what reads that have begun will bring may be older.
    mutating func wordSaid() { readApplied = readsBegun }

    /// - Parameters:
    ///   - began: The store read its clock between then and `now`.
    /// - Returns: Whether the read counts.
    mutating func read(
        _ reading: OperatorWordsReading, number: Int, began: MonotonicTime, now: MonotonicTime
    ) -> Bool {
        guard number > readApplied else { return false }
        readApplied = number
        words = reading.words
        // What starts with its word has started: the store's time counts as no earlier than it said. It says milliseconds.
        let latest = now.nanoseconds - reading.storeTime.milliseconds * 1_000_000
        let earliest = min(began.nanoseconds - (reading.storeTime.milliseconds + 1) * 1_000_000, latest)
        clockOffset = min(max(clockOffset ?? latest, earliest), latest)
        ended = ended.filter { words.draining[$0.key] == $0.value }
        return true
    }

    // MARK: Time

    /// The store's time; this machine's before the store was ever read.
    func storeTime(at now: MonotonicTime) -> WallTime {
        guard let clockOffset else { return .now() }
        return WallTime(milliseconds: (now.nanoseconds - clockOffset) / 1_000_000)
    }

    func monotonic(_ time: WallTime, now: MonotonicTime) -> MonotonicTime {
        now.advanced(byNanoseconds: (time.milliseconds - storeTime(at: now).milliseconds) * 1_000_000)
    }

    /// When something changes by itself next.
    func nextTransition(now: MonotonicTime) -> MonotonicTime? {
        let present = storeTime(at: now)
        var times = words.draining.filter { ended[$0.key] != $0.value }.map(\.value)
        for curtailment in words.curtailed.values {
            times.append(curtailment.startsAt)
            if let end = curtailment.endsAt { times.append(end) }
        }
        return times.filter { $0 > present }.min().map { monotonic($0, now: now) }
    }

    // MARK: What it comes to

    func standing(of node: NodeID, site: SiteID, now: MonotonicTime) -> NodeStanding {
        var standing = NodeStanding()
        standing.isCordoned = words.cordoned.contains(node)
        standing.isDraining = words.draining[node] != nil
        let present = storeTime(at: now)
        guard let curtailment = words.curtailed[site], curtailment.stands(at: present) else { return standing }
        standing.permille = curtailment.permille(at: present)
        if curtailment.startsAt > present, curtailment.permille == 0, let clockOffset {
            // Of the offset, not of `now`: the same moment at each look.
            standing.endsAt = MonotonicTime(
                nanoseconds: clockOffset + curtailment.startsAt.milliseconds * 1_000_000)
        }
        return standing
    }

    /// Brings what the router was told up to date.
    ///
    /// - Returns: The nodes that stand otherwise than before.
    mutating func reconcile(_ nodes: some Sequence<(NodeID, SiteID)>, now: MonotonicTime) -> [Change] {
        var changes: [Change] = []
        var next: [NodeID: NodeStanding] = [:]
        for (node, site) in nodes {
            let before = applied[node] ?? NodeStanding()
            let after = standing(of: node, site: site, now: now)
            if after != NodeStanding() { next[node] = after }
            if after != before { changes.append(Change(node: node, before: before, after: after)) }
        }
        applied = next
        return changes
    }

    /// The nodes whose drain has come to its deadline since the last look.
    mutating func drainsEnded(now: MonotonicTime) -> [NodeID] {
        let present = storeTime(at: now)
        let due = words.draining.filter { $0.value <= present && ended[$0.key] != $0.value }
        for (node, deadline) in due { ended[node] = deadline }
        return due.keys.sorted()
    }
}

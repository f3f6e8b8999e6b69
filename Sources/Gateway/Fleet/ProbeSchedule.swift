import Domain

/// When each node is probed next. Pure: time and jitter are arguments.
///
/// A node is `waiting` until its address and the operator's word on it have been asked for once (a node must not take a
/// request in the moment before its cordon is known), then `due` at a time, `running` while its probe is out, and `due`
/// again. One probe at a time goes to a node.
struct ProbeSchedule: Sendable {
    private struct Entry: Sendable {
        var needsAddress: Bool
        var needsWord = true
        var isRunning = false
        var dueAt: MonotonicTime
    }

    private var entries: [NodeID: Entry] = [:]

    /// - Parameter needsAddress: Nodes whose names have not been resolved.
    mutating func nodesReplaced(_ nodes: [NodeID], needsAddress: Set<NodeID>, now: MonotonicTime) {
        let old = entries
        entries = [:]
        for node in nodes {
            var entry = old[node] ?? Entry(needsAddress: needsAddress.contains(node), dueAt: now)
            // A node that moved to another host is asked for anew.
            if needsAddress.contains(node) { entry.needsAddress = true }
            entries[node] = entry
        }
    }

    /// The nodes' names were asked for, whatever the answer.
    mutating func addressesAsked(_ nodes: [NodeID]) {
        for node in nodes { entries[node]?.needsAddress = false }
    }

    /// The operator's word on the nodes was asked for, whatever the answer.
    mutating func wordsAsked(_ nodes: [NodeID]) {
        for node in nodes { entries[node]?.needsWord = false }
    }

    /// The nodes whose probes begin now.
    mutating func take(now: MonotonicTime) -> [NodeID] {
        var due: [NodeID] = []
        for (node, entry) in entries
        where !entry.isRunning && !entry.needsAddress && !entry.needsWord && entry.dueAt <= now {
            entries[node]?.isRunning = true
            due.append(node)
        }
        return due.sorted()
    }

    /// - Parameter jitter: 0 to 1: the interval is stretched or shrunk by up to a fifth, so that replicas and nodes do
    ///   not fall into step.
    mutating func probeEnded(_ node: NodeID, interval: Duration, jitter: Double, now: MonotonicTime) {
        let factor = 0.8 + 0.4 * jitter
        entries[node]?.isRunning = false
        entries[node]?.dueAt = now.advanced(byNanoseconds: Int64(Double(interval.nanoseconds) * factor))
    }

    /// When ``take(now:)`` should be asked next; nil where nothing is due.
    var nextDue: MonotonicTime? {
        entries.values.lazy.filter { !$0.isRunning && !$0.needsAddress && !$0.needsWord }.map(\.dueAt).min()
    }
}

import Domain

/// The requests in flight, each under a ticket that is good once.
///
/// A slab with a free list, so that a decision allocates nothing once the table has grown to the gateway's usual load.
/// A ticket holds the entry's place and a serial that changes with each use of the place: what is said under a ticket
/// that is over finds nothing.
struct InflightTable: Sendable {
    struct Entry: Sendable {
        var generation: UInt32
        /// What it adds to its node's load now.
        var work: InflightWork
        var attempt: Attempt
        /// In its node's queue: no first token seen or presumed yet.
        var isQueued = true
    }

    private struct Place: Sendable {
        var serial: UInt32 = 0
        var entry: Entry?
        var nextFree: Int32 = -1
        // Neighbours in the node's queue, while in one.
        var before: Int32 = -1
        var behind: Int32 = -1
    }

    /// The requests on one node that have no first token yet, in the order in which they were placed.
    struct Queue: Sendable {
        fileprivate(set) var head: Int32 = -1
        fileprivate var tail: Int32 = -1

        var isEmpty: Bool { head < 0 }
    }

    /// More than the connections that one gateway can hold.
    static let countMax = 1 << 20

    private var places: ContiguousArray<Place> = []
    private var firstFree: Int32 = -1
    private(set) var count = 0

    init(reserving capacity: Int) {
        places.reserveCapacity(capacity)
    }

    var isFull: Bool { count >= Self.countMax }

    /// The caller has seen that the table is not full.
    mutating func insert(_ entry: Entry) -> UInt64 {
        let index: Int
        if firstFree >= 0 {
            index = Int(firstFree)
            firstFree = places[index].nextFree
        } else {
            index = places.count
            places.append(Place())
        }
        places[index].serial &+= 1
        places[index].entry = entry
        count += 1
        return UInt64(places[index].serial) << 32 | UInt64(index)
    }

    /// Lets `change` see and change the entry; nil where the ticket is over.
    mutating func update<Result>(_ ticket: UInt64, _ change: (inout Entry) -> Result) -> Result? {
        guard let index = index(of: ticket), var entry = places[index].entry else { return nil }
        let result = change(&entry)
        places[index].entry = entry
        return result
    }

    func entry(_ ticket: UInt64) -> Entry? {
        index(of: ticket).flatMap { places[$0].entry }
    }

    mutating func remove(_ ticket: UInt64) -> Entry? {
        guard let index = index(of: ticket), let entry = places[index].entry else { return nil }
        places[index].entry = nil
        places[index].nextFree = firstFree
        firstFree = Int32(index)
        count -= 1
        return entry
    }

    // MARK: Queues

    mutating func enqueue(_ ticket: UInt64, _ queue: inout Queue) {
        guard let index = index(of: ticket) else { return }
        places[index].before = queue.tail
        places[index].behind = -1
        if queue.tail < 0 { queue.head = Int32(index) } else { places[Int(queue.tail)].behind = Int32(index) }
        queue.tail = Int32(index)
    }

    /// - Parameter ticket: In this queue, and not over.
    mutating func dequeue(_ ticket: UInt64, _ queue: inout Queue) {
        guard let index = index(of: ticket) else { return }
        let (before, behind) = (places[index].before, places[index].behind)
        if before < 0 { queue.head = behind } else { places[Int(before)].behind = behind }
        if behind < 0 { queue.tail = before } else { places[Int(behind)].before = before }
    }

    /// The request at the head of a queue.
    func head(_ queue: Queue) -> (ticket: UInt64, attempt: Attempt)? {
        guard queue.head >= 0, let attempt = places[Int(queue.head)].entry?.attempt else { return nil }
        return (UInt64(places[Int(queue.head)].serial) << 32 | UInt64(queue.head), attempt)
    }

    private func index(of ticket: UInt64) -> Int? {
        let index = Int(truncatingIfNeeded: ticket & 0xFFFF_FFFF)
        guard index < places.count, places[index].serial == UInt32(truncatingIfNeeded: ticket >> 32) else { return nil }
        return index
    }
}

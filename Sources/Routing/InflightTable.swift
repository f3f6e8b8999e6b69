import Domain

/// The requests in flight, each under a ticket that is good once.
///
/// A slab with a free list, so that a decision allocates nothing once the table has grown to the gateway's usual load.
/// A ticket holds the entry's place and a serial that changes with each use of the place: what is said under a ticket
/// that is over finds nothing.
struct InflightTable: Sendable {
    struct Entry: Sendable {
        var nodeIndex: Int32
        var generation: UInt32
        var tokens: Int64
        var decidedAt: MonotonicTime
        var writtenAt: MonotonicTime?
        var hasFirstToken = false
    }

    private struct Place: Sendable {
        var serial: UInt32 = 0
        var entry: Entry?
        var nextFree: Int32 = -1
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

    mutating func remove(_ ticket: UInt64) -> Entry? {
        guard let index = index(of: ticket), let entry = places[index].entry else { return nil }
        places[index].entry = nil
        places[index].nextFree = firstFree
        firstFree = Int32(index)
        count -= 1
        return entry
    }

    private func index(of ticket: UInt64) -> Int? {
        let index = Int(truncatingIfNeeded: ticket & 0xFFFF_FFFF)
        guard index < places.count, places[index].serial == UInt32(truncatingIfNeeded: ticket >> 32) else { return nil }
        return index
    }
}
